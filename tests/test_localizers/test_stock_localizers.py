"""mmaction2's localizers, their stock configs, and our lines on top."""
from pathlib import Path

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS

import pytest
import torch
import toy_features as toy
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'localization'
TINY = dict(
    bmn=dict(
        temporal_dim=8,
        num_samples=4,
        num_samples_per_bin=2,
        feat_dim=16,
        hidden_dim_1d=8,
        hidden_dim_2d=8,
        hidden_dim_3d=8),
    tem=dict(temporal_dim=8, tem_feat_dim=16, tem_hidden_dim=8),
    pem=dict(),
    tcanet=dict(
        feat_dim=16,
        se_sample_num=4,
        action_sample_num=8,
        temporal_dim=8,
        window_size=3))
#: PEM can be aligned, but has no block to lose.
PEM = '''
_base_ = ('mmaction::localization/bsn/'
          'bsn_pem_1xb16-400x100-20e_activitynet-feature.py')
custom_imports = dict(imports=['mmblockdrop'], allow_failed_imports=False)
model = dict(
    _delete_=True,
    type='mmblockdrop.TeacherStudentWrapper',
    localizer=_base_.model,
    teacher_mode='loss',
    alignments=dict(
        score=dict(
            type='mmblockdrop.ModuleAlignment',
            module='fc2',
            loss=dict(
                type='mmblockdrop.BinaryKLLoss', logits=True, scale=0.1))))
train_cfg = dict(
    _delete_=True,
    type='mmblockdrop.DistillationLoop',
    metric='auc',
    scorer=dict(type='mmblockdrop.MetricScorer', metric='auc'))
custom_hooks = [
    dict(type='mmblockdrop.BlockDropHook', stack=['fc1', 'fc2'])
]
'''
#: Config, and the metric that chooses.
CASES = dict(
    bmn=('bmn/blockdrop_bmn_400x100_3x2e_activitynet-feature.py', 'auc'),
    tem=('bsn/blockdrop_bsn-tem_400x100_1x2e_activitynet-feature.py',
         'curve/mAP'),
    tcanet=('tcanet/blockdrop_tcanet_700x100_1x2e_hacs-feature.py', 'auc'))


def load(name, folder, work_dir):
    """One of our configs at test size, with a checkpoint to start from."""
    toy.write_videos(folder)
    path = folder / 'pem.py'
    path.write_text(PEM)
    if name in CASES:
        path = CONFIGS / CASES[name][0]
    cfg = Config.fromfile(path)
    cfg = toy.shrink(cfg, folder, work_dir, **TINY[name])
    work_dir.mkdir()
    cfg.model.checkpoint = toy.save(toy.build(cfg), folder / 'trained.pth')
    cfg.train_cfg.update(drops=1, epochs_per_round=1)
    return cfg


@pytest.mark.parametrize('name', CASES)
def test_a_block_goes(name, tmp_path):
    cfg = load(name, tmp_path / 'data', tmp_path / 'run')
    runner = toy.train(cfg)
    record = toy.record(tmp_path / 'run')
    gone = toy.dropped(tmp_path / 'run')
    assert len(gone) == 1 and record['finished']
    metric = CASES[name][1]
    assert record['metric'] == metric and metric in record['baseline'][
        'metrics']
    stack = BlockStack(runner.model.student, cfg.custom_hooks[0].stack)
    assert stack.remaining == [i for i in range(len(stack)) if i not in gone]
    assert record['rounds'][0]['params'] < record['baseline']['params']
    assert record['rounds'][0]['macs'] < record['baseline']['macs']
    state = torch.load(
        tmp_path / 'run/round_1.pth', weights_only=False)['state_dict']
    plain = toy.build(cfg).state_dict()
    lost = [k for k in plain if k not in state]
    assert lost and all(k.startswith(stack.names[gone[0]]) for k in lost)


@pytest.mark.parametrize('name', TINY)
def test_alignments_are_zero_for_equals_and_teach(name, tmp_path):
    cfg = load(name, tmp_path / 'data', tmp_path / 'run')
    init_default_scope('mmaction')
    model = MODELS.build(cfg.model)
    model.init_weights()
    dataset = cfg.train_dataloader.dataset
    from mmaction.registry import DATASETS
    samples = [DATASETS.build(dataset)[i] for i in range(2)]
    batch = {key: [s[key] for s in samples] for key in samples[0]}
    model.student.eval()
    losses = model(**batch, mode='loss')
    found = {k: v for k, v in losses.items() if 'align' in k}
    assert len(found) == len(cfg.model.alignments)
    for key, value in found.items():
        assert value.item() == pytest.approx(0, abs=1e-5), key
    with torch.no_grad():
        for value in model.student.parameters():
            if value.requires_grad:
                value.mul_(1.3)
    for key in found:
        model.zero_grad()
        losses = model(**batch, mode='loss')
        assert losses[key].item() > 0, key
        losses[key].backward()
        assert any(
            p.grad is not None and p.grad.abs().sum() > 0
            for p in model.student.parameters()), key


def test_pem_has_nothing_to_drop(tmp_path):
    cfg = load('pem', tmp_path / 'data', tmp_path / 'run')
    with pytest.raises(ValueError, match='32.*256.*256.*1'):
        toy.train(cfg)


def test_drn_is_there_or_says_where_to_get_it(tmp_path):
    path = tmp_path / 'drn.py'
    path.write_text("_base_ = 'mmaction::localization/drn/"
                    "drn_2xb16-4096-10e_c3d-feature_first.py'\n")
    cfg = Config.fromfile(path)
    init_default_scope('mmaction')
    from mmaction.models.localizers import DRN
    if DRN.__init__.__doc__ or hasattr(DRN, 'forward'):
        assert MODELS.build(cfg.model)
    else:
        with pytest.raises(ImportError, match='mmaction2 from source'):
            MODELS.build(cfg.model)


def test_proposals_of_stock_bmn_get_classes(tmp_path):
    """BMN's own outputs through TADMetric, by a file of video classes."""
    cfg = load('bmn', tmp_path / 'data', tmp_path / 'run')
    import json
    scores = {f'{k:03d}': dict(jump=1. - k % 2, run=k % 2) for k in range(4)}
    (tmp_path / 'scores.json').write_text(json.dumps(scores))
    evaluator = dict(
        type='mmblockdrop.TADMetric',
        tiou_thresholds=[.1],
        ar_at=[10],
        external_classifier=dict(path=str(tmp_path / 'scores.json'), topk=1))
    from mmengine.runner import Runner
    cfg.model = cfg.model.localizer
    cfg.test_evaluator = evaluator
    cfg.test_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline
    cfg.load_from = str(tmp_path / 'data/trained.pth')
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper',
                'val_dataloader', 'val_cfg', 'val_evaluator', 'custom_hooks',
                'param_scheduler'):
        cfg.pop(key, None)
    found = Runner.from_cfg(cfg).test()
    assert found['tad/AR@10'] > 0 and 0 < found['tad/mAP'] <= 1
