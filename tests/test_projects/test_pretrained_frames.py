"""A pretrained encoder of frames: cut, repaired, mapped, aligned, cached."""
import json
from pathlib import Path

from mmblockdrop.registry import MODELS

import numpy as np
import pytest
import torch
from compare_encoders import Results, table
from frame_encoders import (Encoders, Frames, align, choose, cut,
                            feature_error, first_blocks, refitted)
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

VIT = dict(
    type='mmblockdrop.FrameEncoder',
    encoder=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(
            embed_dims=8,
            num_layers=4,
            num_heads=2,
            feedforward_channels=16),
        img_size=28,
        patch_size=14,
        out_type='raw',
        frozen_stages=4))
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f'video{i}' for i in range(4)]


@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp('frames')
    random = np.random.default_rng(0)
    for name in NAMES:
        np.save(folder / f'{name}.npy',
                random.integers(0, 255, (30, 3, 28, 28), dtype=np.uint8))
    cfg = ConfigDict(
        backbone=VIT,
        data_preprocessor=dict(
            type='mmaction.ActionDataPreprocessor',
            mean=[120.] * 3,
            std=[60.] * 3,
            format_shape='NCTHW'))
    made = Encoders(cfg, 'backbone.encoder.layers', None, folder,
                    Frames(folder, folder, 28), NAMES[:3], NAMES[3:])
    torch.manual_seed(0)
    model = made.load()
    for parameter in model.backbone.encoder.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.keep('full', model, [])
    return made


@pytest.mark.slow
def test_from_cut_to_aligned(encoders):
    rounds = []
    choose(encoders, 2, 10, lambda key, **line: rounds.append((key, line)))
    assert [key for key, _ in rounds] == ['round fold-3', 'round fold-2']
    removed = encoders.removed('fold-2')
    assert removed == [line['block'] for _, line in rounds]
    choose(encoders, 2, 10, lambda *args, **line: pytest.fail('done before'))

    encoders.keep('cut-2', cut(encoders, removed), removed)
    model, entries = refitted(encoders, 'fold-2', 10)
    assert entries
    encoders.keep('repaired-2', model, removed)
    assert encoders.fit_map('mapped-2')['ridge'] > 0
    encoders.keep('aligned-2', align(encoders, 'repaired-2', 4, check=2,
                                     log=lambda *args, **line: None), removed)
    encoders.keep('first-2', *first_blocks(encoders, 2, 10))
    errors = {kind: encoders.error(f'{kind}-2')['all']
              for kind in ('cut', 'repaired', 'mapped', 'aligned', 'first')}
    assert errors['repaired'] < errors['cut']
    assert encoders.error('full')['all'] == 0
    assert encoders.removed('first-2') == [2, 3]


@pytest.mark.parametrize('name,channels', [('dinov2-small', 768),
                                           ('tinyvit-5m', 320)])
def test_configs_build(name, channels):
    path, = ROOT.glob(f'projects/pretrained_frames/configs/*{name}*.py')
    cfg = Config.fromfile(path)
    init_default_scope('mmaction')
    backbone = MODELS.build(dict(cfg.model.backbone, pretrained=None)).eval()
    with torch.no_grad():
        found = backbone(torch.zeros(1, 3, 2, *[cfg.image_size] * 2))
    assert found.shape[:3] == (1, channels, 2)
    assert cfg.model.projection.in_channels == channels
    shown = cfg.test_dataloader.dataset
    assert shown.frames_per_step == 1
    assert shown.pipeline[3].scale == (cfg.image_size, ) * 2


def test_errors_are_shares_of_the_variance():
    full = np.random.default_rng(0).normal(size=(50, 4))
    mean = np.broadcast_to(full.mean(0), full.shape)
    half = np.where(np.arange(4) < 2, mean, full)
    assert feature_error(mean, full)['all'] == pytest.approx(1)
    found = feature_error(half, full)
    assert found['class'] == pytest.approx(1)
    assert found['patches'] == 0


def test_results_survive_a_killed_run(tmp_path):
    path = tmp_path / 'results.jsonl'
    Results(path).add('test full 0 0', mAP=0.5)
    with path.open('a') as file:
        file.write('{"key": "test full 0')
    found = Results(path)
    assert 'test full 0 0' in found and len(found.lines) == 1
    found.add('test full 0 1', mAP=0.6)
    assert Results(path).lines['test full 0 1']['mAP'] == 0.6


def test_table_shows_the_committed_results():
    path = ROOT / 'projects/pretrained_frames/results.json'
    found = json.loads(path.read_text())
    text = table(found)
    assert '| full |' in text and '| repaired-9 |' in text
