"""What mmaction2's transforms do not do to the pixels of a clip."""
from typing import Any, Dict, Tuple

from mmblockdrop.registry import TRANSFORMS

import numpy as np
from mmcv.transforms import BaseTransform


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
