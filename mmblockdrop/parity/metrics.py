"""Post-processing of detections in the published code."""
from typing import Any, Dict, Mapping, Sequence, Tuple

from mmblockdrop.evaluation import TADMetric
from mmblockdrop.registry import METRICS

import numpy as np

#: Decimals of segments, in seconds, and of scores.
DECIMALS = (2, 4)


def published_nms(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Suppression whose voting acts where the published code votes.

    That code ignores ``voting_thresh`` where classes are suppressed apart,
    which is how its THUMOS14 configs set it: the boundaries it refines in
    theory are those of single predictions.

    Args:
        settings: Arguments of :func:`~mmblockdrop.evaluation.nms`.

    Returns:
        The same, without ``voting_thresh`` where it is ignored.
    """
    settings = dict(settings)
    if not settings.get('class_agnostic'):
        settings.pop('voting_thresh', None)
    return settings


@METRICS.register_module()
class PublishedTADMetric(TADMetric):
    """Metric with the rounding and the voting of the published code.

    - Segments are rounded to 0.01 s and scores to 0.0001 before suppression.
      Scores below 0.00005 become zero and vanish, and equal scores get an
      order by chance.
    - Voting: see :func:`published_nms`.

    Takes the arguments of
    :class:`~mmblockdrop.evaluation.tad_metric.TADMetric`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.nms is not None:
            self.nms = published_nms(self.nms)

    def join(self, windows: Sequence[Mapping[str, Any]]
             ) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rounded detections, see
        :meth:`~mmblockdrop.evaluation.tad_metric.TADMetric.join`."""
        segments, scores, labels = super().join(windows)
        return (segments.round(DECIMALS[0]), scores.round(DECIMALS[1]), labels)
