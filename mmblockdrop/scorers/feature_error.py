"""Score by what a candidate does to the encoder's features, after repair."""
from contextlib import ExitStack
from typing import Any

from mmblockdrop.compression import LinearRepair, block_tensor
from mmblockdrop.registry import REPAIRS, SCORERS
from mmblockdrop.utils.recorder import record

import torch

from .base import CandidateResults, Scorer, Scores, ScoringContext

#: One of so many batches is held out.
HELD_OUT = 5


@SCORERS.register_module()
class FeatureErrorScorer(Scorer):
    """How far the encoder's features are from the teacher's, after repair.

    Each candidate is removed and the layer in front of it repaired in closed
    form (:class:`~mmblockdrop.compression.repair.LinearRepair`); the score is
    the squared error of the encoder's features on batches that were held out,
    as a share of the variance of the teacher's. The smallest goes. No label
    and no detector is needed. Every batch is read once; an interrupted scoring
    begins again.

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
        model, structure = context.model, context.structure
        if not hasattr(model, 'uncompressed'):
            raise ValueError(
                'train_cfg.scorer=FeatureErrorScorer compares with a teacher: '
                "expected model.type='mmblockdrop.TeacherStudentWrapper', "
                f'found {type(model).__name__}')
        student, teacher = structure.model, model.uncompressed()
        encoder = encoder_path(structure.block_of(structure.order[0]))
        places = range(len(context.batches))
        held = places[HELD_OUT - 1::HELD_OUT] or places[-1:]
        fitted = [i for i in places if i not in held] or list(held)

        def run(localizer: torch.nn.Module, batch: Any) -> None:
            localizer(**model.data_preprocessor(batch, False), mode='tensor')

        def features(localizer: torch.nn.Module, batch: Any) -> torch.Tensor:
            with record(localizer, [encoder]) as found:
                run(localizer, batch)
            return block_tensor(found[encoder]).double()

        def batches_at(places: Any) -> Any:
            read = context.batches_after(0, list(places), repeats=False)
            return (batch for batch in read if batch is not None)

        results = CandidateResults(context.candidates)
        student.eval()
        with torch.no_grad():
            changes = self.repair.changes(student, teacher, structure,
                                          context.candidates,
                                          batches_at(fitted), run)
            for batch in batches_at(held):
                wanted = features(teacher, batch)
                spread = (wanted - wanted.mean()).square().sum().item()
                for candidate in context.candidates:
                    with ExitStack() as stack:
                        stack.enter_context(structure.without(candidate))
                        if candidate in changes:
                            stack.enter_context(changes[candidate].tried())
                        gap = features(student, batch) - wanted
                    results.add(candidate, gap.square().sum().item(), spread)
        remaining = len(structure.remaining)
        results.executions = len(fitted) * remaining + len(held) * len(
            context.candidates) * (remaining - 1)
        self.executions = results.executions
        return results.means(context.candidates)


def encoder_path(block: str) -> str:
    """Dotted path of the encoder that holds a block, such as 'backbone'."""
    return block.partition('.')[0]
