"""Finding and opening files, with errors that help."""
import difflib
import functools
import os
import os.path as osp
from typing import Any, Dict, Iterable, Optional, Sequence, Tuple

import numpy as np

VIDEO_SUFFIXES = ('.mp4', '.mkv', '.avi', '.webm', '.mov', '.mpg', '.mpeg',
                  '.m4v', '.flv')
FEATURE_SUFFIXES = ('.npy', )


class UnreadableVideoError(RuntimeError):
    """A video or feature file that cannot be read.

    Args:
        filename: The file at fault.
        reason: What was found.
    """

    def __init__(self, filename: str, reason: str) -> None:
        super().__init__(filename, reason)
        self.filename = filename
        self.reason = reason

    def __str__(self) -> str:
        return f'cannot read {self.filename!r}: {self.reason}'


def nearest(value: Any, choices: Iterable[Any]) -> str:
    """``"; did you mean 'x'?"``, or the choices if none is near.

    Args:
        value: What was found.
        choices: What was expected.
    """
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    if close:
        return f'; did you mean {close[0]!r}?'
    shown = ', '.join(repr(name) for name in names[:12])
    more = f', and {len(names) - 12} more' if len(names) > 12 else ''
    return f'; there is {shown}{more}' if names else '; there is none'


def require_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    """Check that a setting is one of a few.

    Args:
        key: The setting, for the message.
        value: What was found.
        choices: What was expected.

    Raises:
        ValueError: With the nearest choice.
    """
    if value not in choices:
        raise ValueError(f'{key}={value!r} is not known'
                         f'{nearest(value, choices)}')


def require_path(path: str, key: str) -> str:
    """Check that a path of a config exists.

    Args:
        path: File or folder.
        key: The config key that gave it, for the message.

    Returns:
        The path.

    Raises:
        FileNotFoundError: With the deepest folder that exists and the
            nearest name in it.
    """
    if osp.exists(path):
        return path
    parent, missing = osp.split(osp.normpath(path))
    while parent and not osp.isdir(parent):
        parent, missing = osp.split(parent)
    parent = parent or '.'
    hint = nearest(missing, sorted(os.listdir(parent)))
    raise FileNotFoundError(
        f'{key}={path!r} does not exist: folder {osp.abspath(parent)!r} has '
        f'no {missing!r}{hint}')


@functools.lru_cache(maxsize=8)
def _listing(folder: str, mtime_ns: int) -> Dict[str, Tuple[str, ...]]:
    files: Dict[str, Tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = osp.splitext(name)
        files[stem] = files.get(stem, ()) + (suffix, )
    return files


def find_media(folder: str, stem: str,
               suffixes: Sequence[str]) -> Optional[str]:
    """File of a video in a folder, whatever its suffix.

    Args:
        folder: Folder of videos or features.
        stem: File name, with or without its suffix.
        suffixes: Accepted suffixes, best first.

    Returns:
        Path of the file, None if there is none.
    """
    files = _listing(folder, os.stat(folder).st_mtime_ns)
    for suffix in suffixes:
        for present in files.get(stem, ()):
            if present.lower() == suffix:
                return osp.join(folder, stem + present)
    path = osp.join(folder, stem)
    if osp.splitext(stem)[1].lower() in suffixes and osp.isfile(path):
        return path
    return None


def open_video(filename: str,
               num_threads: int = 1,
               size: Optional[Tuple[int, int]] = None) -> Any:
    """Open a video with decord.

    Args:
        filename: Path of the video.
        num_threads: Threads of the decoder.
        size: Width and height of the frames that the decoder gives. None keeps
            the video's.

    Returns:
        decord.VideoReader: The open video, with at least one frame.

    Raises:
        UnreadableVideoError: If it is missing, empty or damaged.
    """
    import decord
    if not osp.isfile(filename):
        raise UnreadableVideoError(filename, 'there is no such file')
    if osp.getsize(filename) == 0:
        raise UnreadableVideoError(filename, 'the file has zero bytes')
    width, height = size or (-1, -1)
    try:
        reader = decord.VideoReader(
            filename, width=width, height=height, num_threads=num_threads)
    except Exception as error:  # decord raises RuntimeError or DECORDError
        raise UnreadableVideoError(
            filename, 'not a video, cut off or damaged '
            f'({str(error).strip().splitlines()[-1]})') from error
    if len(reader) == 0:
        raise UnreadableVideoError(filename, 'the video has no frames')
    return reader


@functools.lru_cache(maxsize=None)
def _probe(filename: str, size: int, mtime_ns: int) -> Tuple[int, float]:
    reader = open_video(filename)
    return len(reader), float(reader.get_avg_fps())


def probe_video(filename: str) -> Tuple[int, float]:
    """Number of frames and frames per second of a video, remembered.

    Raises:
        UnreadableVideoError: If it is missing, empty or damaged.
    """
    if not osp.isfile(filename):
        raise UnreadableVideoError(filename, 'there is no such file')
    status = os.stat(filename)
    return _probe(filename, status.st_size, status.st_mtime_ns)


class FrameArray:
    """Frames in an array behind the part of decord's reader that is used.

    With it, transforms written for decord read from memory, from a memory
    map or from a black video.

    Args:
        frames: uint8 [T, H, W, 3].
        fps: Frames per second.
    """

    def __init__(self, frames: np.ndarray, fps: float) -> None:
        self.frames = frames
        self.fps = fps

    def __len__(self) -> int:
        return len(self.frames)

    def get_avg_fps(self) -> float:
        return self.fps

    def get_batch(self, indices: Sequence[int]) -> 'FrameArray':
        return FrameArray(self.frames[np.asarray(indices)], self.fps)

    def asnumpy(self) -> np.ndarray:
        return self.frames

    @classmethod
    def black(cls, length: int, shape: Sequence[int],
              fps: float) -> 'FrameArray':
        """A black video of ``length`` frames that takes no memory."""
        frame = np.zeros((1, *shape[:2], 3), dtype=np.uint8)
        return cls(np.broadcast_to(frame, (max(1, length), *frame.shape[1:])),
                   fps)
