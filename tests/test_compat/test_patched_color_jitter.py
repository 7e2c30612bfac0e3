"""mmaction2's ``ColorJitter`` on numpy 2."""
import inspect
from pathlib import Path

from mmblockdrop.compat import colorjitter

import mmaction.datasets.transforms.processing as processing
import numpy as np


def test_color_jitter_shifts_hue_both_ways(monkeypatch):
    """Compares with numpy 1 where that runs, and always with plain sums."""
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    patched = type('Patched', (), {})
    patched.ColorJitter = type('ColorJitter', (processing.ColorJitter, ), {})
    numpy_1 = np.__version__.startswith('1.')
    with monkeypatch.context() as patch:
        patch.setattr(np, '__version__', '2.0.0')
        colorjitter._widen_hue(patched)
    for factor in (-0.5, -0.1, 0, 0.1, 0.29):
        shifted = patched.ColorJitter.adjust_hue(image, factor)
        assert shifted.dtype == np.float32 and shifted.shape == image.shape
        if numpy_1:  # the patch has left mmaction2's own method in place
            np.testing.assert_array_equal(
                shifted, processing.ColorJitter.adjust_hue(image, factor))
    full_turn = patched.ColorJitter.adjust_hue(image, 180 / 255)
    none = patched.ColorJitter.adjust_hue(image, 0)
    np.testing.assert_array_equal(full_turn, none)


def test_color_jitter_patch_is_needed():
    source = Path(inspect.getsourcefile(processing)).read_text()
    assert 'hsv[..., 0] + offset) % 180' in source


def test_color_jitter_runs():
    np.random.seed(0)
    images = [np.full((4, 4, 3), 100, np.uint8)] * 2
    for _ in range(20):
        out = processing.ColorJitter(hue=0.5).transform(dict(imgs=images))
        assert out['imgs'][0].shape == (4, 4, 3)
