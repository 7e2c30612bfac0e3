"""The first step of a pipeline: open a video, or load its features."""
import os
import os.path as osp
import threading
from typing import Any, Dict, Optional, Tuple

from mmblockdrop.registry import TRANSFORMS
from mmblockdrop.utils.io import read_array
from mmblockdrop.utils.messages import require_choice
from mmblockdrop.utils.video import (FrameArray, ResampledVideo,
                                     UnreadableVideoError, Video)

import numpy as np
from mmcv.transforms import BaseTransform

from .annotations import require_seconds, warn


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video for ``DecordDecode``, with errors that name the file.

    It stands where mmaction2's ``DecordInit`` would, and reads the frame
    count that the file really has. The last video stays open, so that its
    windows, when they follow each other, do not open it again.

    With ``sample_fps`` its frames are those on the grid in seconds.

    Required Keys: filename, fps, total_frames, broken, black_shape (optional),
    sample_fps (optional)

    Modified Keys: total_frames

    Added Keys: video_reader, avg_fps

    Args:
        num_threads: Threads of the decoder. Defaults to 1.
        size: Width and height of the frames that the decoder gives. Cheaper
            than a ``Resize`` of decoded frames, with slightly different
            pixels. At least 64 wide. Defaults to None, the video's.

    Raises:
        ValueError: ``size`` is too narrow.
    """

    def __init__(self,
                 num_threads: int = 1,
                 size: Optional[Tuple[int, int]] = None) -> None:
        self.num_threads = num_threads
        self.size = None if size is None else (int(size[0]), int(size[1]))
        if self.size and self.size[0] < 64:
            raise ValueError(
                f'OpenVideo.size={self.size}: decord misreads some frames '
                'that are narrower than 64 pixels; use Resize behind '
                'DecordDecode')
        self._warned = False
        self._last: Tuple[Any, Any] = (None, None)

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Open the video.

        Raises:
            UnreadableVideoError: If it is missing, empty or damaged.
        """
        if results.get('broken'):
            shape = self.size[::-1] if self.size else results['black_shape']
            reader = FrameArray.black(results['total_frames'], shape,
                                      results['fps'])
        else:
            reader = self._open(results['filename'])
            require_seconds(f'the annotation of {results["filename"]!r}',
                            results.get('duration', 0.),
                            len(reader) / reader.fps)
            if results.get('sample_fps'):
                reader = ResampledVideo(reader, results['fps'])
        results['video_reader'] = reader
        results['total_frames'] = len(reader)
        results['avg_fps'] = reader.fps
        self._compare_rates(results)
        return results

    def _open(self, filename: str) -> Any:
        """The reader of a video, the last one again if it fits."""
        key = None
        if osp.isfile(filename):
            status = os.stat(filename)
            # Neither a forked process nor another thread may read through
            # this reader.
            key = (os.getpid(), threading.get_ident(), filename,
                   status.st_size, status.st_mtime_ns)
        # Other threads may change self._last at any moment.
        last_key, reader = self._last
        if key is None or last_key != key:
            self._last, reader = (None, None), None
            reader = Video(filename, self.num_threads, self.size)
            self._last = key, reader
        return reader

    def __getstate__(self) -> Dict[str, Any]:
        return dict(self.__dict__, _last=(None, None))

    def _compare_rates(self, results: Dict[str, Any]) -> None:
        """Warn once if the file runs at another rate than annotated."""
        ratio = results['avg_fps'] / results.get('fps', results['avg_fps'])
        if self._warned or results.get('windows') == 'resize' or (
                0.95 < ratio < 1.05):
            return
        self._warned = True
        warn(
            f"{results['filename']!r} has {results['avg_fps']:.3f} frames per "
            f"second, its annotation says {results['fps']:.3f}: actions will "
            'be seen at wrong times if that holds')

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(num_threads={self.num_threads}, '
                f'size={self.size})')


@TRANSFORMS.register_module()
class LoadFeatures(BaseTransform):
    """Load the features of a whole video.

    Required Keys: filename, snippet_stride, broken, black_shape (optional)

    Modified Keys: total_frames

    Added Keys: features (float32 [T, C])

    Args:
        layout: ``TC`` or ``CT``, the axes of the array in the file.
    """

    def __init__(self, layout: str = 'TC') -> None:
        require_choice('layout', layout, ('TC', 'CT'))
        self.layout = layout

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Load the features.

        Raises:
            UnreadableVideoError: If the file is missing or is not an array of
                two axes.
        """
        stride = results['snippet_stride']
        if results.get('broken'):
            channels = results['black_shape'][self.layout.index('C')]
            steps = -(-results['total_frames'] // stride)
            features = np.zeros((steps, channels), dtype=np.float32)
        else:
            features = self._read(results['filename'])
        results['features'] = features
        results['total_frames'] = len(features) * stride
        return results

    def _read(self, filename: str) -> np.ndarray:
        try:
            array = read_array(filename, 'features')
        except (OSError, ValueError) as error:
            raise UnreadableVideoError(filename, str(error)) from error
        if array.ndim != 2 or not array.size:
            raise UnreadableVideoError(
                filename, f'the array has shape {array.shape}, expected two '
                f'axes {tuple(self.layout)}')
        if self.layout == 'CT':
            array = array.T
        return array.astype(np.float32)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(layout={self.layout!r})'
