"""What the formats of annotations share: a registry, readers of files, checks.

A format is one function in a file of this folder, with :func:`register` above
it. It is called with an :class:`AnnotationFile` and adds the actions that it
finds. Times become seconds; milliseconds and frames are converted only where
the format says so.
"""
import csv
import io
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import (Any, Callable, Dict, List, Mapping, NamedTuple, Optional,
                    Sequence, Tuple)
from urllib.parse import unquote
from xml.etree import ElementTree

from mmblockdrop.utils.io import PathLike, read_json, read_text
from mmblockdrop.utils.messages import did_you_mean, require_folder
from mmblockdrop.utils.video import (VIDEO_SUFFIXES, UnreadableVideoError,
                                     find_media, probe_video)

#: Largest tables and XML files that are read, in bytes.
MAX_TABLE = 256 << 20
#: What an entry may say about its video besides subset and actions.
TIMING = ('duration', 'fps', 'frame')
#: What the columns of a table of intervals can hold.
COLUMNS = ('video', 'subset', 'start', 'end', 'label', 'video_duration',
           'video_fps', 'video_frames')


@dataclass
class Options:
    """What the user says about files that do not say it themselves.

    Attributes:
        video: Name of the video; ``{}`` stands for the name of the file.
        columns: Heading of a table by what it holds, see :data:`COLUMNS`.
        tiers: ELAN tiers or VIA attributes to read; None reads all.
        fps: Frames per second.
        videos: Folder of the videos.
    """
    video: Optional[str] = None
    columns: Mapping[str, str] = field(default_factory=dict)
    tiers: Optional[Sequence[str]] = None
    fps: Optional[float] = None
    videos: Optional[PathLike] = None


@dataclass
class Annotations:
    """Annotated videos.

    Attributes:
        database: Entry of each video by name, as in ActivityNet's JSON.
        left_out: What was not converted, with its number.
    """
    database: Dict[str, dict] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)
    sources: Dict[str, str] = field(default_factory=dict)

    def entry(self, source: str, where: str) -> dict:
        """The entry of a video, made at its first mention.

        Args:
            source: Path, address or name of the video.
            where: Place in the file, for errors.

        Returns:
            To be completed.

        Raises:
            ValueError: There is no name, or two files share it.
        """
        name = video_name(source) if isinstance(source, str) else ''
        if not name:
            raise ValueError(f'{where}: video {source!r}, expected a name')
        if self.sources.setdefault(name, source) != source:
            raise ValueError(
                f'{where}: videos {self.sources[name]!r} and {source!r} would '
                f'both be called {name!r}; expected one path for each name')
        return self.database.setdefault(name, dict(annotations=[]))

    def add(self, source: str, start: Any, end: Any, label: Any,
            where: str) -> None:
        """Add an action.

        Args:
            source: Path, address or name of its video.
            start: Seconds.
            end: Seconds.
            label: Its class.
            where: Place in the file, for errors.

        Raises:
            ValueError: It has no label, or its times are not numbers or
                reversed.
        """
        begin, stop = number(start, 'start', where), number(end, 'end', where)
        if stop < begin:
            raise ValueError(f'{where}: end {stop:g} is before start '
                             f'{begin:g}')
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f'{where}: label {label!r}, expected a name')
        self.entry(source, where)['annotations'].append(
            dict(segment=[round(begin, 6), round(stop, 6)],
                 label=label.strip()))


@dataclass
class AnnotationFile:
    """A file that is being converted.

    Attributes:
        path: The file.
        content: JSON, the root of XML, the rows of a table, or lines.
        options: What the user says about it.
        found: What has been read so far.
    """
    path: Path
    content: Any
    options: Options
    found: Annotations

    def where(self, *place: Any) -> str:
        """A place in the file, for errors."""
        return ': '.join([str(self.path), *map(str, place)])

    def named(self, reason: str) -> str:
        """Name of the video of a file that does not tell it.

        Args:
            reason: What is missing.

        Raises:
            ValueError: The user has not told it either.
        """
        if self.options.video is None:
            raise ValueError(f'{self.path}: {reason}; expected --video NAME, '
                             "or --video '{}' for the name of the file")
        return self.options.video.replace('{}', self.path.stem)

    def rate(self, source: str, where: str) -> float:
        """Frames per second of a video whose times are frames.

        Args:
            source: Path, address or name of the video.
            where: Place in the file, for errors.

        Raises:
            ValueError: Nobody knows it.
        """
        entry = self.found.entry(source, where)
        if self.options.fps:
            entry.setdefault('fps', self.options.fps)
        elif 'fps' not in entry and self.options.videos is not None:
            measure(video_name(source), entry, self.options.videos)
        if 'fps' not in entry:
            raise ValueError(f'{where}: times are frames; expected --fps or '
                             '--videos to convert them to seconds')
        return entry['fps']


class Format(NamedTuple):
    """How files of a format are told and read."""
    name: str
    suffixes: Tuple[str, ...]
    matches: Callable[[Any], bool]
    read: Callable[[AnnotationFile], None]


FORMATS: List[Format] = []


def register(name: str, *suffixes: str,
             matches: Callable[[Any], bool]) -> Callable:
    """Register the reader of a format.

    Args:
        name: Name of the format. Several readers may share one.
        suffixes: Endings of its files.
        matches: Whether the content of such a file is of this format. The
            first format that matches is taken.

    Returns:
        Decorator of the reader.
    """

    def add(read: Callable[[AnnotationFile], None]) -> Callable:
        FORMATS.append(Format(name, suffixes, matches, read))
        return read

    return add


def measure(name: str, entry: dict, folder: PathLike) -> None:
    """Fill in length and rate of a video from its file.

    Args:
        name: The video.
        entry: Its annotation; ``duration``, ``fps`` and ``frame`` are set.
        folder: Folder of the videos.

    Raises:
        ValueError: There is no such video, or it cannot be read.
    """
    require_folder(folder, '--videos')
    path = find_media(str(folder), name, where='--videos')
    if path is None:
        present = [file.stem for file in Path(folder).iterdir()]
        raise ValueError(f'--videos={str(folder)!r} has no video {name!r}'
                         f'{did_you_mean(name, present)}')
    try:
        frames, fps = probe_video(path)
    except UnreadableVideoError as error:
        raise ValueError(f'--videos: {error}') from error
    entry.update(duration=round(frames / fps, 6), fps=fps, frame=frames)


# Values and files ------------------------------------------------------------


def number(value: Any, what: str, where: str) -> float:
    """A finite number, or a time as hours, minutes and seconds.

    Args:
        value: A number, or text such as ``12.5`` or ``1:02:03.5``.
        what: What it is, for errors.
        where: Place in the file, for errors.

    Raises:
        ValueError: It is something else.
    """
    result = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        parts = re.fullmatch(r'(?:(\d+):)?(\d?\d):(\d?\d(?:\.\d*)?)',
                             value.strip()) if isinstance(value, str) else None
        try:
            result = float(value) if parts is None else sum(
                float(part or 0) * scale
                for part, scale in zip(parts.groups(), (3600, 60, 1)))
        except (ValueError, OverflowError):
            pass
    if not math.isfinite(result):
        raise ValueError(f'{where}: {what} {value!r:.60}, expected a number '
                         'of seconds' if what in ('start', 'end') else
                         f'{where}: {what} {value!r:.60}, expected a number')
    return result


def mapping(value: Any, where: str) -> dict:
    """A JSON mapping.

    Args:
        value: What was found.
        where: Place in the file, for errors.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f'{where}: {value!r:.60}, expected a mapping')
    return value


def member(record: Any, key: str, kind: type, where: str,
           default: Any = None) -> Any:
    """A member of a JSON mapping.

    Args:
        record: The mapping.
        key: Name of the member.
        kind: Its type.
        where: Place in the file, for errors.
        default: What stands for a member that is missing or null.

    Raises:
        ValueError: It is missing without a default, or of another type.
    """
    value = mapping(record, where).get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        words = {dict: 'a mapping', list: 'a list', str: 'text'}[kind]
        raise ValueError(f'{where}: {key!r} is {value!r:.60}, expected '
                         f'{words}{did_you_mean(key, set(record) - {key})}')
    return value


def video_name(source: str) -> str:
    """Name of a video without folders, address and suffix.

    Args:
        source: Path of any system, address, or name.
    """
    path = source.strip()
    if '?d=' in path:  # a local file of Label Studio
        path = unquote(path.split('?d=')[-1])
    elif '://' in path:
        path = unquote(path.split('?')[0])
    name = re.split(r'[/\\]', path)[-1]
    stem, dot, suffix = name.rpartition('.')
    return stem if dot and f'.{suffix.lower()}' in VIDEO_SUFFIXES else name


class _NoDoctype(ElementTree.TreeBuilder):
    """Rejects the declaration that entities, inner and outer, need."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise ValueError('it has a DOCTYPE, which is not read')


def read_xml(path: PathLike, key: str) -> ElementTree.Element:
    """Read XML that declares no entities.

    Args:
        path: The file.
        key: Argument that gave it, for errors.

    Returns:
        The root.

    Raises:
        ValueError: It is not XML, not UTF-8, too large, or has a DOCTYPE.
    """
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(read_text(path, key, MAX_TABLE))
        return parser.close()
    except (ElementTree.ParseError, RecursionError) as error:
        raise ValueError(f'{key}={str(path)!r} is not XML: {error}'
                         ) from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f'{key}={str(path)!r} is rejected: {error}'
                         ) from error


def read_table(path: PathLike, key: str) -> List[List[str]]:
    """Read a table with commas, semicolons or tabs.

    Args:
        path: The file.
        key: Argument that gave it, for errors.

    Returns:
        Cells by row, the row of headings included, without outer white space.
        Empty rows are empty lists, so that the number of a row stays.

    Raises:
        ValueError: It is not a table, not UTF-8, or too large.
    """
    text = read_text(path, key, MAX_TABLE)
    first = text.lstrip().split('\n', 1)[0]
    comma = max('\t;,', key=first.count)
    try:
        rows = [[cell.strip() for cell in row]
                for row in csv.reader(io.StringIO(text), delimiter=comma)]
    except csv.Error as error:
        raise ValueError(f'{key}={str(path)!r} is not a table: {error}'
                         ) from error
    if comma != ',':  # 1,5 is a number where commas do not separate cells
        rows = [[re.sub(r'^(-?\d+),(\d+)$', r'\1.\2', cell) for cell in row]
                for row in rows]
    return [row if any(row) else [] for row in rows]


READERS: Dict[str, Callable[[PathLike, str], Any]] = {
    '.json': read_json, '.boris': read_json, '.xml': read_xml,
    '.eaf': read_xml, '.csv': read_table, '.tsv': read_table,
    '.txt': lambda path, key: read_text(path, key).split('\n')}
