"""Frames to features: the encoders that get shorter."""
from .frame_encoder import FrameEncoder
from .initialize import ScaleWeights
from .vit import LoRAViT

__all__ = ['FrameEncoder', 'LoRAViT', 'ScaleWeights']
