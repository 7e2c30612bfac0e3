"""Re-encode videos by ffmpeg so that windows of them decode fast.

A key frame every few frames bounds what a decoder has to read before it can
show the first frame of a window; small frames are cheap to decode and need
no large resize. The time axis stays as it is, at a constant frame rate. Where
the time stamps of a file are not even, ffmpeg gets the decoded frames that
training would see, not the file.
"""
import os
import os.path as osp
import shutil
import subprocess
import tempfile
import uuid
from typing import List, NamedTuple, Optional, Tuple

from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.messages import require_whole
from mmblockdrop.utils.video import UnreadableVideoError, Video


class Recipe(NamedTuple):
    """How a video is written.

    Args:
        short_side: Pixels of the short side; a smaller video is not enlarged.
            None keeps the size.
        size: Width and height instead, whatever the video's shape.
        gop: A key frame every so many frames.
        fps: Frames per second; None keeps the average rate of the file.
        crf: Quality of H.264, lower is better.
    """
    short_side: Optional[int] = 160
    size: Optional[Tuple[int, int]] = None
    gop: int = 16
    fps: Optional[float] = None
    crf: int = 20


def find_ffmpeg() -> str:
    """The program ffmpeg, on the path or of the package imageio-ffmpeg.

    Returns:
        Path of the program.

    Raises:
        FileNotFoundError: It is not installed; says how to get it.
    """
    program = shutil.which('ffmpeg')
    if program is None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
            program = get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            raise FileNotFoundError(
                'the program ffmpeg, which re-encodes videos, is not on PATH; '
                'install it by "apt install ffmpeg", "conda install ffmpeg" '
                'or "pip install imageio-ffmpeg"') from None
    return program


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
        FileNotFoundError: See :func:`find_ffmpeg`.
        UnreadableVideoError: The video is missing or damaged.
        RuntimeError: ffmpeg fails, or leaves out frames.
        ValueError: ``gop`` is not a positive whole number.
    """
    require_whole('gop', recipe.gop, 1)
    video = Video(source)
    fps = recipe.fps or video.fps
    height, width = video[0].shape[:2]
    expected = max(1, round(len(video) / video.fps * fps))
    piped = video.timing is not None and bool(video.timing.reason)
    size = target_size(width, height, recipe)
    os.makedirs(osp.dirname(osp.abspath(target)), exist_ok=True)
    with whole_file(target, f'.{uuid.uuid4().hex[:8]}.part.mp4') as temporary:
        command = ffmpeg_command(source, str(temporary), size, fps, recipe)
        if piped:
            place = command.index('-i')
            command[place:place + 2] = [
                '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s',
                f'{width}x{height}', '-r', f'{video.fps:.6f}', '-i', 'pipe:0'
            ]
        status, said = _run(command, video if piped else None)
        if status:
            raise RuntimeError(f'ffmpeg failed on {source!r}: '
                               f'{said[-1] if said else status}')
        return _verify(str(temporary), source, size, expected)


def _run(command: List[str],
         video: Optional[Video]) -> Tuple[int, List[str]]:
    """Exit status and messages of a program that may ask for frames."""
    with tempfile.TemporaryFile('w+') as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if video is None else subprocess.PIPE,
            stdout=said,
            stderr=said)
        try:
            if video is not None:
                with process.stdin as pipe:
                    for index in range(len(video)):
                        pipe.write(video[index].tobytes())
        except BrokenPipeError:
            pass  # it says why
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        said.seek(0)
        return status, said.read().strip().splitlines()


def _verify(path: str, source: str, size: Tuple[int, int],
            expected: int) -> int:
    """Read a new video as training will; return its number of frames."""
    video = Video(path)
    written = len(video)
    if abs(written - expected) > max(2, 0.005 * expected):
        raise RuntimeError(
            f'{source!r}: {written} frames were written, {expected} expected; '
            'the file may be damaged at some point')
    try:
        found = video.read([0, written - 1]).shape[1:]
    except UnreadableVideoError:
        found = None
    if found != (size[1], size[0], 3):
        raise RuntimeError(
            f'{source!r}: frames of {size[0]} x {size[1]} pixels are read '
            f'back as {found}')
    return written


def ffmpeg_command(source: str, target: str, size: Tuple[int, int],
                   fps: float, recipe: Recipe) -> List[str]:
    """Command line that re-encodes by H.264.

    Args:
        source: The video.
        target: The file to write.
        size: Width and height.
        fps: Frames per second.
        recipe: Key frames and quality.

    Returns:
        Program and arguments.

    Raises:
        FileNotFoundError: See :func:`find_ffmpeg`.
    """
    gop = str(recipe.gop)
    return [
        find_ffmpeg(), '-nostdin', '-v', 'error', '-y', '-i', source, '-map',
        '0:v:0', '-an', '-sn', '-dn', '-vf',
        f'fps={fps:.6f},scale={size[0]}:{size[1]}', '-c:v', 'libx264',
        '-preset', 'fast', '-crf', str(recipe.crf), '-pix_fmt', 'yuv420p',
        '-g', gop, '-keyint_min', gop, '-sc_threshold', '0', '-bf', '0',
        '-threads', '1', '-movflags', '+faststart', target
    ]
