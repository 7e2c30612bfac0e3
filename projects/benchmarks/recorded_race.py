"""Races on what every candidate is known to give on every batch."""
import functools
from typing import Any, Callable, Sequence

from mmblockdrop.compression import BlockStack
from mmblockdrop.scorers import RacingScorer
from mmblockdrop.scorers.racing.candidate_results import Judge

from torch import nn


class RecordedScorer(RacingScorer):
    """Runs all candidates on all batches and keeps what they give.

    Args:
        **settings: As of :class:`RacingScorer`.

    Attributes:
        known: Candidate to place of the batch to what it gave.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.known: dict = {}

    def checks(self, total: int) -> list:
        """Nobody leaves.

        Args:
            total: Batches of the subset.

        Returns:
            Empty.
        """
        return []

    def _run(self, model: nn.Module, stack: BlockStack, left: Sequence[int],
             judge: Judge, place: int, batch: dict) -> None:
        super()._run(model, stack, left, judge, place, batch)
        self.known = judge.found


class ReplayedScorer(RacingScorer):
    """A race that looks up what it would compute, and counts as if it did.

    Args:
        known: See :class:`RecordedScorer`.
        **settings: As of :class:`RacingScorer`.
    """

    def __init__(self, known: dict, **settings: Any) -> None:
        super().__init__(**settings)
        self.known = known

    def _run(self, model: nn.Module, stack: BlockStack, left: Sequence[int],
             judge: Judge, place: int, batch: dict) -> None:
        judge.put(place, {i: self.known[i][place] for i in left})
        behind = [len(stack) - 1 - i for i in left]
        self.executions += max(left) + sum(behind)


def replayed(scorer: RecordedScorer) -> Callable[..., RacingScorer]:
    """What builds races on a record.

    Args:
        scorer: It has run.

    Returns:
        Takes the settings of a race.
    """
    return functools.partial(ReplayedScorer, scorer.known)
