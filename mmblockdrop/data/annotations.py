"""ActivityNet-style JSON, read and checked.

The format is ``{"database": {name: {"subset", "duration", "frame", "fps",
"annotations": [{"segment": [start, end], "label"}]}}}`` with times in
seconds. ``duration``, ``frame`` and ``fps`` may be absent where the video
itself can tell.
"""
import logging
import math
import os.path as osp
from typing import (Any, Callable, Dict, List, Mapping, Optional, Sequence,
                    Tuple, Union)

from mmblockdrop.utils.io import read_json, read_lines
from mmblockdrop.utils.messages import did_you_mean

from mmengine.logging import print_log


def warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def load_database(ann_file: str) -> Dict[str, dict]:
    """Read the videos of an annotation file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, or has no ``database`` of videos, or
            one of them has another form.
    """
    content = read_json(ann_file, 'ann_file')
    database = content.get('database') if isinstance(content, dict) else None
    if not isinstance(database, dict):
        keys = sorted(content) if isinstance(content, dict) else [
            type(content).__name__]
        raise ValueError(
            f"ann_file={ann_file!r} has no 'database' mapping from video "
            f'name to its annotation{did_you_mean("database", keys)}')
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
        classes: Names, or a text file with one name in a line, or a JSON file
            with a list of names or a mapping from name to label. None takes
            the labels of the annotation file in alphabetical order.
        data_root: Folder of a relative file name.
        database: Videos of the annotation file.
        drop_labels: Labels that are not classes.

    Returns:
        Names without repetition.

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
        file_name: Text file with one name in a line, or JSON file with a list
            of names or a mapping from name to number.
        data_root: Folder of a relative file name.
        key: The config key that gave it, for the message.

    Returns:
        Names in the order of the file, or of the numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text, not JSON although it is called so, or
            has another form.
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
        where: The video, for messages.
        entry: Its annotation, with ``duration`` (seconds), ``frame`` and
            ``fps`` or some of them.
        fps: Rate that overrides the annotation's.
        probe: Gives frames and rate of the file, asked for only where the
            annotation does not tell.

    Returns:
        Seconds, frames per second, and frames.

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
