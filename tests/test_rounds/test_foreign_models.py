"""Localizers that nobody here wrote, through whole runs."""
from importlib import import_module
from typing import Any, Dict

from mmblockdrop.registry import DATASETS, METRICS, MODELS

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from rounds_kit import read_record, train
from torch import nn
from torch.utils.data import Dataset


class MaskedConv1d(nn.Conv1d):
    """Convolution that hands on the mask, as ActionFormer's."""

    def forward(self, x, mask):
        return super().forward(x) * mask, mask


class MaskedBlock(nn.Module):

    def __init__(self, channels):
        super().__init__()
        self.conv = MaskedConv1d(channels, channels, 3, padding=1)

    def forward(self, x, mask):
        out, mask = self.conv(x, mask)
        return x + out.relu(), mask


@MODELS.register_module()
class FeatsLocalizer(BaseModel):
    """Other argument names, one video in evaluation, values looked at."""

    def __init__(self, channels=6, depth=4, traced=True, **kwargs):
        super().__init__(**kwargs)
        self.blocks = nn.ModuleList(
            MaskedBlock(channels) for _ in range(depth))
        self.cls = nn.Conv1d(channels, 1, 1)
        self.traced = traced

    def forward(self, feats, masks, targets, mode='tensor'):
        if not self.training:
            assert len(feats) == 1, 'one video in evaluation'
        if not self.traced and feats.sum().item() == 0.5:
            return None
        x = feats
        for block in self.blocks:
            x, masks = block(x, masks)
        logits = self.cls(x)
        if mode == 'loss':
            return dict(
                loss_cls=nn.functional.binary_cross_entropy_with_logits(
                    logits, targets))
        if mode == 'predict':
            return [dict(gap=float((p - t).abs().mean()))
                    for p, t in zip(logits.sigmoid(), targets)]
        return logits


@DATASETS.register_module()
class FeatsVideos(Dataset):
    metainfo: Dict[str, Any] = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        feats = torch.randn(6, 8, generator=random)
        return dict(
            feats=feats,
            masks=torch.ones(1, 8),
            targets=(feats[:1] > 0).float())


@METRICS.register_module()
class GapMetric(BaseMetric):
    default_prefix = 'steps'

    def process(self, data_batch, data_samples):
        self.results += [sample['gap'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(closeness=1 - sum(results) / len(results))


def loader(batch_size: int) -> Dict[str, Any]:
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='mmblockdrop.FeatsVideos'))


def config(tmp_path, **overrides: Any) -> Config:
    torch.manual_seed(0)
    localizer = dict(
        type='mmblockdrop.FeatsLocalizer',
        traced=overrides.pop('traced', True))
    start = tmp_path / 'start.pth'
    torch.save(dict(state_dict=MODELS.build(localizer).state_dict(), meta={}),
               start)
    return Config(
        dict(
            default_scope='mmaction',
            work_dir=str(tmp_path / 'run'),
            model=dict(
                type='mmblockdrop.TeacherStudentWrapper',
                localizer=localizer,
                checkpoint=str(start),
                alignments=dict(
                    block=dict(
                        type='mmblockdrop.BlockAlignment', stack='blocks'),
                    conv=dict(
                        type='mmblockdrop.ModuleAlignment', module='cls'))),
            train_dataloader=loader(2),
            val_dataloader=loader(1),
            val_cfg=dict(),
            val_evaluator=dict(type='mmblockdrop.GapMetric'),
            train_cfg=dict(
                type='mmblockdrop.DistillationLoop',
                metric='steps/closeness',
                **dict(
                    dict(
                        drops=2,
                        scorer=dict(
                            type='mmblockdrop.MetricScorer',
                            metric='steps/closeness')), **overrides)),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
            custom_hooks=[
                dict(type='mmblockdrop.BlockDropHook', stack='blocks')
            ],
            log_level='ERROR',
            visualizer=dict(type='Visualizer', vis_backends=None)),
        format_python_code=False)


@pytest.mark.parametrize('traced', [True, False])
def test_other_arguments_and_one_video_in_evaluation(tmp_path, traced):
    train(config(tmp_path, traced=traced))
    record = read_record(tmp_path / 'run')
    assert record['finished'] and len(record['rounds']) == 2
    assert record['baseline']['params'] > 0
    if traced:
        per_step = 4 * (6 * 6 * 3) + 6
        assert record['baseline']['macs'] == 8 * per_step
        assert record['rounds'][1]['macs'] == 8 * (per_step - 2 * 6 * 6 * 3)
    assert record['rounds'][0]['latency_ms'] > 0


def test_teacher_sample_by_sample_gives_the_same_losses(tmp_path):
    cfg = config(tmp_path)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.student.train()
    batch = {key: torch.stack([FeatsVideos()[i][key] for i in range(2)])
             for key in ('feats', 'masks', 'targets')}
    losses = model(**batch, mode='loss')
    model.teacher.training = True  # the class asserts no longer
    model._teacher_takes_one = False
    whole = model(*batch.values(), 'loss')
    assert losses.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize('change', [
    dict(scorer=dict(type='mmblockdrop.LossScorer')),
    dict(
        repair=dict(type='mmblockdrop.LinearRepair'),
        epochs_per_round=0,
        scorer=dict(type='mmblockdrop.FeatureErrorScorer')),
])
def test_other_scorers(tmp_path, change):
    cfg = config(tmp_path, drops=1, **change)
    cfg.train_cfg.score_dataloader = loader(1)
    train(cfg)
    assert read_record(tmp_path / 'run')['finished']


def test_cost_that_cannot_be_counted(tmp_path, monkeypatch):
    """The run goes on without it; a budget on it is rejected."""

    def untraceable(*args, **kwargs):
        raise NotImplementedError('no rule')

    monkeypatch.setattr(
        import_module('mmblockdrop.report.complexity'), 'complexity',
        untraceable)
    train(config(tmp_path, drops=1))
    record = read_record(tmp_path / 'run')
    assert record['finished'] and 'macs' not in record['baseline']
    with pytest.raises(ValueError, match=r'stop\.budget=.*macs.*latency_ms'):
        train(config(tmp_path, drops=1, stop=dict(budget=dict(macs='75%'))))
