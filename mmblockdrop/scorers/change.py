"""Score by how much a candidate changes what the model computes."""
from typing import Any, Callable, Dict

from mmblockdrop.compression import block_tensor
from mmblockdrop.compression.record import Id
from mmblockdrop.registry import SCORERS

import torch
from torch import nn

from .base import CandidateResults, Scorer, Scores, ScoringContext


@SCORERS.register_module()
class BlockChangeScorer(Scorer):
    """How much a block changes its input; the smallest change goes.

    Mean squared difference, over all elements, of what a candidate returns
    and what would stand for it if it were removed: for a whole block its
    input. One forward pass a batch serves all candidates.
    """

    higher_is_better = False

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`."""
        structure = context.structure
        results = CandidateResults(context.candidates)

        def compare_with_stand_in(candidate: Id) -> Callable:
            stand_in = structure.stand_in(candidate)

            def hook(module: nn.Module, args: tuple, kwargs: Dict[str, Any],
                     output: Any) -> None:
                gap = block_tensor(output) - block_tensor(
                    stand_in(*args, **kwargs))
                results.add(candidate,
                            gap.double().square().sum().item(), gap.numel())

            return hook

        handles = [
            structure[i].register_forward_hook(
                compare_with_stand_in(i), with_kwargs=True)
            for i in context.candidates
        ]
        context.model.eval()
        try:
            with torch.no_grad():
                for batch in context.unscored_batches(
                        results, repeats=False):
                    context.model.val_step(batch)
                    results.executions += len(structure.remaining)
        finally:
            for handle in handles:
                handle.remove()
        self.executions = results.executions
        return results.means(context.candidates)
