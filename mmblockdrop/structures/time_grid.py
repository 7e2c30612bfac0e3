"""Seconds outside, feature-grid steps inside: the one place that converts.

A window of a video is laid on a grid of steps. Grid positions are real
numbers, so that boundaries fall between steps:

    frame   = window_start_frame + position * snippet_stride + offset_frames
    seconds = frame / fps

``meta`` is any mapping with these four keys and ``duration`` (seconds), such
as the metainfo of a packed sample. A whole video stretched over a fixed grid
follows the same two lines, with a fractional stride: see :func:`whole_video`.
"""
from typing import Any, Dict, Mapping, Union

import numpy as np
import torch

Segments = Union[np.ndarray, torch.Tensor]


def _read(meta: Mapping[str, Any], key: str, default: Any = None) -> float:
    value = meta.get(key, default)
    if value is None:
        raise KeyError(f"the meta information of a window has no '{key}'; "
                       f'it has {sorted(meta)}')
    return float(value)


def _as_array(segments: Any) -> Segments:
    if isinstance(segments, (np.ndarray, torch.Tensor)):
        return segments
    return np.asarray(segments, dtype=np.float64)


def frames_to_steps(frames: Segments, meta: Mapping[str, Any]) -> Segments:
    """Frame numbers of the video to grid positions of a window.

    Args:
        frames: Frame positions, any shape.
        meta: Keys ``snippet_stride``, and optionally ``window_start_frame``
            and ``offset_frames``.

    Returns:
        Positions in steps, same shape.
    """
    start = _read(meta, 'window_start_frame', 0) + _read(
        meta, 'offset_frames', 0)
    return (_as_array(frames) - start) / _read(meta, 'snippet_stride')


def steps_to_frames(steps: Segments, meta: Mapping[str, Any]) -> Segments:
    """Inverse of :func:`frames_to_steps`."""
    start = _read(meta, 'window_start_frame', 0) + _read(
        meta, 'offset_frames', 0)
    return _as_array(steps) * _read(meta, 'snippet_stride') + start


def seconds_to_steps(segments: Segments, meta: Mapping[str, Any]) -> Segments:
    """Seconds of the video to grid positions of a window.

    Args:
        segments: Times in seconds, usually [N, 2].
        meta: Keys ``fps``, ``snippet_stride``, and optionally
            ``window_start_frame`` and ``offset_frames``.

    Returns:
        Positions in steps, same shape, not clipped: an action that begins
        before the window has a negative start.

    Raises:
        KeyError: If ``meta`` lacks a key.
    """
    return frames_to_steps(_as_array(segments) * _read(meta, 'fps'), meta)


def steps_to_seconds(segments: Segments, meta: Mapping[str, Any]) -> Segments:
    """Grid positions of a window to seconds, clipped to the video.

    Args:
        segments: Positions in steps, usually [N, 2].
        meta: As for :func:`seconds_to_steps`, and ``duration`` in seconds.

    Returns:
        Seconds within [0, duration], same shape.

    Raises:
        KeyError: If ``meta`` lacks a key.
    """
    seconds = steps_to_frames(segments, meta) / _read(meta, 'fps')
    return seconds.clip(0., _read(meta, 'duration'))


def whole_video(total_frames: int, duration: float,
                window_size: int) -> Dict[str, float]:
    """Grid of a whole video stretched over ``window_size`` steps.

    Args:
        total_frames: Frames of the video.
        duration: Its length in seconds.
        window_size: Steps of the grid.

    Returns:
        ``fps``, ``snippet_stride`` (frames per step, a fraction),
        ``window_start_frame`` and ``offset_frames``, with which a position
        ``p`` means ``p / window_size * duration`` seconds.
    """
    return dict(
        fps=total_frames / duration,
        snippet_stride=total_frames / window_size,
        window_start_frame=0,
        offset_frames=0)


def valid_share(meta: Mapping[str, Any], length: int = 1) -> float:
    """Share of a window that shows real video; the rest is padding.

    Args:
        meta: A sample or its metainfo; ``valid_steps`` of ``window_size`` grid
            steps are real.
        length: Steps of the window where ``meta`` does not say.

    Returns:
        The share, 1 where ``meta`` does not know ``valid_steps``.
    """
    size = meta.get('window_size', length)
    return meta.get('valid_steps', size) / size
