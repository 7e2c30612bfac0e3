"""Localizer, post-processing and metric."""
from .head import ActionFormerHead
from .localizer import ActionFormer
from .losses import DIoULoss, FocalLoss, GIoULoss
from .metric import TADMetric
from .neck import FPNIdentity
from .points import DensePredictions, FlatPredictions
from .postprocess import Segments, nms
from .projection import ConvTransformerProjection
from .voting import vote

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'DIoULoss', 'DensePredictions', 'FPNIdentity', 'FlatPredictions',
    'FocalLoss', 'GIoULoss', 'Segments', 'TADMetric', 'nms', 'vote'
]
