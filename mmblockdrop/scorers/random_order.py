"""Score at random, for comparison."""
from mmblockdrop.registry import SCORERS

import numpy as np

from .base import Scorer, Scores, ScoringContext


@SCORERS.register_module()
class RandomScorer(Scorer):
    """Any candidate, for comparison.

    Args:
        seed: Seed of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`; looks at no data."""
        ids = context.structure.ids
        order = np.random.default_rng(self.seed).random(len(ids))
        scores = dict(zip(ids, order.tolist()))
        return {i: scores[i] for i in context.candidates}
