"""Published checkpoints, and the same weights under our names."""
from mmblockdrop.utils.checkpoint import read_checkpoint

from .detector import (convert_detector, detector_for_opentad, detector_name,
                       rename_detector)
from .encoder import convert_encoder, suggested_config
from .files import save_checkpoint, unwrap
from .recognizer import encoder_for_mmaction
from .report import ConversionReport

__all__ = [
    'ConversionReport', 'convert_detector', 'convert_encoder',
    'detector_for_opentad', 'detector_name', 'encoder_for_mmaction',
    'read_checkpoint', 'rename_detector', 'save_checkpoint',
    'suggested_config', 'unwrap'
]
