"""Localizer, post-processing and metric."""
from .class_head import SnippetClassHead
from .classifier import ExternalClassifier
from .curves import CurveMetric
from .end_to_end import EndToEndLocalizer
from .head import ActionFormerHead
from .localizer import ActionFormer
from .losses import DIoULoss, FocalLoss, GIoULoss
from .metric import TADMetric
from .neck import FPNIdentity
from .points import DensePredictions, FlatPredictions
from .postprocess import Segments, nms
from .projection import ConvTransformerProjection
from .reuse_hook import ReuseClipsHook
from .voting import vote

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'CurveMetric', 'DIoULoss', 'DensePredictions', 'EndToEndLocalizer',
    'ExternalClassifier', 'FPNIdentity', 'FlatPredictions', 'FocalLoss',
    'GIoULoss', 'ReuseClipsHook', 'Segments', 'SnippetClassHead', 'TADMetric',
    'nms', 'vote'
]
