"""Drop, align, measure, repeated."""
from .hook import BlockDropHook
from .loop import DistillationLoop
from .preview import PreviewLoop
from .resume import FiniteLossHook
from .schedule import SeedEpochHook
from .strict_load import StrictLoadHook

__all__ = [
    'BlockDropHook', 'DistillationLoop', 'FiniteLossHook', 'PreviewLoop',
    'SeedEpochHook', 'StrictLoadHook'
]
