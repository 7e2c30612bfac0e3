"""Decoded frames kept on disk."""
import hashlib
import json
import os
import os.path as osp
import uuid
from typing import Any, Dict, Optional, Sequence

from mmblockdrop.registry import TRANSFORMS
from mmblockdrop.utils.config import plain_config, type_name
from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.video import FrameArray, UnreadableVideoError, absence

import numpy as np
from mmcv.transforms import BaseTransform

CHUNK_FRAMES = 256


@TRANSFORMS.register_module()
class CachedFrames(BaseTransform):
    """Decode and resize a video once, then read it from disk.

    On first use all frames of the video go through ``transforms``, and the
    result is kept as a uint8 ``.npy`` in ``cache_dir``. Later only the frames
    of the window are read through a memory map. It takes the place of
    ``OpenVideo``: ``SampleWindow`` and ``DecordDecode`` follow as before, and
    read from it instead of the video.

    The name of a kept file depends on the video's size and time of change,
    on ``transforms``, and with ``sample_fps`` on the rate of the grid, whose
    frames are kept. It is written under another name and then renamed,
    so several workers and processes may share a folder. Files are never
    removed: delete the folder to regain its space, about ``frames * H * W *
    3`` bytes for each video.

    Required Keys: filename, video_name, fps, total_frames, broken,
    black_shape (optional)

    Modified Keys: total_frames

    Added Keys: video_reader, avg_fps

    Args:
        transforms: What opens, decodes and resizes, without randomness. The
            first opens the video.
        cache_dir: Folder of the kept frames, made when missing.
    """

    def __init__(self, transforms: Sequence[dict], cache_dir: str) -> None:
        if len(transforms) < 2:
            raise ValueError(
                f'transforms={list(transforms)} must open the video first and '
                'decode it then, as [OpenVideo, DecordDecode, Resize]')
        for cfg in transforms:
            name = type_name(cfg)
            if 'Random' in name or name in ('Flip', 'ColorJitter'):
                raise ValueError(f'{name} is random; it belongs behind '
                                 'CachedFrames, not in its transforms')
        self.cache_dir = cache_dir
        self.recipe = json.dumps(
            plain_config(list(transforms)), sort_keys=True, default=str)
        self.opener, *self.transforms = (
            TRANSFORMS.build(dict(cfg)) for cfg in transforms)

    def transform(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """Open the kept frames of a video, making them when missing.

        Raises:
            UnreadableVideoError: If the video is missing or damaged.
        """
        if results.get('broken'):
            return self._black(results)
        path = self._path(results)
        frames = self._open(path)
        if frames is None:
            self._write(path, results)
            frames = self._open(path)
        return self._give(results, FrameArray(frames, results['fps']))

    @staticmethod
    def _give(results: Dict[str, Any], reader: FrameArray) -> Dict[str, Any]:
        results['video_reader'] = reader
        results['total_frames'] = len(reader)
        results['avg_fps'] = reader.fps
        return results

    def _path(self, results: Dict[str, Any]) -> str:
        filename = results['filename']
        if not osp.isfile(filename):
            raise UnreadableVideoError(filename, absence(filename))
        status = os.stat(filename)
        key = (f'{osp.abspath(filename)}|{status.st_size}|'
               f'{status.st_mtime_ns}|{self.recipe}')
        if results.get('sample_fps'):
            key += f'|{results["fps"]}'
        digest = hashlib.sha1(key.encode()).hexdigest()[:16]
        stem = osp.splitext(osp.basename(filename))[0]
        return osp.join(self.cache_dir, f'{stem}-{digest}.npy')

    @staticmethod
    def _open(path: str) -> Optional[np.ndarray]:
        try:
            return np.load(path, mmap_mode='r')
        except (OSError, ValueError):  # absent, or cut off by a full disk
            return None

    def _write(self, path: str, results: Dict[str, Any]) -> None:
        """Decode a video in parts and keep it."""
        os.makedirs(self.cache_dir, exist_ok=True)
        opened = self.opener(dict(results))
        reader, total = opened['video_reader'], opened['total_frames']
        own = f'.{os.getpid()}-{uuid.uuid4().hex[:8]}.part'
        # Not through a memory map, where a full disk ends the process.
        with whole_file(path, own) as partial, open(partial, 'wb') as kept:
            for start in range(0, total, CHUNK_FRAMES):
                stop = min(start + CHUNK_FRAMES, total)
                frames = self._decode(opened, reader, range(start, stop))
                if start == 0:
                    np.lib.format.write_array_header_1_0(
                        kept, dict(descr='|u1', fortran_order=False,
                                   shape=(total, *frames.shape[1:])))
                kept.write(np.ascontiguousarray(frames, np.uint8).data)

    def _decode(self, results: Dict[str, Any], reader: Any,
                indices: Sequence[int]) -> np.ndarray:
        """Frames [T, H, W, 3] through all transforms but the first."""
        part = dict(
            results,
            video_reader=reader,
            frame_inds=np.asarray(indices),
            clip_len=len(indices),
            num_clips=1)
        for transform in self.transforms:
            part = transform(part)
        return np.stack(part['imgs'])

    def _black(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """A black video of the size that the transforms give."""
        total, fps = results['total_frames'], results['fps']
        raw = FrameArray.black(total, results['black_shape'], fps)
        shape = self._decode(results, raw, [0]).shape[1:]
        return self._give(results, FrameArray.black(total, shape, fps))

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(cache_dir={self.cache_dir!r}, '
                f'transforms={self.recipe})')
