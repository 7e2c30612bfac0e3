"""Re-encode videos so that windows of them decode fast.

A key frame every few frames bounds what a decoder has to read before it can
show the first frame of a window; small frames are cheap to decode and need
no large resize. The time axis stays as it is, at a constant frame rate.
"""
import os
import os.path as osp
import shutil
import subprocess
import uuid
from typing import NamedTuple, Optional, Tuple

from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.messages import require_choice
from mmblockdrop.utils.video import UnreadableVideoError, Video

import numpy as np

#: Frames decoded at a time.
CHUNK_FRAMES = 32
ENCODERS = ('ffmpeg', 'opencv')
#: OpenCV sets a key frame this often, and cannot be told otherwise.
OPENCV_GOP = 12


class Recipe(NamedTuple):
    """How a video is written.

    Args:
        short_side: Pixels of the short side; a smaller video is not enlarged.
            None keeps the size.
        size: Width and height instead, whatever the video's shape.
        gop: A key frame every so many frames at least.
        fps: Frames per second; None keeps the average rate of the file.
        crf: Quality of H.264, lower is better; for ``ffmpeg``.
        encoder: ``ffmpeg`` writes H.264; ``opencv`` needs no program and
            writes MPEG-4 part 2, with a key frame every 12 frames.
    """
    short_side: Optional[int] = 160
    size: Optional[Tuple[int, int]] = None
    gop: int = 16
    fps: Optional[float] = None
    crf: int = 20
    encoder: str = 'ffmpeg'


def default_encoder() -> str:
    """``ffmpeg`` if that program is there, else ``opencv``."""
    return 'ffmpeg' if shutil.which('ffmpeg') else 'opencv'


def check_recipe(recipe: Recipe) -> None:
    """Refuse what an encoder cannot do.

    Args:
        recipe: How videos are to be written.

    Raises:
        ValueError: Unknown encoder, or key frames too close for it.
    """
    require_choice('encoder', recipe.encoder, ENCODERS)
    least = OPENCV_GOP if recipe.encoder == 'opencv' else 1
    if recipe.gop < least:
        raise ValueError(f'gop={recipe.gop}, but {recipe.encoder} sets a key '
                         f'frame every {least} frames: expected {least} or '
                         'more'
                         + (', or ffmpeg' if least > 1 else ''))


def target_size(width: int, height: int, recipe: Recipe) -> Tuple[int, int]:
    """Size of the new video, even numbers as codecs ask for.

    Args:
        width: Pixels of the video.
        height: Pixels of the video.
        recipe: Says which size is wanted.

    Returns:
        Width and height.
    """
    if recipe.size is not None:
        width, height = recipe.size
    elif recipe.short_side is not None:
        scale = min(1., recipe.short_side / min(width, height))
        width, height = width * scale, height * scale
    return max(2, round(width / 2) * 2), max(2, round(height / 2) * 2)


def transcode(source: str, target: str, recipe: Recipe) -> int:
    """Write a video anew, under its final name only once it is whole.

    Args:
        source: The video.
        target: The new ``.mp4``; its folder is made.
        recipe: How.

    Returns:
        Frames of the new video.

    Raises:
        UnreadableVideoError: If the video is missing or damaged.
        RuntimeError: If the encoder fails, or leaves out frames.
        ValueError: If the encoder cannot set key frames as often.
    """
    check_recipe(recipe)
    reader = Video(source)
    fps = recipe.fps or reader.fps
    height, width = reader[0].shape[:2]
    size = target_size(width, height, recipe)
    expected = max(1, round(len(reader) / reader.fps * fps))
    os.makedirs(osp.dirname(osp.abspath(target)), exist_ok=True)
    with whole_file(target, f'.{uuid.uuid4().hex[:8]}.part.mp4') as temporary:
        partial = str(temporary)
        if recipe.encoder == 'ffmpeg':
            del reader
            _run_ffmpeg(ffmpeg_command(source, partial, size, fps, recipe))
        else:
            _write_by_opencv(reader, partial, size, fps, expected)
        return _verify(partial, source, size, expected)


def _verify(path: str, source: str, size: Tuple[int, int],
            expected: int) -> int:
    """Read a new video as training will; return its number of frames."""
    reader = Video(path)
    written = len(reader)
    if abs(written - expected) > max(2, 0.005 * expected):
        raise RuntimeError(
            f'{source!r}: {written} frames were written, {expected} expected; '
            'the file may be damaged at some point')
    try:
        found = reader.read([0, written - 1]).shape[1:]
    except UnreadableVideoError:
        found = None
    if found != (size[1], size[0], 3):
        raise RuntimeError(
            f'{source!r}: frames of {size[0]} x {size[1]} pixels are read '
            f'back as {found}; decord misreads some videos that are narrower '
            'than 64 pixels')
    return written


def ffmpeg_command(source: str, target: str, size: Tuple[int, int],
                   fps: float, recipe: Recipe) -> list:
    """Command line that re-encodes by H.264.

    Args:
        source: The video.
        target: The file to write.
        size: Width and height.
        fps: Frames per second.
        recipe: Key frames and quality.

    Returns:
        Program and arguments.
    """
    gop = str(recipe.gop)
    return [
        'ffmpeg', '-nostdin', '-v', 'error', '-y', '-i', source, '-map',
        '0:v:0', '-an', '-sn', '-dn', '-vf',
        f'fps={fps:.6f},scale={size[0]}:{size[1]}', '-c:v', 'libx264',
        '-preset', 'fast', '-crf', str(recipe.crf), '-pix_fmt', 'yuv420p',
        '-g', gop, '-keyint_min', gop, '-sc_threshold', '0', '-bf', '0',
        '-threads', '1', '-movflags', '+faststart', target
    ]


def _run_ffmpeg(command: list) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f'ffmpeg failed on {command[6]!r}: '
                           f'{said[-1] if said else done.returncode}')


def _write_by_opencv(reader: Video, target: str,
                     size: Tuple[int, int], fps: float, count: int) -> None:
    """Decode with decord and write with OpenCV, a few frames at a time."""
    import cv2
    source = _source_frames(reader, fps, count)
    writer = cv2.VideoWriter(target, cv2.CAP_FFMPEG,
                             cv2.VideoWriter_fourcc(*'mp4v'), fps, size)
    try:
        if not writer.isOpened():
            raise RuntimeError(f'OpenCV cannot write {target!r} as MPEG-4')
        for start in range(0, count, CHUNK_FRAMES):
            wanted = source[start:start + CHUNK_FRAMES]
            unique, place = np.unique(wanted, return_inverse=True)
            for frame in reader.read(unique)[place]:
                if frame.shape[1::-1] != size:
                    frame = cv2.resize(
                        frame, size, interpolation=cv2.INTER_AREA)
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()


def _source_frames(reader: Video, fps: float, count: int) -> np.ndarray:
    """Which frame of the video is shown at each frame of the new one."""
    times = reader.times()
    begin = np.maximum.accumulate(times - times[0])
    shown = (np.arange(count) + 0.5) / fps
    return np.clip(
        np.searchsorted(begin, shown, side='right') - 1, 0, len(reader) - 1)
