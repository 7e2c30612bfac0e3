"""Which detections overlap which annotations, found once for all videos."""
from typing import Tuple

import numpy as np

#: Elements of the largest temporary table of overlaps.
CHUNK = 2_000_000


def overlaps(
    gt_keys: np.ndarray,
    gt_segments: np.ndarray,
    det_keys: np.ndarray,
    det_segments: np.ndarray,
    floor: float,
    empty_fits_empty: bool = False
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of equal key whose IoU is positive and reaches ``floor``.

    Args:
        gt_keys: Number of the group of each annotation, (N, ).
        gt_segments: Shape (N, 2).
        det_keys: Number of the group of each detection, (D, ).
        det_segments: Shape (D, 2).
        floor: Least IoU.
        empty_fits_empty: See
            :func:`~mmblockdrop.evaluation.average_precision.average_precision`.

    Returns:
        Index of the detection, of the annotation, and their IoU, ordered by
        detection and falling IoU; of equal IoU the later annotation comes
        first.
    """
    order = np.argsort(gt_keys, kind='stable')
    keys, start, counts = np.unique(
        gt_keys[order], return_index=True, return_counts=True)
    if not len(keys) or not len(det_keys):
        empty = np.zeros(0, np.int64)
        return empty, empty, np.zeros(0)
    group = np.minimum(np.searchsorted(keys, det_keys), len(keys) - 1)
    candidates = np.flatnonzero(keys[group] == det_keys)
    column = np.arange(counts.max())
    step = max(1, CHUNK // len(column))
    found = []
    for first in range(0, len(candidates), step):
        part = candidates[first:first + step]
        mine = group[part][:, None]
        real = column < counts[mine]
        index = order[np.where(real, start[mine] + column, 0)]
        s, e = gt_segments[index, 0], gt_segments[index, 1]
        ds, de = det_segments[part, 0, None], det_segments[part, 1, None]
        inter = np.maximum(np.minimum(e, de) - np.maximum(s, ds), 0)
        union = (e - s) + (de - ds) - inter
        iou = inter / np.maximum(union, 1e-8)
        if empty_fits_empty:
            iou[union == 0] = np.inf
        row, col = np.nonzero(real & (iou > 0) & (iou >= floor))
        found.append((part[row], index[row, col], iou[row, col]))
    det, gt, iou = (np.concatenate(x) for x in zip(
        *found)) if found else (np.zeros(0, int), np.zeros(0, int),
                                np.zeros(0))
    order = np.lexsort((-gt, -iou, det))
    return det[order], gt[order], iou[order]
