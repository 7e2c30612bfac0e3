"""Detections to metrics: suppression, average precision, recall."""
from .curve_metric import CurveMetric
from .external_classifier import ExternalClassifier
from .suppression import nms, vote
from .tad_metric import TADMetric

__all__ = ['CurveMetric', 'ExternalClassifier', 'TADMetric', 'nms', 'vote']
