"""Score by what a candidate does to the encoder's features, after repair."""
from typing import Any, Tuple

from mmblockdrop.compression import LinearRepair, Structure, block_tensor
from mmblockdrop.compression.record import Id
from mmblockdrop.registry import REPAIRS, SCORERS
from mmblockdrop.utils.recorder import record

import torch

from .base import CandidateResults, Scorer, Scores, ScoringContext
from .repaired import (batches_at, executions_counted, repair_candidates,
                       run_plainly, teacher_of)

#: One of so many batches is held out.
HELD_OUT = 5


@SCORERS.register_module()
class FeatureErrorScorer(Scorer):
    """How far the encoder's features are from the teacher's, after repair.

    Each candidate is removed and the layer in front of it repaired in closed
    form (:class:`~mmblockdrop.compression.repair.LinearRepair`); the score is
    the squared error of the encoder's features on batches that were held out,
    as a share of the variance of the teacher's. The smallest goes. No label
    and no detector is needed. One pass of the teacher over a batch serves all
    candidates, which share the blocks before the repaired one. Every batch is
    read once; an interrupted scoring begins again.

    Args:
        repair: Repair of a candidate. Its ``refit`` is not used: only the
            layer in front of the candidate is fitted.

    Raises:
        ValueError: When called: the model has no teacher.
    """

    higher_is_better = False

    def __init__(self,
                 repair: dict = dict(type='mmblockdrop.LinearRepair')) -> None:
        self.repair: LinearRepair = REPAIRS.build(
            dict(repair, _scope_='mmblockdrop'))

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`."""
        teacher = teacher_of(context, 'train_cfg.scorer=FeatureErrorScorer')
        structure = context.structure
        encoder = features_path(structure)
        places = range(len(context.batches))
        held = places[HELD_OUT - 1::HELD_OUT] or places[-1:]
        fitted = [i for i in places if i not in held] or list(held)

        def features(localizer: torch.nn.Module, batch: Any) -> torch.Tensor:
            with record(localizer, [encoder]) as found:
                run_plainly(context, localizer, batch)
            return block_tensor(found[encoder])

        results = CandidateResults(context.candidates)
        changes = repair_candidates(context, self.repair, teacher, results,
                                    fitted)
        for batch in batches_at(context, list(held)):
            with torch.no_grad(), executions_counted(context, results,
                                                     teacher):
                wanted = features(teacher, batch)

            def compare(candidate: Id) -> None:
                results.add(
                    candidate,
                    *feature_gap(features(structure.model, batch), wanted))

            context.without_each(
                context.candidates, compare, results, changes=changes)
        self.executions = results.executions
        return results.means(context.candidates)


def features_path(structure: Structure) -> str:
    """Dotted path of the module that returns the features.

    Args:
        structure: What can be removed.

    Returns:
        The encoder, such as 'backbone'; the last block of blocks that lie in
        the localizer itself.
    """
    first = structure.block_of(structure.order[0])
    encoder = first.partition('.')[0]
    module = structure.model.get_submodule(encoder)
    if isinstance(module, torch.nn.ModuleList) or encoder == first:
        return structure.block_of(structure.order[-1])
    return encoder


def feature_gap(features: torch.Tensor,
                wanted: torch.Tensor) -> Tuple[float, float]:
    """Compare features with those of the teacher.

    Args:
        features: Of the student, any shape.
        wanted: Of the teacher, the same shape, on any device.

    Returns:
        Squared error and squared deviation from the mean of the teacher's,
        summed over all elements.
    """
    wanted = wanted.to(features.device).double()
    gap = features.double() - wanted
    return (gap.square().sum().item(),
            (wanted - wanted.mean()).square().sum().item())
