"""Drop, align, measure, repeated."""
from .hook import BlockDropHook
from .loop import DistillationLoop
from .select import (BlockChangeScorer, LossScorer, MetricScorer,
                     RandomScorer, Scorer)

__all__ = [
    'BlockChangeScorer', 'BlockDropHook', 'DistillationLoop', 'LossScorer',
    'MetricScorer', 'RandomScorer', 'Scorer'
]
