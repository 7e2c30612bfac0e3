"""Every config that trains is parsed and its model built and run."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts)
#: Those of foreign localizers have tests of their own (test_localize).
OURS = [path for path in CONFIGS if 'localization' not in path.split('/')]


def test_names_are_unique_for_mim():
    names = [Path(path).name for path in CONFIGS]
    assert len(names) == len(set(names)) and names


@pytest.mark.parametrize('path', OURS)
def test_config_fits_its_data(path):
    cfg = Config.fromfile(ROOT / path)
    init_default_scope(cfg.default_scope)
    localizer = cfg.model.get('localizer', cfg.model)
    model = MODELS.build(localizer)
    for name in ('train', 'val', 'test', 'score'):
        data = cfg[f'{name}_dataloader'].dataset
        assert data.window_size == model.window_size
    size = localizer.backbone.img_size
    frames = data.window_size * data.frames_per_step
    inputs = torch.zeros(1, 1, localizer.backbone.in_channels, frames, size,
                         size)
    parts = complexity(model, inputs)
    assert parts['total'].macs > 0
    if 'localizer' in cfg.model:
        assert cfg.custom_hooks[0].type == 'mmblockdrop.BlockDropHook'
        assert cfg.train_cfg.epochs_per_round == cfg.param_scheduler[0].T_max
        model.get_submodule(cfg.custom_hooks[0].stack)
