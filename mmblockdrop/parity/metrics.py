"""Post-processing and scoring of detections in the published code."""
from typing import Any, Mapping, Sequence, Tuple

from mmblockdrop.evaluation import TADMetric
from mmblockdrop.evaluation.activitynet import (JSON, Evaluation,
                                                annotated_rows, detected_rows,
                                                positive_length, score_rows)
from mmblockdrop.registry import METRICS

import numpy as np

#: Decimals of segments, in seconds, and of scores.
DECIMALS = (2, 4)
#: One segment, before any video, in place of all that have zero length.
NOWHERE = (-2., -1.)


@METRICS.register_module()
class PublishedTADMetric(TADMetric):
    """Metric that rounds detections before suppression.

    The published code rounds segments to 0.01 s and scores to 0.0001 when it
    leaves the model, before windows are merged. Scores below 0.00005 become
    zero and vanish, and among scores that have become equal chance decides.

    Takes the arguments of
    :class:`~mmblockdrop.evaluation.tad_metric.TADMetric`.
    """

    def join(self, windows: Sequence[Mapping[str, Any]]
             ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rounded detections, see
        :meth:`~mmblockdrop.evaluation.tad_metric.TADMetric.join`."""
        segments, scores, labels = super().join(windows)
        return (segments.round(DECIMALS[0]), scores.round(DECIMALS[1]), labels)


def evaluate_as_published(ground_truth: JSON,
                          predictions: JSON,
                          tiou_thresholds: Sequence[float],
                          subset: str = 'validation',
                          blocked: Sequence[str] = (),
                          top_k: Sequence[int] = ()) -> Evaluation:
    """Score a file of detections as the published code does.

    That code takes the label *Ambiguous* of THUMOS14 for a class. Nothing is
    trained to find it, so its average precision of zero enters the mean, and
    a detection on an ambiguous stretch is false.

    Args:
        ground_truth: This and the rest: see
            :func:`~mmblockdrop.evaluation.activitynet.evaluate_detections`.
        predictions: See there.
        tiou_thresholds: See there.
        subset: See there.
        blocked: See there.
        top_k: See there.

    Returns:
        The score.
    """
    rows = annotated_rows(ground_truth, subset, blocked)
    return score_rows(
        positive_length(rows), detected_rows(predictions, blocked),
        tiou_thresholds, top_k)


def evaluate_as_official(ground_truth: JSON,
                         predictions: JSON,
                         tiou_thresholds: Sequence[float],
                         subset: str = 'validation') -> Evaluation:
    """Score a file of detections as the official ActivityNet code does.

    That code counts repeated annotations and those of zero length, and
    divides zero by zero where a detection of zero length meets one of these:
    wherever in the video the two are, the result counts as a hit. A repeated
    annotation can only be found by repeating a detection.

    Args:
        ground_truth: This and the rest: see
            :func:`~mmblockdrop.evaluation.activitynet.evaluate_detections`.
        predictions: See there.
        tiou_thresholds: See there.
        subset: See there.

    Returns:
        The score.
    """
    annotated, detected = (
        [(name, dict(row, segment=NOWHERE) if _is_empty(row) else row)
         for name, row in rows]
        for rows in (annotated_rows(ground_truth, subset),
                     detected_rows(predictions)))
    return score_rows(
        annotated, detected, tiou_thresholds, distinct=lambda gt: gt)


def _is_empty(row: Mapping[str, Any]) -> bool:
    start, end = row['segment']
    return start == end
