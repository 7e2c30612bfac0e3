"""Annotations of other programs to ActivityNet-style JSON, and to tables."""
import csv
import math
import random
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence
from xml.etree import ElementTree

from mmblockdrop.utils.io import PathLike, whole_file, write_json
from mmblockdrop.utils.messages import listed, require_choice

from .annotation_formats import (COLUMNS, FORMATS, READERS, TIMING,
                                 AnnotationFile, Annotations, Options, measure)

SUBSETS = ('training', 'validation', 'test')


def read_annotations(path: PathLike, options: Optional[Options] = None,
                     format: Optional[str] = None) -> Annotations:
    """Read annotations of any registered format.

    Args:
        path: A file, or a folder of files of one format.
        options: What the files do not say.
        format: Its name; None tells it from the content.

    Returns:
        Videos with actions in seconds.

    Raises:
        FileNotFoundError: There is no such file, or none in the folder.
        ValueError: A file is of no known format or does not hold to it.
    """
    path, options = Path(path), options or Options()
    names = {item.name: item for item in FORMATS}
    if format is not None:
        require_choice('--format', format, names)
    suffixes = {suffix for item in FORMATS for suffix in item.suffixes
                if format in (None, item.name)}
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir()
                       if file.suffix.lower() in suffixes)
        if not files:
            raise FileNotFoundError(f'{path} has no file that ends in '
                                    f'{listed(sorted(suffixes))}')
    found = Annotations()
    for file in files:
        suffix = file.suffix.lower()
        require_choice(f'{file}: ending', suffix, sorted(suffixes))
        content = READERS[suffix](file, 'FROM')
        fitting = [item for item in FORMATS if suffix in item.suffixes
                   and format in (None, item.name) and item.matches(content)]
        if not fitting:
            known = sorted({item.name for item in FORMATS
                            if suffix in item.suffixes})
            raise ValueError(
                f'{file}: its content is not {format!r}' if format else
                f'{file}: expected the content of {listed(known)}, as the '
                f'ending {suffix!r} says; found {_summary(content)}')
        fitting[0].read(AnnotationFile(file, content, options, found))
    if not any(entry['annotations'] for entry in found.database.values()):
        raise ValueError(f'{path}: {len(found.database)} videos without an '
                         'action; expected at least one action. Left out: '
                         f'{dict(+found.left_out)}')
    return found


def _summary(content: Any) -> str:
    """What a file of no known format holds."""
    if isinstance(content, dict):
        return f'a mapping with {listed(content)}'
    if isinstance(content, ElementTree.Element):
        return f'the root {content.tag!r}'
    return f'{content!r:.80}'


def split_videos(names: Iterable[str], shares: Sequence[float],
                 seed: int = 0) -> Dict[str, str]:
    """Divide videos at random into training, validation and test.

    Args:
        names: The videos.
        shares: Shares of the three, which sum to 1. Each that is not 0 gets
            at least one video.
        seed: Only it and the set of names matter.

    Returns:
        Subset of each video.

    Raises:
        ValueError: Other shares, or fewer videos than subsets.
    """
    order = sorted(names)
    needed = sum(share > 0 for share in shares)
    if (len(shares) != 3 or min(shares) < 0 or shares[0] == 0
            or not math.isclose(sum(shares), 1, abs_tol=1e-6)
            or len(order) < needed):
        raise ValueError(
            f'--split={list(shares)} of {len(order)} videos: expected shares '
            'of training, validation and test that sum to 1, and a video for '
            'each')
    random.Random(seed).shuffle(order)
    counts = [max(int(share > 0), round(share * len(order)))
              for share in shares[1:]]
    while sum(counts) > len(order) - 1:
        counts[counts.index(max(counts))] -= 1
    subsets = [SUBSETS[1]] * counts[0] + [SUBSETS[2]] * counts[1]
    return {name: subsets[index] if index < len(subsets) else SUBSETS[0]
            for index, name in enumerate(order)}


def convert(path: PathLike, target: PathLike,
            options: Optional[Options] = None, format: Optional[str] = None,
            subset: Optional[str] = None,
            split: Optional[Sequence[float]] = None,
            seed: int = 0) -> Annotations:
    """Convert annotations to ActivityNet-style JSON or to a table.

    Args:
        path: A file, or a folder of files of one format.
        target: ``.json``, or ``.csv`` or ``.tsv``; it must not exist.
        options: What the files do not say. With a folder of videos, length
            and rate of every video are measured.
        format: Name of the format; None tells it from the content.
        subset: Subset of all videos. None keeps what the files say, and
            ``training`` where they do not.
        split: Shares of :func:`split_videos`, instead of a subset.
        seed: Seed of the split.

    Returns:
        What has been written.

    Raises:
        FileExistsError: The target exists.
        FileNotFoundError: There is no such file or folder.
        ValueError: See :func:`read_annotations`.
    """
    target, options = Path(target), options or Options()
    suffix = target.suffix.lower()
    require_choice(f'{target}: ending', suffix, ('.json', '.csv', '.tsv'))
    if subset is not None and split is not None:
        raise ValueError(f'--subset={subset!r} and --split={list(split)}: '
                         'expected one of them')
    if target.exists():
        raise FileExistsError(f'{target} exists already; expected a new name')
    found = read_annotations(path, options, format)
    if split is not None:
        chosen = split_videos(found.database, split, seed)
    for name, entry in found.database.items():
        if options.videos is not None:
            measure(name, entry, options.videos)
        if split is not None:
            entry['subset'] = chosen[name]
        elif subset is not None:
            entry['subset'] = subset
        entry.setdefault('subset', SUBSETS[0])
        actions = entry.pop('annotations')
        entry['annotations'] = sorted(actions, key=lambda a: a['segment'])
    if suffix == '.json':
        write_json(dict(version='1', database=found.database), target)
    else:
        _write_table(found.database, target, ',' if suffix == '.csv' else '\t')
    return found


def _write_table(database: Mapping[str, dict], target: Path,
                 comma: str) -> None:
    """Write a row for each action, and one for a video without any."""
    with whole_file(target) as temporary, open(
            temporary, 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file, delimiter=comma)
        writer.writerow(COLUMNS)
        for name, entry in database.items():
            for action in entry['annotations'] or [
                    dict(segment=('', ''), label='')]:
                writer.writerow([
                    name, entry['subset'], *action['segment'],
                    action['label'],
                    *(entry.get(key, '') for key in TIMING)])
