"""A recognizer of mmaction2 is compressed like a localizer."""
import json
from typing import Any, Dict

from mmblockdrop.compression import DroppedBlock
from mmblockdrop.registry import DATASETS, MODELS

import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import Dataset

STACK = ['backbone.layer1', 'backbone.layer2']


@DATASETS.register_module()
class BrightClips(Dataset):
    """Clips that are bright or dark.

    Args:
        length: Number of clips.
        seed: Seed of their content.
    """

    metainfo = dict(classes=['dark', 'bright'])

    def __init__(self, length: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randint(
            0, 90, (length, 1, 3, 4, 16, 16), generator=draw)
        labels = torch.arange(length) % 2
        self.clips = (noise + 90 * labels.view(-1, 1, 1, 1, 1, 1)).byte()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Dict[str, Any]:
        sample = ActionDataSample().set_gt_label(index % 2)
        return dict(inputs=self.clips[index], data_samples=sample)


def loader(length: int, seed: int, shuffle: bool = False) -> Dict[str, Any]:
    return dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dict(type='mmblockdrop.BrightClips', length=length, seed=seed))


RECOGNIZER = dict(
    type='Recognizer3D',
    _scope_='mmaction',
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        base_channels=4,
        num_stages=2,
        spatial_strides=(1, 2),
        temporal_strides=(1, 1),
        dilations=(1, 1),
        inflate=(0, 1),
        out_indices=(1, ),
        pretrained=None,
        lateral=False),
    cls_head=dict(
        type='I3DHead', num_classes=2, in_channels=8, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[90.] * 3,
        std=[60.] * 3,
        format_shape='NCTHW'))


def config(folder: Any, checkpoint: str) -> Config:
    evaluator = dict(
        type='AccMetric',
        metric_options=dict(top_k_accuracy=dict(topk=(1, ))))
    return Config(
        dict(
            default_scope='mmaction',
            work_dir=str(folder / 'run'),
            experiment_name=f'recognizer_{folder.name}',
            model=dict(
                type='mmblockdrop.TeacherStudentWrapper',
                localizer=RECOGNIZER,
                checkpoint=checkpoint,
                teacher_mode='loss',
                alignments=dict(
                    block=dict(type='mmblockdrop.BlockAlignment', stack=STACK),
                    logits=dict(
                        type='mmblockdrop.ModuleAlignment',
                        module='cls_head',
                        loss=dict(type='mmblockdrop.ClassKLLoss')))),
            train_dataloader=loader(8, 0, shuffle=True),
            val_dataloader=loader(8, 1),
            val_evaluator=evaluator,
            val_cfg=dict(),
            train_cfg=dict(
                type='mmblockdrop.DistillationLoop',
                drops=2,
                epochs_per_round=1,
                metric='acc/top1',
                scorer=dict(
                    type='mmblockdrop.MetricScorer', metric='acc/top1')),
            custom_hooks=[dict(type='mmblockdrop.BlockDropHook', stack=STACK)],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            randomness=dict(seed=0),
            log_level='ERROR',
            visualizer=dict(type='Visualizer', vis_backends=None)))


@pytest.fixture(scope='module')
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recognizer')
    torch.manual_seed(0)
    model = MODELS.build(RECOGNIZER)
    model.init_weights()
    torch.save(
        dict(state_dict=model.state_dict(), meta={}), folder / 'start.pth')
    cfg = config(folder, str(folder / 'start.pth'))
    runner = Runner.from_cfg(cfg)
    losses = []
    forward = runner.model.forward

    def watch(inputs, data_samples=None, mode='tensor'):
        out = forward(inputs, data_samples, mode)
        if mode == 'loss':
            losses.append({k: float(v.detach()) for k, v in out.items()})
        return out

    runner.model.forward = watch
    runner.train()
    return runner, folder / 'run', losses


def test_two_rounds(compressed):
    runner, folder, losses = compressed
    record = json.loads((folder / 'blockdrop.json').read_text())
    assert [len(r['dropped']) for r in record['rounds']] == [1, 1]
    assert list(record['probe']['fixed']) == ['2']  # layer2.0 down-samples
    scored = [sorted(map(int, r['scores'])) for r in record['rounds']]
    first = record['rounds'][0]['dropped'][0]
    assert scored == [[0, 1, 3], [i for i in (0, 1, 3) if i != first]]
    assert record['rounds'][1]['blocks_left'][-1] in (2, 3)
    assert 'acc/top1' in record['baseline']['metrics']
    names = {'loss_cls', 'loss_align_block', 'loss_align_logits'}
    assert len(losses) == 4 and all(names <= set(step) for step in losses)
    # The student lacks a block, so it differs from its teacher.
    assert losses[0]['loss_align_block'] > 0
    assert losses[0]['loss_align_logits'] > 0


@pytest.mark.parametrize('drops,start,word', [
    (3, [], r'only \[1, 3\] may go.*layer2\.0 turns'),
    (1, [2], r'Block 2 .*backbone\.layer2\.0\) has to stay: turns'),
])
def test_fixed_blocks_are_no_candidates(compressed, tmp_path, drops, start,
                                        word):
    cfg = config(tmp_path, str(compressed[1].parent / 'start.pth'))
    cfg.train_cfg.update(drops=drops, protect=[0])
    cfg.custom_hooks[0].start_dropped = start
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=word):
        runner.train()


def test_the_result_loads_into_the_plain_recognizer(compressed):
    runner, folder, _ = compressed
    content = torch.load(folder / 'round_2.pth', weights_only=False)
    model = MODELS.build(RECOGNIZER)
    for block in runner.model.student.backbone.layer1:
        assert isinstance(block, DroppedBlock) or any(block.parameters())
    result = model.load_state_dict(content['state_dict'], strict=False)
    assert not result.unexpected_keys and result.missing_keys
    dropped = [
        f'{stage}.{i}.' for stage in STACK
        for i, block in enumerate(model.get_submodule(stage))
        if isinstance(
            runner.model.student.get_submodule(f'{stage}.{i}'), DroppedBlock)
    ]
    assert len(dropped) == 2
    assert all(key.startswith(tuple(dropped)) for key in result.missing_keys)
