"""Time stamps of a video, and frames by time stamp, both by PyAV.

Time stamps are read without decoding (:func:`read_timing`). decord decodes
the files of which it is known to find the frames; :class:`StampReader` the
others. :mod:`~mmblockdrop.utils.video` decides, and is what others use.
"""
import functools
import warnings
from itertools import islice
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np


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


#: decord misreads some frames of fewer pixels in a row.
NARROW = 64
#: Above this the time stamps are taken for damaged.
MOST_FRAMES = 20_000_000
#: Containers, as FFmpeg calls them, whose time stamps decord understands.
DECORD_CONTAINERS = ('mov', 'matroska')
#: Codecs that decord's FFmpeg decodes.
DECORD_CODECS = ('h264', 'hevc', 'vp8', 'vp9', 'mpeg4')
#: What may be opened: files that hold their own frames, no playlists.
CONTAINERS = ('mov', 'matroska', 'avi', 'mpeg', 'mpegts', 'mpegvideo', 'flv',
              'asf', 'ogg', 'mxf', 'h264', 'hevc', 'm4v', 'ivf')


class StampIndex(NamedTuple):
    """How frames are found by time stamp.

    Args:
        stamps: int64 [N], time stamps of the frames in the order in which
            they are shown, in units of the file. None if they do not tell
            frames apart, which are then counted from the file's beginning.
        seconds: float64 [N], the same from the start of the file.
        shown: int64 [T], of the even sequence, which of the N frames.
        keys: int64 [K], number among the N frames of each key frame.
        targets: int64 [K], where to seek for it.
    """
    stamps: Optional[np.ndarray]
    seconds: np.ndarray
    shown: np.ndarray
    keys: np.ndarray
    targets: np.ndarray


class Timing(NamedTuple):
    """What the time stamps of a video say.

    Args:
        codec: Name of the codec, as FFmpeg has it.
        frames: Length of the even sequence; see :class:`Video`.
        fps: Its frames per second.
        drift: Largest distance in seconds between the time stamp of a frame
            and its number over ``fps``.
        hidden: Frames that the file holds and does not show.
        start: Seconds from the start of the file, which may be one of sound,
            to its first frame.
        reason: Why PyAV decodes and not decord; empty if decord does.
        index: How frames are found; None if decord decodes.
    """
    codec: str
    frames: int
    fps: float
    drift: float
    hidden: int
    start: float
    reason: str
    index: Optional[StampIndex]


@functools.lru_cache(maxsize=None)
def _pyav() -> Any:
    """PyAV; None, with a warning, where it is not installed."""
    try:
        import av
    except ImportError:
        warnings.warn(
            'PyAV is not installed (pip install av): time stamps of videos '
            'are not read, and frames of .avi, .mpg and .ts files, of files '
            'with a variable frame rate or an edit list may be wrong ones')
        return None
    return av


@functools.lru_cache(maxsize=1024)
def read_timing(filename: str, size: int, mtime_ns: int,
                 use_decord: bool = True) -> Optional[Timing]:
    """Read the time stamps of a video, remembered until the file changes.

    Args:
        filename: Path of the video.
        size: Its bytes.
        mtime_ns: When it was changed.
        use_decord: Whether decord may decode it.

    Returns:
        What they say; None if PyAV is missing.

    Raises:
        UnreadableVideoError: It is not a video, empty or damaged.
    """
    av = _pyav()
    if av is None:
        return None
    try:
        opened = _open_container(filename)
    except (av.FFmpegError, ValueError) as error:
        raise UnreadableVideoError(
            filename, 'not a video, cut off or damaged '
            f'({getattr(error, "strerror", error)})') from error
    with opened as container:
        return _timing(filename, container, use_decord)


def _open_container(filename: str) -> Any:
    """A file with a video stream, opened by PyAV."""
    container = _pyav().open(
        filename,
        options={
            'protocol_whitelist': 'file',
            'format_whitelist': ','.join(CONTAINERS)
        })
    if container.streams.best('video') is None:
        container.close()
        raise ValueError('no video stream')
    return container


def _timing(filename: str, container: Any, use_decord: bool) -> Timing:
    """See :func:`read_timing`."""
    stream = container.streams.best('video')
    if stream.codec_context is None:
        raise UnreadableVideoError(filename, 'nothing decodes its codec')
    family = container.format.name.split(',')[0]
    codec = stream.codec_context.codec.canonical_name
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    packets = [
        _Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard,
                packet.is_corrupt) for packet in container.demux(stream)
        if packet.size
    ]
    if not packets:
        raise UnreadableVideoError(filename, 'the video has no frames')
    if family == 'mov' and packets[-1].corrupt and (
            len(packets) < stream.frames):
        raise UnreadableVideoError(
            filename,
            f'cut off after {len(packets)} of {stream.frames} frames')
    hidden = sum(packet.hidden for packet in packets)
    reason = ''
    if codec not in DECORD_CODECS:
        reason = f'its codec is {codec}'
    elif family not in DECORD_CONTAINERS:
        reason = f'its container is {container.format.name}'
    elif hidden:
        reason = f'{hidden} of its frames are hidden by an edit list'
    elif stream.codec_context.width < NARROW:
        reason = f'it is {stream.codec_context.width} pixels wide'
    elif _open_groups(packets):
        reason = 'frames that follow a key frame are shown before it'
    elif not use_decord:
        reason = 'decord does not read it as its time stamps say'
    stamps = _rising_stamps(packets)
    if family == 'mpeg' or family == 'avi' and codec != 'mpeg4' and any(
            packet.stamp != packet.order for packet in packets):
        stamps = None  # FFmpeg's guess, which depends on where it begins
    keys = [packet for packet in packets if packet.key]
    if stamps is not None:
        line = _time_line(stamps, container, stream, rate)
        if line.shown is None and not reason:
            return Timing(codec, len(stamps), line.fps, line.drift, hidden,
                          line.seconds[0], reason, None)
        targets = np.array([
            min(packet.stamp, packet.order or packet.stamp)
            if family == 'mpegts' else packet.stamp
            for packet in keys], np.int64)
        places = np.searchsorted(stamps, [packet.stamp for packet in keys])
        if not _stamps_hold(filename, stamps, places, targets):
            stamps = None
    if stamps is None:
        counted = _decoded_stamps(filename)
        if len(counted) == 0:
            raise UnreadableVideoError(
                filename, f'none of its frames ({codec}) can be decoded')
        if None in counted or (np.diff(counted) <= 0).any():
            counted = np.arange(len(counted)) / float(
                (rate or 1.) * stream.time_base)
        line = _time_line(np.asarray(counted), container, stream, rate)
        targets = places = np.zeros(0, np.int64)
    shown = line.shown
    if shown is None:
        shown = np.arange(len(line.seconds))
    elif not reason:
        reason = ('its frame rate is variable' if line.seconds[0] * line.fps <
                  1 else f'its first frame is shown at {line.seconds[0]:.3f} '
                  's')
    return Timing(codec, len(shown), line.fps, line.drift, hidden,
                  line.seconds[0], reason or 'its time stamps do not rise',
                  StampIndex(stamps, line.seconds, shown, places, targets))


class _Packet(NamedTuple):
    """A frame before it is decoded; time stamps in units of the file."""
    stamp: Optional[int]
    order: Optional[int]
    key: bool
    hidden: bool
    corrupt: bool


def _rising_stamps(packets: Sequence[_Packet]) -> Optional[np.ndarray]:
    """Time stamps [N] of what is shown; None if they are not distinct."""
    if any(packet.stamp is None for packet in packets):
        return None
    stamps = np.sort([p.stamp for p in packets if not p.hidden])
    if len(stamps) == 0 or (np.diff(stamps) <= 0).any():
        return None
    return stamps.astype(np.int64)


def _open_groups(packets: Sequence[_Packet]) -> bool:
    """Whether frames that follow a key frame are shown before it."""
    key = None
    for packet in packets:
        if packet.key:
            key = packet.stamp
        elif key is not None and packet.stamp is not None and (
                packet.stamp < key):
            return True
    return False


class _TimeLine(NamedTuple):
    """Seconds [N] from the start, and the even sequence; see Timing."""
    seconds: np.ndarray
    shown: Optional[np.ndarray]
    fps: float
    drift: float


def _time_line(stamps: np.ndarray, container: Any, stream: Any,
               rate: float) -> _TimeLine:
    """Lay frames on an even sequence; ``shown`` is None if it is theirs."""
    seconds = stamps * float(stream.time_base)
    start = seconds[0]
    # AVI has no time stamps: the first is the delay of the decoder.
    if container.format.name != 'avi':
        start = min([start] + [
            float(sound.start_time * sound.time_base)
            for sound in container.streams.audio
            if sound.start_time is not None
        ])
    numbers = np.arange(len(seconds))
    measured = rate
    if len(seconds) > 1:
        measured = (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    if not rate > 0:
        rate = measured
    # Less than a frame is not worth one that comes twice.
    if (seconds[0] - start) * measured < 1:
        start = seconds[0]
    seconds = seconds - start
    for fps in (rate, measured):
        drift = np.abs(seconds - numbers / fps).max() if fps else 0.
        if drift * fps <= 0.5:
            return _TimeLine(seconds, None, fps, float(drift))
    fps = rate if abs(rate / measured - 1) < 0.01 else measured
    drift = np.abs(seconds - numbers / fps).max()
    length = round(float(seconds[-1]) * fps) + 1
    if length > MOST_FRAMES:
        raise ValueError(f'a video of {seconds[-1]:.0f} s, its sound included')
    times = np.arange(length) / fps
    # Time stamps may be rounded to milliseconds.
    shown = np.searchsorted(seconds, times + 1e-3, 'right') - 1
    return _TimeLine(seconds, np.maximum(shown, 0), fps, float(drift))


def _decoded(container: Any) -> Iterator[Any]:
    """Frames from where the file stands, which may be before a key frame."""
    begun = False
    for packet in container.demux(container.streams.best('video')):
        try:
            frames = packet.decode()
        except _pyav().error.InvalidDataError:
            if begun:
                raise
            continue
        begun |= bool(frames)
        yield from frames


def _stamps_hold(filename: str, stamps: np.ndarray, places: np.ndarray,
                 targets: np.ndarray) -> bool:
    """Compare time stamps with decoding at some places of a file."""
    with _open_container(filename) as container:
        stream = container.streams.best('video')
        first = [frame.pts for frame in islice(_decoded(container), 32)]
        if first != stamps[:32].tolist():
            return False
        last = len(targets) - 1
        for place in np.unique(np.linspace(min(1, last), last, 8, dtype=int)):
            container.seek(int(targets[place]), stream=stream)
            many = 16 if place < last else len(stamps)
            found = [frame.pts for frame in islice(_decoded(container), many)]
            if not found or None in found:
                return False
            begin = np.searchsorted(stamps, found[0])
            if found != stamps[begin:begin + many].tolist():
                return False
    return True


def _decoded_stamps(filename: str) -> List[Optional[int]]:
    """Time stamps of all frames, by decoding all."""
    with _open_container(filename) as container:
        return [frame.pts for frame in _decoded(container)]


class StampReader:
    """Frames of an even sequence, decoded by PyAV.

    Args:
        filename: Path of the video.
        index: How its frames are found.
        num_threads: Threads of the decoder.
        size: Width and height in pixels. None keeps the video's.
    """

    def __init__(self, filename: str, index: StampIndex, num_threads: int,
                 size: Optional[Tuple[int, int]]) -> None:
        self.filename, self.index = filename, index
        self.num_threads, self.size = num_threads, size
        self._restart()
        self._kept: Tuple[int, Any] = (-1, None)
        if size is None:
            frame = self._find(int(index.shown[0]))
            self.size = (frame.shape[1], frame.shape[0])

    def __len__(self) -> int:
        return len(self.index.shown)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Decode frames of the even sequence.

        Args:
            indices: Their numbers [N], in any order.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            UnreadableVideoError: They cannot be decoded.
        """
        numbers = np.asarray(indices, np.int64).reshape(-1)
        wrong = (numbers >= len(self)) | (numbers < -len(self))
        if wrong.any():
            raise UnreadableVideoError(
                self.filename, 'its frames cannot be decoded (number '
                f'{numbers[wrong][0]} of {len(self)})')
        return self.read_places(self.index.shown[numbers])

    def read_places(self, places: np.ndarray) -> np.ndarray:
        """Decode some of the file's own frames.

        Args:
            places: Their numbers [N] in the order in which they are shown,
                in any order.

        Returns:
            uint8 [N, H, W, 3].

        Raises:
            UnreadableVideoError: They cannot be decoded.
        """
        once, back = np.unique(places, return_inverse=True)
        frames = np.stack([self._find(int(place)) for place in once])
        if len(once) < len(places) or (back[1:] < back[:-1]).any():
            frames = frames[back]
        return frames

    def _find(self, place: int) -> np.ndarray:
        """Decode one of the file's own frames, RGB."""
        if self._kept[0] == place:
            return self._kept[1]
        keys = self.index.keys
        before = int(np.searchsorted(keys, place, 'right')) - 1
        if place <= self._place or (
                before >= 0 and keys[before] > self._place + 1):
            self._seek(before)
        while True:
            frame = next(self._frames, None)
            self._count(frame)
            if frame is not None and self._place < place:
                continue
            if frame is not None and self._place == place:
                break
            if before < 0:
                raise UnreadableVideoError(
                    self.filename, 'its frames cannot be decoded (number '
                    f'{place} is missing)')
            before -= 1  # what comes first behind this key frame is too late
            self._seek(before)
        self._kept = place, self._picture(frame)
        return self._kept[1]

    def _count(self, frame: Any) -> None:
        """Note which of the file's own frames this is."""
        stamps = self.index.stamps
        if frame is None:
            self._place = len(self.index.seconds)
        elif stamps is None:
            self._place += 1
        elif frame.pts is not None:
            place = int(np.searchsorted(stamps, frame.pts))
            known = place < len(stamps) and stamps[place] == frame.pts
            self._place = place if known else max(self._place, place - 1)

    def _seek(self, key: int) -> None:
        """Continue at a key frame; at the beginning if it is negative."""
        if key <= 0:
            self._restart()
            return
        self._container.seek(
            int(self.index.targets[key]),
            stream=self._container.streams.best('video'))
        self._place, self._frames = -1, _decoded(self._container)

    def _restart(self) -> None:
        """Open the file again."""
        self._container = _open_container(self.filename)
        context = self._container.streams.best('video').codec_context
        context.thread_count = self.num_threads
        if self.num_threads != 1:
            context.thread_type = 'AUTO'
        self._place, self._frames = -1, _decoded(self._container)

    def _picture(self, frame: Any) -> np.ndarray:
        """Upright RGB pixels of a frame, of the reader's size."""
        turns = frame.rotation // 90 % 4
        width, height = self.size or (None, None)
        if turns % 2:
            width, height = height, width
        pixels = frame.to_ndarray(
            format='rgb24',
            width=width,
            height=height,
            interpolation='BICUBIC')
        return np.ascontiguousarray(np.rot90(pixels, turns))
