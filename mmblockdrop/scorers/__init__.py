"""Score the candidates of a round."""
from .base import CandidateResults, Scorer, Scores, ScoringContext
from .change import BlockChangeScorer
from .feature_error import FeatureErrorScorer
from .loss import LossScorer
from .metric import MetricScorer
from .racing import RacingScorer
from .random_order import RandomScorer

__all__ = [
    'BlockChangeScorer', 'CandidateResults', 'FeatureErrorScorer',
    'LossScorer', 'MetricScorer', 'RacingScorer', 'RandomScorer', 'Scorer',
    'Scores', 'ScoringContext'
]
