"""Video and annotations to packed samples."""
from mmblockdrop.utils.video import UnreadableVideoError

from .augmentation import RandAugmentClip, RandomSquareCrop, SquareCrop
from .cache import CachedFrames
from .dataset import UntrimmedVideoDataset
from .loading import LoadFeatures, OpenVideo
from .pixels import JitterContrast, ToGray
from .transforms import PackTADInputs, SampleWindow

__all__ = [
    'CachedFrames', 'JitterContrast', 'LoadFeatures', 'OpenVideo',
    'PackTADInputs', 'RandAugmentClip', 'RandomSquareCrop', 'SampleWindow',
    'SquareCrop', 'ToGray', 'UnreadableVideoError', 'UntrimmedVideoDataset'
]
