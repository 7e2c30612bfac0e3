"""The lines with ``--cfg-options`` in the READMEs of the configs."""
from pathlib import Path

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.meta import empty_weights

import pytest
import torch
from config_kit import (ROOT, WITH_VARIANTS, commands, crop_sizes, datasets,
                        find, localizer_of, read, variants)
from mmengine.config import Config

SMALL = 'vit-small-p16-lora_'


def original(data, stage):
    return read(find(f'configs/{data}/{stage}_{SMALL}'))


def differences(cfg, other, path=()):
    """Keys, written with dots, whose values differ; lists by index."""
    if isinstance(cfg, (list, tuple)) and isinstance(other, (list, tuple)):
        cfg, other = dict(enumerate(cfg)), dict(enumerate(other))
    if not (isinstance(cfg, dict) and isinstance(other, dict)):
        return set() if cfg == other else {'.'.join(path)}
    return set().union(*(differences(
        cfg.get(key), other.get(key), (*path, str(key)))
                         for key in {*cfg, *other}))


@pytest.mark.parametrize('data', WITH_VARIANTS)
def test_every_key_of_a_line_is_one_of_the_config(data):
    """A wrong key would be added silently; every key must change a value."""
    for program, config, *rest in commands(data):
        assert program == 'tools/train.py'
        options = rest[rest.index('--cfg-options') + 1:]
        keys = {option.split('=')[0] for option in options}
        name = Path(rest[rest.index('--work-dir') + 1]).name
        cfg = Config.fromfile(ROOT / config)
        for key in keys:
            value = cfg
            for part in key.split('.'):
                value = value[int(part) if part.isdigit() else part]
        merged = variants(data)[name].to_dict()
        for key in ('launcher', 'work_dir'):
            merged.pop(key)
        assert differences(merged, cfg.to_dict()) == keys


@pytest.mark.parametrize('data', WITH_VARIANTS)
@pytest.mark.parametrize('variant', ['224', 'all'])
def test_block_drop_of_a_variant_starts_from_its_baseline(data, variant):
    baseline = variants(data)[f'{data}-{variant}']
    drop = variants(data)[f'{data}-{variant}-drop']
    assert drop.model.localizer == baseline.model
    assert drop.train_dataloader == baseline.train_dataloader
    assert drop.train_cfg.score_dataloader == baseline.get(
        'score_dataloader')
    epochs = baseline.train_cfg.max_epochs
    assert drop.model.checkpoint == (
        f'{baseline.work_dir}/epoch_{epochs}.pth')


@pytest.mark.parametrize('data', WITH_VARIANTS)
@pytest.mark.parametrize('suffix', ['', '-drop'])
def test_224_pixels_reach_every_loader_and_the_blocks(data, suffix,
                                                      quick_tables):
    cfg = variants(data)[f'{data}-224{suffix}']
    for name, dataset in datasets(cfg).items():
        # The loop of a compression has its own copy of this loader.
        if not (suffix and name == 'score'):
            assert crop_sizes(dataset.pipeline) == [224], name
    with empty_weights():
        model = MODELS.build(localizer_of(cfg)).to('meta').eval()
    seen = []
    model.backbone.blocks[0].register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape))
    steps = cfg.train_dataloader.dataset
    frames = steps.window_size * steps.frames_per_step
    with torch.no_grad():
        model(
            torch.empty(1, 1, 3, frames, 224, 224, device='meta'),
            mode='tensor')
    assert {shape[1] for shape in seen} == {8 * 14 * 14}


@pytest.mark.parametrize('data', WITH_VARIANTS)
@pytest.mark.parametrize('suffix', ['', '-drop'])
def test_all_weights_are_trained_without_lora(data, suffix, quick_tables):
    stage = 'blockdrop' if suffix else 'actionformer'
    for cfg, lora in ((original(data, stage), True),
                      (variants(data)[f'{data}-all{suffix}'], False)):
        with empty_weights():
            model = MODELS.build(localizer_of(cfg))
        named = dict(model.backbone.named_parameters())
        assert any('lora_' in name for name in named) == lora
        frozen = [n for n, p in named.items()
                  if n.startswith('blocks.') and not p.requires_grad]
        assert bool(frozen) == lora
        if suffix:
            assert bool(cfg.train_cfg.lora) == lora


@pytest.mark.parametrize('data', WITH_VARIANTS)
def test_published_habits_are_on(data):
    """No videos are held out, the best epoch is chosen on the test videos."""
    cfg = read(find(f'configs/{data}/blockdrop-published_{SMALL}'))
    ours = original(data, 'blockdrop')
    assert cfg.train_dataloader.dataset.split is None
    assert cfg.val_dataloader.dataset.split is None
    assert cfg.val_dataloader.dataset.subset == (
        ours.test_dataloader.dataset.subset)
    assert localizer_of(cfg).head != localizer_of(ours).head
    assert cfg.val_evaluator != ours.val_evaluator
    changed = differences(cfg.model.to_dict(), ours.model.to_dict())
    assert any(key.startswith('alignments') for key in changed)


def test_variant_with_repair_differs_by_repair_alone():
    plain, repaired = (original('thumos14', stage).to_dict()
                       for stage in ('blockdrop', 'blockdrop-repaired'))
    assert differences(plain, repaired) == {
        'train_cfg.repair', 'train_cfg.scorer.repaired'}
