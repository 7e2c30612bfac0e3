"""Frames to features: the encoders that get shorter."""
from .frame_encoder import FrameEncoder
from .small_vit import ScaleWeights, SmallViT
from .vit import LoRAViT

__all__ = ['FrameEncoder', 'LoRAViT', 'ScaleWeights', 'SmallViT']
