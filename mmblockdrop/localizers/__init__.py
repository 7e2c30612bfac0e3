"""Features to detections."""
from .actionformer import (ActionFormer, ActionFormerHead,
                           ConvTransformerProjection, DensePredictions,
                           FlatPredictions, FPNIdentity)
from .end_to_end import EndToEndLocalizer
from .losses import DIoULoss, FocalLoss, GIoULoss
from .mmaction2 import SnippetClassHead

__all__ = [
    'ActionFormer', 'ActionFormerHead', 'ConvTransformerProjection',
    'DIoULoss', 'DensePredictions', 'EndToEndLocalizer', 'FPNIdentity',
    'FlatPredictions', 'FocalLoss', 'GIoULoss', 'SnippetClassHead'
]
