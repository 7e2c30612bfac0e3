"""Greedy suppression of many groups in lock-step, in plain NumPy.

A group is a class of a video. Every step takes the best remaining segment of
each group and decays what it overlaps, as array operations over a ``[groups,
segments]`` table. No compiled extension.
"""
from typing import Callable, List, NamedTuple, Tuple

from mmblockdrop.structures.segments import count_within

import numpy as np

#: Added to every length in the overlap, so that a segment of zero length
#: has one.
LENGTH_EPS = 1e-6
#: Steps between two clean-ups of the table.
CLEAN_EVERY = 16

#: (scores, iou, length of the better segment) -> lowered scores, all
#: broadcast to (groups, segments).
Decay = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def soft_decay(method: str, iou_threshold: float, sigma: float, t1: float,
               t2: float) -> Decay:
    """How soft-NMS lowers scores; see :func:`~.postprocess.nms`."""
    threshold, sigma = np.float32(iou_threshold), np.float32(sigma)

    def naive(scores: np.ndarray, iou: np.ndarray, length: np.ndarray):
        return scores * (iou < threshold)

    def linear(scores: np.ndarray, iou: np.ndarray, length: np.ndarray):
        return scores * np.where(iou >= threshold, 1 - iou, np.float32(1))

    def gaussian(scores: np.ndarray, iou: np.ndarray, length: np.ndarray):
        return scores * np.exp(-(iou * iou) / sigma)

    def improved_gaussian(scores: np.ndarray, iou: np.ndarray,
                          length: np.ndarray):
        near = iou >= np.float32(t1) + np.float32(t2) * length
        return scores * np.where(near, np.exp(-(iou * iou) / sigma),
                                 np.float32(1))

    return dict(
        naive=naive,
        linear=linear,
        gaussian=gaussian,
        improved_gaussian=improved_gaussian)[method]


def hard_decay(iou_threshold: float) -> Decay:
    """How hard suppression lowers scores: all or nothing."""
    threshold = np.float32(iou_threshold)

    def hard(scores: np.ndarray, iou: np.ndarray, length: np.ndarray):
        return np.where(iou >= threshold, np.float32(-np.inf), scores)

    return hard


def suppress(segments: np.ndarray, scores: np.ndarray, groups: np.ndarray,
             owner: np.ndarray, decay: Decay, min_score: np.float32,
             limit: int) -> Tuple[np.ndarray, np.ndarray]:
    """Greedy suppression of all groups in lock-step.

    A row of the table is a group, ``-inf`` marks what has been taken or has
    vanished. Scores only fall, so once ``limit`` segments of a video have
    been taken, whatever is below the weakest of its best ``limit`` can
    neither enter the result nor influence it and leaves the table.

    Args:
        segments: Shape (N, 2), float32.
        scores: Shape (N, ), float32.
        groups: Group of each segment, shape (N, ).
        owner: Number of the video, rising, shape (N, ).
        decay: See :data:`Decay`.
        min_score: A segment that falls below it vanishes.
        limit: Segments of a video that count.

    Returns:
        Index of the survivors and their lowered scores, unsorted.
    """
    table = _Table.build(segments, scores, groups)
    taken: List[np.ndarray] = []
    taken_scores: List[np.ndarray] = []
    step = 0
    with np.errstate(invalid='ignore'):
        while table.index.size:
            rows = np.arange(len(table.index))
            best = table.scores.argmax(1)
            top = table.scores[rows, best]
            alive = top > -np.inf
            taken.append(table.index[rows, best][alive])
            taken_scores.append(top[alive])
            table.scores[rows, best] = -np.inf
            iou, length = table.overlap(rows, best)
            lowered = decay(table.scores, iou, length)
            # Also true for -inf times 0, which is not a number.
            lowered[~(lowered >= min_score)] = -np.inf
            table = table._replace(scores=lowered)
            step += 1
            floors = np.full(len(rows), -np.inf)
            if step % CLEAN_EVERY == 0:
                floors = _floors(taken, taken_scores, owner,
                                 limit)[owner[table.index[:, 0]]]
            elif alive.mean() > 0.75:
                continue
            table = table.clean(floors)
    if not taken:
        return np.zeros(0, int), np.zeros(0, np.float32)
    return np.concatenate(taken), np.concatenate(taken_scores)


def _floors(taken: List[np.ndarray], taken_scores: List[np.ndarray],
            owner: np.ndarray, limit: int) -> np.ndarray:
    """The ``limit``-th best score of each video, -inf if there are fewer."""
    floors = np.full(owner[-1] + 1, -np.inf)
    values, videos = np.concatenate(taken_scores), owner[np.concatenate(taken)]
    if len(values) < limit:
        return floors
    order = np.lexsort((-values, videos))
    last = order[count_within(videos[order]) == limit - 1]
    floors[videos[last]] = values[last]
    return floors


class _Table(NamedTuple):
    """Candidates by group: arrays of shape (groups, segments)."""
    index: np.ndarray
    scores: np.ndarray
    start: np.ndarray
    end: np.ndarray
    length: np.ndarray

    @classmethod
    def build(cls, segments: np.ndarray, scores: np.ndarray,
              groups: np.ndarray) -> '_Table':
        order = np.argsort(groups, kind='stable')
        _, row, counts = np.unique(
            groups[order], return_inverse=True, return_counts=True)
        first = np.cumsum(counts) - counts
        column = np.arange(len(order)) - np.repeat(first, counts)
        index = np.zeros((len(counts), counts.max(initial=0)), int)
        filled = np.zeros(index.shape, bool)
        index[row, column] = order
        filled[row, column] = True
        if not index.size:
            empty = np.zeros(index.shape, np.float32)
            return cls(index, empty, empty, empty, empty)
        start, end = segments[index, 0], segments[index, 1]
        return cls(index, np.where(filled, scores[index], -np.inf), start, end,
                   end - start + np.float32(LENGTH_EPS))

    def overlap(self, rows: np.ndarray,
                best: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """IoU of every segment with the best of its row, and its length."""
        length = self.length[rows, best][:, None]
        inter = np.minimum(self.end, self.end[rows, best][:, None])
        inter -= np.maximum(self.start, self.start[rows, best][:, None])
        np.maximum(inter, 0, out=inter)
        return inter / (length + self.length - inter), length

    def clean(self, floors: np.ndarray) -> '_Table':
        """Remove what is gone or below a row's floor, and empty rows."""
        alive = (self.scores > -np.inf) & (self.scores >= floors[:, None])
        counts = alive.sum(1)
        rows = np.flatnonzero(counts)
        width = counts.max(initial=0)
        if len(rows) == len(alive) and width > 0.7 * alive.shape[1]:
            return self._replace(
                scores=np.where(alive, self.scores, np.float32(-np.inf)))
        alive = alive[rows]
        order = np.argsort(~alive, axis=1, kind='stable')[:, :width]
        table = [np.take_along_axis(x[rows], order, 1) for x in self]
        table[1] = np.where(
            np.take_along_axis(alive, order, 1), table[1],
            np.float32(-np.inf))
        return _Table(*table)
