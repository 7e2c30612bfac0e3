"""Recall of temporal detections."""
from typing import Sequence

from mmblockdrop.structures.segments import (Instances, by_score, count_within,
                                             overlaps, video_class_keys)

import numpy as np


def average_recall(gt: Instances, det: Instances,
                   tiou_thresholds: Sequence[float],
                   max_proposals: int) -> np.ndarray:
    """Recall against the average number of proposals, whatever the class.

    As in the ActivityNet proposal task: the ``n``-th point keeps the same
    share of every video's detections, so that ``n`` are kept on average.

    Args:
        gt: Annotations.
        det: Detections.
        tiou_thresholds: Thresholds to average over.
        max_proposals: Last point of the curve.

    Returns:
        Average recall at 1, 2, ... proposals, shape (max_proposals, ).
    """
    return annotation_recall(gt, det, tiou_thresholds, max_proposals).mean(0)


def annotation_recall(gt: Instances, det: Instances,
                      tiou_thresholds: Sequence[float],
                      max_proposals: int) -> np.ndarray:
    """Share of the thresholds at which each annotation is found.

    Args:
        gt: Annotations.
        det: Detections.
        tiou_thresholds: See :func:`average_recall`.
        max_proposals: See :func:`average_recall`.

    Returns:
        Of 1, 2, ... proposals per video on average, shape (N, max_proposals);
        one row of zeros without annotations.
    """
    det = det.select(by_score(det))
    if not len(gt.labels) or not len(det.labels):
        return np.zeros((max(1, len(gt.labels)), max_proposals))
    found, counts = np.unique(det.videos, return_counts=True)
    num_videos = len(np.union1d(found, gt.videos))
    share = max_proposals * num_videos / len(det.videos)
    share = np.arange(1, max_proposals + 1) / max_proposals * share
    first = _first_hit(gt.videos, gt, det.videos, det, tiou_thresholds)
    mine = np.zeros(len(gt.videos))
    known = np.isin(gt.videos, found)
    mine[known] = counts[np.searchsorted(found, gt.videos[known])]
    kept = np.minimum(np.floor(mine[:, None] * share), mine[:, None])
    return (first[:, :, None] < kept).mean(0)


def top_recall(gt: Instances, det: Instances, tiou_thresholds: Sequence[float],
               multiples: Sequence[int]) -> np.ndarray:
    """Recall of the best ``k * n`` detections of a video and class, where
    ``n`` is the number of its annotations; mean over classes.

    Args:
        gt: Annotations.
        det: Detections.
        tiou_thresholds: Thresholds, shape (T, ).
        multiples: Values of ``k``, shape (R, ).

    Returns:
        Shape (T, R).
    """
    det = det.select(by_score(det))
    gt_keys, det_keys = video_class_keys(gt, det)
    first = _first_hit(gt_keys, gt, det_keys, det, tiou_thresholds)
    _, inverse, counts = np.unique(
        gt_keys, return_inverse=True, return_counts=True)
    reach = counts[inverse][:, None] * np.asarray(multiples)
    hit = first[:, :, None] < reach
    return np.mean(
        [hit[:, gt.labels == k].mean(1) for k in np.unique(gt.labels)], 0)


def _first_hit(gt_keys: np.ndarray, gt: Instances, det_keys: np.ndarray,
               det: Instances, tiou_thresholds: Sequence[float]) -> np.ndarray:
    """Rank, among the detections of its key, of the best scored one that
    reaches each annotation; infinite if there is none. Shape (T, N)."""
    thresholds = np.asarray(tiou_thresholds, np.float64)
    order = np.argsort(det_keys, kind='stable')
    rank = np.zeros(len(order), np.int64)
    rank[order] = count_within(det_keys[order])
    index, partner, iou = overlaps(gt_keys, gt.segments, det_keys,
                                   det.segments, thresholds.min())
    first = np.full((len(thresholds), len(gt_keys)), np.inf)
    for t, threshold in enumerate(thresholds):
        enough = iou >= threshold
        np.minimum.at(first[t], partner[enough], rank[index[enough]])
    return first
