"""Video and annotations to packed samples."""
from mmblockdrop.utils.video import UnreadableVideoError

from .augmentation import (JitterContrast, RandAugmentClip, RandomSquareCrop,
                           SquareCrop, ToGray)
from .cache import CachedFrames
from .dataset import UntrimmedVideoDataset
from .loading import LoadFeatures, OpenVideo
from .transforms import PackTADInputs, SampleWindow

__all__ = [
    'CachedFrames', 'JitterContrast', 'LoadFeatures', 'OpenVideo',
    'PackTADInputs', 'RandAugmentClip', 'RandomSquareCrop', 'SampleWindow',
    'SquareCrop', 'ToGray', 'UnreadableVideoError', 'UntrimmedVideoDataset'
]
