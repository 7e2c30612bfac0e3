"""Let mmaction2's ``ColorJitter`` shift hue downwards on numpy 2.

Defect: ``ColorJitter.adjust_hue`` adds a Python integer that may be negative
to an array of uint8. numpy 1 widened the array; numpy 2 raises
``OverflowError: Python integer -5 out of bounds for uint8``.

Patch: on numpy 2 the sum is taken in int16. For hue shifts of up to 0.29
(mmaction2's default is 0.1) images are the same as on numpy 1; above that
numpy 1 itself wrapped around.

Unnecessary with: a release of mmaction2 that widens the array itself. None is
published; 1.2.0 is the newest.
"""
from types import ModuleType

from .importing import after_import


def _widen_hue(processing: ModuleType) -> None:
    """Replace the one method, on numpy 2 only."""
    import numpy as np
    if int(np.__version__.split('.')[0]) < 2:
        return
    import cv2

    def adjust_hue(img: np.ndarray, factor: float) -> np.ndarray:
        """Rotate the hue.

        Args:
            img: RGB image of shape [H, W, 3], values 0 to 255.
            factor: Shift in units of 255 OpenCV hue steps.

        Returns:
            Float32 image of shape [H, W, 3].
        """
        img = np.clip(img, 0, 255).astype(np.uint8)
        hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
        hue = hsv[..., 0].astype(np.int16) + int(factor * 255)
        hsv[..., 0] = hue % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)

    processing.ColorJitter.adjust_hue = staticmethod(adjust_hue)


def patch() -> None:
    """Wait for mmaction2's transforms."""
    after_import('mmaction.datasets.transforms.processing', _widen_hue)
