"""Drop, align, measure, repeated."""
from .epoch import SeedEpochHook
from .hook import BlockDropHook
from .loop import DistillationLoop
from .racing import RacingScorer
from .select import (BlockChangeScorer, LossScorer, MetricScorer,
                     RandomScorer, Scorer)

__all__ = [
    'BlockChangeScorer', 'BlockDropHook', 'DistillationLoop', 'LossScorer',
    'MetricScorer', 'RacingScorer', 'RandomScorer', 'Scorer',
    'SeedEpochHook'
]
