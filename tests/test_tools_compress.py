"""``tools/compress.py``: from a config and a checkpoint to a shorter model."""
import copy
import json

from mmblockdrop.compression.derive import find_alignments, find_blocks
from mmblockdrop.registry import (DATASETS, HOOKS, LOOPS, METRICS, MODELS,
                                  TRANSFORMS)

import compress
import mmaction.models
import pytest
import torch
import toy
import train
from mmengine.config import Config
from mmengine.registry import init_default_scope

BMN = dict(
    type='mmaction.BMN', temporal_dim=8, boundary_ratio=0.5, num_samples=4,
    num_samples_per_bin=2, feat_dim=8, hidden_dim_1d=8, hidden_dim_2d=4,
    hidden_dim_3d=8, soft_nms_alpha=0.4, soft_nms_low_threshold=0.5,
    soft_nms_high_threshold=0.9, post_process_top_k=10)

REGISTRIES = (DATASETS, HOOKS, LOOPS, METRICS, MODELS, TRANSFORMS)


@pytest.fixture
def baseline(tmp_path):
    """Config and checkpoint of the toy localizer."""
    cfg = toy.config(tmp_path / 'baseline')
    cfg.pop('work_dir')
    cfg.custom_hooks = [dict(type='mmblockdrop.SeedEpochHook')]
    cfg.dump(str(tmp_path / 'toy_localizer.py'))
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(toy.localizer())
    torch.save(
        dict(state_dict=model.state_dict(), meta={}), tmp_path / 'toy.pth')
    return [str(tmp_path / 'toy_localizer.py'), str(tmp_path / 'toy.pth')]


@pytest.mark.slow
def test_one_command_compresses_and_keeps_its_config(baseline, tmp_path):
    work = tmp_path / 'work'
    assert compress.main([
        *baseline, '--drop', '1', '--epochs', '1', '--work-dir',
        str(work), '--seed', '3', '--cfg-options', 'log_level=ERROR'
    ]) == 0
    record = json.loads((work / 'blockdrop.json').read_text())
    assert record['finished'] and record['stack'] == 'backbone.blocks'
    assert len(record['rounds']) == 1 and (work / 'round_1.pth').exists()
    config = work / 'config' / 'toy_localizer_blockdrop.py'
    cfg = Config.fromfile(config)
    assert cfg.train_cfg.drops == 1
    assert set(cfg.model.alignments) == {'block', 'cls', 'seg'}
    assert [h['type'] for h in cfg.custom_hooks] == [
        'mmblockdrop.SeedEpochHook', 'mmblockdrop.BlockDropHook']
    assert cfg.log_level == 'WARNING'  # options do not enter the file
    train.main([
        str(config), '--work-dir', str(tmp_path / 'again'), '--seed', '3',
        '--cfg-options', 'log_level=ERROR'
    ])
    again = json.loads((tmp_path / 'again' / 'blockdrop.json').read_text())
    assert again['rounds'][0]['dropped'] == record['rounds'][0]['dropped']


def test_without_training(baseline, tmp_path):
    work = tmp_path / 'work'
    assert compress.main([
        *baseline, '--drop', '2', '--no-training', '--work-dir',
        str(work), '--cfg-options', 'log_level=ERROR'
    ]) == 0
    record = json.loads((work / 'blockdrop.json').read_text())
    assert [r['criterion'] for r in record['rounds']] == [
        'FeatureErrorScorer'] * 2
    assert all(r['best_epoch'] == 0 and r['repair'] for r in record['rounds'])
    assert (work / 'round_2.pth').exists() and not list(
        work.glob('epoch_*.pth'))


def written(arguments, baseline, tmp_path) -> Config:
    work = tmp_path / 'dry'
    assert compress.main(
        [*baseline, *arguments, '--work-dir', str(work), '--dry-run']) == 0
    assert not list(work.glob('*.pth'))
    return Config.fromfile(work / 'config' / 'toy_localizer_blockdrop.py')


@pytest.mark.parametrize('arguments, expected', [
    ([], dict(drops='25%')),
    (['--drop', '30%', '--lora', '4'], dict(drops='30%', lora=dict(rank=4))),
    (['--max-macs', '75%'], dict(stop=dict(budget=dict(macs='75%')))),
    (['--max-params', '2e6', '--max-latency-ms', '12.5', '--drop', '2'],
     dict(drops=2, stop=dict(budget=dict(params=2e6, latency_ms=12.5)))),
    (['--tolerance', '0.01'], dict(stop=dict(tolerance=0.01))),
])
def test_ends_reach_the_loop(arguments, expected, baseline, tmp_path):
    loop = written(arguments, baseline, tmp_path).train_cfg
    for key in ('drops', 'stop', 'lora'):
        assert loop.get(key) == expected.get(key)


def test_blocks_and_metric_are_taken_as_given(baseline, tmp_path):
    cfg = written(
        ['--blocks', 'projection.stem', 'projection.branch', '--metric', 'x'],
        baseline, tmp_path)
    assert cfg.custom_hooks[-1].stack == [
        'projection.stem', 'projection.branch']
    assert cfg.model.alignments.block.stack == cfg.custom_hooks[-1].stack
    assert cfg.train_cfg.metric == cfg.train_cfg.scorer.metric == 'x'


def test_config_of_ones_own_is_not_overwritten(baseline, tmp_path, capsys):
    written(['--drop', '1'], baseline, tmp_path)
    file = tmp_path / 'dry' / 'config' / 'toy_localizer_blockdrop.py'
    written(['--drop', '1'], baseline, tmp_path)  # the same again
    other = [*baseline, '--drop', '2', '--work-dir', str(tmp_path / 'dry'),
             '--dry-run']
    assert compress.main(other) == 1
    assert '--overwrite' in capsys.readouterr().err
    assert Config.fromfile(file).train_cfg.drops == 1
    assert compress.main([*other, '--overwrite']) == 0
    assert Config.fromfile(file).train_cfg.drops == 2


@pytest.mark.parametrize('arguments, message', [
    (['--drop', '2.5'], r'--drop 2.5: expected a number of blocks'),
    (['--drop', 'many'], r'--drop many: expected a number of blocks'),
    (['--blocks', 'backbone.block'], None),
])
def test_wrong_arguments_are_explained(arguments, message, baseline, tmp_path,
                                       capsys):
    code = compress.main([
        *baseline, *arguments, '--dry-run', '--work-dir', str(tmp_path / 'w')])
    error = capsys.readouterr().err
    assert code == 1
    assert (message or "did you mean 'backbone.blocks'?") in error
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize('change, message', [
    (dict(val_evaluator=None), 'has no validation'),
    (dict(val_evaluator=dict(type='mmaction.VideoMetric')), '--metric'),
    (dict(train_cfg=dict(type='mmblockdrop.DistillationLoop')),
     'compresses already'),
])
def test_config_that_cannot_be_compressed(change, message, baseline, tmp_path,
                                          capsys):
    cfg = Config.fromfile(baseline[0])
    cfg.update(copy.deepcopy(change))
    cfg.dump(baseline[0])
    assert compress.main([*baseline, '--dry-run']) == 1
    assert message in capsys.readouterr().err


def as_classes(value, imports):
    """Text of a config whose types are classes, and what it imports."""
    if isinstance(value, dict):
        pairs = []
        for key, entry in value.items():
            text = as_classes(entry, imports)
            kind = isinstance(entry, str) and key == 'type' and next(
                (registry.get(entry) for registry in REGISTRIES
                 if registry.get(entry)), None)
            if kind:
                imports.add(f'from {kind.__module__} import {kind.__name__}')
                text = kind.__name__
            pairs.append(f'{key}={text}')
        return f'dict({", ".join(pairs)})'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(as_classes(v, imports) for v in value)}]'
    return repr(value)


def test_config_whose_types_are_classes(baseline, tmp_path):
    """mmengine's new style: text cannot inherit it, so it is copied."""
    cfg = Config.fromfile(baseline[0]).to_dict()
    imports = set()
    lines = [f'{k} = {as_classes(v, imports)}' for k, v in cfg.items()]
    file = tmp_path / 'toy_localizer.py'
    file.write_text('\n'.join([*sorted(imports), *lines]))
    assert imports and isinstance(Config.fromfile(file).model.type, type)
    derived = written(['--drop', '1'], baseline, tmp_path)
    assert derived.model.localizer.type == 'mmblockdrop.ActionFormer'
    assert derived.train_cfg.metric == 'tad/mAP'
    assert set(derived.model.alignments) == {'block', 'cls', 'seg'}
    assert compress.main([
        *baseline, '--drop', '1', '--epochs', '0', '--work-dir',
        str(tmp_path / 'run'), '--cfg-options=log_level=ERROR'
    ]) == 0
    record = json.loads((tmp_path / 'run' / 'blockdrop.json').read_text())
    assert record['finished']


def test_wrong_files_name_the_nearest(baseline, capsys):
    assert compress.main([baseline[0], baseline[1] + 'x']) == 1
    assert "'toy.pth'" in capsys.readouterr().err


@pytest.mark.parametrize('cfg, blocks, aligned', [
    (toy.localizer(), 'backbone.blocks', ['block', 'cls', 'seg']),
    (BMN, ['x_1d_b.2', 'x_1d_s.0', 'x_1d_e.0', 'x_1d_p.0', 'x_2d_p.2',
           'x_2d_p.4'], ['confidence', 'end', 'start']),
    (dict(type='mmblockdrop.EndToEndLocalizer', localizer=BMN,
          backbone=dict(type='mmblockdrop.LoRAViT', img_size=16, patch_size=8,
                        embed_dims=8, depth=2, num_heads=2, num_frames=4)),
     'backbone.blocks', ['block', 'confidence', 'end', 'start']),
    (dict(type='mmaction.Recognizer3D',
          backbone=dict(type='mmaction.ResNet3d', depth=18, base_channels=2,
                        pretrained=None, pretrained2d=False),
          cls_head=dict(type='mmaction.I3DHead', num_classes=2,
                        in_channels=16)),
     [f'backbone.layer{i}' for i in (1, 2, 3, 4)], ['block', 'cls']),
])
def test_stack_and_alignments_fit_the_localizer(cfg, blocks, aligned):
    init_default_scope('mmaction')
    model = MODELS.build(copy.deepcopy(cfg))
    assert find_blocks(model) == blocks
    alignments = find_alignments(model, blocks)
    assert sorted(alignments) == aligned
    for alignment in alignments.values():
        if 'module' in alignment:
            model.get_submodule(alignment['module'])
        if 'mask' in alignment:
            model.get_buffer(alignment['mask'])
