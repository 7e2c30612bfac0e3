"""Candidates of which each is repaired in closed form before it is judged."""
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence

from mmblockdrop.compression import LinearRepair
from mmblockdrop.compression.bypass import DroppedBlock
from mmblockdrop.compression.record import Id
from mmblockdrop.compression.repair import Change
from mmblockdrop.utils.batches import run_model

import torch
from torch import nn

from .base import CandidateResults, ScoringContext


def teacher_of(context: ScoringContext, key: str) -> nn.Module:
    """The uncompressed localizer.

    Args:
        context: Has the model.
        key: Config key of what needs a teacher, for the error.

    Returns:
        The localizer, in evaluation mode.

    Raises:
        ValueError: The model has no teacher.
    """
    model = context.model
    if not hasattr(model, 'uncompressed'):
        raise ValueError(f'{key} compares with a teacher: expected model.type='
                         "'mmblockdrop.TeacherStudentWrapper', found "
                         f'{type(model).__name__}')
    return model.uncompressed()


def batches_at(context: ScoringContext,
               places: Optional[Sequence[int]] = None) -> Iterable[Any]:
    """Read some of the scoring batches, each sample in one process only.

    Args:
        context: Has the batches.
        places: Their places. Defaults to all.

    Returns:
        The batches; they are read anew on every walk.
    """
    return _Batches(context, places)


class _Batches:
    """See :func:`batches_at`."""

    def __init__(self, context: ScoringContext,
                 places: Optional[Sequence[int]]) -> None:
        self.context, self.places = context, places

    def __iter__(self) -> Iterator[Any]:
        read = self.context.batches_after(0, self.places, repeats=False)
        return (batch for batch in read if batch is not None)


def run_plainly(context: ScoringContext, localizer: nn.Module,
                batch: Any) -> None:
    """Run a localizer on a batch, without losses and suppression.

    Args:
        context: Has the preprocessor.
        localizer: Student or teacher.
        batch: What a loader gave.
    """
    data = context.model.data_preprocessor(batch, False)
    run_model(localizer, data, 'tensor')


def repair_candidates(
        context: ScoringContext,
        repair: LinearRepair,
        teacher: nn.Module,
        results: CandidateResults,
        places: Optional[Sequence[int]] = None) -> Dict[Id, Change]:
    """Find the repair of each candidate; one teacher pass serves them all.

    Args:
        context: Model, candidates and data.
        repair: How.
        teacher: See :func:`teacher_of`.
        results: Counts block executions.
        places: Places of the batches to fit to. Defaults to all.

    Returns:
        Candidate to change; those that cannot be repaired are left out.
    """
    student = context.structure.model
    student.eval()
    with torch.no_grad(), executions_counted(context, results, student,
                                             teacher):
        return repair.changes(
            student, teacher, context.structure, context.candidates,
            batches_at(context, places),
            lambda localizer, batch: run_plainly(context, localizer, batch))


@contextmanager
def executions_counted(context: ScoringContext, results: CandidateResults,
                       *models: nn.Module) -> Iterator[None]:
    """Count the executions of removable parts inside a ``with`` statement.

    Args:
        context: Names the parts.
        results: Counts.
        *models: Student, teacher or both.
    """

    def count(module: nn.Module, args: Any, output: Any) -> None:
        results.executions += 1

    parts = [
        model.get_submodule(name) for model in models
        for name in context.structure.names.values()
    ]
    handles = [
        part.register_forward_hook(count) for part in parts
        if not isinstance(part, DroppedBlock)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
