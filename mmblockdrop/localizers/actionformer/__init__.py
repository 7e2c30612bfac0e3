"""ActionFormer (Zhang, Wu and Li, ECCV 2022)."""
from .head import ActionFormerHead, DensePredictions, FlatPredictions
from .localizer import ActionFormer
from .neck import FPNIdentity
from .projection import ConvTransformerProjection

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'DensePredictions', 'FPNIdentity', 'FlatPredictions'
]
