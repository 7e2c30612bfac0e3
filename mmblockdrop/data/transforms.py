"""From a record of the dataset to a packed sample.

The order in a pipeline is: open (:class:`OpenVideo`, :class:`CachedFrames`
or :class:`LoadFeatures`), cut the window (:class:`SampleWindow`), decode and
augment by mmaction2's own transforms, pack (:class:`PackTADInputs`).
"""
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.registry import TRANSFORMS
from mmblockdrop.structures.time_grid import frames_to_steps, whole_video
from mmblockdrop.utils.video import Frames

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from .windows import cut_segments, random_window, window_actions

META_KEYS = ('video_name', 'duration', 'fps', 'total_frames',
             'window_start_frame', 'snippet_stride', 'offset_frames',
             'window_size', 'valid_steps', 'video_segments', 'video_labels')


@TRANSFORMS.register_module()
class SampleWindow(BaseTransform):
    """Cut the window of a sample: its frames and its actions.

    Frames beyond the end of the video repeat the last one and are not
    counted in ``valid_steps``. Features are cut, padded by zeros and put in
    ``inputs`` instead. Times stay in seconds in ``video_segments``; the
    actions of the window are in grid steps.

    Required Keys: all that :class:`UntrimmedVideoDataset` gives, features
    (optional)

    Modified Keys: fps, snippet_stride, offset_frames, action_frames
    (``resize`` only)

    Added Keys: frame_inds (int64 [window_size * frames_per_step]),
    num_clips (1), clip_len, valid_steps, window_start_frame, gt_segments
    (float32 [N, 2], grid steps), gt_labels (int64 [N]), inputs (features only,
    float32 [C, window_size])
    """

    #: Actions of a sliding window.
    window_actions = staticmethod(window_actions)

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        if results['windows'] == 'resize':
            indices, valid = self._resize(results)
        else:
            indices, valid = self._cut(results)
        if results.get('broken'):
            valid = 0
        results['valid_steps'] = valid
        if results.get('sample_fps') and not isinstance(
                results.get('video_reader', Frames()), Frames):
            raise ValueError(
                f'sample_fps={results["sample_fps"]} needs '
                'mmblockdrop.OpenVideo or mmblockdrop.CachedFrames as the '
                'first step of the pipeline; another one has opened '
                f'{results["filename"]!r}')
        segments, keep = self._actions(results)
        results['gt_segments'] = segments.astype(np.float32)
        results['gt_labels'] = results['action_labels'][keep].astype(np.int64)
        if 'features' in results:
            results['inputs'] = self._cut_features(results, indices, valid)
        results['frame_inds'] = indices
        results['clip_len'] = len(indices)
        results['num_clips'] = 1
        return results

    def _cut(self, results: Dict[str, Any]) -> Tuple[np.ndarray, int]:
        """Frame numbers of a random or sliding window, and valid steps."""
        scale = results['frames_per_step']
        stride = results['snippet_stride'] // scale
        total = results['total_frames']
        count = -(-total // stride)  # frames of the video on the grid
        length = results['window_size'] * scale
        if results['windows'] == 'random':
            start, stop = self._draw(results, count, length, stride)
        else:
            start = min(results['window_start_step'] * scale, count)
            stop = start + results['window_steps'] * scale
            stop = min(stop, count)
        results['window_start_frame'] = start * stride
        shown = stop - start
        results['shown_steps'] = shown / scale
        # The last frame is repeated behind the end of the window.
        grid = np.arange(start, start + length)
        grid = np.minimum(grid, max(stop, start + 1) - 1)
        indices = np.clip(grid * stride, 0, total - 1).astype(np.int64)
        return indices, -(-shown // scale)

    @staticmethod
    def _draw(results: Dict[str, Any], count: int, length: int,
              stride: int) -> Tuple[int, int]:
        """A random window in frames of the grid."""
        meta = dict(results, window_start_frame=0, snippet_stride=stride)
        return random_window(
            count, length, frames_to_steps(results['action_frames'], meta),
            results['action_thresh'], results['crop_ratio'])

    @staticmethod
    def _resize(results: Dict[str, Any]) -> Tuple[np.ndarray, int]:
        """Frame numbers of the whole video on the fixed grid."""
        total, size = results['total_frames'], results['window_size']
        seconds = results['action_frames'] / results['fps']
        results.update(whole_video(total, results['duration'], size))
        results['action_frames'] = seconds * results['fps']
        count = size * results['frames_per_step']
        stride = total / count
        # Every frame shown is at the middle of its share of the video.
        first = stride / 2 - 0.5
        centres = np.arange(first, total + first, stride)[:count]
        indices = np.clip(centres, 0, total - 1).round().astype(np.int64)
        return indices, size

    def _actions(self,
                 results: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray]:
        """Actions of the window in grid steps, and the mask of them."""
        frames = results['action_frames']
        if results['broken']:
            return np.zeros((0, 2)), np.zeros(len(frames), dtype=bool)
        if results['windows'] == 'sliding':
            return self.window_actions(frames, results, results['shown_steps'])
        segments = frames_to_steps(frames, results)
        if results['windows'] == 'resize':
            segments = np.clip(segments, 0, results['window_size'])
            return segments, np.ones(len(frames), dtype=bool)
        return cut_segments(segments, 0, results['shown_steps'],
                            results['action_thresh'])

    @staticmethod
    def _cut_features(results: Dict[str, Any], indices: np.ndarray,
                      valid: int) -> torch.Tensor:
        """Features of the window [C, window_size]."""
        features = torch.from_numpy(results['features'].T.copy())
        size = results['window_size']
        if results['windows'] == 'resize':
            return F.interpolate(
                features[None], size=size, mode='linear',
                align_corners=False)[0]
        chosen = features[:, indices[:valid] // results['snippet_stride']]
        return F.pad(chosen, (0, size - chosen.shape[1]))


@TRANSFORMS.register_module()
class PackTADInputs(BaseTransform):
    """Pack frames or features and segments into an ``ActionDataSample``.

    Required Keys: imgs ([1, 3, F, H, W] by ``FormatShape`` with ``NCTHW``)
    or inputs ([C, T]), gt_segments, gt_labels, and those of ``meta_keys``

    Returns of the pipeline: ``inputs`` (Tensor) and ``data_samples``, whose
    ``gt_instances`` hold ``segments`` (grid steps) and ``labels``.

    Args:
        meta_keys: Keys to keep as meta information.
    """

    def __init__(self, meta_keys: Tuple[str, ...] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        inputs = results.get('imgs', results.get('inputs'))
        if inputs is None:
            raise KeyError("PackTADInputs found neither 'imgs' nor 'inputs'; "
                           'the pipeline must decode frames or load features '
                           'before it')
        if isinstance(inputs, np.ndarray):
            inputs = torch.from_numpy(np.ascontiguousarray(inputs))
        missing = [key for key in self.meta_keys if key not in results]
        if missing:
            raise KeyError(
                f'PackTADInputs misses {missing}; the pipeline needs '
                'mmblockdrop.SampleWindow before it, on samples of '
                'mmblockdrop.UntrimmedVideoDataset')
        sample = ActionDataSample()
        sample.gt_instances = InstanceData(
            segments=torch.from_numpy(results['gt_segments']),
            labels=torch.from_numpy(results['gt_labels']))
        sample.set_metainfo({key: results[key] for key in self.meta_keys})
        return dict(inputs=inputs, data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
