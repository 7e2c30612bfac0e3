"""Candidates that can no longer win leave before all data were seen."""
import difflib
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Union)

from mmblockdrop.compression import BlockStack, SharedPrefix, block_tensor
from mmblockdrop.registry import SCORERS
from mmblockdrop.scorers.base import Scorer, Scores
from mmblockdrop.scorers.batches import ShuffledBatches
from mmblockdrop.utils.progress import with_progress

import torch
from mmengine.dist import all_reduce
from torch import nn

from .bounds import BOUNDS
from .candidate_results import LossJudge, MetricJudge
from .race import HALVING, Race

CRITERIA = ('metric', 'loss')
AnyJudge = Union[LossJudge, MetricJudge]


@SCORERS.register_module()
class RacingScorer(Scorer):
    """Drop candidates from the scoring that can no longer win.

    The batches are visited in a random order fixed by ``seed``. The loss of
    a batch, or the metric over a batch alone, is the value on which
    candidates are compared, see
    :class:`~.race.Race`; all processes decide on the
    same numbers. Candidates that reach the end get exactly the score that
    :class:`~.select.LossScorer` or :class:`~.select.MetricScorer` would
    give. A candidate that left gets the score of the one ahead of it, made
    worse by their average gap. If all but ``keep`` have left, the rest of
    the data is not looked at, and scores are those of the part seen.

    What the bound says: with ``criterion='loss'`` the block with the lowest
    mean loss is missed with probability at most ``delta``. Mean average
    precision is no mean over batches; there the bound holds for the mean of
    the batches' own metrics, which agrees with the whole in most cases but
    not by necessity, and those left at the end are compared by the metric
    over everything. ``bound='student'`` takes means of batches for normal;
    ``'hoeffding'`` and ``'bernstein'`` assume nothing but values inside
    ``value_range``, and need hundreds of batches. The shortlist has no
    bound.

    Args:
        criterion: ``'metric'`` or ``'loss'``.
        metric: Key of the evaluator. Defaults to the mean over tIoU.
        delta: Probability that the best is lost. Defaults to 0.05.
        corrected: Whether ``delta`` is meant for the race as a whole, by the
            union bound over all its comparisons, which are far from
            independent: it errs much less often than that. False takes it for
            every comparison alone; the race then errs more often than
            ``delta``, and needs half of the executions (see *Choosing the
            block* in ``docs/en/notes/benchmarks.md``). Defaults to True.
        bound: ``'student'``, ``'bernstein'`` or ``'hoeffding'``; or
            ``'halving'``, without error bound: the worse half leaves at every
            check.
        value_range: Length of the interval that holds all values. Defaults to
            1 for the metric; must be given for the loss unless the bound is
            ``'student'``.
        first: Batches before the first check. Defaults to None, a sixteenth of
            them and at least 4, or an eighth when halving.
        growth: The next check comes after so many times the batches, at least
            one more. Defaults to 1.5, or 2 when halving; 1 checks after every
            batch.
        keep: Candidates that stay in any case; at least ``drops_per_round``.
            Defaults to 1.
        shortlist: Only so many candidates race, those that change their input
            least by block influence (ShortGPT, `arXiv 2403.03853
            <https://arxiv.org/abs/2403.03853>`_); the others get no score.
            Defaults to None, all.
        shortlist_batches: Batches for the block influence.
        seed: Seed of the order of batches.
        cache_mb: See :class:`~.batches.ShuffledBatches`; kept from round to
            round. Defaults to 512.

    Attributes:
        seen: Batches that each candidate of the last call saw, on each
            process.

    Raises:
        ValueError: On an unknown choice or a number out of range.
    """

    def __init__(self,
                 criterion: str = 'metric',
                 metric: str = 'tad/mAP',
                 delta: float = 0.05,
                 corrected: bool = True,
                 bound: str = 'student',
                 value_range: Optional[float] = None,
                 first: Optional[int] = None,
                 growth: Optional[float] = None,
                 keep: int = 1,
                 shortlist: Optional[int] = None,
                 shortlist_batches: int = 2,
                 seed: int = 0,
                 cache_mb: float = 512.) -> None:
        _choice('criterion', criterion, CRITERIA)
        _choice('bound', bound, (*BOUNDS, HALVING))
        least = dict(first=2, keep=1, shortlist=keep + 1, shortlist_batches=1)
        for key, low in least.items():
            value = locals()[key]
            if value is not None and value < low:
                raise ValueError(f'scorer.{key} is {value}, expected at '
                                 f'least {low}')
        growth = growth or (2. if bound == HALVING else 1.5)
        if not 0 < delta < 1 or growth < 1:
            raise ValueError(f'scorer.delta={delta} must be between 0 and 1 '
                             f'and scorer.growth={growth} at least 1')
        if value_range is None and criterion == 'metric':
            value_range = 1.
        if value_range is None and bound not in ('student', HALVING):
            raise ValueError(
                f"scorer.bound={bound!r} with criterion='loss' needs "
                'scorer.value_range, a number that no loss exceeds')
        self.criterion = criterion
        if criterion == 'metric':  # the loop checks that it is given
            self.metric = metric
        self.higher_is_better = criterion == 'metric'
        self.delta, self.corrected, self.bound = delta, corrected, bound
        self.value_range = value_range or 0.
        self.first, self.growth, self.keep = first, growth, keep
        self.shortlist, self.shortlist_batches = shortlist, shortlist_batches
        self.seed, self.cache_mb = seed, cache_mb
        self.seen: Dict[int, int] = {}

    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """See :meth:`Scorer.__call__`.

        Raises:
            KeyError: The evaluator gives no such metric; lists those it
                gives.
        """
        data = self.kept(batches, self.seed)
        total = len(data)
        judge: AnyJudge = (
            MetricJudge(new_evaluator, self.metric)
            if self.criterion == 'metric' else LossJudge())
        self.executions = 0
        model.eval()
        with torch.no_grad():
            if self.shortlist is not None and (
                    self.shortlist < len(candidates)):
                candidates = self._shorten(model, stack, candidates, data)
            race = Race(candidates, total, self.checks(total),
                        self.higher_is_better, self.delta, self.bound,
                        self.value_range, self.keep, self.corrected)
            self.seen = dict.fromkeys(candidates, 0)
            steps = self._steps(model, stack, race, judge, data)
            for seen, ran in enumerate(steps, 1):
                self.seen.update(dict.fromkeys(ran, seen))
                if seen in race.checks:
                    race.check(judge.values(race.left))
                if len(race.left) <= self.keep:
                    break
        return _scores(race, judge, self.higher_is_better)

    def _steps(self, model: nn.Module, stack: BlockStack, race: Race,
               judge: AnyJudge, data: ShuffledBatches) -> Iterator[List[int]]:
        """Run batch after batch, those of an interrupted call first.

        Yields:
            The candidates that ran.
        """
        states = self.journal.read() if self.journal is not None else []
        for place, found, self.executions in states:
            judge.put(place, found)
            yield list(found)
        for place, batch in with_progress(data.after(len(states))):
            left = list(race.left)
            if place + 1 == len(data):
                batch = judge.without_repeats(data.loader, batch)
            self._run(model, stack, left, judge, place, batch)
            if self.journal is not None:
                self.journal.add(
                    (place, judge.get(place, left), self.executions))
            yield left

    def checks(self, total: int) -> List[int]:
        """When candidates may leave.

        Args:
            total: Batches of the subset.

        Returns:
            Numbers of seen batches, below ``total``.
        """
        usual = max(2, total // 8) if self.bound == HALVING else max(
            4, total // 16)
        steps, step = [], float(self.first or usual)
        while round(step) < total:
            steps.append(round(step))
            step = max(step * self.growth, step + 1)
        return steps

    def _run(self, model: nn.Module, stack: BlockStack, left: Sequence[int],
             judge: AnyJudge, place: int, batch: dict) -> None:
        """One batch without each candidate in turn."""
        if not len(batch['data_samples']):
            judge.put(place, dict.fromkeys(left, judge.nothing))
            return
        data = model.data_preprocessor(batch, False)
        with SharedPrefix(stack) as prefix:
            for index in prefix.candidates(left):
                judge.take(index, place, stack.model, data, batch)
        self.executions += prefix.executions

    def _shorten(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int],
                 batches: ShuffledBatches) -> List[int]:
        """Candidates of the least block influence, in order."""
        change = torch.zeros(len(stack), 2, dtype=torch.float64)

        def listen(index: int):

            def hook(module: nn.Module, args: tuple, kwargs: dict,
                     output: Any) -> None:
                near = torch.cosine_similarity(
                    block_tensor(output),
                    block_tensor([*args, *kwargs.values()]),
                    dim=-1)
                change[index, 0] += (1 - near).double().sum().cpu()
                change[index, 1] += near.numel()

            return hook

        handles = [
            stack[i].register_forward_hook(listen(i), with_kwargs=True)
            for i in candidates
        ]
        try:
            for _, (_, batch) in zip(range(self.shortlist_batches), batches):
                data = model.data_preprocessor(batch, False)
                stack.model(**data, mode='tensor')
                self.executions += len(stack.remaining)
        finally:
            for handle in handles:
                handle.remove()
        all_reduce(change)
        influence = (change[:, 0] / change[:, 1]).tolist()
        order = sorted(candidates, key=lambda i: (influence[i], i))
        return sorted(order[:self.shortlist])


def _scores(race: Race, judge: AnyJudge, higher_is_better: bool) -> Scores:
    """Scores of those left, and worse ones for those that left."""
    scores = {i: judge.score(i) for i in race.left}
    sign = 1 if higher_is_better else -1
    for index, leader, gap in reversed(race.lost):
        scores[index] = scores[leader] - sign * gap
    return dict(sorted(scores.items()))


def _choice(key: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1, 0)[0]
        raise ValueError(f'scorer.{key} is {value!r}, expected one of '
                         f'{list(choices)}; did you mean {near!r}?')
