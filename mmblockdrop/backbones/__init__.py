"""Frames to features: the encoders that get shorter."""
from .adatad import AdaptedEncoder, AdapterViT
from .frame_encoder import FrameEncoder
from .small_vit import ScaleWeights, SmallViT
from .vit import LoRAViT

__all__ = [
    'AdaptedEncoder', 'AdapterViT', 'FrameEncoder', 'LoRAViT', 'ScaleWeights',
    'SmallViT'
]
