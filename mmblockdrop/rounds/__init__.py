"""Drop, align, measure, repeated."""
from .epoch import SeedEpochHook
from .hook import BlockDropHook
from .loop import DistillationLoop

__all__ = ['BlockDropHook', 'DistillationLoop', 'SeedEpochHook']
