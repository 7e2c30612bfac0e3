"""Score the candidates of a round. Proposes, never edits."""
import difflib
from abc import ABCMeta, abstractmethod
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

from mmblockdrop.compression import BlockStack, block_tensor
from mmblockdrop.registry import SCORERS

import numpy as np
import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .batches import ShuffledBatches
from .candidates import Results, for_each_candidate
from .partial_scores import Journal, walk

Scores = Dict[int, float]


class Scorer(metaclass=ABCMeta):
    """Base of all rules.

    Attributes:
        higher_is_better: Whether the candidate with the highest score is the
            one to drop.
        executions: Block executions of the last call.
        journal: Where a call may keep what it has found, so that an
            interrupted one goes on; see :func:`walk`.
        cache_mb: Memory for decoded windows, kept from round to round; see
            :class:`~.batches.ShuffledBatches`.
    """

    higher_is_better = True
    executions = 0
    journal: Optional[Journal] = None
    cache_mb = 0.
    _batches: Optional[ShuffledBatches] = None

    @abstractmethod
    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """Score what the model is without each candidate.

        Args:
            model: The model, not wrapped, as the runner holds it. It is left
                as it was.
            stack: The blocks of the localizer.
            candidates: Original numbers of the candidates.
            batches: The scoring batches; has ``dataset``.
            new_evaluator: Gives a fresh evaluator.

        Returns:
            Candidate to score, the same on every process.
        """

    def kept(self, batches: Any, seed: Optional[int] = None) -> Any:
        """The same batches; those that fit into memory are read once.

        Args:
            batches: The scoring batches.
            seed: Seed of their order; None keeps it.

        Returns:
            ``batches`` themselves where nothing would change.
        """
        if seed is None and not (self.cache_mb
                                 and isinstance(batches, DataLoader)):
            return batches
        if self._batches is None or self._batches.loader is not batches:
            self._batches = ShuffledBatches(batches, seed, self.cache_mb)
        return self._batches

    def best(self, scores: Scores, count: int = 1) -> List[int]:
        """Choose the blocks to drop; ties go to the lowest number.

        Args:
            scores: Candidate to score.
            count: How many.

        Returns:
            Original numbers, the best first.
        """
        sign = -1 if self.higher_is_better else 1
        return sorted(scores, key=lambda i: (sign * scores[i], i))[:count]


@SCORERS.register_module()
class MetricScorer(Scorer):
    """The metric that is left without the block (paper, section 3.2).

    All candidates see a batch before the next one is read, and share the
    blocks before the missing one.

    Args:
        metric: Key of the evaluator. Defaults to the mean over tIoU.
        share_prefix: Compute common blocks once; the scores are the same bit
            for bit. Defaults to True.
        cache_mb: See :class:`Scorer`. Defaults to 0, none.
    """

    def __init__(self,
                 metric: str = 'tad/mAP',
                 share_prefix: bool = True,
                 cache_mb: float = 0.) -> None:
        self.metric = metric
        self.share_prefix = share_prefix
        self.cache_mb = cache_mb

    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """See :meth:`Scorer.__call__`.

        Raises:
            KeyError: The evaluator gives no such metric; lists those it
                gives.
        """
        evaluators = {i: new_evaluator() for i in candidates}
        results = Results(evaluators)

        def run(index: int, batch: dict) -> None:
            evaluators[index].process(model.val_step(batch), batch)

        self.executions = for_each_candidate(
            model, stack, candidates, self.kept(batches), run,
            self.share_prefix, self.journal, results.take, results.put)
        size = len(batches.dataset)
        return {
            i: pick(evaluators[i].evaluate(size), self.metric)
            for i in candidates
        }


@SCORERS.register_module()
class LossScorer(Scorer):
    """The loss that is left without the block; the lowest wins.

    The loss is averaged over batches weighted by their samples, so it
    depends on the batch size wherever the localizer normalises over a
    batch.

    Args:
        with_alignments: Add the losses against the teacher. Defaults to False,
            the task losses alone.
        share_prefix: See :class:`MetricScorer`. Without effect where an
            alignment compares modules inside the blocks.
        cache_mb: See :class:`Scorer`. Defaults to 0, none.
    """

    higher_is_better = False

    def __init__(self,
                 with_alignments: bool = False,
                 share_prefix: bool = True,
                 cache_mb: float = 0.) -> None:
        self.with_alignments = with_alignments
        self.share_prefix = share_prefix
        self.cache_mb = cache_mb

    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """See :meth:`Scorer.__call__`."""
        scored = model if self.with_alignments else stack.model
        total = torch.zeros(len(stack) + 1, dtype=torch.float64)

        def run(index: int, batch: dict) -> None:
            data = model.data_preprocessor(batch, False)
            losses = scored(**data, mode='loss')
            loss = sum(_mean(v) for k, v in losses.items() if 'loss' in k)
            samples = len(data['data_samples'])
            total[index] += loss.double().cpu() * samples
            if index == candidates[0]:
                total[-1] += samples

        self.executions = for_each_candidate(model, stack, candidates,
                                             self.kept(batches), run,
                                             self._shares(model, stack),
                                             self.journal, total.clone,
                                             total.copy_, padded=False)
        all_reduce(total)
        return {i: (total[i] / total[-1]).item() for i in candidates}

    def _shares(self, model: nn.Module, stack: BlockStack) -> bool:
        """Whether no alignment listens inside a block that would not run."""
        paths: Iterable[str] = getattr(model, 'alignment_paths', list)()
        blocks = tuple(f'{name}.' for name in stack.names.values())
        return self.share_prefix and not (
            self.with_alignments and any(
                path.startswith(blocks) for path in paths))


@SCORERS.register_module()
class BlockChangeScorer(Scorer):
    """How much a block changes its input; the smallest change goes.

    Mean squared difference of output and input over all elements. One
    forward pass a batch serves all candidates.

    Args:
        cache_mb: See :class:`Scorer`. Defaults to 0, none.
    """

    higher_is_better = False

    def __init__(self, cache_mb: float = 0.) -> None:
        self.cache_mb = cache_mb

    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """See :meth:`Scorer.__call__`."""
        total = torch.zeros(len(stack), 2, dtype=torch.float64)

        def keep(index: int):

            def hook(module: nn.Module, args: tuple, kwargs: dict,
                     output: Any) -> None:
                given = block_tensor([*args, *kwargs.values()])
                gap = (block_tensor(output) - given).double().square()
                total[index] += torch.tensor([gap.sum(), gap.numel()]).cpu()

            return hook

        handles = [
            stack[i].register_forward_hook(keep(i), with_kwargs=True)
            for i in candidates
        ]
        self.executions = len(batches) * len(stack.remaining)
        try:
            model.eval()
            with torch.no_grad():
                for batch in walk(
                        self.kept(batches), self.journal, total.clone,
                        total.copy_, padded=False):
                    model.val_step(batch)
        finally:
            for handle in handles:
                handle.remove()
        all_reduce(total)
        return {i: (total[i, 0] / total[i, 1]).item() for i in candidates}


@SCORERS.register_module()
class RandomScorer(Scorer):
    """Any block, for comparison.

    Args:
        seed: Seed of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, model: nn.Module, stack: BlockStack,
                 candidates: Sequence[int], batches: Any,
                 new_evaluator: Callable[[], Any]) -> Scores:
        """See :meth:`Scorer.__call__`; looks at nothing."""
        order = np.random.default_rng(self.seed).random(len(stack))
        return {i: float(order[i]) for i in candidates}


def pick(metrics: Dict[str, float], key: str,
         option: Optional[str] = 'metric') -> float:
    """Take one metric.

    Args:
        metrics: What the evaluator gave.
        key: Which one.
        option: Config key, for the error.

    Returns:
        Its value.

    Raises:
        KeyError: Not among them.
    """
    if key not in metrics:
        near = difflib.get_close_matches(key, metrics, n=1, cutoff=0)
        hint = f', the nearest is {near[0]!r}' if near else ''
        raise KeyError(f'{option}={key!r} is not given by the evaluator; it '
                       f'gives {sorted(metrics)}{hint}')
    return float(metrics[key])


def _mean(value: Any) -> Tensor:
    if isinstance(value, (list, tuple)):
        return sum(_mean(v) for v in value)
    return value.mean()
