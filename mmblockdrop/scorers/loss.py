"""Score by the loss that the model has without the candidate."""
from typing import Any, Dict, List, Tuple

from mmblockdrop.registry import SCORERS
from mmblockdrop.utils.batches import batch_size, run_model

from torch import Tensor, nn

from .base import CandidateResults, Scorer, Scores, ScoringContext


@SCORERS.register_module()
class LossScorer(Scorer):
    """The loss without the candidate; the lowest wins.

    The loss is averaged over batches weighted by their samples, so it
    depends on the batch size wherever the localizer normalises over a
    batch.

    Args:
        with_alignments: Add the losses against the teacher. Defaults to False,
            the task losses alone.
        share_prefix: See :class:`MetricScorer`. Without effect where an
            alignment compares modules inside the candidates.
    """

    higher_is_better = False

    def __init__(self,
                 with_alignments: bool = False,
                 share_prefix: bool = True) -> None:
        self.with_alignments = with_alignments
        self.share_prefix = share_prefix

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`."""
        model, structure = context.model, context.structure
        scored = model if self.with_alignments else structure.model
        results = CandidateResults(context.candidates)
        share = self.share_prefix and not (
            self.with_alignments and _aligned_inside(context))
        for batch in context.unscored_batches(results, repeats=False):
            data = model.data_preprocessor(batch, False)
            context.without_each(
                context.candidates,
                lambda i: results.add(i, *summed_loss(scored, data)), results,
                share)
        self.executions = results.executions
        return results.means(context.candidates)


def summed_loss(model: nn.Module, data: Dict[str, Any]) -> Tuple[float, int]:
    """Loss of a batch, summed over its samples.

    Args:
        model: The model.
        data: A batch, preprocessed.

    Returns:
        The sum, and the number of samples.
    """
    losses = run_model(model, data, 'loss')
    loss = sum(_mean(v) for k, v in losses.items() if 'loss' in k)
    samples = batch_size(data)
    return loss.double().item() * samples, samples


def _mean(value: Any) -> Tensor:
    """Mean of a tensor, sum of the means of a list."""
    if isinstance(value, (list, tuple)):
        return sum(_mean(v) for v in value)
    return value.mean()


def _aligned_inside(context: ScoringContext) -> bool:
    """Whether an alignment compares modules inside a candidate."""
    paths: List[str] = getattr(context.model, 'alignment_paths', list)()
    inside = tuple(f'{name}.' for name in context.structure.names.values())
    return any(path.startswith(inside) for path in paths)
