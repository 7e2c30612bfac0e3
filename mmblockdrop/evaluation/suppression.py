"""Suppression of temporal segments, in plain NumPy."""
import difflib
import inspect
from typing import (Iterator, List, NamedTuple, Optional, Sequence, Tuple,
                    TypeVar, Union)

from mmblockdrop.structures.segments import count_within

import numpy as np
import torch

from .decay import hard_decay, soft_decay, suppress
from .voting import vote_in_groups

ArrayLike = Union[np.ndarray, torch.Tensor]
T = TypeVar('T', np.ndarray, torch.Tensor)

SOFT_METHODS = ('naive', 'linear', 'gaussian', 'improved_gaussian')
TYPES = ('soft_nms', 'nms')
#: Segments of the videos that are suppressed together.
CHUNK = 8000


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
        Sorted by falling score; tensors if tensors were given.

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
    _check_choice('nms.type', type, TYPES)
    _check_choice('nms.method', method, SOFT_METHODS)
    if sigma <= 0:
        raise ValueError(f'nms.sigma must be positive, found {sigma}')
    floor = np.float32(min_score)
    decay = hard_decay(iou_threshold) if type == 'nms' else soft_decay(
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
        index, kept_scores = suppress(segs[candidates], conf[candidates],
                                       groups[candidates], owner[candidates],
                                       decay, floor, limit)
        index = candidates[index]
        order = np.lexsort((-kept_scores, owner[index]))
        order = order[count_within(owner[index][order]) < limit]
        index, kept_scores = index[order], kept_scores[order]
        kept = segs[index]
        if voting_thresh > 0:
            kept = vote_in_groups(kept, groups[index], segs, conf, groups,
                                  voting_thresh)
        ends = np.searchsorted(owner[index], np.arange(1, len(part)))
        result += [
            Segments(*x) for x in zip(*(np.split(v, ends) for v in (
                kept, kept_scores, classes[index])))
        ]
    return result


def check_nms(settings: dict) -> None:
    """Refuse arguments of :func:`nms` that cannot work.

    Args:
        settings: Without segments, scores and labels.

    Raises:
        ValueError: Names the key, and the nearest choice.
    """
    if 'vote_per_class' in settings:
        raise ValueError(
            f'nms has no vote_per_class={settings["vote_per_class"]!r} any '
            "more; remove it and use type='mmblockdrop.PublishedTADMetric' to "
            'repeat the published code')
    known = list(inspect.signature(nms_videos).parameters)[1:]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0)[0]
            raise ValueError(f'nms has no {key!r}, expected one of {known}; '
                             f'did you mean {near!r}?')
    nms_videos([], **settings)


def _chunks(videos: Sequence[tuple]) -> Iterator[Sequence[tuple]]:
    """Videos whose segments fit into one table."""
    first = size = 0
    for i, (_, scores, _) in enumerate(videos):
        size += len(scores)
        if i > first and size > CHUNK:
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


def _check_choice(key: str, value: str, choices: Tuple[str, ...]) -> None:
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, 1, 0)
    raise ValueError(f'{key} is {value!r}, expected one of {choices}; '
                     f'did you mean {near[0]!r}?')
