"""Segments of many videos as flat arrays."""
from typing import NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch

ArrayLike = Union[np.ndarray, torch.Tensor]
#: Elements of the largest temporary table of overlaps.
CHUNK = 2_000_000
#: Annotations of one class whose ends agree within this many seconds are
#: one annotation.
SAME_WITHIN = 1e-3


class Segments(NamedTuple):
    """Detections of one video, best first.

    Attributes:
        segments: Start and end, shape (N, 2), in the unit given.
        scores: Shape (N, ).
        labels: Shape (N, ).
    """
    segments: ArrayLike
    scores: ArrayLike
    labels: ArrayLike


class Instances(NamedTuple):
    """Segments of many videos; annotations, or detections with scores.

    Attributes:
        videos: Number of the video of each segment, shape (N, ).
        segments: Start and end in seconds, shape (N, 2), float64.
        labels: Shape (N, ), int64.
        scores: Shape (N, ), float64. None for annotations.
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
        """Make arrays of the right type and shape.

        Args:
            videos: Number of the video of each segment.
            segments: Start and end in seconds.
            labels: Number of the class of each segment.
            scores: Of detections. Defaults to None.

        Returns:
            The segments.
        """
        return cls(
            np.asarray(videos, np.int64).reshape(-1),
            np.asarray(segments, np.float64).reshape(-1, 2),
            np.asarray(labels, np.int64).reshape(-1),
            None if scores is None else np.asarray(scores,
                                                   np.float64).reshape(-1))

    def select(self, index: np.ndarray) -> 'Instances':
        """Take some of the segments.

        Args:
            index: Mask or indices.

        Returns:
            The chosen segments.
        """
        return Instances(*(None if x is None else x[index] for x in self))


def unique_annotations(gt: Instances,
                       same_within: float = SAME_WITHIN) -> Instances:
    """Drop annotations of zero length and repeated ones.

    Args:
        gt: Annotations.
        same_within: Two annotations of a video and class are one if both ends
            differ by at most this many seconds. Defaults to 1e-3.

    Returns:
        The others, the first of each repeated one, in order.
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


def overlaps(gt_keys: np.ndarray, gt_segments: np.ndarray,
             det_keys: np.ndarray, det_segments: np.ndarray,
             floor: float) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of equal key whose IoU is positive and reaches ``floor``.

    Args:
        gt_keys: Number of the group of each annotation, (N, ).
        gt_segments: Shape (N, 2).
        det_keys: Number of the group of each detection, (D, ).
        det_segments: Shape (D, 2).
        floor: Least IoU.

    Returns:
        Index of the detection, of the annotation, and their IoU, ordered by
        detection and descending IoU; of equal IoU the later annotation comes
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
        row, col = np.nonzero(real & (iou > 0) & (iou >= floor))
        found.append((part[row], index[row, col], iou[row, col]))
    det, gt, iou = (np.concatenate(x) for x in zip(
        *found)) if found else (np.zeros(0, int), np.zeros(0, int),
                                np.zeros(0))
    order = np.lexsort((-gt, -iou, det))
    return det[order], gt[order], iou[order]


def by_score(det: Instances) -> np.ndarray:
    """Order of descending score.

    Of equal scores the later comes first, as in the official evaluation.

    Args:
        det: Detections.

    Returns:
        Indices, shape (D, ).
    """
    return np.argsort(det.scores, kind='stable')[::-1]


def video_class_keys(gt: Instances,
                     det: Instances) -> Tuple[np.ndarray, np.ndarray]:
    """One number for each video and class.

    Args:
        gt: Annotations.
        det: Detections.

    Returns:
        Numbers of the annotations and detections.
    """
    width = int(max(gt.labels.max(initial=0), det.labels.max(initial=0))) + 1
    return gt.videos * width + gt.labels, det.videos * width + det.labels


def count_within(values: np.ndarray) -> np.ndarray:
    """Position of every element within its run of equal values.

    Args:
        values: Shape (N, ), equal ones next to each other.

    Returns:
        0, 1, ... within each run, shape (N, ).
    """
    start = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    length = np.diff(np.append(start, len(values)))
    return np.arange(len(values)) - np.repeat(start, length)
