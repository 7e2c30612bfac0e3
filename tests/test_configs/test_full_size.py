"""Every config is parsed and its model built, whatever its size."""
import re
from pathlib import Path

from mmblockdrop.compression import BlockStack
from mmblockdrop.export import example_inputs
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity
from mmblockdrop.utils.meta import empty_weights

import pytest
import torch
from config_kit import (FULL_SIZE, PATHS, PUBLIC, ROOT, crop_sizes, datasets,
                        find, kind_of, localizer_of, read)

#: Width, depth and millions of parameters of the encoder, by its name.
ENCODERS = {
    'vit-small-p16': (384, 12, 22),
    'vit-base-p16': (768, 12, 86),
    'vit-large-p16': (1024, 24, 304),
    'vit-huge-p16': (1280, 32, 631),
    'vit-giant-p14': (1408, 40, 1011)
}


@pytest.fixture(scope='module')
def configs():
    return {path: read(path) for path in PATHS}


def on_meta(model):
    with empty_weights():
        return MODELS.build(model).to('meta').eval()


@pytest.mark.parametrize('data,encoders', [
    ('thumos14', list(ENCODERS)),
    ('activitynet13', list(ENCODERS)),
    ('multithumos', ['vit-small-p16', 'vit-large-p16', 'vit-giant-p14']),
    ('fineaction', ['vit-small-p16', 'vit-large-p16']),
])
def test_one_pair_per_encoder_and_data_set(data, encoders):
    found = sorted(
        tuple(Path(path).stem.split('_')[:2]) for path in FULL_SIZE
        if kind_of(path) == data
        and not re.search('-(published|repaired)_', path))
    assert found == sorted((stage, f'{vit}-lora') for vit in encoders
                           for stage in ('actionformer', 'blockdrop'))


@pytest.mark.parametrize('path', FULL_SIZE)
def test_name_and_content_agree(configs, path):
    cfg = configs[path]
    name = Path(path).stem
    vit = next(v for v in ENCODERS if v in name)
    width, depth, _ = ENCODERS[vit]
    model = localizer_of(cfg)
    encoder = model.backbone
    assert (encoder.embed_dims, encoder.depth) == (width, depth)
    assert model.projection.in_channels == width
    lora = dict(rank=width // 4)
    assert encoder.lora == lora
    assert encoder.trainable == ['lora_', 'norm', 'patch_embed']
    gpus, batch, epochs = re.search(r'_(\d+)xb(\d+)-([\dx]+)e_', name).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    frames, pixels = re.search(r'-(\d+)x(\d+)$', name).groups()
    for data in datasets(cfg).values():
        assert crop_sizes(data.pipeline) == [int(pixels)]
        assert data.window_size == model.window_size
        assert data.window_size * data.frames_per_step == int(frames)
    if name.startswith('actionformer'):
        assert cfg.train_cfg.max_epochs == int(epochs)
        assert cfg.custom_hooks[-1].type == 'EMAHook'
        return
    rounds, each = map(int, epochs.split('x'))
    assert cfg.train_cfg.epochs_per_round == each
    assert cfg.train_cfg.drops == '25%' and rounds == depth // 4
    assert cfg.train_cfg.lora == lora
    hooks = [hook.type for hook in cfg.custom_hooks]
    assert hooks == [
        'mmblockdrop.BlockDropHook', 'EMAHook', 'mmblockdrop.TimelineHook'
    ]


@pytest.mark.parametrize('data', PUBLIC)
def test_shape_of_the_inputs_is_told(configs, data):
    cfg = configs[find(f'configs/{data}/actionformer_vit-small-p16-lora_')]
    assert example_inputs(cfg, cfg.model).shape == (1, 1, 3, 768, 160, 160)


@pytest.mark.parametrize(
    'path', [p for p in PATHS if not Path(p).stem.startswith('actionformer')])
def test_block_drop_inherits_from_its_baseline(configs, path):
    """The checkpoint it starts from is the last of a config beside it."""
    cfg = configs[path]
    folder, name = Path(cfg.model.checkpoint).parts[-2:]
    baseline = configs[str(Path(path).parent / f'{folder}.py')]
    assert name == f'epoch_{baseline.train_cfg.max_epochs}.pth'
    published = Path(path).stem.startswith('blockdrop-published')
    if not published:
        assert cfg.model.localizer == baseline.model
    if path in FULL_SIZE:
        lines = (ROOT / path).read_text().splitlines()
        assert len(lines) <= 24


def unique_models(configs):
    """Localizers that differ, with the sizes of frames they are used at."""
    found = {}
    for path, cfg in configs.items():
        size, = crop_sizes(cfg.test_dataloader.dataset.pipeline)
        model = localizer_of(cfg)
        found.setdefault(str(model), (path, model, set()))[2].add(size)
    return list(found.values())


@pytest.mark.parametrize('path', PATHS)
def test_data_fit_the_model(configs, path):
    cfg = configs[path]
    model = localizer_of(cfg)
    for name, data in datasets(cfg).items():
        assert data.window_size == model.window_size, name
    if 'localizer' in cfg.model:
        hook = cfg.custom_hooks[0]
        assert hook.type == 'mmblockdrop.BlockDropHook'
        assert hook.stack == 'backbone.blocks'
        epochs = cfg.train_cfg.epochs_per_round
        *_, last = cfg.param_scheduler
        assert last.get('T_max', epochs) == epochs


@pytest.mark.slow
def test_models_are_built_and_run_without_weights(configs, quick_tables):
    seen = set()
    for path, cfg, sizes in unique_models(configs):
        model = on_meta(cfg)
        assert all(p.is_meta for p in model.parameters()), path
        vit = next((v for v in ENCODERS if v in path), None)
        if vit:
            plain = sum(p.numel() for name, p in
                        model.backbone.named_parameters()
                        if '.lora_' not in name)
            assert plain / 1e6 == pytest.approx(
                ENCODERS[vit][2], abs=1), path
            seen.add(vit)
        frames = cfg.window_size * dict(thumos14=1, multithumos=1).get(
            kind_of(path), 4 if vit else 2)
        for size in sizes:
            inputs = torch.empty(
                1, 1, cfg.backbone.get('in_channels', 3), frames, size, size,
                device='meta')
            with torch.no_grad():
                preds = model(inputs, mode='tensor')
            assert len(preds.cls_logits) == len(cfg.head.strides)
            assert preds.cls_logits[0].shape == (1, cfg.head.num_classes,
                                                 cfg.window_size)
        assert len(BlockStack(model, 'backbone.blocks')) == cfg.backbone.depth
    assert seen == set(ENCODERS)


@pytest.mark.parity
@pytest.mark.parametrize('letter', ['S', 'L'])
def test_parity_with_the_costs_in_the_paper(macs_table, configs, letter):
    """Parameters and MACs of the configs themselves, by the paper's count."""
    vit = {'S': 'vit-small-p16', 'L': 'vit-large-p16'}[letter]
    path, = [p for p in FULL_SIZE if f'blockdrop_{vit}-lora' in p
             and p.endswith('thumos14-768x160.py')]
    cfg = localizer_of(configs[path]).copy()
    cfg.backbone.lora = None  # merged
    model = on_meta(cfg)
    stack = BlockStack(model, 'backbone.blocks')
    inputs = torch.empty(1, 1, 3, 768, 160, 160, device='meta')
    for row in [
            row for name, rows in macs_table.items() for row in rows
            if name.startswith(f'VideoMAE-{letter} ')
    ]:
        while len(stack) - len(stack.remaining) < row['blocks_dropped']:
            stack.remove(stack.remaining[-1])
        total = complexity(model, inputs)['total']
        if row.get('paper_gmacs') is not None:
            assert total.paper / 1e9 == pytest.approx(
                row['paper_gmacs'], rel=5e-3)
        assert total.params / 1e6 == pytest.approx(
            row['params_million']['merged'], rel=1e-6)
