"""Score by the metric that the model reaches without the candidate."""
from mmblockdrop.compression import LinearRepair
from mmblockdrop.registry import SCORERS

from .base import CandidateResults, Scorer, Scores, ScoringContext, pick
from .repaired import repair_candidates, teacher_of


@SCORERS.register_module()
class MetricScorer(Scorer):
    """The metric without the candidate (paper, section 3.2).

    All candidates see a batch before the next one is read, and share the
    blocks before the missing one.

    Args:
        metric: Key of the evaluator. Defaults to the mean over tIoU.
        share_prefix: Compute common blocks once; the scores are the same bit
            for bit. Defaults to True.
        repaired: Repair each candidate in closed form
            (:class:`~mmblockdrop.compression.repair.LinearRepair`) before it
            is judged, for runs with ``train_cfg.repair``. Only the layer in
            front of it is fitted, by one more pass over the batches, in which
            one pass of the teacher serves all candidates. Needs a teacher.
    """

    def __init__(self,
                 metric: str = 'tad/mAP',
                 share_prefix: bool = True,
                 repaired: bool = False) -> None:
        self.metric = metric
        self.share_prefix = share_prefix
        self.repaired = repaired

    def __call__(self, context: ScoringContext) -> Scores:
        """See :meth:`Scorer.__call__`.

        Raises:
            KeyError: The evaluator gives no such metric; names the nearest.
            ValueError: A candidate's metric is not a finite number; or
                ``repaired`` without a teacher.
        """
        evaluators = {i: context.new_evaluator() for i in context.candidates}
        results = CandidateResults(context.candidates, evaluators)
        changes, fitting = None, 0
        if self.repaired:
            teacher = teacher_of(context, 'train_cfg.scorer.repaired')
            counted = CandidateResults(context.candidates)
            changes = repair_candidates(context, LinearRepair(), teacher,
                                        counted)
            fitting = counted.executions
        for batch in context.unscored_batches(results):
            context.without_each(
                context.candidates, lambda i: evaluators[i].process(
                    context.model.val_step(batch), batch), results,
                self.share_prefix, changes)
        self.executions = results.executions + fitting
        size = len(context.batches.dataset)
        unit = context.structure.unit
        return {
            i: pick(evaluator.evaluate(size), self.metric,
                    'train_cfg.scorer.metric', f'Without {unit} {i} the model')
            for i, evaluator in evaluators.items()
        }
