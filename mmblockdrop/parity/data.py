"""Windows and ground truth of the published data sets."""
from typing import Any, Dict, List, Mapping, Tuple

from mmblockdrop.data import SampleWindow, UntrimmedVideoDataset
from mmblockdrop.data.windows import cut_segments, window_stride
from mmblockdrop.registry import DATASETS
from mmblockdrop.structures.time_grid import frames_to_steps

import numpy as np


def published_windows(num_steps: int,
                      window_size: int,
                      overlap_ratio: float = 0.5) -> List[Tuple[int, int]]:
    """Sliding windows as the published code places them.

    It counts the windows as ``num_steps // stride`` and moves one that
    reaches beyond the video back to its end. The last window can therefore
    come twice, so that its detections count double before suppression, and
    with an overlap below one half the tail of a video can lie in no window,
    so that its actions are missed.

    Args:
        num_steps: Steps of the video.
        window_size: Steps of a window.
        overlap_ratio: Share of a window that the next one repeats.

    Returns:
        First step and number of steps of each window.

    Raises:
        ValueError: If the windows would not advance.
    """
    stride = window_stride(window_size, overlap_ratio)
    last = max(0, num_steps - window_size)
    starts = []
    for index in range(max(1, num_steps // stride)):
        starts.append(min(index * stride, last))
        if index * stride + window_size > num_steps:
            break
    return [(start, min(window_size, num_steps - start)) for start in starts]


def published_window_actions(action_frames: np.ndarray,
                             meta: Mapping[str, Any],
                             steps: float) -> Tuple[np.ndarray, np.ndarray]:
    """Ground truth of a sliding window as the published code cuts it.

    Its window ends where the last step begins instead of where it ends, and
    it is cut before ``offset_frames`` are taken off. Actions at the end of a
    window come out up to one step too short, or are left out. It also asks
    for more than ``action_thresh`` of an action, not for at least as much.

    Args:
        action_frames: Actions of the video [N, 2], in frames.
        meta: See :func:`~mmblockdrop.data.windows.window_actions`.
        steps: Steps of the window.

    Returns:
        Segments [M, 2] in steps of the window, and the mask [N] of the actions
        that were kept.
    """
    shift = meta['offset_frames'] / meta['snippet_stride']
    segments = frames_to_steps(action_frames, meta) + shift
    above = np.nextafter(meta['action_thresh'], np.inf)
    cut, keep = cut_segments(segments, 0, steps - 1, above)
    return cut - shift, keep


class PublishedSampleWindow(SampleWindow):
    """Cuts windows as the published code does.

    - A step that the video fills only in part is not counted in
      ``valid_steps``: the localizer masks its end.
    - Actions of a training video that is kept whole are not cut to it:
      annotations that end behind the video reach into the padding.
    - Sliding windows: see :func:`published_window_actions`.
    """

    window_actions = staticmethod(published_window_actions)

    def _cut(self, results: Dict[str, Any]) -> Tuple[np.ndarray, int]:
        """Frame numbers of a window, and its valid steps."""
        indices, _ = super()._cut(results)
        shown = results['shown_steps']
        scale = results['frames_per_step']
        frames = -(-results['total_frames'] //
                   (results['snippet_stride'] // scale))
        if results['windows'] == 'sliding':
            results['shown_steps'] = results['window_steps']
        elif round(shown * scale) == frames:
            results['shown_steps'] = np.inf
        return indices, int(shown)


@DATASETS.register_module()
class PublishedVideoDataset(UntrimmedVideoDataset):
    """Data set with the windows and the rounding of the published code.

    - Windows: see :func:`published_windows`, :func:`published_window_actions`
      and :class:`PublishedSampleWindow`, which stands in for every
      ``SampleWindow`` of the pipeline.
    - Boundaries of actions are cut to whole frames, by the ratio of frames to
      seconds of the whole video instead of the frame rate. Ground truth moves
      by up to one frame, always to the front. With ``windows='resize'`` the
      published code does not do so, and neither does this class; nor with
      ``sample_fps``.

    Takes the arguments of
    :class:`~mmblockdrop.data.dataset.UntrimmedVideoDataset`.
    """

    sliding_windows = staticmethod(published_windows)
    window_actions = staticmethod(published_window_actions)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pipeline.transforms = [
            PublishedSampleWindow() if type(step) is SampleWindow else step
            for step in self.pipeline.transforms
        ]

    def action_frames(self, segments: np.ndarray, duration: float, fps: float,
                      total_frames: int) -> np.ndarray:
        """See the class; [N, 2] seconds to frames [N, 2]."""
        if self.geometry['windows'] == 'resize' or self.geometry['sample_fps']:
            return super().action_frames(segments, duration, fps, total_frames)
        return np.trunc(segments / duration * total_frames)
