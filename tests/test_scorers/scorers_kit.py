"""What scorers are given, at toy size."""
import copy

from mmblockdrop.compression import BlockStack
from mmblockdrop.scorers import ScoringContext

from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from toy import loader

#: Fine enough for every candidate to have a score of its own.
EVALUATOR = dict(
    type='mmblockdrop.TADMetric',
    tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


def make_batches(videos, size=2):
    """Scoring batches of some toy videos."""
    return Runner.build_dataloader(dict(loader(videos, 0), batch_size=size))


def make_context(model, batches, dropped=(), candidates=None,
                 structure=BlockStack, **settings):
    """Context of a model that has lost blocks.

    Args:
        model: The localizer, or a wrapper with a ``student``.
        batches: Scoring batches.
        dropped: Blocks that are removed from it first.
        candidates: Defaults to all that remain.
        structure: What is removed.
        **settings: Other fields of the context.
    """
    stack = structure(getattr(model, 'student', model), 'backbone.blocks')
    for index in dropped:
        stack.remove(index)

    def new_evaluator():
        evaluator = Evaluator([copy.deepcopy(EVALUATOR)])
        evaluator.dataset_meta = batches.dataset.metainfo
        return evaluator

    settings.setdefault('new_evaluator', new_evaluator)
    return ScoringContext(model, stack, candidates or stack.candidates(),
                          batches, **settings)
