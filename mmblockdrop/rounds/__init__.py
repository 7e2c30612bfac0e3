"""Drop, align, measure, repeated."""
from .hook import BlockDropHook
from .loop import DistillationLoop
from .resume import FiniteLossHook
from .schedule import SeedEpochHook
from .strict_load import StrictLoadHook

__all__ = [
    'BlockDropHook', 'DistillationLoop', 'FiniteLossHook', 'SeedEpochHook',
    'StrictLoadHook'
]
