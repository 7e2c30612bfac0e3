"""The one place that opens a video.

Frames are asked for by number: of a file (:class:`Video`), or of an array
behind the same methods (:class:`FrameArray`). Nothing else imports the
decoders. A moment is its presentation time stamp; see :class:`Video`.
"""
import functools
import os
import os.path as osp
from typing import Any, Dict, Optional, Sequence, Tuple, Type

import numpy as np

from .io import PathLike
from .time_stamps import NARROW, StampReader, UnreadableVideoError, read_timing

VIDEO_SUFFIXES = ('.mp4', '.mkv', '.avi', '.webm', '.mov', '.mpg', '.mpeg',
                  '.m4v', '.flv')


def read_errors() -> Tuple[Type[Exception], ...]:
    """Errors of a pipeline that say that a file is at fault.

    Returns:
        Ours, and the decoder's own, which mmaction2's ``DecordInit`` lets
        through.
    """
    try:
        from decord import DECORDError
    except ImportError:
        return (UnreadableVideoError, )
    return UnreadableVideoError, DECORDError


class Frames:
    """Frames by number, as uint8 RGB of one size.

    Attributes:
        fps: Frames per second, on average.
    """
    fps: float

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames.

        Args:
            indices: Numbers [N] of the frames, in any order.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            UnreadableVideoError: They cannot be decoded.
        """
        raise NotImplementedError

    def __getitem__(self, index: int) -> np.ndarray:
        """One frame, uint8 [H, W, 3]."""
        return self.read([index])[0]

    # What mmaction2's DecordDecode asks for.

    def get_avg_fps(self) -> float:
        """Frames per second, on average."""
        return self.fps

    def get_batch(self, indices: Sequence[int]) -> 'FrameArray':
        """Frames behind an ``asnumpy()``; see :meth:`read`."""
        return FrameArray(self.read(indices), self.fps)


class FrameArray(Frames):
    """Frames in an array, a memory map for example.

    Args:
        frames: uint8 [T, H, W, 3].
        fps: Frames per second.
    """

    def __init__(self, frames: np.ndarray, fps: float) -> None:
        self.frames = frames
        self.fps = fps

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        return self.frames[np.asarray(indices)]

    def asnumpy(self) -> np.ndarray:
        """All frames, uint8 [T, H, W, 3]."""
        return self.frames

    @classmethod
    def black(cls, length: int, shape: Sequence[int],
              fps: float) -> 'FrameArray':
        """A black video that takes no memory.

        Args:
            length: Number of frames, at least one is made.
            shape: Height and width in pixels; more is ignored.
            fps: Frames per second.
        """
        frame = np.zeros((1, *shape[:2], 3), dtype=np.uint8)
        return cls(np.broadcast_to(frame, (max(1, length), *frame.shape[1:])),
                   fps)


class Video(Frames):
    """A video file that is open, with at least one frame.

    Its frames are an even sequence: number k is the frame that is shown
    ``k / fps`` seconds after the start of the file. Where the file's own time
    stamps are even this is its k-th frame; of a file with a variable frame
    rate, or one whose pictures begin later than its sound, frames repeat or
    are skipped. Frames that the file hides (by an edit list) do not count.

    decord decodes the files of which it is known to find the frames; PyAV
    the others, by time stamp. See :attr:`Timing.reason`.

    A process or thread that did not open it must not read from it.

    Args:
        filename: Path of the video.
        num_threads: Threads of the decoder.
        size: Width and height in pixels of the frames that the decoder gives.
            None keeps the video's.

    Attributes:
        timing: What the time stamps say; None without PyAV.

    Raises:
        UnreadableVideoError: It is missing, empty or damaged.
    """

    def __init__(self,
                 filename: PathLike,
                 num_threads: int = 1,
                 size: Optional[Tuple[int, int]] = None) -> None:
        self.filename = str(filename)
        key = _file_key(self.filename)
        if key[1] == 0:
            raise UnreadableVideoError(self.filename,
                                       'the file has zero bytes')
        self.timing = self._decode(lambda: read_timing(*key))
        narrow = size is not None and size[0] < NARROW
        self._reader: Any = None
        if self.timing is None or not (self.timing.reason or narrow):
            self._reader = self._ask_decord(num_threads, size)
        if self._reader is None:
            if not self.timing.reason:
                self.timing = self._decode(
                    lambda: read_timing(*key, use_decord=False))
            self._reader = self._decode(lambda: StampReader(
                self.filename, self.timing.index, num_threads, size))
        if len(self._reader) == 0:
            raise UnreadableVideoError(self.filename,
                                       'the video has no frames')
        self.fps = (float(self._reader.get_avg_fps()) if self.timing is None
                    else self.timing.fps)

    def _ask_decord(self, num_threads: int,
                    size: Optional[Tuple[int, int]]) -> Any:
        """Its reader; None where it and the time stamps do not agree."""
        width, height = size or (-1, -1)
        try:
            import decord
            reader = decord.VideoReader(
                self.filename,
                width=width,
                height=height,
                num_threads=num_threads)
        except Exception as error:  # decord raises RuntimeError or DECORDError
            if self.timing is not None:
                return None
            raise UnreadableVideoError(
                self.filename, 'not a video, cut off or damaged '
                f'({str(error).strip().splitlines()[-1]})') from error
        if self.timing is not None and len(reader) != self.timing.frames:
            return None
        return reader

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(self._reader, StampReader):
            return self._decode(lambda: self._reader.read(indices))
        return self._decode(lambda: self._reader.get_batch(indices).asnumpy())

    def read_at(self, seconds: Sequence[float],
                ahead: float = 0.) -> np.ndarray:
        """Decode the frames that are shown at some moments.

        Unlike :meth:`read` it chooses among all frames of a file with a
        variable frame rate, not among those of the even sequence.

        Args:
            seconds: Moments [N] from the start of the file, in any order.
            ahead: Largest distance in seconds to a frame that is shown
                later and is nearer than the one that is shown.

        Returns:
            uint8 [N, H, W, 3]; the first or last frame beyond the ends.

        Raises:
            UnreadableVideoError: They cannot be decoded.
        """
        index = None if self.timing is None else self.timing.index
        starts = (np.arange(len(self)) / self.fps if index is None else
                  index.seconds)
        places = _nearest_shown(starts, np.asarray(seconds), ahead)
        if isinstance(self._reader, StampReader):
            return self._decode(lambda: self._reader.read_places(places))
        return self.read(places)

    def times(self) -> np.ndarray:
        """When each frame is shown.

        Returns:
            float64 [T], seconds from the start of the file; of an even file,
            to within half a frame.

        Raises:
            UnreadableVideoError: The file cannot tell.
        """
        if self.timing is None:
            numbers = np.arange(len(self))
            times = self._decode(lambda: np.asarray(
                self._reader.get_frame_timestamp(numbers), np.float64)[:, 0])
            return times - times[0]
        if self.timing.index is None:
            return np.arange(len(self)) / self.fps
        return self.timing.index.seconds[self.timing.index.shown]

    def _decode(self, function: Any) -> Any:
        """Call the decoder; its errors name the file."""
        try:
            return function()
        except UnreadableVideoError:
            raise
        except Exception as error:  # decord raises RuntimeError or DECORDError
            raise UnreadableVideoError(self.filename,
                                       decoding_reason(error)) from error


def _nearest_shown(starts: np.ndarray, seconds: np.ndarray,
                   ahead: float) -> np.ndarray:
    """Numbers of the frames shown at some moments; see Video.read_at."""
    shown = np.searchsorted(starts, seconds, 'right') - 1
    shown = np.clip(shown, 0, len(starts) - 1)
    following = np.minimum(shown + 1, len(starts) - 1)
    wait = starts[following] - seconds
    # The microsecond lets the frame that is shown win where both are as near.
    nearer = (wait + 1e-6 < seconds - starts[shown]) & (wait < ahead)
    # Rounding of the moment itself.
    nearer |= wait < 1e-6
    return np.where(nearer, following, shown)


class ResampledVideo(Frames):
    """A video at another rate, whose frames repeat or are skipped.

    Number k is the frame that is shown k / ``fps`` seconds after the start
    of the file, or one that follows within half of 1 / ``fps`` and is nearer.

    Args:
        video: The video.
        fps: Frames per second.
    """

    def __init__(self, video: Video, fps: float) -> None:
        self.video = video
        self.fps = fps
        self._length = resampled_length(len(video) / video.fps, fps)

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> np.ndarray:
        numbers = np.asarray(indices).reshape(-1)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        return self.video.read_at(numbers / self.fps, 0.5 / self.fps)


def resampled_length(duration: float, fps: float) -> int:
    """Frames of a video at a rate.

    Args:
        duration: Length of the video in seconds.
        fps: Frames per second.

    Returns:
        The nearest number of frames, at least one.
    """
    return max(1, round(duration * fps))


def _file_key(filename: str) -> Tuple[str, int, int]:
    """What changes when a file does."""
    if not osp.isfile(filename):
        raise UnreadableVideoError(filename, absence(filename))
    status = os.stat(filename)
    return filename, status.st_size, status.st_mtime_ns


def decoding_reason(error: Exception) -> str:
    """What is wrong with a file, from an error of the decoder or ours.

    Args:
        error: One of :func:`read_errors`.

    Returns:
        Text without the file's name or where it was raised.
    """
    if isinstance(error, UnreadableVideoError):
        return error.reason
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].rsplit('Check failed: ', 1)[-1]
    return f'its frames cannot be decoded ({reason})'


def probe_video(filename: PathLike) -> Tuple[int, float]:
    """Length and rate of a video, remembered until the file changes.

    Args:
        filename: Path of the video.

    Returns:
        Number of frames, and frames per second.

    Raises:
        UnreadableVideoError: It is missing, empty or damaged, or has no
            frame rate.
    """
    return _probe(*_file_key(str(filename)))


@functools.lru_cache(maxsize=None)
def _probe(filename: str, size: int, mtime_ns: int) -> Tuple[int, float]:
    """Open a video and read its length and rate."""
    video = Video(filename)
    if not video.fps > 0:
        raise UnreadableVideoError(filename,
                                   f'it has {video.fps} frames per second')
    return len(video), video.fps


def absence(filename: PathLike) -> str:
    """Why there is no file of a name.

    Args:
        filename: What is no file.

    Returns:
        Words for an error.
    """
    if osp.isdir(filename):
        return 'it is a folder, expected a file'
    if osp.islink(filename):
        return (f'it is a link to {os.readlink(filename)!r}, which does not '
                'exist')
    return 'there is no such file'


@functools.lru_cache(maxsize=1024)
def _listing(folder: str, mtime_ns: int) -> Dict[str, Tuple[str, ...]]:
    """Suffixes of the files of a folder by the rest of their names."""
    files: Dict[str, Tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = osp.splitext(name)
        files[stem] = files.get(stem, ()) + (suffix, )
    return files


def find_media(folder: str,
               name: str,
               suffixes: Sequence[str] = VIDEO_SUFFIXES,
               where: str = '') -> Optional[str]:
    """File of a video in a folder, whatever its suffix.

    Suffixes may be in upper case, in the name and of the file. Links may lead
    anywhere.

    Args:
        folder: Folder of videos or features.
        name: Name of the video, with or without a suffix, below ``folder``:
            ``x``, ``x.mp4``, ``camera_1/x``.
        suffixes: Accepted suffixes, best first.
        where: What gave the name, for errors.

    Returns:
        Path of the file, None if there is none.

    Raises:
        ValueError: The name is absolute or leads out of the folder.
    """
    path = osp.normpath(name)
    if osp.isabs(path) or path.split(os.sep)[0] == osp.pardir:
        raise ValueError(f'{where}{": " if where else ""}the video {name!r} '
                         f'lies outside {folder!r}; expected a name below it')
    inside, stem = osp.split(path)
    if inside:
        folder = osp.join(folder, inside)
        if not osp.isdir(folder):
            return None
    files = _listing(folder, os.stat(folder).st_mtime_ns)
    base, ending = osp.splitext(stem)
    if ending.lower() in suffixes:
        for present in sorted(files.get(base, ()), key=ending.__ne__):
            if present.lower() == ending.lower():
                return osp.join(folder, base + present)
    for suffix in suffixes:
        for present in files.get(stem, ()):
            if present.lower() == suffix:
                return osp.join(folder, stem + present)
    return None
