"""The stack of blocks that gets shorter.

``LoRAViT`` lives in :mod:`mmblockdrop.blocks.vit`, which imports mmaction2;
the rest needs torch and mmengine alone.
"""
from .frames import FrameEncoder
from .lora import add_lora, check_lora, has_lora, merge_lora
from .passing import DroppedBlock, block_tensor
from .prefix import SharedPrefix
from .stacks import find_stacks
from .surgery import BlockStack, replay

__all__ = [
    'BlockStack', 'DroppedBlock', 'FrameEncoder', 'SharedPrefix', 'add_lora',
    'block_tensor', 'check_lora', 'find_stacks', 'has_lora', 'merge_lora',
    'replay'
]
