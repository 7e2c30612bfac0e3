"""What can be removed from a model, and how."""
from .blocks import BlockStack, find_stacks
from .bypass import DroppedBlock, block_tensor
from .halves import HalfBlocks, remove_parts
from .loading import (attach_lora, check_classes, load_localizer, meta_of,
                      read_localizer, record_hint, record_of, shape_localizer)
from .lora import add_lora, check_lora, has_lora, merge_lora
from .prefix import SharedPrefix
from .record import Id, all_ids, removed_ids, replay, upgrade_record
from .repair import LinearRepair
from .spec import (BlockSpec, Half, Stack, declared_stacks, find_writers,
                   register_spec, spec_of)
from .structure import StackPath, Structure

__all__ = [
    'BlockSpec', 'BlockStack', 'DroppedBlock', 'Half', 'HalfBlocks', 'Id',
    'LinearRepair', 'SharedPrefix', 'Stack', 'StackPath', 'Structure',
    'add_lora', 'all_ids', 'attach_lora', 'block_tensor', 'check_classes',
    'check_lora', 'declared_stacks', 'find_stacks', 'find_writers', 'has_lora',
    'load_localizer', 'merge_lora', 'meta_of', 'read_localizer',
    'record_hint', 'record_of', 'register_spec', 'remove_parts',
    'removed_ids', 'replay', 'shape_localizer', 'spec_of', 'upgrade_record'
]
