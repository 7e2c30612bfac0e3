"""The dataset configs, on tiny videos in place of the real ones."""
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmblockdrop.registry import DATASETS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'
LABELS = dict(grid_words='jump', demo_actions='run', ceiling_adl='standup')


@pytest.mark.parametrize('name', sorted(LABELS))
def test_all_loaders(root, tmp_path, name):
    actions = [dict(segment=[0.5, 1.5], label=LABELS[name])]
    subsets = ['training'] * 8 + ['validation', 'test']
    folder = root({
        f'v{index}': dict(subset=subset, annotations=actions)
        for index, subset in enumerate(subsets)
    })
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    seen = {}
    for part in ('train', 'val', 'test', 'score'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.data_root = folder
        dataset.pipeline[0].cache_dir = str(tmp_path / 'cache')
        with DefaultScope.overwrite_default_scope('mmaction'):
            dataset = DATASETS.build(dataset)
        seen[part] = set(dataset.video_names)
        frames = cfg.window_size * cfg.frames_per_step
        packed = dataset[0]
        assert frames % 16 == 0
        assert packed['inputs'].shape == (1, 1, frames, cfg.image_size,
                                          cfg.image_size)
        assert packed['data_samples'].valid_steps in (11, 12)
    assert not seen['train'] & seen['val']
    assert not (seen['train'] | seen['val']) & seen['test']
    assert seen['score'] < seen['train']


def test_every_config_is_tried():
    assert {path.stem for path in CONFIGS.glob('*.py')} == set(LABELS)
