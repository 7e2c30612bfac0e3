"""Score by what a candidate does to the encoder's features, after repair."""
from typing import Any, List

from mmblockdrop.compression import LinearRepair
from mmblockdrop.compression.record import Id
from mmblockdrop.compression.repair import record
from mmblockdrop.registry import REPAIRS, SCORERS

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
    and no detector is needed.

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
            dict(repair, refit=False, _scope_='mmblockdrop'))

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
        read: List[Any] = list(context.batches_after(0, repeats=False))
        batches = [b for b in read if b is not None]
        kept = batches[HELD_OUT - 1::HELD_OUT] or batches[-1:]
        fitted = [b for b in batches if not any(b is k for k in kept)] or kept

        def run(localizer: torch.nn.Module, batch: Any) -> Any:
            return localizer(
                **model.data_preprocessor(batch, False), mode='tensor')

        def features(localizer: torch.nn.Module, batch: Any) -> torch.Tensor:
            found = record(localizer, {encoder: 'output'},
                           lambda: run(localizer, batch))
            return found[encoder, 'output'].double()

        results = CandidateResults(context.candidates)
        student.eval()
        with torch.no_grad():
            wanted = [features(teacher, batch) for batch in kept]
            sums = self.repair.sums_of(student, teacher, structure,
                                       context.candidates, fitted, run)
            for candidate in context.candidates:
                with structure.without(candidate), self.repair.tried(
                        sums.get(candidate)):
                    for batch, target in zip(kept, wanted):
                        gap = features(student, batch) - target
                        spread = target - target.mean()
                        results.add(candidate,
                                    gap.square().sum().item(),
                                    spread.square().sum().item())
                results.executions += len(kept) * (
                    len(structure.remaining) - 1)
        results.executions += len(fitted) * len(structure.remaining)
        self.executions = results.executions
        return results.means(context.candidates)


def encoder_path(block: str) -> str:
    """Dotted path of the encoder that holds a block, such as 'backbone'."""
    return block.partition('.')[0]
