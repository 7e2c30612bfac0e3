"""Average precision of actionness, start and end curves."""
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.registry import METRICS
from mmblockdrop.structures.time_grid import valid_share

import numpy as np
from mmengine.evaluator import BaseMetric

NAMES = ('action', 'start', 'end')


@METRICS.register_module()
class CurveMetric(BaseMetric):
    """Scores what TEM predicts, for which mmaction2 has no metric.

    Each step of each video is one example per curve: positive if more than
    ``match_threshold`` of the step lies in an action, or in the region
    around a start or an end, as in TEM's own targets (BSN, arXiv
    1806.02964, section 3.4). The score is the average precision over all
    steps.

    Reported, under ``curve/``: ``mAP``, the mean of ``AP_action``,
    ``AP_start`` and ``AP_end``; a curve without a positive step is left out.

    The predictions are those of TEM, pairs of a video's name and an array
    ``[T, 5]``, with samples that hold ``gt_instances.gt_bbox`` (use
    ``GenerateLocalizationLabels`` in the pipeline); or the samples of
    ``EndToEndLocalizer`` in front of TEM, with ``curves``.

    Args:
        match_threshold: Defaults to 0.5.
        boundary_ratio: Width of the region around a boundary as a share of the
            action, at least one step. Defaults to 0.1.
        collect_device: Defaults to 'cpu'.
        prefix: Defaults to 'curve'.
    """

    default_prefix = 'curve'

    def __init__(self,
                 match_threshold: float = 0.5,
                 boundary_ratio: float = 0.1,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.match_threshold = match_threshold
        self.boundary_ratio = boundary_ratio

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Keep the curves and targets of a batch.

        Args:
            data_batch: Holds the samples.
            data_samples: Predictions.

        Raises:
            ValueError: A prediction has no curves, or a sample no targets.
        """
        for i, prediction in enumerate(data_samples):
            if isinstance(prediction, tuple):
                sample = data_batch['data_samples'][i]
                boxes = sample.get('gt_instances', {}).get('gt_bbox')
                curves, valid = prediction[1][:, :3], len(prediction[1])
            elif 'curves' in prediction:
                curves = prediction['curves'][:, :3]
                size = prediction.get('window_size', len(curves))
                valid = int(
                    np.ceil(
                        valid_share(prediction, len(curves)) * len(curves)))
                boxes = prediction['gt_instances']['segments'] / size
            else:
                raise ValueError(
                    'CurveMetric scores the curves of TEM, and the '
                    f'predictions have none: {sorted(prediction)}')
            if boxes is None:
                raise ValueError(
                    'CurveMetric needs gt_bbox in the samples: add '
                    "dict(type='GenerateLocalizationLabels') and keys="
                    "('gt_bbox', ) to the pipeline of validation")
            curves = np.asarray(curves, np.float32)
            if not np.isfinite(curves).all():
                raise ValueError(
                    'CurveMetric is given curves with '
                    f'{(~np.isfinite(curves)).sum()} of {curves.size} values '
                    'that are NaN or infinite: expected finite numbers')
            labels = self.targets(np.asarray(boxes, np.float64), len(curves))
            self.results.append((curves[:valid], labels[:valid]))

    def targets(self, boxes: np.ndarray, steps: int) -> np.ndarray:
        """Which steps are positive.

        Args:
            boxes: Actions as shares of the video, ``[N, 2]``.
            steps: T.

        Returns:
            Bool ``[T, 3]``: action, start, end.
        """
        boxes = boxes.reshape(-1, 2)
        length = np.maximum(1 / steps,
                            self.boundary_ratio * (boxes[:, 1] - boxes[:, 0]))
        pad = np.stack([-length / 2, length / 2], 1)
        regions = (boxes, boxes[:, :1] + pad, boxes[:, 1:] + pad)
        return np.stack([
            _covered(region, steps) > self.match_threshold
            for region in regions
        ], 1)

    def compute_metrics(
        self, results: List[Tuple[np.ndarray, np.ndarray]]
    ) -> Dict[str, float]:
        """Average precision over the steps of all videos.

        Args:
            results: Curves and targets of each video.

        Returns:
            Metrics, without prefix.

        Raises:
            ValueError: No step is positive.
        """
        scores = np.concatenate([curves for curves, _ in results])
        labels = np.concatenate([targets for _, targets in results])
        found = {
            f'AP_{name}': step_precision(scores[:, k], labels[:, k])
            for k, name in enumerate(NAMES) if labels[:, k].any()
        }
        if not found:
            raise ValueError('CurveMetric: none of the '
                             f'{len(results)} videos has an action')
        return dict(mAP=float(np.mean(list(found.values()))), **found)


def step_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of scored steps; equal scores count as one.

    Args:
        scores: ``[N]``.
        labels: bool ``[N]``, at least one true.

    Returns:
        Mean precision over the true steps.
    """
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], labels[order].cumsum()
    last = np.append(scores[1:] != scores[:-1], True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    gained = np.diff(hits[last], prepend=0)
    return float((precision * gained).sum() / hits[-1])


def _covered(regions: np.ndarray, steps: int) -> np.ndarray:
    """Largest share of each step that one region covers, ``[T]``."""
    edges = np.arange(steps + 1) / steps
    inter = np.minimum(edges[1:, None], regions[:, 1]) - np.maximum(
        edges[:-1, None], regions[:, 0])
    return (inter.max(1, initial=0) * steps)
