"""Which part of a video a sample shows, and which actions lie in it.

Pure rules on numbers: no files, no frames.
"""
import random
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from mmblockdrop.structures.time_grid import frames_to_steps

import numpy as np

MODES = ('random', 'sliding', 'resize')
#: Starts of a random window that are tried until it shows an action.
MAX_DRAWS = 200


def sliding_windows(num_steps: int,
                    window_size: int,
                    overlap_ratio: float = 0.5) -> List[Tuple[int, int]]:
    """Windows that slide over a video: all steps covered, none repeated.

    Args:
        num_steps: Grid steps of the video.
        window_size: Grid steps of a window.
        overlap_ratio: Share of a window that the next one repeats.

    Returns:
        First grid step and number of steps of each window. A video shorter
        than a window has one, as long as the video.

    Raises:
        ValueError: The windows would not advance.
    """
    stride = window_stride(window_size, overlap_ratio)
    last = max(0, num_steps - window_size)
    starts = [*range(0, last, stride), last]
    return [(start, min(window_size, num_steps - start)) for start in starts]


def window_stride(window_size: int, overlap_ratio: float) -> int:
    """Grid steps between the starts of sliding windows.

    Args:
        window_size: Grid steps of a window.
        overlap_ratio: Share of a window that the next one repeats.

    Returns:
        The stride, at least one step.

    Raises:
        ValueError: It is less than one step.
    """
    stride = int(window_size * (1 - overlap_ratio))
    if not 0 <= overlap_ratio < 1 or stride < 1:
        raise ValueError(
            f'overlap_ratio={overlap_ratio}: windows of {window_size} grid '
            'steps would not advance; expected it in [0, 1), with a stride '
            'of one step at least')
    return stride


def inside_share(segments: np.ndarray, low: float, high: float) -> np.ndarray:
    """Share of each segment that lies in [low, high].

    Args:
        segments: [N, 2], in the unit of ``low`` and ``high``.
        low: Begin of the range.
        high: End of the range.

    Returns:
        [N], from 0 to 1.
    """
    inside = np.minimum(segments[:, 1], high) - np.maximum(segments[:, 0], low)
    length = np.maximum(segments[:, 1] - segments[:, 0], 1e-6)
    return np.clip(inside, 0, None) / length


def cut_segments(segments: np.ndarray,
                 low: float,
                 high: float,
                 min_share: float) -> Tuple[np.ndarray, np.ndarray]:
    """Actions of which enough lies in [low, high], cut to it.

    Args:
        segments: [N, 2], in the unit of ``low`` and ``high``.
        low: Begin of the range.
        high: End of the range.
        min_share: Share that must lie inside.

    Returns:
        Cut segments [M, 2], and the mask [N] of those that were kept.
        ``segments`` is left as it is.
    """
    keep = inside_share(segments, low, high) >= min_share
    return np.clip(segments[keep], low, high), keep


def random_window(num_frames: int,
                  length: int,
                  segments: np.ndarray,
                  min_share: float = 0.75,
                  crop_ratio: Optional[Sequence[float]] = (0.9, 1.0)
                  ) -> Tuple[int, int]:
    """A random part of a video that shows an action.

    If the video is not longer than the window, its length is drawn from
    ``crop_ratio`` times the video first. Then starts are drawn until one
    action has ``min_share`` inside; after 200 draws the last one is used.
    Draws follow Python's global generator, which the workers of a data
    loader seed.

    Args:
        num_frames: Frames of the video on the sampled grid.
        length: Frames of a window, same grid.
        segments: Actions [N, 2], same grid.
        min_share: Share of an action that must lie inside.
        crop_ratio: None keeps a short video whole.

    Returns:
        First frame, and the one after the last.
    """
    if num_frames <= length:
        length = num_frames
        if crop_ratio is not None:
            length = random.randint(
                max(round(crop_ratio[0] * num_frames), 1),
                min(round(crop_ratio[1] * num_frames), num_frames))
        if length == num_frames:
            return 0, num_frames
    for _ in range(MAX_DRAWS if len(segments) else 1):
        start = random.randint(0, num_frames - length)
        share = inside_share(segments, start, start + length)
        if (share >= min_share).any():
            break
    return start, start + length


def unique_actions(segments: np.ndarray,
                   labels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Remove actions that repeat both segment and label, in order.

    Args:
        segments: [N, 2].
        labels: [N].

    Returns:
        [M, 2] and [M].
    """
    keys = [(*segment, label)
            for segment, label in zip(segments.tolist(), labels.tolist())]
    keep = [index for index, key in enumerate(keys) if key not in keys[:index]]
    return segments[keep], labels[keep]


def window_actions(action_frames: np.ndarray,
                   meta: Mapping[str, Any],
                   steps: float) -> Tuple[np.ndarray, np.ndarray]:
    """Ground truth of a sliding window.

    Args:
        action_frames: Actions of the video [N, 2], in frames.
        meta: ``window_start_frame``, ``snippet_stride``, ``offset_frames``
            and ``action_thresh``.
        steps: Grid steps of the window that show the video.

    Returns:
        Segments [M, 2] in grid steps of the window, and the mask [N] of the
        actions that were kept.
    """
    return cut_segments(
        frames_to_steps(action_frames, meta), 0, steps, meta['action_thresh'])
