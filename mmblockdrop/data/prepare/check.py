"""Compare a folder of videos with its annotations."""
import os
import os.path as osp
from collections import Counter
from functools import partial
from typing import (Any, Dict, List, Mapping, NamedTuple, Optional, Sequence,
                    Tuple)

from mmblockdrop.data.annotations import (NOT_TIMES, ActionReader,
                                          entry_defects, plain_label,
                                          similar_labels, wrong_unit)
from mmblockdrop.structures.grid_rate import TOLERANCE
from mmblockdrop.utils.messages import did_you_mean, require_folder
from mmblockdrop.utils.video import (VIDEO_SUFFIXES, UnreadableVideoError,
                                     Video, find_media)

import numpy as np

from .parallel import for_each

#: Kinds of problems, worst first. A run goes well in spite of warnings.
ERRORS = ('missing file', 'unreadable file', 'wrong frame rate',
          'wrong duration', 'wrong unit', 'bad entry', 'unknown label',
          'bad segment')
WARNINGS = ('wrong frame count', 'other frame rate', 'variable frame rate',
            'slow to read', 'similar labels', 'label with blanks',
            'segment beyond the end', 'segment of zero length',
            'several files', 'file not annotated')

#: Frames and seconds by which timing may differ for reasons of counting.
FRAMES, SECONDS = 2, 0.5


class Problem(NamedTuple):
    """Something that does not fit.

    Args:
        kind: One of :data:`ERRORS` or :data:`WARNINGS`.
        video: The video.
        detail: What was found, and what was expected.
    """
    kind: str
    video: str
    detail: str

    @property
    def is_error(self) -> bool:
        """Whether a run would fail or learn something wrong."""
        return self.kind in ERRORS


class Found(NamedTuple):
    """Timing of a video file.

    Args:
        frames: Number of frames.
        fps: Frames per second, on average.
        drift: Largest distance in seconds between the time of a frame and its
            number over ``fps``.
        hidden: Frames that the file holds and does not show.
        counted: Whether time stamps do not tell where its frames are.
    """
    frames: int
    fps: float
    drift: float
    hidden: int = 0
    counted: bool = False


def inspect_video(filename: str, decode: bool = True) -> Found:
    """Read frames, rate and evenness of a video.

    Args:
        filename: The video.
        decode: Also decode its first and its last frame.

    Returns:
        Timing of the file.

    Raises:
        UnreadableVideoError: It is missing, empty or damaged.
    """
    video = Video(filename)
    frames, fps = len(video), video.fps
    if not fps > 0:
        raise UnreadableVideoError(filename, f'{fps} frames per second')
    if decode:
        video.read(sorted({0, frames - 1}))
    timing = video.timing
    if timing is None:
        drift = np.abs(video.times() - np.arange(frames) / fps).max()
        return Found(frames, fps, float(drift))
    return Found(frames, fps, timing.drift, timing.hidden,
                 timing.index is not None and timing.index.stamps is None)


def check_entry(name: str,
                entry: Mapping[str, Any],
                classes: Optional[Sequence[str]] = None,
                drop_labels: Sequence[str] = (),
                found: Optional[Found] = None,
                tolerance: float = 0.01) -> List[Problem]:
    """Problems of one video.

    Args:
        name: The video.
        entry: Its annotation.
        classes: Known labels; None knows all.
        drop_labels: Labels that are background.
        found: Timing of the file, where there is one.
        tolerance: Share by which rate and duration may differ.

    Returns:
        The problems, in no particular order.
    """
    defects = entry_defects(entry) or [
        f'has {key}={entry[key]}, expected a positive number'
        for key in ('duration', 'fps', 'frame')
        if entry.get(key) is not None and not entry[key] > 0
    ]
    if defects:
        return [Problem('bad entry', name, text) for text in defects]
    problems: List[Problem] = []
    if found is not None:
        problems += _timing(name, entry, found, tolerance)
    duration = entry.get('duration') or np.inf
    if found is not None:
        duration = min(duration, found.frames / found.fps + SECONDS)
    for action in entry.get('annotations', ()):
        label = action.get('label')
        if plain_label(label) != label:
            problems.append(
                Problem('label with blanks', name, f'{label!r} is taken for '
                        f'{plain_label(label)!r}'))
        if classes is not None and plain_label(label) not in map(
                plain_label, (*classes, *drop_labels)):
            problems.append(
                Problem('unknown label', name,
                        f'label {label!r}{did_you_mean(label, classes)}'))
        defect = ActionReader.defect(action.get('segment'), duration)
        if defect:
            kind = dict([('reaches beyond the video',
                          'segment beyond the end'),
                         ('has zero length', 'segment of zero length')]).get(
                             defect, 'bad segment')
            problems.append(
                Problem(kind, name, f'{action.get("segment")} {defect} of '
                        f'{duration:.2f} s'))
    return problems


def _timing(name: str, entry: Mapping[str, Any], found: Found,
            tolerance: float) -> List[Problem]:
    """Where annotation and file differ in time."""
    problems = []
    fps, duration = entry.get('fps'), entry.get('duration')
    frames = entry.get('frame')
    if not fps and duration and frames:
        fps = frames / duration
    seconds = found.frames / found.fps
    if fps and abs(found.fps / fps - 1) > tolerance:
        problems.append(
            Problem('wrong frame rate', name, f'the file has {found.fps:.3f} '
                    f'frames per second, the annotation says {fps:.3f}'))
    if duration and abs(seconds - duration) > max(SECONDS,
                                                  tolerance * duration):
        problems.append(
            Problem('wrong duration', name, f'the file lasts {seconds:.2f} s, '
                    f'the annotation says {duration:.2f} s'))
    if frames and abs(found.frames - frames) > FRAMES:
        problems.append(
            Problem('wrong frame count', name, f'the file has {found.frames} '
                    f'frames, the annotation says {frames}' +
                    (f'; {found.hidden} more are hidden by an edit list'
                     if found.hidden else '')))
    if found.drift > SECONDS:
        problems.append(
            Problem('variable frame rate', name, 'frames are up to '
                    f'{found.drift:.2f} s away from their number over '
                    f'{found.fps:.3f}; read at that constant rate, '
                    'some repeat and some are skipped'))
    if found.counted:
        problems.append(
            Problem('slow to read', name, 'its time stamps do not tell where '
                    'a frame is, so that each is decoded from the beginning; '
                    'tools/data/resize_videos.py writes it anew'))
    return problems


def check_folder(database: Mapping[str, Mapping[str, Any]],
                 folder: Optional[str] = None,
                 classes: Optional[Sequence[str]] = None,
                 drop_labels: Sequence[str] = (),
                 filename_tmpl: str = '{}',
                 suffixes: Sequence[str] = VIDEO_SUFFIXES,
                 tolerance: float = 0.01,
                 decode: bool = True,
                 workers: int = 1) -> Tuple[List[Problem], Dict[str, Found]]:
    """Problems of all videos.

    Args:
        database: Annotations by video.
        folder: Folder of the videos. None looks at the annotations alone.
        classes: See :func:`check_entry`.
        drop_labels: See :func:`check_entry`.
        filename_tmpl: File name of a video, suffix apart.
        suffixes: File suffixes to look for, best first.
        tolerance: See :func:`check_entry`.
        decode: See :func:`inspect_video`.
        workers: Processes.

    Returns:
        Problems, errors first, and timing of the readable files by video.
    """
    problems: List[Problem] = []
    found: Dict[str, Found] = {}
    if folder is not None:
        require_folder(folder, 'folder of videos')
        files: Dict[str, Optional[str]] = {}
        for name in database:
            try:
                files[name] = find_media(folder, filename_tmpl.format(name),
                                         suffixes)
            except ValueError as error:
                problems.append(Problem('bad entry', name, str(error)))
        problems += _names(files, folder, filename_tmpl, suffixes)
        there = {path: name for name, path in files.items() if path}
        read, failed = for_each(
            partial(inspect_video, decode=decode), list(there), workers)
        found = {there[path]: result for path, result in read.items()}
        problems += [Problem('unreadable file', there[path], reason)
                     for path, reason in failed.items()]
    for name, entry in database.items():
        problems += check_entry(name, entry, classes, drop_labels,
                                found.get(name), tolerance)
    problems += _collisions(database, found)
    kinds = ERRORS + WARNINGS
    return sorted(problems, key=lambda p: kinds.index(p.kind)), found


def _collisions(database: Mapping[str, Any],
                found: Mapping[str, Found]) -> List[Problem]:
    """Labels, frame rates and units that do not fit each other."""
    problems = []
    usable = {name: entry for name, entry in database.items()
              if not entry_defects(entry)}
    counts: Counter = Counter()
    shares = []
    for name, entry in usable.items():
        duration = entry.get('duration')
        if not duration and name in found:
            duration = found[name].frames / found[name].fps
        for action in entry.get('annotations', ()):
            counts[plain_label(action['label'])] += 1
            if duration and duration > 0 and ActionReader.defect(
                    action.get('segment'), duration) not in NOT_TIMES:
                shares.append(float(action['segment'][1]) / duration)
    every = f'all {len(database)} videos'
    problems += [Problem('similar labels', every, f'{text} differ only in '
                         'case') for text in similar_labels(counts)]
    unit = wrong_unit(shares)
    if unit:
        problems.append(Problem('wrong unit', every, unit))
    rates = [file.fps for file in found.values()]
    for name, file in found.items():
        usual = float(np.median(rates))
        if abs(file.fps / usual - 1) > TOLERANCE:
            problems.append(
                Problem('other frame rate', name, f'{file.fps:.3f} frames per '
                        f'second, the median is {usual:.3f}: a grid that '
                        'counts frames has other steps there; use sample_fps'))
    return problems


def _names(files: Mapping[str, Optional[str]], folder: str, template: str,
           suffixes: Sequence[str]) -> List[Problem]:
    """Files that are missing, there twice, or not annotated."""
    used = {name: osp.relpath(path, folder)
            for name, path in files.items() if path}
    folders = {'', *map(osp.dirname, used.values())}
    listing = [osp.join(inside, name) for inside in sorted(folders)
               for name in sorted(os.listdir(osp.join(folder, inside)))
               if osp.splitext(name)[1].lower() in suffixes]
    stems = Counter(osp.splitext(name)[0] for name in listing)
    problems = []
    for name, path in files.items():
        stem = template.format(name)
        if path is None:
            problems.append(
                Problem('missing file', name, f'no {stem!r} with a suffix of '
                        f'{", ".join(suffixes)}{did_you_mean(stem, stems)}'))
        elif stems[stem] > 1:
            problems.append(
                Problem('several files', name, f'{stems[stem]} files are '
                        f'called {stem!r}; {osp.basename(path)} is used'))
    wanted = {osp.splitext(path)[0] for path in used.values()}
    return problems + [Problem('file not annotated', stem, 'not in the JSON')
                       for stem in stems if stem not in wanted]
