"""Average precision of temporal detections.

The rules are those of the ActivityNet evaluation: detections are visited by
descending score, each takes the free instance of its class and video that it
overlaps most, and is a hit if that overlap reaches the threshold. Precision
is interpolated, recall is exact, all in float64.

Every function works on flat arrays over all videos. Pairs of a detection and
an instance are found once, and the greedy assignment runs in lock-step over
all videos, classes and thresholds.
"""
from typing import NamedTuple, Optional, Sequence

from mmblockdrop.structures.segments import (Instances, by_score, count_within,
                                             overlaps, video_class_keys)

import numpy as np


class APTable(NamedTuple):
    """Average precision by threshold and class.

    Attributes:
        ap: Shape (T, K).
        classes: Labels that have annotations, shape (K, ).
        num_gt: Annotations by class, shape (K, ).
        num_det: Detections by class, shape (K, ).
    """
    ap: np.ndarray
    classes: np.ndarray
    num_gt: np.ndarray
    num_det: np.ndarray


def average_precision(
        gt: Instances,
        det: Instances,
        tiou_thresholds: Sequence[float],
        ignored: Optional[Instances] = None) -> APTable:
    """Interpolated average precision of every class that is annotated.

    A class without detections counts 0. Detections of a class that is not
    annotated count nowhere; those in a video without annotations are false.

    Args:
        gt: Annotations, see
            :func:`~mmblockdrop.structures.segments.unique_annotations`.
        det: Detections.
        tiou_thresholds: Temporal IoU thresholds, shape (T, ).
        ignored: Stretches that neither reward nor punish, such as THUMOS14's
            *Ambiguous*: a detection that touches one, whatever its class, is
            not counted as false.

    Returns:
        Average precision by threshold and class.
    """
    thresholds = np.asarray(tiou_thresholds, np.float64)
    classes, num_gt = np.unique(gt.labels, return_counts=True)
    det = det.select(np.isin(det.labels, classes))
    det = det.select(by_score(det))
    hit = _assign(gt, det, thresholds)
    spared = np.zeros(len(det.labels), bool)
    if ignored is not None and len(ignored.labels):
        index, _, _ = overlaps(ignored.videos, ignored.segments, det.videos,
                               det.segments, 0.)
        spared[index] = True

    ap = np.zeros((len(thresholds), len(classes)))
    num_det = np.zeros(len(classes), np.int64)
    # Class by class, by descending score within each.
    order = np.argsort(det.labels, kind='stable')
    hit, spared = hit[:, order], spared[order]
    ends = np.searchsorted(det.labels[order], classes, 'right')
    start = 0
    for k, end in enumerate(ends):
        num_det[k] = end - start
        if end > start:
            ap[:, k] = _interpolated(hit[:, start:end], spared[start:end],
                                     num_gt[k])
        start = end
    return APTable(ap, classes, num_gt, num_det)


def _assign(gt: Instances, det: Instances,
            thresholds: np.ndarray) -> np.ndarray:
    """Greedy assignment of detections, which come by descending score.

    Returns:
        Whether a detection is a hit, bool, shape (T, D).
    """
    hit = np.zeros((len(thresholds), len(det.labels)), bool)
    gt_keys, det_keys = video_class_keys(gt, det)
    index, partner, iou = overlaps(gt_keys, gt.segments, det_keys,
                                   det.segments, thresholds.min())
    if not len(index):
        return hit
    # Row: a detection that overlaps something; column: its instances, the
    # best overlap first; the last instance is a dummy that nothing fits.
    rows, row = np.unique(index, return_inverse=True)
    column = count_within(index)
    options = np.full((len(rows), column.max() + 1), len(gt.labels))
    quality = np.full(options.shape, -1.)
    options[row, column], quality[row, column] = partner, iou
    free = np.ones((len(thresholds), len(gt.labels) + 1), bool)
    # The n-th detection of every video and class is one step.
    order = np.argsort(det_keys[rows], kind='stable')
    turn = np.zeros(len(rows), np.int64)
    turn[order] = count_within(det_keys[rows][order])
    by_turn = np.argsort(turn, kind='stable')
    each_threshold = np.arange(len(thresholds))[:, None]
    for now in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        fits = free[:, options[now]] & (
            quality[now] >= thresholds[:, None, None])
        best = fits.argmax(2)
        taken = fits.any(2)
        choice = options[now, best]
        free[each_threshold, np.where(taken, choice, len(gt.labels))] = False
        hit[:, rows[now]] = taken
    return hit


def _interpolated(hit: np.ndarray, spared: np.ndarray,
                  num_gt: int) -> np.ndarray:
    """Area under the interpolated curve of one class, shape (T, )."""
    true = hit.cumsum(1)
    counted = (hit | ~spared).cumsum(1)
    precision = true / np.maximum(counted, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    return (precision * hit).sum(1) / num_gt
