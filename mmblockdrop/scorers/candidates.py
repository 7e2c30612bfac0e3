"""Run a model once without each candidate, batch after batch."""
from typing import Any, Callable, Dict, List, Optional, Sequence

from mmblockdrop.compression import BlockStack, SharedPrefix

import torch
from torch import nn

from .partial_scores import Journal, walk


def for_each_candidate(model: nn.Module, stack: BlockStack,
                       candidates: Sequence[int], batches: Any,
                       run: Callable[[Any, dict], None],
                       share_prefix: bool,
                       journal: Optional[Journal] = None,
                       take: Callable[[], Any] = lambda: None,
                       put: Callable[[Any], Any] = lambda state: None,
                       padded: bool = True) -> int:
    """Call ``run(candidate, batch)`` with the candidate left out.

    Args:
        model: Model, put into evaluation mode.
        stack: Its blocks.
        candidates: Original numbers.
        batches: Batches.
        run: What to do with the model.
        share_prefix: Compute common blocks once.
        journal: Keeps what every batch gave.
        take: Gives what the last batch added to the scores.
        put: Takes back what ``take`` gave in an earlier process.
        padded: See :func:`~mmblockdrop.scorers.partial_scores.walk`.

    Returns:
        Number of block executions, those of earlier processes included.
    """
    model.eval()
    executions = 0

    def restore(state: Any) -> None:
        nonlocal executions
        executions, found = state
        put(found)

    with torch.no_grad():
        for batch in walk(batches, journal, lambda: (executions, take()),
                          restore, padded):
            if share_prefix:
                with SharedPrefix(stack) as prefix:
                    for index in prefix.candidates(candidates):
                        run(index, batch)
                executions += prefix.executions
            else:
                for index in candidates:
                    with stack.without(index):
                        run(index, batch)
                    executions += len(stack.remaining) - 1
    return executions


class Results:
    """What evaluators have gathered since it was last asked for.

    Args:
        evaluators: Candidate to evaluator.
    """

    def __init__(self, evaluators: Dict[int, Any]) -> None:
        self.metrics = {i: e.metrics for i, e in evaluators.items()}
        self.mark()

    def mark(self) -> None:
        """Count what is there as asked for."""
        self.seen = {
            i: [len(m.results) for m in metrics]
            for i, metrics in self.metrics.items()
        }

    def take(self) -> Dict[int, List[list]]:
        """What is new.

        Returns:
            Candidate to the results of each metric.
        """
        new = {
            i: [m.results[n:] for m, n in zip(metrics, self.seen[i])]
            for i, metrics in self.metrics.items()
        }
        self.mark()
        return new

    def put(self, state: Dict[int, List[list]]) -> None:
        """Add results of an earlier process.

        Args:
            state: What :meth:`take` gave.
        """
        for i, metrics in self.metrics.items():
            for metric, results in zip(metrics, state[i]):
                metric.results += results
        self.mark()
