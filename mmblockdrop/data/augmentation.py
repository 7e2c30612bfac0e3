"""What mmaction2's transforms do not do to the frames of a clip.

All frames of a clip are changed alike.
"""
from typing import Any, Dict, List, Tuple

from mmblockdrop.registry import TRANSFORMS

import numpy as np
import torch
from mmcv.transforms import BaseTransform


@TRANSFORMS.register_module()
class RandAugmentClip(BaseTransform):
    """RandAugment (arXiv 1909.13719) of torchvision on a clip.

    All frames get the same operations with the same strength. It takes the
    place of mmaction2's ``ImgAug(transforms='default')``, whose library is
    not kept any more and fails on numpy 1.24 and later. Draws follow
    ``numpy``, and so the seed of the epoch.

    Required Keys: imgs (uint8 frames [H, W, 3] of one size)

    Modified Keys: imgs

    Args:
        num_ops: Operations in a row. Defaults to 2.
        magnitude: Strength out of ``bins``. Defaults to 9.
        bins: Levels of strength. Defaults to 31.
    """

    def __init__(self,
                 num_ops: int = 2,
                 magnitude: int = 9,
                 bins: int = 31) -> None:
        from torchvision.transforms import RandAugment
        if not 0 <= magnitude < bins:
            raise ValueError(f'RandAugmentClip.magnitude={magnitude} must be '
                             f'between 0 and bins - 1 = {bins - 1}')
        self.augment = RandAugment(num_ops, magnitude, bins)

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Change all frames of the window."""
        frames = np.stack(results['imgs']).transpose(0, 3, 1, 2)
        clip = torch.from_numpy(np.ascontiguousarray(frames))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.randint(2**31)))
            clip = self.augment(clip)
        results['imgs'] = list(clip.permute(0, 2, 3, 1).contiguous().numpy())
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_ops={self.augment.num_ops}, '
                f'magnitude={self.augment.magnitude}, '
                f'bins={self.augment.num_magnitude_bins})')


@TRANSFORMS.register_module()
class SquareCrop(BaseTransform):
    """Scale the short side to ``crop_size`` and keep the middle square.

    mmaction2's ``Resize`` and ``CenterCrop`` with one size for both, so that
    ``--cfg-options`` changes the size of the frames by one key per loader.

    Required Keys: imgs (uint8 frames [H, W, 3]), img_shape

    Modified Keys: imgs, img_shape, and what those transforms add

    Args:
        crop_size: Height and width of the result, in pixels.
    """

    def __init__(self, crop_size: int) -> None:
        self.crop_size = crop_size
        self.transforms = [
            TRANSFORMS.build(step) for step in self._steps(crop_size)
        ]

    @staticmethod
    def _steps(size: int) -> List[Dict[str, Any]]:
        return [
            dict(type='mmaction.Resize', scale=(-1, size)),
            dict(type='mmaction.CenterCrop', crop_size=size),
        ]

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Scale and crop all frames alike."""
        for transform in self.transforms:
            results = transform(results)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(crop_size={self.crop_size})'


@TRANSFORMS.register_module()
class RandomSquareCrop(SquareCrop):
    """Scale a random area of the frames to a square, for training.

    The short side becomes 8 / 7 of ``crop_size`` first (256 for 224 pixels,
    182 for 160), as in the published recipes; then mmaction2's
    ``RandomResizedCrop`` with its default area and aspect ratio.
    """

    @staticmethod
    def _steps(size: int) -> List[Dict[str, Any]]:
        return [
            dict(type='mmaction.Resize', scale=(-1, size * 8 // 7)),
            dict(type='mmaction.RandomResizedCrop'),
            dict(
                type='mmaction.Resize', scale=(size, size), keep_ratio=False),
        ]


@TRANSFORMS.register_module()
class ToGray(BaseTransform):
    """Turn frames [H, W, 3] into [H, W, 1], the mean of the colours.

    A third of the memory and of the work in front of the first block, for
    videos in which colour says nothing.

    Required Keys: imgs

    Modified Keys: imgs
    """

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Average the colours of every frame."""
        results['imgs'] = [
            np.round(frame.mean(-1, keepdims=True)).astype(np.uint8)
            for frame in results['imgs']
        ]
        return results


@TRANSFORMS.register_module()
class JitterContrast(BaseTransform):
    """Scale and shift the values of a clip, all frames alike.

    Takes a table of 256 values, so that it costs little on long clips.

    Required Keys: imgs

    Modified Keys: imgs

    Args:
        contrast: Values are scaled around 128 by a factor drawn from ``1 -
            contrast`` to ``1 + contrast``. Defaults to 0.1.
        brightness: And shifted by up to this many grey levels. Defaults to 10.
    """

    def __init__(self,
                 contrast: float = 0.1,
                 brightness: float = 10.) -> None:
        self.ranges: Tuple[float, float] = (contrast, brightness)

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Change all frames of the window."""
        contrast, brightness = (np.random.uniform(-r, r) for r in self.ranges)
        table = (np.arange(256.) - 128) * (1 + contrast) + 128 + brightness
        table = np.clip(np.round(table), 0, 255).astype(np.uint8)
        results['imgs'] = [table[frame] for frame in results['imgs']]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(contrast={self.ranges[0]}, '
                f'brightness={self.ranges[1]})')
