"""Suppression of temporal segments, in plain NumPy.

All classes of a video are suppressed in lock-step: every step takes the best
remaining segment of each class and decays what it overlaps, as array
operations over a ``[classes, segments]`` table. No compiled extension.
"""
import difflib
from typing import Callable, List, NamedTuple, Optional, Tuple, TypeVar, Union

import numpy as np
import torch

from .voting import vote_in_groups

ArrayLike = Union[np.ndarray, torch.Tensor]
T = TypeVar('T', np.ndarray, torch.Tensor)

#: Added to every length in the overlap, so that a segment of zero length
#: has one.
LENGTH_EPS = 1e-6
SOFT_METHODS = ('naive', 'linear', 'gaussian', 'improved_gaussian')
TYPES = ('soft_nms', 'nms')
#: Steps between two clean-ups of the table.
CLEAN_EVERY = 16


class Segments(NamedTuple):
    """Detections of one video, best first.

    Attributes:
        segments (array): Start and end, shape (N, 2), in the unit given.
        scores (array): Shape (N, ).
        labels (array): Shape (N, ).
    """
    segments: ArrayLike
    scores: ArrayLike
    labels: ArrayLike


def nms(segments: T,
        scores: T,
        labels: T,
        type: str = 'soft_nms',
        method: str = 'gaussian',
        iou_threshold: float = 0.1,
        sigma: float = 0.5,
        min_score: float = 0.001,
        max_num: Optional[int] = 200,
        class_agnostic: bool = False,
        voting_thresh: float = 0.,
        vote_per_class: bool = True,
        t1: float = 0.,
        t2: float = 0.) -> Segments:
    """Suppress overlapping segments of one video.

    Soft-NMS (`Bodla et al. <https://arxiv.org/abs/1704.04503>`_) lowers the
    score of what overlaps a better segment by ``w(iou)``:

    - ``gaussian``: ``exp(-iou^2 / sigma)``
    - ``improved_gaussian``: the same where ``iou >= t1 + t2 * length of the
      better segment`` (`BMN <https://arxiv.org/abs/1907.09702>`_), else 1
    - ``linear``: ``1 - iou`` where ``iou >= iou_threshold``, else 1
    - ``naive``: 0 where ``iou >= iou_threshold``, else 1

    A segment vanishes once its score has been lowered below ``min_score``.
    Voting then moves every kept segment to the score-weighted mean of all
    candidates that overlap it by at least ``voting_thresh``.

    Args:
        segments (Tensor or ndarray): Start and end, shape (N, 2).
        scores (Tensor or ndarray): Shape (N, ).
        labels (Tensor or ndarray): Shape (N, ).
        type (str): ``'soft_nms'`` or ``'nms'`` (hard). Defaults to
            ``'soft_nms'``.
        method (str): Decay of soft-NMS. Defaults to ``'gaussian'``.
        iou_threshold (float): Overlap at which ``linear``, ``naive`` and hard
            suppression act. Defaults to 0.1.
        sigma (float): Width of the Gaussian. Defaults to 0.5.
        min_score (float): Defaults to 0.001.
        max_num (int, optional): Segments kept per video. None or a value
            below 1 keeps all. Defaults to 200.
        class_agnostic (bool): Whether segments of different classes suppress
            each other. Defaults to False.
        voting_thresh (float): 0 switches voting off. Defaults to 0.
        vote_per_class (bool): Whether voting also acts when classes are
            treated apart; False reproduces the published code, which ignores
            ``voting_thresh`` there. Defaults to True.
        t1 (float): See ``improved_gaussian``. Defaults to 0.
        t2 (float): See ``improved_gaussian``. Defaults to 0.

    Returns:
        Segments: Sorted by falling score; tensors if tensors were given.

    Raises:
        ValueError: On an unknown ``type`` or ``method``, or a ``sigma`` that
            is not positive.
    """
    _check_choice('nms.type', type, TYPES)
    _check_choice('nms.method', method, SOFT_METHODS)
    if sigma <= 0:
        raise ValueError(f'nms.sigma must be positive, found {sigma}')
    as_tensor = isinstance(segments, torch.Tensor)
    segs, conf, classes = (_to_numpy(x) for x in (segments, scores, labels))
    segs = segs.reshape(-1, 2).astype(np.float32)
    conf = conf.astype(np.float32)

    candidates = np.arange(len(conf))
    if type == 'nms':
        decay = _hard_decay(iou_threshold)
        if min_score > 0:
            candidates = np.flatnonzero(conf > min_score)
    else:
        decay = _soft_decay(method, iou_threshold, sigma, t1, t2)
    groups = np.zeros(len(conf), int) if class_agnostic else np.unique(
        classes, return_inverse=True)[1]
    limit = max_num if max_num is not None and max_num > 0 else len(conf)
    index, kept_scores = _suppress(segs[candidates], conf[candidates],
                                   groups[candidates], decay,
                                   np.float32(min_score), limit)
    index = candidates[index]
    order = np.argsort(-kept_scores, kind='stable')[:limit]
    index, kept_scores = index[order], kept_scores[order]
    kept = segs[index]
    if voting_thresh > 0 and (class_agnostic or vote_per_class):
        kept = vote_in_groups(kept, groups[index], segs, conf, groups,
                               voting_thresh)
    result = Segments(kept, kept_scores, classes[index])
    if as_tensor:
        result = Segments(*(torch.from_numpy(np.ascontiguousarray(x))
                            for x in result))
    return result


#: (scores, iou, length of the better segment) -> lowered scores, all
#: broadcast to (groups, segments).
Decay = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _soft_decay(method: str, iou_threshold: float, sigma: float, t1: float,
                t2: float) -> Decay:
    threshold, sigma = np.float32(iou_threshold), np.float32(sigma)

    def naive(scores, iou, length):
        return scores * (iou < threshold)

    def linear(scores, iou, length):
        return scores * np.where(iou >= threshold, 1 - iou, np.float32(1))

    def gaussian(scores, iou, length):
        return scores * np.exp(-(iou * iou) / sigma)

    def improved_gaussian(scores, iou, length):
        near = iou >= np.float32(t1) + np.float32(t2) * length
        return scores * np.where(near, np.exp(-(iou * iou) / sigma),
                                 np.float32(1))

    return dict(
        naive=naive,
        linear=linear,
        gaussian=gaussian,
        improved_gaussian=improved_gaussian)[method]


def _hard_decay(iou_threshold: float) -> Decay:
    threshold = np.float32(iou_threshold)

    def hard(scores, iou, length):
        return np.where(iou >= threshold, np.float32(-np.inf), scores)

    return hard


def _suppress(segments: np.ndarray, scores: np.ndarray, groups: np.ndarray,
              decay: Decay, min_score: np.float32,
              limit: int) -> Tuple[np.ndarray, np.ndarray]:
    """Greedy suppression of all groups in lock-step.

    A row of the table is a group, ``-inf`` marks what has been taken or has
    vanished. Scores only fall, so once ``limit`` segments have been taken,
    whatever is below the weakest of the best ``limit`` can neither enter the
    result nor influence it and leaves the table.

    Returns:
        tuple: Index of the survivors and their lowered scores, unsorted.
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
            if step % CLEAN_EVERY == 0 or not alive.all():
                table = table.clean(_floor(taken_scores, limit))
    if not taken:
        return np.zeros(0, int), np.zeros(0, np.float32)
    return np.concatenate(taken), np.concatenate(taken_scores)


def _floor(taken_scores: List[np.ndarray], limit: int) -> float:
    """The ``limit``-th best score taken so far, -inf if there are fewer."""
    values = np.concatenate(taken_scores)
    if len(values) < limit:
        return -np.inf
    return np.partition(values, len(values) - limit)[len(values) - limit]


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

    def clean(self, floor: float) -> '_Table':
        """Remove what is gone or below ``floor``, and empty rows."""
        alive = (self.scores > -np.inf) & (self.scores >= floor)
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


def _to_numpy(values: ArrayLike) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _check_choice(key: str, value: str, choices: Tuple[str, ...]) -> None:
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, 1, 0)
    raise ValueError(f'{key} is {value!r}, expected one of {choices}; '
                     f'did you mean {near[0]!r}?')
