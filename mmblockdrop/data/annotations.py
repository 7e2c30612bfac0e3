"""ActivityNet-style JSON to checked records.

The format is ``{"database": {name: {"subset", "duration", "frame", "fps",
"annotations": [{"segment": [start, end], "label"}]}}}`` with times in
seconds. ``duration``, ``frame`` and ``fps`` may be absent where the video
itself can tell.
"""
import logging
import math
import os.path as osp
import random
from typing import (Any, Callable, Dict, List, Mapping, Optional, Sequence,
                    Tuple, Union)

import numpy as np
from mmengine.logging import print_log

from mmblockdrop.reading import read_json, read_lines
from .files import nearest, require_path

BAD_SEGMENTS = ('error', 'drop')


def warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def load_database(ann_file: str) -> Dict[str, dict]:
    """Read the videos of an annotation file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, or has no ``database`` of videos, or
            one of them has another form.
    """
    require_path(ann_file, 'ann_file')
    content = read_json(ann_file, 'ann_file')
    database = content.get('database') if isinstance(content, dict) else None
    if not isinstance(database, dict):
        keys = sorted(content) if isinstance(content, dict) else [
            type(content).__name__]
        raise ValueError(
            f"ann_file={ann_file!r} has no 'database' mapping from video "
            f'name to its annotation{nearest("database", keys)}')
    for name, video in database.items():
        _check_video(name, video, ann_file)
    return database


def _check_video(name: str, video: Any, ann_file: str) -> None:
    """Refuse an entry of another form, by name."""
    where = f'ann_file={ann_file!r}: video {name!r}'
    if not isinstance(video, dict):
        raise ValueError(f'{where} is {video!r:.60}, expected a mapping with '
                         "'subset', 'duration' and 'annotations'")
    actions = video.get('annotations', ())
    if not isinstance(actions, (list, tuple)):
        raise ValueError(f"{where} has annotations {actions!r:.60}, expected "
                         "a list of {'segment': [start, end], 'label': name}")
    for action in actions:
        if not (isinstance(action, dict)
                and isinstance(action.get('label'), str)):
            raise ValueError(f'{where} has the action {action!r:.60}, '
                             "expected {'segment': [start, end], 'label': "
                             'name}')
    for key in ('duration', 'fps', 'frame'):
        value = video.get(key)
        if value is not None and (not isinstance(value, (int, float))
                                  or not math.isfinite(value)):
            raise ValueError(f'{where} has {key}={value!r:.60}, expected a '
                             'number')


def load_classes(classes: Union[str, Sequence[str], None], data_root: str,
                 database: Mapping[str, dict],
                 drop_labels: Sequence[str]) -> List[str]:
    """Names of the classes, in the order of their labels.

    Args:
        classes (str or sequence of str, optional): Names, or a text file with
            one name in a line, or a JSON file with a list of names or a
            mapping from name to label. None takes the labels of the
            annotation file in alphabetical order.
        data_root (str): Folder of a relative file name.
        database (dict): Videos of the annotation file.
        drop_labels (sequence of str): Labels that are not classes.

    Returns:
        list[str]: Names without repetition.

    Raises:
        ValueError: If a name is repeated or there is none.
    """
    if classes is None:
        labels = {action['label'] for video in database.values()
                  for action in video.get('annotations', ())}
        names = sorted(labels - set(drop_labels))
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
        file_name (str): Text file with one name in a line, or JSON file with
            a list of names or a mapping from name to number.
        data_root (str): Folder of a relative file name.
        key (str): The config key that gave it, for the message.

    Returns:
        list[str]: Names in the order of the file, or of the numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text, not JSON although it is called so, or
            has another form.
    """
    path = osp.join(data_root, file_name)
    require_path(path, key)
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


def select_subset(database: Mapping[str, dict],
                  subset: Union[str, Sequence[str], None],
                  ann_file: str) -> Dict[str, dict]:
    """Videos whose ``subset`` is one of the given names, exactly.

    Raises:
        ValueError: If a name is in no video, with the nearest that is.
    """
    if subset is None:
        return dict(database)
    wanted = [subset] if isinstance(subset, str) else list(subset)
    present = sorted({str(video.get('subset')) for video in database.values()})
    for name in wanted:
        if name not in present:
            raise ValueError(f'subset={name!r} has no video in {ann_file!r}'
                             f'{nearest(name, present)}')
    return {name: video for name, video in database.items()
            if video.get('subset') in wanted}


def split_names(names: Sequence[str], part: str, ratio: float = 0.15,
                seed: int = 0) -> List[str]:
    """One part of a fixed split of videos in two.

    Args:
        names (sequence of str): All videos.
        part (str): ``train`` or ``val``. The two share no video.
        ratio (float): Share of ``val``, at least one video.
        seed (int): Seed of the split. Only it and the set of names matter.

    Returns:
        list[str]: The part, in the order of ``names``.
    """
    if part not in ('train', 'val'):
        raise ValueError(f"split['part']={part!r} is not a part"
                         f'{nearest(part, ("train", "val"))}')
    if not 0 < ratio < 1 or len(names) < 2:
        raise ValueError(
            f"split['ratio']={ratio} of {len(names)} videos leaves a part "
            'empty; it must be between 0 and 1, with two videos at least')
    order = sorted(names)
    random.Random(seed).shuffle(order)
    count = min(len(order) - 1, max(1, round(ratio * len(order))))
    held_out = set(order[:count])
    return [name for name in names if (name in held_out) == (part == 'val')]


def read_timing(where: str, entry: Mapping[str, Any], fps: Optional[float],
                probe: Callable[[], Tuple[int, float]]
                ) -> Tuple[float, float, int]:
    """Length and rate of a video.

    Args:
        where (str): The video, for messages.
        entry (dict): Its annotation, with ``duration`` (seconds), ``frame``
            and ``fps`` or some of them.
        fps (float, optional): Rate that overrides the annotation's.
        probe (Callable): Gives frames and rate of the file, asked for only
            where the annotation does not tell.

    Returns:
        tuple[float, float, int]: Seconds, frames per second, and frames.

    Raises:
        ValueError: If one of them is not positive.
    """
    duration, frames = entry.get('duration'), entry.get('frame')
    if fps:
        frames = None if duration is None else int(duration * fps)
    elif entry.get('fps') is not None:
        fps = entry['fps']
    elif duration and frames:
        fps = frames / duration
    if fps is None or (duration is None and frames is None):
        found = probe()
        frames, fps = frames or found[0], fps or found[1]
    if duration is None and fps > 0:
        duration = frames / fps
    if frames is None:
        frames = round(duration * fps)
    if not (duration and duration > 0 and fps > 0 and frames > 0):
        raise ValueError(f'{where} has duration={duration}, fps={fps}, '
                         f'frame={frames}; all must be positive')
    return float(duration), float(fps), int(frames)


class ActionReader:
    """Checked actions of one video after another, with a count of defects.

    Args:
        classes (sequence of str): Names in the order of their labels.
        drop_labels (sequence of str): Labels to leave out. Any other label
            that is not a class is an error.
        bad_segments (str): ``error`` or ``drop``, for segments that are
            reversed, not numbers, or wholly outside the video.
        ann_file (str): For messages.
    """

    def __init__(self, classes: Sequence[str], drop_labels: Sequence[str],
                 bad_segments: str, ann_file: str) -> None:
        if bad_segments not in BAD_SEGMENTS:
            raise ValueError(f'bad_segments={bad_segments!r} is not known'
                             f'{nearest(bad_segments, BAD_SEGMENTS)}')
        self.index = {name: label for label, name in enumerate(classes)}
        self.drop_labels = set(drop_labels)
        self.bad_segments = bad_segments
        self.ann_file = ann_file
        self.counts: Dict[str, int] = {}
        self.first: Dict[str, str] = {}

    def read(self, name: str, annotations: Sequence[Mapping[str, Any]],
             duration: float) -> Tuple[np.ndarray, np.ndarray]:
        """Actions of a video.

        Args:
            name (str): The video.
            annotations (sequence of dict): ``segment`` and ``label`` each.
            duration (float): Seconds.

        Returns:
            tuple[ndarray, ndarray]: Segments float64 [N, 2] in seconds as
            they are written, and labels int64 [N].

        Raises:
            ValueError: For an unknown label, or, unless ``bad_segments`` is
                ``drop``, a segment that cannot be meant.
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
                    f'drop_labels{nearest(label, self.index)}')
            defect = self.defect(action.get('segment'), duration)
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
            duration (float): Seconds of the video.

        Returns:
            str or None: Words that follow 'the segment'.
        """
        try:
            start, end = (float(time) for time in segment)
        except (TypeError, ValueError):
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
            raise ValueError(
                f'{where}: the segment {defect} (of {duration:.2f} s). '
                "Correct it, or leave such out with bad_segments='drop'")
        self.counts[defect] = self.counts.get(defect, 0) + 1
        self.first.setdefault(defect, where)
        return beyond

    def report(self) -> None:
        """Warn once of what was tolerated, with its number."""
        for defect, count in self.counts.items():
            done = ('are cut at its ends when shown'
                    if defect == 'reaches beyond the video' else
                    'are left out')
            warn(f'{count} actions whose segment {defect} {done}; the first: '
                 f'{self.first[defect]}')
