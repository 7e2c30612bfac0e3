"""What docs/en/user_guides/localizers.md says about our configs."""
import re
from pathlib import Path

from mmblockdrop.compression import BlockStack
from mmblockdrop.registry import MODELS
from mmblockdrop.report import complexity

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'en' / 'user_guides' / 'localizers.md'
CONFIGS = ROOT / 'configs' / 'localization'


def code_lines(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    return sum(bool(line) and not line.startswith('#') for line in lines)


def test_lines_of_each_route_are_counted():
    rows = re.findall(r'\]\((\S+\.py)\) \| (\d+) \|', PAGE.read_text())
    named = {(PAGE.parent / path).resolve(): int(n) for path, n in rows}
    assert named == {
        path: code_lines(path)
        for path in CONFIGS.rglob('*.py')
    }


def test_end_to_end_config_fits_its_data():
    cfg = Config.fromfile(
        CONFIGS / 'bmn/blockdrop_bmn_vit-w64-d8_2x1e_demo-actions.py',
        format_python_code=False)
    init_default_scope('mmaction')
    localizer = cfg.model.localizer
    localizer.localizer.temporal_dim = 8  # its sampling mask takes seconds
    model = MODELS.build(localizer)
    data = cfg.val_dataloader.dataset
    frames = data.window_size * data.frames_per_step
    size = localizer.backbone.img_size
    parts = complexity(model, torch.zeros(1, 1, 1, frames, size, size))
    assert {'backbone', 'localizer', 'class_head'} <= set(parts)
    assert len(BlockStack(model, cfg.custom_hooks[0].stack)) == 8
    for alignment in cfg.model.alignments.values():
        MODELS.build(alignment).paths(model)
    assert cfg.train_cfg.type == 'mmblockdrop.DistillationLoop'
