"""Average precision of temporal detections.

The rules are those of the ActivityNet evaluation: detections are visited by
descending score, each takes the free instance of its class and video that it
overlaps most, and is a hit if that overlap reaches the threshold. Precision
is interpolated, recall is exact, all in float64.

Every function works on flat arrays over all videos. Pairs of a detection and
an instance are found once, and the greedy assignment runs in lock-step over
all videos, classes and thresholds.

The assignment of a video does not depend on the other videos. So for the
bootstrap over videos (B. Efron, "Bootstrap methods", Annals of Statistics 7,
1979) detections are matched once, and a resample only weights them.
"""
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

from mmblockdrop.structures.segments import (CHUNK, Instances, by_score,
                                             count_within, overlaps,
                                             video_class_keys)

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


class Matches(NamedTuple):
    """Detections of annotated classes, and which of them are hits.

    Detections are ordered by class and descending score.

    Attributes:
        hit: Whether a detection is a hit at a threshold, bool, shape (T, D).
        spared: Whether it is not counted as false, bool, shape (D, ).
        det_videos: Number of its video, shape (D, ).
        det_ends: Where the detections of a class end, shape (K, ).
        classes: Labels that have annotations, shape (K, ).
        gt_videos: Number of the video of an annotation, shape (N, ).
        gt_classes: Index in ``classes`` of its label, shape (N, ).
        num_videos: Videos that were evaluated.
    """
    hit: np.ndarray
    spared: np.ndarray
    det_videos: np.ndarray
    det_ends: np.ndarray
    classes: np.ndarray
    gt_videos: np.ndarray
    gt_classes: np.ndarray
    num_videos: int


def match_detections(gt: Instances,
                     det: Instances,
                     tiou_thresholds: Sequence[float],
                     ignored: Optional[Instances] = None,
                     num_videos: Optional[int] = None) -> Matches:
    """Find the hits among the detections of all videos.

    Args:
        gt: Annotations, see :func:`average_precision`.
        det: Detections.
        tiou_thresholds: Temporal IoU thresholds, shape (T, ).
        ignored: See :func:`average_precision`.
        num_videos: Videos that were evaluated, numbered from 0. Defaults to
            those up to the last that has an annotation or a detection.

    Returns:
        The matches.
    """
    if num_videos is None:
        num_videos = 1 + max(
            gt.videos.max(initial=-1), det.videos.max(initial=-1))
    thresholds = np.asarray(tiou_thresholds, np.float64)
    classes, gt_classes = np.unique(gt.labels, return_inverse=True)
    det = det.select(np.isin(det.labels, classes))
    det = det.select(by_score(det))
    hit = _assign(gt, det, thresholds)
    spared = np.zeros(len(det.labels), bool)
    if ignored is not None and len(ignored.labels):
        index, _, _ = overlaps(ignored.videos, ignored.segments, det.videos,
                               det.segments, 0.)
        spared[index] = True
    order = np.argsort(det.labels, kind='stable')
    return Matches(hit[:, order], spared[order], det.videos[order],
                   np.searchsorted(det.labels[order], classes, 'right'),
                   classes, gt.videos, gt_classes, int(num_videos))


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
    return matched_precision(
        match_detections(gt, det, tiou_thresholds, ignored))


def matched_precision(matches: Matches) -> APTable:
    """Average precision of matched detections; see :func:`average_precision`.

    Args:
        matches: The matches.

    Returns:
        Average precision by threshold and class.
    """
    count = len(matches.classes)
    num_gt = np.bincount(matches.gt_classes, minlength=count)
    num_det = np.diff(matches.det_ends, prepend=0)
    ap = np.zeros((len(matches.hit), count))
    for k, (end, size) in enumerate(zip(matches.det_ends, num_det)):
        if size:
            part = slice(end - size, end)
            ap[:, k] = _interpolated(matches.hit[:, part],
                                     matches.spared[part], num_gt[k])
    return APTable(ap, matches.classes, num_gt, num_det)


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


# ---------------------------------------------------------------- bootstrap
def metric_interval(matches: Matches,
                    resamples: int = 1000,
                    seed: int = 0) -> Tuple[float, float]:
    """95 % interval of mAP, mean over thresholds, by bootstrap over videos.

    Args:
        matches: See :func:`match_detections`.
        resamples: Resamples of the videos.
        seed: Seed of the resamples; the same videos with the same seed are
            resampled alike, whatever the detections.

    Returns:
        See :func:`percentile_interval`.
    """
    value = matched_precision(matches).ap.mean()
    found = resampled_map(matches, resamples, seed).mean(1)
    return percentile_interval(found, float(value))


def percentile_interval(resampled: np.ndarray,
                        value: float,
                        level: float = 0.95) -> Tuple[float, float]:
    """Interval from what resamples give.

    A resample holds some videos twice, which moves average precision a little,
    whatever the model. The percentiles are moved back, so that the median of
    the resamples lies at the value itself.

    Args:
        resampled: Metric of the resamples, between 0 and 1, shape (B, ); NaN
            where a resample gives none.
        value: The metric of all videos.
        level: Share of the resamples inside the interval.

    Returns:
        Its low and high end; NaN where no resample gives a value.
    """
    resampled = resampled[~np.isnan(resampled)]
    if not len(resampled):
        return float('nan'), float('nan')
    ends = (1 - level) / 2, 0.5, (1 + level) / 2
    low, median, high = np.quantile(resampled, ends)
    low, high = np.clip([low + value - median, high + value - median], 0, 1)
    return float(low), float(high)


def resampled_map(matches: Matches,
                  resamples: int = 1000,
                  seed: int = 0) -> np.ndarray:
    """Mean average precision of resamples of the videos.

    A resample draws as many videos as there are, with replacement. Its mean is
    over the classes that it has annotations of.

    Args:
        matches: See :func:`match_detections`.
        resamples: Number of resamples, B.
        seed: See :func:`metric_interval`.

    Returns:
        Shape (B, T); NaN for resamples without annotation, and all NaN of
        fewer than two videos.
    """
    # Precision is read at hits alone: between two hits it falls, so the best
    # at a higher recall is at a hit as well.
    threshold, position = np.nonzero(matches.hit)
    count, thresholds = len(matches.classes), len(matches.hit)
    ends = matches.det_ends
    of_class = np.searchsorted(ends, position, 'right')
    group = threshold * count + of_class  # one per threshold and class, rising
    group_ends = np.searchsorted(
        group, np.arange(thresholds * count), 'right')
    first_hit = np.searchsorted(group, group)
    first_det = np.append(0, ends)[of_class]
    by_class = np.argsort(matches.gt_classes, kind='stable')
    gt_ends = np.bincount(matches.gt_classes, minlength=count).cumsum()

    def weighted(weights: np.ndarray) -> np.ndarray:
        hits = weights[matches.det_videos[position]]
        true = _sums_before(hits)
        true = true[1:] - true[first_hit]
        drawn = weights[matches.det_videos]
        drawn[matches.spared] = 0
        counted = _sums_before(drawn)
        counted = counted[position + 1] - counted[first_det]
        if matches.spared.any():  # hits among them count all the same
            extra = _sums_before(hits * matches.spared[position, None])
            counted += extra[1:] - extra[first_hit]
        precision = true / np.maximum(counted, 1)
        # The best from here to the end of the group. Two more for every group
        # before the last keep the groups apart.
        steps = 2. * (thresholds * count - group[:, None])
        precision = np.maximum.accumulate(
            (precision + steps)[::-1])[::-1] - steps
        area = _totals(precision * hits, group_ends)
        num_gt = _totals(weights[matches.gt_videos[by_class]], gt_ends)
        ap = area.reshape(thresholds, count, -1) / np.maximum(num_gt, 1)
        with np.errstate(invalid='ignore'):
            return (ap.sum(1) / (num_gt > 0).sum(0)).T

    size = len(matches.det_videos) + len(position)
    return resample_videos(weighted, matches.num_videos, size, resamples,
                           seed)


def resample_videos(metric: Callable[[np.ndarray], np.ndarray],
                    num_videos: int,
                    size: int,
                    resamples: int = 1000,
                    seed: int = 0) -> np.ndarray:
    """Evaluate resamples of videos, several at once.

    Args:
        metric: Takes how often each video was drawn, int64 [num_videos, b],
            and returns [b, ...].
        num_videos: Videos to draw from; as many are drawn.
        size: Numbers that the metric computes with per resample, to bound its
            memory.
        resamples: Number of resamples, B.
        seed: See :func:`metric_interval`.

    Returns:
        Shape (B, ...); all NaN of fewer than two videos.
    """
    draw = np.random.default_rng(seed)
    many = max(1, CHUNK // max(size, num_videos))
    found = []
    for start in range(0, resamples, many):
        rows = min(many, resamples - start)
        drawn = draw.integers(0, num_videos, (rows, num_videos))
        drawn += num_videos * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=drawn.size)
        found.append(
            metric(np.ascontiguousarray(weights.reshape(rows, -1).T)))
    values = np.concatenate(found)
    return values if num_videos > 1 else np.full(values.shape, np.nan)


def _sums_before(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... N of N rows, shape (N + 1, b)."""
    sums = np.zeros((len(values) + 1, values.shape[1]), values.dtype)
    np.cumsum(values, 0, out=sums[1:])
    return sums


def _totals(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of groups of neighbouring rows that end at ``ends``."""
    return np.diff(_sums_before(values)[ends], axis=0, prepend=0)
