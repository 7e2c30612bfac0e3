"""ActivityNet-style annotations: read, checked, and chosen from.

The format is ``{"database": {name: {"subset", "duration", "frame", "fps",
"annotations": [{"segment": [start, end], "label"}]}}}`` with times in
seconds. ``duration``, ``frame`` and ``fps`` may be absent where the video
itself can tell.
"""
import functools
import logging
import math
import os.path as osp
import random
import statistics
import sys
from collections import Counter
from typing import (Any, Callable, Dict, List, Mapping, Optional, Sequence,
                    Tuple, Union)

from mmblockdrop.utils.io import read_json, read_lines
from mmblockdrop.utils.messages import did_you_mean, listed, require_choice

import numpy as np
from mmengine.logging import print_log

BAD_SEGMENTS = ('error', 'drop')
#: Defects of segments that have no times.
NOT_TIMES = ('is not two numbers', 'is not finite')
#: Times the duration of a video at which an end is no mistake of a second.
FAR = 5.


def warn(message: str) -> None:
    """Log a warning."""
    print_log(message, logger='current', level=logging.WARNING)


@functools.lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    """Log a warning; data sets read an annotation file several times."""
    warn(message)


# Reading ---------------------------------------------------------------------


def read_database(ann_file: str) -> Dict[str, Any]:
    """Read the entries of an annotation file, whatever their form.

    Args:
        ann_file: ActivityNet-style JSON.

    Returns:
        Entry of each video by name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON or has no ``database``.
    """
    content = read_json(ann_file, 'ann_file')
    database = content.get('database') if isinstance(content, dict) else None
    if not isinstance(database, dict):
        keys = sorted(content) if isinstance(content, dict) else [
            type(content).__name__]
        raise ValueError(
            f"ann_file={ann_file!r} has no 'database' mapping from video "
            f'name to its annotation; found {listed(keys)}'
            f'{did_you_mean("database", keys)}')
    return database


def load_database(ann_file: str) -> Dict[str, dict]:
    """Read and check the videos of an annotation file.

    Args:
        ann_file: ActivityNet-style JSON.

    Returns:
        Entry of each video by name, with :func:`plain_label` of every label.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or has no ``database`` of videos, or one
            of them has another form.
    """
    database = read_database(ann_file)
    counts: Counter = Counter()
    blanks = 0
    for name, entry in database.items():
        for defect in entry_defects(entry):
            raise ValueError(f'ann_file={ann_file!r}: video {name!r} {defect}')
        for action in entry.get('annotations', ()):
            label = plain_label(action['label'])
            blanks += label != action['label']
            counts[label] += 1
            action['label'] = label
    if blanks:
        _warn_once(f'ann_file={ann_file!r}: blanks around or within the '
                   f'labels of {blanks} actions are left out')
    for spellings in similar_labels(counts):
        _warn_once(f'ann_file={ann_file!r}: labels that differ only in case '
                   f'are different classes: {spellings}')
    return database


def plain_label(label: str) -> str:
    """A label with single blanks within and none around it."""
    return ' '.join(label.split())


def similar_labels(counts: Mapping[str, int]) -> List[str]:
    """Labels that differ only in case.

    Args:
        counts: Actions by label.

    Returns:
        For each group its labels with their number of actions, in words.
    """
    groups: Dict[str, List[str]] = {}
    for label in counts:
        groups.setdefault(label.casefold(), []).append(label)
    return [', '.join(f'{label!r} ({counts[label]} actions)'
                      for label in sorted(group))
            for group in groups.values() if len(group) > 1]


def wrong_unit(shares: Sequence[float]) -> Optional[str]:
    """Whether the times of actions are hardly seconds.

    Args:
        shares: End of each action as a share of its video.

    Returns:
        What was found and expected; None if most ends lie in their videos.
    """
    middle = statistics.median(shares) if shares else 0.
    if middle <= FAR:
        return None
    unit = 'milliseconds' if middle > 100 else 'frames or milliseconds'
    return (f'{len(shares)} actions end, in the median, at {middle:.0f} times '
            f'the duration of their video: their times may be {unit}, '
            'expected seconds')


def entry_defects(entry: Any) -> List[str]:
    """What is wrong with the form of a video's annotation.

    Args:
        entry: The annotation.

    Returns:
        Clauses that follow 'the video'; none if it can be used.
    """
    if not isinstance(entry, dict):
        return [f"is {entry!r:.60}, expected a mapping with 'subset', "
                "'duration' and 'annotations'"]
    defects = []
    for key in ('duration', 'fps', 'frame'):
        value = entry.get(key)
        if value is not None and (not isinstance(value, (int, float))
                                  or not abs(value) <= sys.float_info.max):
            defects.append(f'has {key}={value!r:.60}, expected a number')
    actions = entry.get('annotations', ())
    if not isinstance(actions, (list, tuple)):
        return [*defects, f'has annotations {actions!r:.60}, expected a list '
                "of {'segment': [start, end], 'label': name}"]
    return defects + [
        f"has the action {action!r:.60}, expected {{'segment': [start, end], "
        "'label': name}" for action in actions
        if not (isinstance(action, dict)
                and isinstance(action.get('label'), str))
    ]


def load_classes(classes: Union[str, Sequence[str], None], data_root: str,
                 database: Mapping[str, dict],
                 drop_labels: Sequence[str]) -> List[str]:
    """Names of the classes, in the order of their labels.

    Args:
        classes: Names, or a text file with one name in a line, or a JSON file
            with a list of names or a mapping from name to label. None takes
            the labels of the annotation file in alphabetical order.
        data_root: Folder of a relative file name.
        database: Videos of the annotation file.
        drop_labels: Labels that are not classes.

    Returns:
        Names without repetition.

    Raises:
        ValueError: A name is repeated or there is none.
    """
    if classes is None:
        labels = {action['label'] for video in database.values()
                  for action in video.get('annotations', ())}
        names = sorted(labels - set(map(plain_label, drop_labels)))
    elif isinstance(classes, str):
        names = read_names(classes, data_root, 'classes')
    else:
        names = list(classes)
    if not names or len(set(names)) < len(names):
        raise ValueError(f'classes={classes!r} must name at least one class, '
                         f'each once; it gives {names}')
    return names


def read_names(file_name: str, data_root: str, key: str) -> List[str]:
    """Read a list of names.

    Args:
        file_name: Text file with one name in a line, or JSON file with a list
            of names or a mapping from name to number.
        data_root: Folder of a relative file name.
        key: The config key that gave it, for errors.

    Returns:
        Names in the order of the file, or of the numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not text, or ``.json`` that is not JSON, or has
            another form.
    """
    path = osp.join(data_root, file_name)
    if not path.endswith('.json'):
        return read_lines(path, key)
    loaded = read_json(path, key)
    if isinstance(loaded, dict) and all(
            isinstance(n, (int, float)) for n in loaded.values()):
        return sorted(loaded, key=loaded.__getitem__)
    if isinstance(loaded, list) and all(isinstance(n, str) for n in loaded):
        return loaded
    raise ValueError(f'{key}={path!r} holds {loaded!r:.60}, expected a list '
                     'of names, or a mapping from name to number')


def read_timing(where: str, entry: Mapping[str, Any], fps: Optional[float],
                probe: Callable[[], Tuple[int, float]]
                ) -> Tuple[float, float, int]:
    """Length and rate of a video.

    Args:
        where: The video, for errors.
        entry: Its annotation, with ``duration`` (seconds), ``frame`` and
            ``fps`` or some of them.
        fps: Rate that overrides the annotation's.
        probe: Gives frames and rate of the file, asked for only where the
            annotation does not tell.

    Returns:
        Seconds, frames per second, and frames.

    Raises:
        ValueError: One of them is not positive.
    """
    duration, frames = entry.get('duration'), entry.get('frame')
    if fps:
        frames = None
        if duration is not None and math.isfinite(duration * fps):
            frames = int(duration * fps)
    elif entry.get('fps') is not None:
        fps = entry['fps']
    elif duration and frames:
        fps = frames / duration
    if fps is None or (duration is None and frames is None):
        found = probe()
        frames, fps = frames or found[0], fps or found[1]
    if duration is None and fps > 0:
        duration = frames / fps
    if frames is None and math.isfinite(duration * fps):
        frames = round(duration * fps)
    if not (duration and duration > 0 and fps > 0 and frames
            and frames > 0):
        raise ValueError(f'{where} has duration={duration}, fps={fps}, '
                         f'frame={frames}; all must be positive')
    return float(duration), float(fps), int(frames)


def require_seconds(where: str, duration: float, seconds: float) -> None:
    """Reject a duration that is hardly in seconds.

    Args:
        where: The video, for errors.
        duration: What its annotation says.
        seconds: Length of the file, or at most that.

    Raises:
        ValueError: The duration is a hundred times as long.
    """
    if duration > 100 * seconds:
        raise ValueError(
            f'{where} has duration={duration:g}, but lasts {seconds:.3g} s or '
            'less by its frames: the annotated times may be milliseconds, '
            'expected seconds')


# Which videos ----------------------------------------------------------------


def choose_videos(database: Mapping[str, dict], subset: Any,
                  block_list: Union[str, Sequence[str]], data_root: str,
                  split: Optional[Mapping[str, Any]], sample_ratio: float,
                  seed: int) -> List[str]:
    """Names of the videos of a data set, in the order of the annotations.

    Args:
        database: Videos of the subset, see :func:`select_subset`.
        subset: Name of the subset, for errors.
        block_list: Videos to leave out: names, or a file of names.
        data_root: Folder of a relative file name.
        split: Arguments of :func:`split_names`.
        sample_ratio: Share of the videos to take.
        seed: Seed of that share.

    Returns:
        At least one name.

    Raises:
        FileNotFoundError: There is no such file of names.
        ValueError: No video remains, or a part is not known.
    """
    names = _without_blocked(database, subset, block_list, data_root)
    if split is not None:
        names = split_names(names, **split)
    if sample_ratio != 1:
        chosen = sample_indices(len(names), sample_ratio, seed)
        names = [names[index] for index in sorted(chosen)]
    return names


def select_subset(database: Mapping[str, dict],
                  subset: Union[str, Sequence[str], None],
                  ann_file: str) -> Dict[str, dict]:
    """Videos of some subsets.

    Args:
        database: Entry of each video by name.
        subset: Exact names of the subsets; None takes all.
        ann_file: For errors.

    Returns:
        Entries of their videos, in order.

    Raises:
        ValueError: A subset has no video; names the nearest that has.
    """
    if subset is None:
        return dict(database)
    wanted = [subset] if isinstance(subset, str) else list(subset)
    present = sorted({str(video.get('subset')) for video in database.values()})
    for name in wanted:
        if name not in present:
            raise ValueError(
                f'subset={name!r} has no video in {ann_file!r}; expected '
                f'{listed(present)}{did_you_mean(name, present)}')
    return {name: video for name, video in database.items()
            if video.get('subset') in wanted}


def _without_blocked(database: Mapping[str, dict], subset: Any,
                     blocked: Union[str, Sequence[str]],
                     data_root: str) -> List[str]:
    """Names of the videos that are not in ``block_list``."""
    block_list = blocked
    if isinstance(blocked, str):
        blocked = read_names(blocked, data_root, 'block_list')
    names = [name for name in database if name not in set(blocked)]
    if len(names) < len(database):
        print_log(
            f'block_list leaves out {len(database) - len(names)} of '
            f'{len(database)} videos',
            logger='current')
    if not names:
        raise ValueError(f'block_list={block_list!r} names all '
                         f'{len(database)} videos of subset={subset!r}')
    return names


def split_names(names: Sequence[str], part: str, ratio: float = 0.15,
                seed: int = 0) -> List[str]:
    """One part of a fixed split of videos in two.

    Args:
        names: All videos.
        part: ``train`` or ``val``. The two share no video.
        ratio: Share of ``val``, at least one video.
        seed: Seed of the split. Only it and the set of names matter.

    Returns:
        The part, in the order of ``names``.

    Raises:
        ValueError: Another part, or a ratio that leaves a part empty.
    """
    require_choice("split['part']", part, ('train', 'val'))
    if not 0 < ratio < 1 or len(names) < 2:
        raise ValueError(
            f"split['ratio']={ratio} of {len(names)} videos: expected a ratio "
            'between 0 and 1, of two videos at least')
    order = sorted(names)
    random.Random(seed).shuffle(order)
    count = min(len(order) - 1, max(1, round(ratio * len(order))))
    held_out = set(order[:count])
    return [name for name in names if (name in held_out) == (part == 'val')]


def sample_indices(length: int, ratio: float, seed: int = 42) -> List[int]:
    """Indices of a random part of a data set, always the same for a seed.

    Args:
        length: Size of the data set.
        ratio: Share to keep, in (0, 1].
        seed: Seed of Python's generator.

    Returns:
        ``int(length * ratio)`` indices, at least one, in the order in which
        they were drawn.

    Raises:
        ValueError: The ratio is not in (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f'sample_ratio={ratio}: expected it in (0, 1]')
    count = min(length, max(1, int(length * ratio)))
    return random.Random(seed).sample(list(range(length)), count)


# Actions ---------------------------------------------------------------------


class ActionReader:
    """Checked actions of one video after another, with a count of defects.

    Args:
        classes: Names in the order of their labels.
        drop_labels: Labels to leave out. Any other label that is not a class
            is an error.
        bad_segments: ``error`` or ``drop``, for segments that are reversed,
            not numbers, or wholly outside the video.
        ann_file: For messages.
    """

    def __init__(self, classes: Sequence[str], drop_labels: Sequence[str],
                 bad_segments: str, ann_file: str) -> None:
        require_choice('bad_segments', bad_segments, BAD_SEGMENTS)
        self.index = {name: label for label, name in enumerate(classes)}
        for label, name in enumerate(classes):
            self.index.setdefault(plain_label(name), label)
        self.drop_labels = {*drop_labels, *map(plain_label, drop_labels)}
        self.bad_segments = bad_segments
        self.ann_file = ann_file
        self.counts: Dict[str, int] = {}
        self.first: Dict[str, str] = {}
        self.shares: List[float] = []

    def read(self, name: str, annotations: Sequence[Mapping[str, Any]],
             duration: float) -> Tuple[np.ndarray, np.ndarray]:
        """Actions of a video.

        Args:
            name: The video.
            annotations: ``segment`` and ``label`` each.
            duration: Seconds.

        Returns:
            Segments float64 [N, 2] in seconds as they are written, and labels
            int64 [N].

        Raises:
            ValueError: For an unknown label, or, unless ``bad_segments`` is
                ``drop``, a segment that makes no sense.
        """
        segments, labels = [], []
        for action in annotations:
            where = f'video {name!r} of {self.ann_file!r}: {dict(action)}'
            label = action.get('label')
            if label in self.drop_labels:
                continue
            if label not in self.index:
                raise ValueError(
                    f'{where} has a label that is neither in classes nor in '
                    f'drop_labels{did_you_mean(label, self.index)}')
            defect = self.defect(action.get('segment'), duration)
            if defect not in NOT_TIMES:
                self.shares.append(float(action['segment'][1]) / duration)
            if defect and not self._tolerate(defect, where, duration):
                continue
            segments.append([float(time) for time in action['segment']])
            labels.append(self.index[label])
        return (np.array(segments, dtype=np.float64).reshape(-1, 2),
                np.array(labels, dtype=np.int64))

    @staticmethod
    def defect(segment: Any, duration: float) -> Optional[str]:
        """What is wrong with a segment.

        Args:
            segment: What the annotation says.
            duration: Seconds of the video.

        Returns:
            Words that follow 'the segment'.
        """
        try:
            start, end = (float(time) for time in segment)
        except (TypeError, ValueError, OverflowError):
            return 'is not two numbers'
        if not (math.isfinite(start) and math.isfinite(end)):
            return 'is not finite'
        if end < start:
            return 'is reversed'
        if end == start:
            return 'has zero length'
        if start >= duration or end <= 0:
            return 'is outside the video'
        if end > duration or start < 0:
            return 'reaches beyond the video'
        return None

    def _tolerate(self, defect: str, where: str, duration: float) -> bool:
        """Count a defect; whether the action is kept all the same."""
        beyond = defect == 'reaches beyond the video'
        if self.bad_segments == 'error' and not beyond and (
                defect != 'has zero length'):
            hint = wrong_unit(self.shares[-1:])
            raise ValueError(
                f'{where}: the segment {defect} (of {duration:.2f} s). '
                "Correct it, or leave such out with bad_segments='drop'"
                f'{f". {hint}" if hint else ""}')
        self.counts[defect] = self.counts.get(defect, 0) + 1
        self.first.setdefault(defect, where)
        return beyond

    def report(self) -> None:
        """Warn once of what was tolerated, with its number.

        Raises:
            ValueError: Most times are hardly seconds.
        """
        hint = wrong_unit(self.shares)
        if hint:
            raise ValueError(f'ann_file={self.ann_file!r}: {hint}')
        for defect, count in self.counts.items():
            done = ('are cut at its ends when shown'
                    if defect == 'reaches beyond the video' else
                    'are left out')
            warn(f'{count} actions whose segment {defect} {done}; the first: '
                 f'{self.first[defect]}')
