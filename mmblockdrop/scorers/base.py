"""What every scorer is given, what it gives, and what it keeps."""
import math
import re
from abc import ABCMeta, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import (Any, Callable, Dict, Iterator, List, Mapping, Optional,
                    Sequence, Tuple)

from mmblockdrop.compression import SharedPrefix, Structure
from mmblockdrop.compression.record import Id
from mmblockdrop.compression.repair import Change
from mmblockdrop.utils.messages import did_you_mean, listed, require_finite
from mmblockdrop.utils.progress import with_progress

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from torch import nn

from .partial_scores import (PartialScores, batches_at, can_skip,
                             repeated_samples)

Scores = Dict[Id, float]


class CandidateResults:
    """What scoring has found for each candidate, batch by batch.

    The one state of a scorer that an interrupted run hands on:
    :meth:`state` gives what was added since it was last called,
    :meth:`load` adds it again.

    Args:
        candidates: Ids of the candidates.
        evaluators: Candidate to the evaluator that processes its predictions.

    Attributes:
        sums: Candidate to pairs, a sum of values and their number; one pair
            per batch or more.
        executions: Block executions so far.
    """

    def __init__(self,
                 candidates: Sequence[Id],
                 evaluators: Optional[Dict[Id, Evaluator]] = None) -> None:
        self.sums: Dict[Id, List[Tuple[float, float]]] = {
            i: []
            for i in candidates
        }
        self.evaluators = evaluators or {}
        self.executions = 0
        self._mark()

    def add(self, candidate: Id, total: float, number: float) -> None:
        """Add values of a batch.

        Args:
            candidate: Id of the candidate that was left out.
            total: Sum of the values.
            number: How many they are.

        Raises:
            ValueError: The sum is not a finite number.
        """
        require_finite(total, f'Without {candidate} the sum over batch '
                       f'{len(self.sums[candidate]) + 1}')
        self.sums[candidate].append((total, number))

    def means(self, candidates: Sequence[Id]) -> Scores:
        """Mean of all values of some candidates.

        Args:
            candidates: Their ids.

        Returns:
            Candidate to mean, the same on every process.
        """
        table = torch.tensor(
            [[math.fsum(pair[k] for pair in self.sums[i]) for k in (0, 1)]
             for i in candidates],
            dtype=torch.float64)
        all_reduce(table)
        means = (table[:, 0] / table[:, 1]).tolist()
        return dict(zip(candidates, means))

    def state(self) -> Dict[str, Any]:
        """What is new.

        Returns:
            Plain data and what the metrics keep.
        """
        new = dict(
            executions=self.executions,
            sums={i: pairs[self._seen[i]:]
                  for i, pairs in self.sums.items()},
            results={
                i: [
                    metric.results[n:]
                    for metric, n in zip(e.metrics, self._processed[i])
                ]
                for i, e in self.evaluators.items()
            })
        self._mark()
        return new

    def load(self, state: Dict[str, Any]) -> None:
        """Add what an earlier process had found.

        Args:
            state: What :meth:`state` gave.

        Raises:
            ValueError: A sum is not a finite number.
        """
        self.executions = state['executions']
        for i, pairs in state['sums'].items():
            for total, number in pairs:
                self.add(i, total, number)
        for i, results in state['results'].items():
            for metric, found in zip(self.evaluators[i].metrics, results):
                metric.results += found
        self._mark()

    def _mark(self) -> None:
        """Count what is there as given."""
        self._seen = {i: len(pairs) for i, pairs in self.sums.items()}
        self._processed = {
            i: [len(metric.results) for metric in e.metrics]
            for i, e in self.evaluators.items()
        }


@dataclass
class ScoringContext:
    """What the candidates of a round are scored by and on.

    Args:
        model: The model, not wrapped, as the runner holds it. A scorer leaves
            it as it was.
        structure: What can be removed from its localizer.
        candidates: Ids of the candidates, in the order in which they run.
        batches: The scoring batches; they have ``dataset`` and a length.
        new_evaluator: Gives an evaluator with nothing counted yet.
        drops: How many candidates the round drops.
        partial_scores: Keeps what was found, for the case of an interruption.
    """
    model: nn.Module
    structure: Structure
    candidates: Sequence[Id]
    batches: Any
    new_evaluator: Callable[[], Evaluator]
    drops: int = 1
    partial_scores: Optional[PartialScores] = None

    def restore(self, results: CandidateResults) -> int:
        """Take over what an interrupted scoring had found.

        Args:
            results: Takes it.

        Returns:
            Number of batches that were scored, the same on every process.
        """
        if self.partial_scores is None or not can_skip(self.batches):
            return 0
        states = self.partial_scores.read()
        for state in states:
            results.load(state)
        if states:
            print_log(
                f'{len(states)} of {len(self.batches)} batches were scored '
                'before the interruption', 'current')
        return len(states)

    def keep(self, results: CandidateResults) -> None:
        """Keep what the last batch has added.

        Args:
            results: Has it.
        """
        if self.partial_scores is not None and can_skip(self.batches):
            self.partial_scores.add(results.state())

    def batches_after(self,
                      done: int,
                      order: Optional[Sequence[int]] = None,
                      repeats: bool = True) -> Iterator[Any]:
        """Read the batches behind the first ones.

        Args:
            done: How many to leave out; they are not read.
            order: Places of the batches, in the order to read them. Defaults
                to that of the loader.
            repeats: Whether a sample stays in that several processes have,
                because their number does not divide that of the samples.
                Metrics leave it out themselves; sums must not count it twice.

        Yields:
            Batch after batch; None for one of which nothing is left.
        """
        last = len(self.batches) - 1
        extra = 0 if repeats else repeated_samples(self.batches)
        places = list(order if order is not None else range(last + 1))[done:]
        plain = order is None and not done
        read = self.batches if plain else batches_at(self.batches, places)
        for batch, place in zip(with_progress(read), places):
            if extra and place == last and isinstance(batch, dict):
                batch = {k: v[:-extra] for k, v in batch.items()}
                if not any(len(v) for v in batch.values()):
                    batch = None
            yield batch

    def unscored_batches(self,
                         results: CandidateResults,
                         repeats: bool = True) -> Iterator[Any]:
        """Read the batches that an interrupted scoring has not finished.

        What the caller adds to ``results`` for a batch is kept when it asks
        for the next.

        Args:
            results: Takes what was found before.
            repeats: See :meth:`batches_after`.

        Yields:
            Batch after batch.
        """
        for batch in self.batches_after(
                self.restore(results), repeats=repeats):
            if batch is not None:
                yield batch
            self.keep(results)

    def without_each(self,
                     candidates: Sequence[Id],
                     run: Callable[[Id], None],
                     results: CandidateResults,
                     share_prefix: bool = True,
                     changes: Optional[Mapping[Id, Change]] = None) -> None:
        """Let the model lack one candidate after another, on one batch.

        Args:
            candidates: Their ids.
            run: Called with the id while the model lacks that candidate, in
                evaluation mode and without gradients.
            results: Counts block executions.
            share_prefix: Compute what the candidates have in common once.
            changes: The repair of each candidate that has one.
        """
        changes = changes or {}

        def run_changed(candidate: Id) -> None:
            with changes[candidate].tried() if (
                    candidate in changes) else nullcontext():
                run(candidate)

        self.model.eval()
        with torch.no_grad():
            if share_prefix:
                with SharedPrefix(self.structure) as prefix:
                    for candidate in prefix.candidates(candidates):
                        run_changed(candidate)
                results.executions += prefix.executions
                return
            for candidate in candidates:
                with self.structure.without(candidate):
                    run_changed(candidate)
                results.executions += len(self.structure.remaining) - 1


class Scorer(metaclass=ABCMeta):
    """Base of all rules by which candidates are scored.

    A rule proposes; it never changes the model.

    Attributes:
        higher_is_better: Whether the candidate with the highest score is the
            one to drop.
        executions: Block executions of the last call.
    """

    higher_is_better = True
    executions = 0

    @abstractmethod
    def __call__(self, context: ScoringContext) -> Scores:
        """Score what the model is without each candidate.

        Args:
            context: Model, candidates and data.

        Returns:
            Candidate to score, the same on every process.
        """

    def best(self, scores: Scores, count: int = 1) -> List[Id]:
        """Choose the candidates to drop; ties go to the lowest number.

        Args:
            scores: Candidate to score.
            count: How many.

        Returns:
            Their ids, the best first.
        """
        sign = -1 if self.higher_is_better else 1
        return sorted(
            scores, key=lambda i: (sign * scores[i], natural(i)))[:count]


def natural(part: Id) -> List[Any]:
    """Sort key of an id, by which 'blocks.9' comes before 'blocks.10'."""
    return [int(x) if x.isdigit() else x
            for x in re.split(r'(\d+)', str(part))]


def pick(metrics: Dict[str, Any], key: str, option: str = 'metric',
         of: str = 'The model') -> float:
    """Take one metric.

    Args:
        metrics: What the evaluator gave.
        key: Which one.
        option: Config key, for the error.
        of: What was evaluated, for the error.

    Returns:
        Its value.

    Raises:
        KeyError: Not among them; names the nearest.
        ValueError: It is not a finite number.
    """
    if key not in metrics:
        raise KeyError(f'{option}={key!r} is not given by the evaluator: '
                       f'expected one of {listed(sorted(metrics))}'
                       f'{did_you_mean(key, metrics)}')
    return require_finite(metrics[key], f'{of} has {key}')
