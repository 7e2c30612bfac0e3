"""Score the candidates of a round."""
from .base import (BlockChangeScorer, LossScorer, MetricScorer, RandomScorer,
                   Scorer)
from .racing import RacingScorer

__all__ = [
    'BlockChangeScorer', 'LossScorer', 'MetricScorer', 'RacingScorer',
    'RandomScorer', 'Scorer'
]
