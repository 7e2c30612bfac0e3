"""Localizer, post-processing and metric."""
from .head import ActionFormerHead
from .localizer import ActionFormer
from .losses import DIoULoss, FocalLoss, GIoULoss
from .neck import FPNIdentity
from .points import DensePredictions, FlatPredictions
from .projection import ConvTransformerProjection

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'DIoULoss', 'DensePredictions', 'FPNIdentity', 'FlatPredictions',
    'FocalLoss', 'GIoULoss'
]
from .postprocess import Segments, nms, vote
