"""Score by the loss; candidates that can no longer win leave early."""
import math
from typing import List, NamedTuple, Optional

from mmblockdrop.compression.record import Id
from mmblockdrop.registry import SCORERS
from mmblockdrop.utils.messages import require_whole

import numpy as np
import torch
from mmengine.dist import all_reduce
from scipy.special import stdtrit

from .base import CandidateResults, Scorer, Scores, ScoringContext
from .loss import summed_loss


@SCORERS.register_module()
class RacingScorer(Scorer):
    """The task loss without the candidate, on as few batches as decide.

    The batches are visited in a random order fixed by ``seed``. After each
    of them a candidate leaves if it is behind the leader by more than chance
    explains, see :class:`Race`. Candidates that reach the end get exactly
    the score of :class:`LossScorer`; the score of one that left is an
    estimate, that of the leader made worse by their mean gap. When no more
    candidates remain than the round drops, the other batches are not read,
    and scores are those of the batches seen.

    The chance of missing the best candidate is that of all comparisons
    together, more than ``delta``; how often the choice was the exact one is
    in *Choosing the block*, ``docs/en/notes/benchmarks.md``.

    Args:
        delta: Probability that a single comparison is wrong. Defaults to 0.02.
        first: Batches before the first candidate may leave. Defaults to None,
            a sixteenth of them and at least 4.
        seed: Seed of the order of batches.

    Attributes:
        seen: Batches that each candidate of the last call saw, on each
            process.

    Raises:
        ValueError: A number is out of range.
    """

    higher_is_better = False

    def __init__(self,
                 delta: float = 0.02,
                 first: Optional[int] = None,
                 seed: int = 0) -> None:
        if not 0 < delta < 1:
            raise ValueError(f'train_cfg.scorer.delta={delta!r}: expected a '
                             'number between 0 and 1')
        if first is not None:
            require_whole('train_cfg.scorer.first', first, 2)
        self.delta, self.first, self.seed = delta, first, seed
        self.seen: dict = {}

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`."""
        total = len(context.batches)
        order = np.random.default_rng(self.seed).permutation(total).tolist()
        results = CandidateResults(context.candidates)
        race = Race(results, total, self.first or max(4, total // 16),
                    self.delta, context.drops)
        done = context.restore(results)
        for seen in range(1, done + 1):
            race.check(seen)
        batches = context.batches_after(done, order, repeats=False)
        while not race.is_over and done < total:
            self._run(context, race, next(batches))
            context.keep(results)
            done += 1
            race.check(done)
        self.executions = results.executions
        self.seen = {i: len(pairs) for i, pairs in results.sums.items()}
        return race.scores()

    def _run(self, context: ScoringContext, race: 'Race',
             batch: Optional[dict]) -> None:
        """One batch without each remaining candidate in turn."""
        results = race.results
        if batch is None:  # other processes have its samples
            for i in race.remaining:
                results.add(i, 0., 0)
            return
        data = context.model.data_preprocessor(batch, False)
        context.without_each(
            race.remaining, lambda i: results.add(
                i, *summed_loss(context.structure.model, data)), results)


class Lost(NamedTuple):
    """A candidate that left the race.

    Attributes:
        candidate: Its id.
        leader: Who was ahead of it.
        gap: By how much on average over the batches both saw; above zero.
    """
    candidate: Id
    leader: Id
    gap: float


class Race:
    """Lets candidates leave that are behind; the lowest value wins.

    At a check every candidate is compared with the leader on the batches
    seen so far, batch by batch, which takes away what makes a batch hard for
    all. It leaves if the mean gap exceeds its one-sided confidence radius at
    ``delta``: the t interval with correction for a finite population, which
    takes the mean of the gaps for normal.

    Args:
        results: What the candidates have on each batch, in the order seen.
        total: Batches of the whole data.
        first: Batches before the first check.
        delta: Probability that a single comparison is wrong.
        keep: So many candidates stay in any case.

    Attributes:
        remaining: Ids of the candidates that are still in.
        lost: Those that left.
    """

    def __init__(self, results: CandidateResults, total: int, first: int,
                 delta: float, keep: int) -> None:
        self.results, self.total, self.first = results, total, first
        self.delta, self.keep = delta, keep
        self.remaining = list(results.sums)
        self.lost: List[Lost] = []

    @property
    def is_over(self) -> bool:
        """Whether no further candidate can leave."""
        return len(self.remaining) <= self.keep

    def check(self, seen: int) -> None:
        """Let candidates leave; all processes decide alike.

        Args:
            seen: Batches that the remaining candidates have seen.
        """
        if not self.first <= seen < self.total or self.is_over:
            return
        values = dict(zip(self.remaining, self._values(seen)))
        means = {i: np.nanmean(v) for i, v in values.items()}
        order = sorted(self.remaining, key=means.__getitem__)
        leader = order[self.keep - 1]
        for candidate in reversed(order[self.keep:]):
            gaps = values[candidate] - values[leader]
            gaps = gaps[np.isfinite(gaps)]
            gap = float(gaps.mean()) if len(gaps) else 0.
            if gap > 0 and gap > self.radius(gaps):
                self.lost.append(Lost(candidate, leader, gap))
                self.remaining.remove(candidate)

    def radius(self, gaps: np.ndarray) -> float:
        """Confidence radius of the mean of all gaps.

        Args:
            gaps: Those seen, ``[seen]``.

        Returns:
            The radius; infinite below two values, zero once all were seen.
        """
        seen = len(gaps)
        if seen >= self.total:
            return 0.
        if seen < 2:
            return math.inf
        error = gaps.std(ddof=1) * math.sqrt((1 / seen) -
                                             (1 / self.total))
        return float(stdtrit(seen - 1, 1 - self.delta) * error)

    def scores(self) -> Scores:
        """Scores of those that remain, and worse ones for those that left.

        Returns:
            Candidate to score.
        """
        scores = self.results.means(self.remaining)
        for candidate, leader, gap in reversed(self.lost):
            scores[candidate] = scores[leader] + gap
        return {i: scores[i] for i in self.results.sums}

    def _values(self, seen: int) -> np.ndarray:
        """Mean of each batch ``[candidates, seen]``; NaN without samples."""
        table = torch.tensor(
            [self.results.sums[i][:seen] for i in self.remaining],
            dtype=torch.float64)
        all_reduce(table)
        return (table[..., 0] / table[..., 1]).numpy()
