"""Suppression of temporal segments and voting, in plain NumPy.

Many groups are suppressed in lock-step, a group being a class of a video.
Every step takes the best remaining segment of each group and decays what it
overlaps, as array operations over a ``[groups, segments]`` table. No compiled
extension.
"""
import inspect
from typing import (Callable, Iterator, List, NamedTuple, Optional, Sequence,
                    Tuple, TypeVar)

from mmblockdrop.structures.segments import ArrayLike, Segments, count_within
from mmblockdrop.utils.messages import require_choice

import numpy as np
import torch

T = TypeVar('T', np.ndarray, torch.Tensor)

SOFT_METHODS = ('naive', 'linear', 'gaussian', 'improved_gaussian')
TYPES = ('soft_nms', 'nms')
#: Segments of the videos that are suppressed together.
SEGMENTS_AT_ONCE = 8000
#: Elements of the largest temporary table of votes.
VOTES_AT_ONCE = 2_000_000
#: Added to every length in the overlap, so that a segment of zero length
#: has one.
LENGTH_EPS = 1e-6
#: Steps between two clean-ups of the table.
CLEAN_EVERY = 16

#: (scores, iou, length of the better segment) -> lowered scores, all
#: broadcast to (groups, segments).
Decay = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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
        segments: Start and end, shape (N, 2).
        scores: Shape (N, ).
        labels: Shape (N, ).
        type: ``'soft_nms'`` or ``'nms'`` (hard). Defaults to ``'soft_nms'``.
        method: Decay of soft-NMS. Defaults to ``'gaussian'``.
        iou_threshold: Overlap at which ``linear``, ``naive`` and hard
            suppression act. Defaults to 0.1.
        sigma: Width of the Gaussian. Defaults to 0.5.
        min_score: Defaults to 0.001.
        max_num: Segments kept per video. None or a value below 1 keeps all.
            Defaults to 200.
        class_agnostic: Whether segments of different classes suppress each
            other. Defaults to False.
        voting_thresh: 0 switches voting off. Defaults to 0.
        t1: See ``improved_gaussian``. Defaults to 0.
        t2: See ``improved_gaussian``. Defaults to 0.

    Returns:
        Sorted by descending score; tensors if tensors were given.

    Raises:
        ValueError: On an unknown ``type`` or ``method``, or a ``sigma`` that
            is not positive.
    """
    as_tensor = isinstance(segments, torch.Tensor)
    result, = nms_videos([(segments, scores, labels)], type, method,
                         iou_threshold, sigma, min_score, max_num,
                         class_agnostic, voting_thresh, t1, t2)
    if as_tensor:
        result = Segments(*(torch.from_numpy(np.ascontiguousarray(x))
                            for x in result))
    return result


def nms_videos(videos: Sequence[Tuple[ArrayLike, ArrayLike, ArrayLike]],
               type: str = 'soft_nms',
               method: str = 'gaussian',
               iou_threshold: float = 0.1,
               sigma: float = 0.5,
               min_score: float = 0.001,
               max_num: Optional[int] = 200,
               class_agnostic: bool = False,
               voting_thresh: float = 0.,
               t1: float = 0.,
               t2: float = 0.) -> List[Segments]:
    """:func:`nms` of many videos at once, with the same results.

    The classes of all videos are suppressed in lock-step, which pays where
    videos have few segments.

    Args:
        videos: Segments, scores and labels of each.
        type: This and the rest: see :func:`nms`.
        method: See :func:`nms`.
        iou_threshold: See :func:`nms`.
        sigma: See :func:`nms`.
        min_score: See :func:`nms`.
        max_num: See :func:`nms`.
        class_agnostic: See :func:`nms`.
        voting_thresh: See :func:`nms`.
        t1: See :func:`nms`.
        t2: See :func:`nms`.

    Returns:
        Arrays, one entry per video.

    Raises:
        ValueError: See :func:`nms`.
    """
    require_choice('nms.type', type, TYPES)
    require_choice('nms.method', method, SOFT_METHODS)
    if sigma <= 0:
        raise ValueError(f'nms.sigma={sigma!r}: expected a number above 0')
    floor = np.float32(min_score)
    decay = _hard_decay(iou_threshold) if type == 'nms' else _soft_decay(
        method, iou_threshold, sigma, t1, t2)
    result: List[Segments] = []
    for part in _chunks(videos):
        segs, conf, classes, owner = _joined(part)
        groups = owner
        if not class_agnostic:
            names, label = np.unique(classes, return_inverse=True)
            groups = owner * len(names) + label
        candidates = np.arange(len(conf))
        if type == 'nms' and min_score > 0:
            candidates = np.flatnonzero(conf > min_score)
        limit = max_num if max_num is not None and max_num > 0 else len(conf)
        index, kept_scores = _suppress(segs[candidates], conf[candidates],
                                       groups[candidates], owner[candidates],
                                       decay, floor, limit)
        index = candidates[index]
        order = np.lexsort((-kept_scores, owner[index]))
        order = order[count_within(owner[index][order]) < limit]
        index, kept_scores = index[order], kept_scores[order]
        kept = segs[index]
        if voting_thresh > 0:
            kept = _vote_in_groups(kept, groups[index], segs, conf, groups,
                                   voting_thresh)
        ends = np.searchsorted(owner[index], np.arange(1, len(part)))
        result += [
            Segments(*x) for x in zip(*(np.split(v, ends) for v in (
                kept, kept_scores, classes[index])))
        ]
    return result


def check_nms(settings: dict) -> None:
    """Reject arguments of :func:`nms` that cannot work.

    Args:
        settings: Without segments, scores and labels.

    Raises:
        ValueError: Names the key, and the nearest choice.
    """
    if 'vote_per_class' in settings:
        raise ValueError(
            f'nms.vote_per_class={settings["vote_per_class"]!r} is no longer '
            'an argument: remove it, and where it was False voting_thresh '
            'too, which it switched off')
    known = list(inspect.signature(nms_videos).parameters)[1:]
    for key in settings:
        require_choice('key of nms', key, known)
    nms_videos([], **settings)


def vote(kept: np.ndarray, segments: np.ndarray, scores: np.ndarray,
         iou_threshold: float) -> np.ndarray:
    """Move segments to the weighted mean of the candidates around them.

    Args:
        kept: Segments to refine, shape (K, 2).
        segments: All candidates, shape (N, 2).
        scores: Their weights, shape (N, ).
        iou_threshold: Overlap from which a candidate has a voice.

    Returns:
        Refined segments, shape (K, 2). A segment that no candidate overlaps
        (one of zero length) stays where it is.
    """
    refined = kept.copy()
    rows = max(1, VOTES_AT_ONCE // max(len(segments), 1))
    length = segments[:, 1] - segments[:, 0]
    for first in range(0, len(kept), rows):
        part = kept[first:first + rows]
        inter = np.minimum(part[:, None, 1], segments[:, 1]) - np.maximum(
            part[:, None, 0], segments[:, 0])
        inter = np.maximum(inter, 0)
        union = (part[:, 1] - part[:, 0])[:, None] + length - inter
        # Two segments of zero length have neither overlap nor union.
        iou = inter / np.where(union > 0, union, 1)
        weight = np.where(iou >= iou_threshold, scores, 0)
        total = weight.sum(1, keepdims=True)
        voted = total[:, 0] > 0
        refined[first:first + rows][voted] = (
            weight[voted] / total[voted]) @ segments
    return refined


def _vote_in_groups(kept: np.ndarray, kept_groups: np.ndarray,
                    segments: np.ndarray, scores: np.ndarray,
                    groups: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Apply :func:`vote` within every group of classes."""
    refined = kept.copy()
    for group in np.unique(kept_groups):
        mine, all_ = kept_groups == group, groups == group
        refined[mine] = vote(kept[mine], segments[all_], scores[all_],
                             iou_threshold)
    return refined


def _soft_decay(method: str, iou_threshold: float, sigma: float, t1: float,
                t2: float) -> Decay:
    """How soft-NMS lowers scores; see :func:`nms`."""
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


def _hard_decay(iou_threshold: float) -> Decay:
    """How hard suppression lowers scores: all or nothing."""
    threshold = np.float32(iou_threshold)

    def hard(scores: np.ndarray, iou: np.ndarray, length: np.ndarray):
        return np.where(iou >= threshold, np.float32(-np.inf), scores)

    return hard


def _suppress(segments: np.ndarray, scores: np.ndarray, groups: np.ndarray,
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
        """Remove what was taken or is below a row's floor, and empty rows."""
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


def _chunks(videos: Sequence[tuple]) -> Iterator[Sequence[tuple]]:
    """Videos whose segments fit into one table."""
    first = size = 0
    for i, (_, scores, _) in enumerate(videos):
        size += len(scores)
        if i > first and size > SEGMENTS_AT_ONCE:
            yield videos[first:i]
            first, size = i, len(scores)
    if len(videos) > first:
        yield videos[first:]


def _joined(videos: Sequence[tuple]) -> Tuple[np.ndarray, ...]:
    """Segments, scores and labels of all videos, and whose they are."""
    segs, conf, classes = ([_to_numpy(v[k]) for v in videos]
                           for k in range(3))
    owner = np.repeat(np.arange(len(videos)), [len(x) for x in conf])
    return (np.concatenate([x.reshape(-1, 2).astype(np.float32)
                            for x in segs]),
            np.concatenate([x.astype(np.float32) for x in conf]),
            np.concatenate(classes), owner)


def _to_numpy(values: ArrayLike) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)
