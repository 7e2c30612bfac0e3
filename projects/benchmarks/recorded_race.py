"""Races on what every candidate is known to give on every batch."""
from typing import Any, Dict, List, Optional, Tuple

from mmblockdrop.compression import Id
from mmblockdrop.scorers import RacingScorer, Scores, ScoringContext
from mmblockdrop.scorers.racing import Race


class RecordedScorer(RacingScorer):
    """Runs all candidates on all batches and keeps what they give.

    Args:
        **settings: As of :class:`RacingScorer`.

    Attributes:
        known: Candidate to sum of losses and samples of each batch.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.known: Dict[Id, List[Tuple[float, float]]] = {}

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`RacingScorer.__call__`; nobody leaves."""
        self.first = max(2, len(context.batches))
        return super().__call__(context)

    def _run(self, context: ScoringContext, race: Race,
             batch: Optional[dict]) -> None:
        super()._run(context, race, batch)
        self.known = race.results.sums


class ReplayedScorer(RacingScorer):
    """A race that looks up what it would compute, and counts as if it did.

    Args:
        known: See :class:`RecordedScorer`.
        **settings: As of :class:`RacingScorer`.
    """

    def __init__(self, known: dict, **settings: Any) -> None:
        super().__init__(**settings)
        self.known = known

    def _run(self, context: ScoringContext, race: Race,
             batch: Optional[dict]) -> None:
        results, order = race.results, context.structure.order
        places = [order.index(i) for i in race.remaining]
        for i in race.remaining:
            results.add(i, *self.known[i][len(results.sums[i])])
        results.executions += max(places) + sum(
            len(order) - 1 - place for place in places)
