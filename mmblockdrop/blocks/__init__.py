"""The stack of blocks that gets shorter.

``LoRAViT`` lives in :mod:`mmblockdrop.blocks.vit`, which imports mmaction2;
the rest needs torch and mmengine alone.
"""
from .lora import add_lora, check_lora, has_lora, merge_lora
from .prefix import SharedPrefix
from .surgery import BlockStack, DroppedBlock, replay

__all__ = [
    'BlockStack', 'DroppedBlock', 'SharedPrefix', 'add_lora', 'check_lora',
    'has_lora', 'merge_lora', 'replay'
]
