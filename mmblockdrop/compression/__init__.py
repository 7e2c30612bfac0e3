"""What can be removed from a model, and how."""
from .blocks import BlockStack, replay
from .bypass import DroppedBlock, block_tensor
from .lora import add_lora, check_lora, has_lora, merge_lora
from .prefix import SharedPrefix
from .stacks import find_stacks

__all__ = [
    'BlockStack', 'DroppedBlock', 'SharedPrefix', 'add_lora', 'block_tensor',
    'check_lora', 'find_stacks', 'has_lora', 'merge_lora', 'replay'
]
