"""Video and annotations to packed samples."""
from .cache import CachedFrames
from .dataset import UntrimmedVideoDataset
from .files import UnreadableVideoError
from .transforms import (LoadFeatures, OpenVideo, PackTADInputs, SampleWindow)

__all__ = [
    'CachedFrames', 'LoadFeatures', 'OpenVideo', 'PackTADInputs',
    'SampleWindow', 'UnreadableVideoError', 'UntrimmedVideoDataset'
]
