"""ActionFormer (Zhang, Wu and Li, ECCV 2022)."""
from .head import ActionFormerHead
from .localizer import ActionFormer
from .neck import FPNIdentity
from .points import DensePredictions, FlatPredictions
from .projection import ConvTransformerProjection

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'DensePredictions', 'FPNIdentity', 'FlatPredictions'
]
