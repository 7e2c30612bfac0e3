"""The configs of AdaTAD: what they say, and small runs of one pair."""
import re
from pathlib import Path

from mmblockdrop.registry import MODELS
from mmblockdrop.utils.meta import empty_weights

import pytest
import yaml
from config_kit import (ROOT, crop_sizes, datasets, localizer_of, read,
                        shorten_windows, shrink, use_data, write_data)
from mmengine.runner import Runner
from test_config_rounds import check_round

FOLDER = ROOT / 'configs' / 'adatad'
PATHS = sorted(str(p.relative_to(ROOT)) for p in FOLDER.glob('*.py'))
#: Width and depth of the encoder, by its name.
ENCODERS = {
    'vit-small-p16': (384, 12),
    'vit-base-p16': (768, 12),
    'vit-large-p16': (1024, 24),
    'vit-huge-p16': (1280, 32),
    'vit-giant-p14': (1408, 40)
}
#: Learning rates of adapters and detector as published.
RATES = {
    ('thumos14', True): (2e-4, 1e-4),
    ('thumos14', False): (1e-4, 1e-4),
    ('activitynet13', True): (1e-4, 1e-3),
    ('activitynet13', False): (1e-4, 1e-3)
}


def parts(path):
    return re.fullmatch(
        r'(adatad|adatad-blockdrop)_(vit-\w+-p\d+)_[\w-]+-pre_'
        r'(\d+)xb(\d+)-(?:(\d+)x)?(\d+)e_(\w+)-(\d+)x(\d+)',
        Path(path).stem).groups()


def test_one_pair_per_encoder_and_data_set():
    found = {(p[0], p[1], p[6], p[7]) for p in map(parts, PATHS)}
    wanted = {(stage, vit, data, '768')
              for stage in ('adatad', 'adatad-blockdrop') for vit in ENCODERS
              for data in ('thumos14', 'activitynet13')}
    wanted |= {(stage, 'vit-giant-p14', 'thumos14', '1536')
               for stage in ('adatad', 'adatad-blockdrop')}
    assert found == wanted and len(PATHS) == len(wanted)
    content = yaml.safe_load((FOLDER / 'metafile.yml').read_text())
    assert [m['Config'] for m in content['Models']] == PATHS
    card = (FOLDER / 'README.md').read_text()
    assert "**the paper's, not ours**" in card
    assert all(Path(path).name in card for path in PATHS)


@pytest.mark.parametrize('path', PATHS)
def test_name_and_content_agree(path):
    cfg = read(path)
    stage, vit, gpus, batch, rounds, epochs, data, frames, pixels = parts(path)
    width, depth = ENCODERS[vit]
    model = localizer_of(cfg)
    encoder = model.backbone
    assert encoder.type == 'mmblockdrop.AdapterViT'
    assert (encoder.embed_dims, encoder.depth) == (width, depth)
    assert encoder.lora is None and encoder.trainable == ['adapter']
    assert encoder.stochastic_depth and encoder.drop_path_rate == 0.1
    assert encoder.with_cp and encoder.adapters.ratio == 0.25
    blocks = encoder.adapters.get('blocks')
    assert blocks == (list(range(20, 40)) if frames == '1536' else None)
    assert model.projection.in_channels == width
    assert model.window_size == (768 if data == 'thumos14' else 192)
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)
    for part in datasets(cfg).values():
        assert crop_sizes(part.pipeline) == [int(pixels)]
        assert part.window_size * part.frames_per_step == int(frames)
    adapter, detector = RATES[data, vit == 'vit-small-p16']
    optimizer = cfg.optim_wrapper.optimizer
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert optimizer.lr == detector and optimizer.weight_decay == 0.05
    assert detector * keys.backbone.lr_mult == pytest.approx(adapter)
    assert cfg.optim_wrapper.clip_grad.max_norm == 1
    if stage == 'adatad':
        assert cfg.train_cfg.max_epochs == int(epochs)
        return
    assert int(rounds) == depth // 4 and cfg.train_cfg.drops == '25%'
    assert cfg.train_cfg.lora is None
    assert cfg.train_cfg.epochs_per_round == int(epochs)
    folder, name = Path(cfg.model.checkpoint).parts[-2:]
    baseline = read(f'configs/adatad/{folder}.py')
    assert name == f'epoch_{baseline.train_cfg.max_epochs}.pth'
    assert cfg.model.localizer == baseline.model


@pytest.mark.usefixtures('quick_tables')
def test_share_of_what_is_trained():
    cfg = read(next(p for p in PATHS if '/adatad_vit-small' in p))
    with empty_weights():
        model = MODELS.build(cfg.model)
    trained = {n: p.numel() for n, p in model.backbone.named_parameters()
               if p.requires_grad}
    assert all('.adapter.' in name for name in trained)
    assert 0.04 < sum(trained.values()) / 22e6 < 0.06


def small(path, tmp_path, work_dir):
    """A config at a size that runs in seconds, with data to run on."""
    cfg = read(path)
    frames = shorten_windows(cfg)
    folder = tmp_path / 'thumos14'
    if not folder.exists():
        folder = write_data(tmp_path, 'thumos14',
                            dict(training=3, validation=1), frames + 8)
    return shrink(use_data(cfg, folder), tmp_path / work_dir)


@pytest.mark.slow
def test_from_a_frozen_trunk_to_a_shorter_model(tmp_path):
    pair = [p for p in PATHS if 'vit-small' in p and 'thumos14' in p]
    drop, baseline = sorted(pair)
    cfg = small(baseline, tmp_path, 'baseline')
    runner = Runner.from_cfg(cfg)
    runner.train()
    cfg = small(drop, tmp_path, 'run')
    checkpoint = tmp_path / 'baseline' / 'epoch_1.pth'
    cfg.model.checkpoint = str(checkpoint)
    runner = Runner.from_cfg(cfg)
    runner.train()
    model = check_round(cfg)
    entry = runner.train_loop.hook.rounds[0]
    assert entry['temporal_reach'] == 2
    assert not any('.lora_' in name for name in model.state_dict())
    trained = [n for n, p in runner.model.named_parameters()
               if p.requires_grad and '.blocks.' in n]
    assert trained and all('.adapter.' in name for name in trained)
