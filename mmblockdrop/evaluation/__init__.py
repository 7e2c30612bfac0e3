"""Detections to metrics: suppression, average precision, recall."""
from .curve_metric import CurveMetric
from .external_classifier import ExternalClassifier
from .suppression import Segments, nms
from .tad_metric import TADMetric
from .voting import vote

__all__ = [
    'CurveMetric', 'ExternalClassifier', 'Segments', 'TADMetric', 'nms',
    'vote'
]
