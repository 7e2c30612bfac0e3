"""Segments of many videos as flat arrays."""
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

#: Annotations of one class whose ends agree within this many seconds are
#: one annotation.
SAME_WITHIN = 1e-3


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


def unique_annotations(gt: Instances,
                       same_within: float = SAME_WITHIN) -> Instances:
    """Drop annotations of zero length and repeated ones.

    Args:
        gt: Annotations.
        same_within: Two annotations of a video and class are one if both ends
            differ by at most this many seconds. Defaults to 1e-3.

    Returns:
        What is left, the first of each repeated one, in order.
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


def by_score(det: Instances) -> np.ndarray:
    """Order of falling score.

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
