"""What can be removed from a model, and how."""
from .blocks import BlockStack, find_stacks
from .bypass import DroppedBlock, block_tensor
from .loading import (attach_lora, load_localizer, read_localizer, record_of,
                      shape_localizer)
from .lora import add_lora, check_lora, has_lora, merge_lora
from .prefix import SharedPrefix
from .record import Id, all_ids, removed_ids, replay, upgrade_record
from .structure import StackPath, Structure

__all__ = [
    'BlockStack', 'DroppedBlock', 'Id', 'SharedPrefix', 'StackPath',
    'Structure', 'add_lora', 'all_ids', 'attach_lora', 'block_tensor',
    'check_lora', 'find_stacks', 'has_lora', 'load_localizer', 'merge_lora',
    'read_localizer', 'record_of', 'removed_ids', 'replay', 'shape_localizer',
    'upgrade_record'
]
