"""Average precision of temporal detections.

The rules are those of the ActivityNet evaluation: detections are visited by
falling score, each takes the free instance of its class and video that it
overlaps most, and is a hit if that overlap reaches the threshold. Precision
is interpolated, recall is exact, all in float64.

Every function works on flat arrays over all videos. Pairs of a detection and
an instance are found once, and the greedy assignment runs in lock-step over
all videos, classes and thresholds.
"""
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

#: Elements of the largest temporary table of overlaps.
CHUNK = 2_000_000
#: Annotations of one class whose ends agree within this many seconds are
#: one annotation.
SAME_WITHIN = 1e-3


class Instances(NamedTuple):
    """Segments of many videos; annotations, or detections with scores.

    Attributes:
        videos (ndarray): Number of the video of each segment, shape (N, ).
        segments (ndarray): Start and end in seconds, shape (N, 2), float64.
        labels (ndarray): Shape (N, ), int64.
        scores (ndarray, optional): Shape (N, ), float64. None for
            annotations.
    """
    videos: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
    scores: Optional[np.ndarray] = None

    @classmethod
    def build(cls,
              videos: Sequence[int],
              segments: Sequence[Sequence[float]],
              labels: Sequence[int],
              scores: Optional[Sequence[float]] = None) -> 'Instances':
        """Make arrays of the right type and shape."""
        return cls(
            np.asarray(videos, np.int64).reshape(-1),
            np.asarray(segments, np.float64).reshape(-1, 2),
            np.asarray(labels, np.int64).reshape(-1),
            None if scores is None else np.asarray(scores,
                                                   np.float64).reshape(-1))

    def select(self, index: np.ndarray) -> 'Instances':
        """Take some of the segments, by mask or index."""
        return Instances(*(None if x is None else x[index] for x in self))


class APTable(NamedTuple):
    """Average precision by threshold and class.

    Attributes:
        ap (ndarray): Shape (T, K).
        classes (ndarray): Labels that have annotations, shape (K, ).
        num_gt (ndarray): Annotations by class, shape (K, ).
        num_det (ndarray): Detections by class, shape (K, ).
    """
    ap: np.ndarray
    classes: np.ndarray
    num_gt: np.ndarray
    num_det: np.ndarray


def unique_annotations(gt: Instances,
                       same_within: float = SAME_WITHIN) -> Instances:
    """Drop annotations of zero length and repeated ones.

    Args:
        gt (Instances): Annotations.
        same_within (float): Two annotations of a video and class are one if
            both ends differ by at most this many seconds. Defaults to 1e-3.

    Returns:
        Instances: What is left, the first of each repeated one, in order.
    """
    gt = gt.select(gt.segments[:, 1] > gt.segments[:, 0])
    order = np.lexsort((gt.segments[:, 0], gt.labels, gt.videos))
    keep = np.ones(len(order), bool)
    videos, labels, segments = (x[order]
                                for x in (gt.videos, gt.labels, gt.segments))
    # Neighbours in order of start time: compare with the k-th next until no
    # start is close enough.
    for k in range(1, len(order)):
        near = (videos[k:] == videos[:-k]) & (labels[k:] == labels[:-k]) & (
            np.abs(segments[k:, 0] - segments[:-k, 0]) <= same_within)
        if not near.any():
            break
        same = near & (
            np.abs(segments[k:, 1] - segments[:-k, 1]) <= same_within)
        first, second = order[:-k][same], order[k:][same]
        keep[np.maximum(first, second)] = False
    return gt.select(keep)


def average_precision(
        gt: Instances,
        det: Instances,
        tiou_thresholds: Sequence[float],
        ignored: Optional[Instances] = None,
        empty_fits_empty: bool = False) -> APTable:
    """Interpolated average precision of every class that is annotated.

    A class without detections counts 0. Detections of a class that is not
    annotated count nowhere; those in a video without annotations are false.

    Args:
        gt (Instances): Annotations, see :func:`unique_annotations`.
        det (Instances): Detections.
        tiou_thresholds (Sequence[float]): Temporal IoU thresholds, shape
            (T, ).
        ignored (Instances, optional): Stretches that neither reward nor
            punish, such as THUMOS14's *Ambiguous*: a detection that touches
            one, whatever its class, is not counted as false.
        empty_fits_empty (bool): Whether two segments of zero length always
            overlap fully, as in the official ActivityNet code, which divides
            zero by zero and takes the result for a hit. Defaults to False.

    Returns:
        APTable: Average precision by threshold and class.
    """
    thresholds = np.asarray(tiou_thresholds, np.float64)
    classes, num_gt = np.unique(gt.labels, return_counts=True)
    det = det.select(np.isin(det.labels, classes))
    det = det.select(by_score(det))
    hit = _assign(gt, det, thresholds, empty_fits_empty)
    spared = np.zeros(len(det.labels), bool)
    if ignored is not None and len(ignored.labels):
        index, _, _ = overlaps(ignored.videos, ignored.segments, det.videos,
                               det.segments, 0.)
        spared[index] = True

    ap = np.zeros((len(thresholds), len(classes)))
    num_det = np.zeros(len(classes), np.int64)
    # Class by class, by falling score within each.
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


def by_score(det: Instances) -> np.ndarray:
    """Order of falling score.

    Of equal scores the later comes first, as in the official evaluation.

    Args:
        det (Instances): Detections.

    Returns:
        ndarray: Indices, shape (D, ).
    """
    return np.argsort(det.scores, kind='stable')[::-1]


def video_class_keys(gt: Instances,
                     det: Instances) -> Tuple[np.ndarray, np.ndarray]:
    """One number for each video and class.

    Args:
        gt (Instances): Annotations.
        det (Instances): Detections.

    Returns:
        tuple[ndarray, ndarray]: Numbers of the annotations and detections.
    """
    width = int(max(gt.labels.max(initial=0), det.labels.max(initial=0))) + 1
    return gt.videos * width + gt.labels, det.videos * width + det.labels


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
        gt_keys (ndarray): Number of the group of each annotation, (N, ).
        gt_segments (ndarray): Shape (N, 2).
        det_keys (ndarray): Number of the group of each detection, (D, ).
        det_segments (ndarray): Shape (D, 2).
        floor (float): Least IoU.
        empty_fits_empty (bool): See :func:`average_precision`.

    Returns:
        tuple: Index of the detection, of the annotation, and their IoU,
        ordered by detection and falling IoU; of equal IoU the later
        annotation comes first.
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


def count_within(values: np.ndarray) -> np.ndarray:
    """Position of every element within its run of equal values.

    Args:
        values (ndarray): Shape (N, ), equal ones next to each other.

    Returns:
        ndarray: 0, 1, ... within each run, shape (N, ).
    """
    start = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    length = np.diff(np.append(start, len(values)))
    return np.arange(len(values)) - np.repeat(start, length)


def _assign(gt: Instances, det: Instances, thresholds: np.ndarray,
            empty_fits_empty: bool) -> np.ndarray:
    """Greedy assignment of detections, which come by falling score.

    Returns:
        ndarray: Whether a detection is a hit, bool, shape (T, D).
    """
    hit = np.zeros((len(thresholds), len(det.labels)), bool)
    gt_keys, det_keys = video_class_keys(gt, det)
    index, partner, iou = overlaps(gt_keys, gt.segments, det_keys,
                                   det.segments, thresholds.min(),
                                   empty_fits_empty)
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
