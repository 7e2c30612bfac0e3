"""Check what a run will read and write, before its first step.

Otherwise a missing test video, a test subset without actions or a full disk
would end a run after all training is done.
"""
import copy
import os.path as osp
import random
import shutil
import time
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import (Any, Dict, Iterator, List, Mapping, NamedTuple, Optional,
                    Sequence, Tuple)

from mmblockdrop.data.annotations import load_database, require_seconds
from mmblockdrop.registry import DATASETS
from mmblockdrop.utils.config import localizer_config, type_name
from mmblockdrop.utils.messages import did_you_mean, listed
from mmblockdrop.utils.video import absence, decoding_reason, read_errors

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from .check import SECONDS, inspect_video

#: Data loaders of a config, in the order in which their videos are opened:
#: first what a run reads last.
ROLES = ('test', 'val', 'train', 'score')
#: Seconds in which videos are opened; of the others only size and name are
#: looked at.
OPENING = 20.
#: Examples that a message gives.
SHOWN = 3
GIB = 1 << 30


class Subset(NamedTuple):
    """What one data loader reads.

    Attributes:
        ann_file: Its annotations.
        subsets: Names of its subsets there; None for files without subsets.
        part: Which part of them, '' for all.
        videos: Names of its videos.
        paths: Their files, in the same order.
        actions: Actions by label.
        classes: Names of the classes; None if there are only the labels.
        dropped: Actions left out, as their segment cannot be meant.
        durations: Annotated seconds, where given.
        max_broken_share: Share of the videos that may be unreadable.
        sample_fps: Grid steps per second; None for a grid of frames, or where
            there is none.
    """
    ann_file: str
    subsets: Optional[Tuple[str, ...]]
    part: str
    videos: List[str]
    paths: List[str]
    actions: Counter
    classes: Optional[List[str]]
    dropped: int
    durations: List[Optional[float]]
    max_broken_share: float
    sample_fps: Optional[float] = None


def check_run(runner: Runner) -> None:
    """Check data and disk of a run; the main process does it for all.

    Args:
        runner: The runner, nothing of it is built but the model.

    Raises:
        ValueError: Something that the run needs is missing or does not fit.
        RuntimeError: Too many videos cannot be read; or another process found
            so.
    """
    verdict: List[Optional[str]] = [None]
    error: Optional[Exception] = None
    if is_main_process():
        try:
            lines = [*check_data(runner.cfg), *check_disk(runner)]
            print_log('Checked before the first step:\n  ' +
                      '\n  '.join(lines), logger='current')
        except Exception as found:  # any: the others must not wait for ever
            error, verdict = found, [f'{type(found).__name__}: {found}']
    broadcast_object_list(verdict)
    if error is not None:
        raise error
    if verdict[0] is not None:
        raise RuntimeError(f'the main process found: {verdict[0]}')


# ---------------------------------------------------------------------- data
def check_data(cfg: Config,
               reads: Sequence[str] = ('train', 'val', 'score'),
               seconds: float = OPENING) -> List[str]:
    """Check the data sets of a config: files, actions and classes.

    Data sets of videos or features (``UntrimmedVideoDataset``) and mmaction2's
    ``ActivityNetDataset`` are checked, also inside ``RepeatDataset`` and
    ``ConcatDataset``. Others are passed over.

    Args:
        cfg: The config of a run.
        reads: Roles that the run reads; what is wrong with the others, such as
            ``test`` where another program tests, is a line, no error.
        seconds: Time in which videos are opened, test videos first and in
            random order; the others are not opened.

    Returns:
        Lines that say what is used and what is not.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: Annotations or classes do not fit.
        RuntimeError: Too many videos cannot be read.
    """
    init_default_scope(cfg.get('default_scope') or 'mmaction')
    found: Dict[str, List[Subset]] = {}
    lines: List[str] = []
    for role, dataset in datasets_of(cfg).items():
        try:
            subsets = [*read_subsets(dataset)]
            check_evaluated(cfg, role, subsets)
        except (OSError, ValueError, RuntimeError) as error:
            if role in reads:
                raise
            lines.append(f'{role}: {error}')
        else:
            found.update({role: subsets} if subsets else {})
    lines = [f'{role}: {count_line(found[role])}'
             for role in reversed(ROLES) if found.get(role)
             and not (role == 'score' and 'train' in found)] + lines
    lines += unused_subsets(found)
    lines += check_classes(cfg, found)
    lines += check_grids(found, reads)
    lines += open_files(found, reads, time.monotonic() + seconds)
    return lines or ['no data set of a known kind: nothing looked at']


def datasets_of(cfg: Config) -> Dict[str, Any]:
    """Configs of the data sets that a config reads, by role."""
    found = {role: (cfg.get(f'{role}_dataloader') or {}).get('dataset')
             for role in ROLES[:3]}
    train_cfg = cfg.get('train_cfg') or {}
    found['score'] = (train_cfg.get('score_dataloader') or {}).get('dataset')
    return {role: dataset for role, dataset in found.items() if dataset}


def read_subsets(dataset: Any) -> Iterator[Subset]:
    """Read the annotations of a data set.

    Args:
        dataset: Its config, or the data set itself.

    Yields:
        One for each data set of a known kind in it.
    """
    if isinstance(dataset, Mapping):
        for key in ('dataset', 'datasets'):
            inside = dataset.get(key)
            if inside is not None:
                inside = inside if isinstance(inside, (list, tuple)) else [
                    inside]
                for part in inside:
                    yield from read_subsets(part)
                return
    kind = dataset.get('type') if isinstance(dataset, Mapping) else type(
        dataset)
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    names = {base.__name__ for base in getattr(kind, '__mro__', ())}
    if not names & {'UntrimmedVideoDataset', 'ActivityNetDataset'}:
        return
    if isinstance(dataset, Mapping):
        cfg = dict(copy.deepcopy(dict(dataset)), pipeline=[], lazy_init=False,
                   serialize_data=False)  # it takes a second of collection
        dataset = DATASETS.build(cfg)
    read = (read_untrimmed if 'UntrimmedVideoDataset' in names else
            read_activitynet)
    yield read(dataset)


def read_untrimmed(dataset: Any) -> Subset:
    """What an ``UntrimmedVideoDataset`` reads."""
    database = load_database(dataset.ann_file)
    labels: Dict[str, np.ndarray] = {
        name: np.zeros(0, np.int64) for name in dataset.video_names}
    for index in range(len(dataset)):
        info = BaseDataset.get_data_info(dataset, index)
        labels[info['video_name']] = info['video_labels']
    background = {*dataset.drop_labels}
    wanted = sum(
        action['label'] not in background for name, found in labels.items()
        if len(found) for action in database[name].get('annotations', ()))
    kept = np.concatenate([*labels.values(), np.zeros(0, np.int64)])
    subset = dataset.subset
    if subset is None:
        subset = sorted({str(v.get('subset')) for v in database.values()})
    return Subset(
        dataset.ann_file,
        (subset, ) if isinstance(subset, str) else tuple(subset),
        _part(dataset),
        list(labels),
        list(dataset.filenames) if dataset.data_prefix else [],
        Counter(kept.tolist()),
        list(dataset.metainfo['classes']),
        wanted - len(kept),
        [database[name].get('duration') for name in labels],
        dataset.max_broken_share,
        dataset.metainfo['sample_fps'])


def _part(dataset: Any) -> str:
    """Which videos of its subset a data set takes."""
    text = f'{dataset.split["part"]} part of ' if dataset.split else ''
    if dataset.sample_ratio != 1:
        text += f'{100 * dataset.sample_ratio:g} % of '
    return text


def read_activitynet(dataset: Any) -> Subset:
    """What mmaction2's ``ActivityNetDataset`` reads: features in CSV files."""
    rows = [dataset.get_data_info(index) for index in range(len(dataset))]
    actions = Counter(str(action.get('label'))
                      for row in rows for action in row.get('annotations', ()))
    names = [row['video_name'] for row in rows]
    return Subset(dataset.ann_file, None, '', names,
                  [row['feature_path'] for row in rows], actions, None, 0,
                  [None] * len(rows), 0.)


def count_line(subsets: Sequence[Subset]) -> str:
    """Say how much a role reads.

    Args:
        subsets: Of this role, at least one.

    Returns:
        Videos, actions, classes, and what is left out.
    """
    texts = []
    for subset in subsets:
        total, classes = sum(subset.actions.values()), len(subset.actions)
        text = (f'{_count(len(subset.videos), "video")}, '
                f'{_count(total, "action")} of {_count(classes, "class")}')
        if subset.subsets:
            text += (f' ({subset.part}subset '
                     f'{", ".join(map(repr, subset.subsets))})')
        if subset.dropped:
            text += (f'; {_count(subset.dropped, "action")} left out, as '
                     'their segments cannot be meant')
        texts.append(text)
    return '; '.join(texts)


def _count(number: int, what: str) -> str:
    """'1 video', '2 classes'."""
    if number == 1:
        return f'1 {what}'
    return f'{number} {what}{"es" if what.endswith("s") else "s"}'


def unused_subsets(found: Mapping[str, Sequence[Subset]]) -> List[str]:
    """Subsets of the annotation files that no data set reads."""
    used: Dict[str, set] = {}
    for subset in (s for subsets in found.values() for s in subsets):
        if subset.subsets:
            used.setdefault(subset.ann_file, set()).update(subset.subsets)
    lines = []
    for ann_file, names in used.items():
        others = Counter(str(v.get('subset'))
                         for v in load_database(ann_file).values())
        lines += [f'not used: {_count(count, "video")} of subset {name!r} in '
                  f'{ann_file}' for name, count in sorted(others.items())
                  if name not in names]
    return lines


def check_evaluated(cfg: Config, role: str,
                    subsets: Sequence[Subset]) -> None:
    """Check that there are actions where ``TADMetric`` scores detections.

    Args:
        cfg: The config of the run.
        role: Role of the data.
        subsets: What it reads.

    Raises:
        ValueError: There are none.
    """
    evaluators = cfg.get(f'{role}_evaluator') or []
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    if 'TADMetric' in map(type_name, evaluators) and subsets and not any(
            subset.actions for subset in subsets):
        videos = sum(len(subset.videos) for subset in subsets)
        raise ValueError(
            f'{role}_dataloader.dataset: none of its '
            f'{_count(videos, "video")} in {subsets[0].ann_file!r} has an '
            'action: nothing can be evaluated' + (
                '; give some videos with actions a subset of their own, such '
                "as 'validation'" if subsets[0].part else ''))


# ------------------------------------------------------------------- classes
def check_classes(cfg: Config,
                  found: Mapping[str, Sequence[Subset]]) -> List[str]:
    """Check that the classes of data sets and model agree.

    Args:
        cfg: The config of the run.
        found: Data sets by role.

    Returns:
        Classes that training does not show, or shows once.

    Raises:
        ValueError: Data sets number their classes differently, or the head has
            fewer classes than the data set.
    """
    lines: List[str] = []
    named = [(role, subset.classes) for role in reversed(ROLES)
             for subset in found.get(role, ()) if subset.classes is not None]
    for role, classes in named[1:]:
        first, other = named[0]
        number = next(
            (i for i, pair in enumerate(zip_longest(other, classes))
             if pair[0] != pair[1]), None)
        if number is not None:
            raise ValueError(
                f'{role}_dataloader.dataset.classes: class {number} is '
                f'{_entry(classes, number)} there, and '
                f'{_entry(other, number)} in {first}_dataloader.dataset: '
                'expected the same classes in the same order')
    head = head_classes(cfg)
    if head and named:
        key, count = head
        expected = len(named[0][1])
        text = (f'{key}={count}, but the data sets have '
                f'{_count(expected, "class")}')
        if count < expected:
            raise ValueError(f'{text}: expected {expected}')
        lines += [text] * (count > expected)
    return lines + rare_classes(found) + [
        f'labels that differ by blanks or case alone: {listed(names)}'
        for names in similar_labels(named[0][1] if named else ())
    ]


def similar_labels(names: Sequence[str]) -> List[List[str]]:
    """Find names that probably mean the same.

    Args:
        names: Names of classes.

    Returns:
        Groups of names that differ by blanks, underscores or case alone.
    """
    groups: Dict[str, List[str]] = {}
    for name in names:
        key = ' '.join(str(name).replace('_', ' ').casefold().split())
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def check_grids(found: Mapping[str, Sequence[Subset]],
                reads: Sequence[str]) -> List[str]:
    """Check that all data sets lay one grid in seconds, or none does.

    Args:
        found: Data sets by role.
        reads: See :func:`check_data`.

    Returns:
        Other rates of data sets that the run does not read.

    Raises:
        ValueError: A data set that the run reads has another rate.
    """
    rates = {role: subset.sample_fps for role in reversed(ROLES)
             for subset in found.get(role, ())}
    first = next(iter(rates), '')
    lines = []
    for role, rate in rates.items():
        if rate != rates[first]:
            text = (f'{role}_dataloader.dataset.sample_fps={rate}, expected '
                    f'{rates[first]} as in {first}_dataloader.dataset')
            if role in reads:
                raise ValueError(text)
            lines.append(text)
    return lines


def _entry(names: Sequence[str], number: int) -> str:
    """A name of a list, or that it has ended."""
    return repr(names[number]) if number < len(names) else 'missing'


def head_classes(cfg: Config) -> Optional[Tuple[str, int]]:
    """Key and value of the number of classes in a localizer's config."""
    if 'model' not in cfg:
        return None
    model = localizer_config(cfg)
    key = 'model' if model is cfg.model else 'model.localizer'
    for place in (('head', ), ('localizer', 'head'), ('class_head', )):
        part: Any = model
        path = key
        for name in place:
            part = part.get(name) if isinstance(part, Mapping) else None
            path += f'.{name}'
        if isinstance(part, Mapping) and isinstance(
                part.get('num_classes'), int):
            return f'{path}.num_classes', part['num_classes']
    return None


def rare_classes(found: Mapping[str, Sequence[Subset]]) -> List[str]:
    """Name classes that training shows never or once."""
    training = found.get('train', ())
    if not training:
        return []
    counts: Counter = sum((s.actions for s in training), Counter())
    names = training[0].classes
    labels = range(len(names)) if names is not None else sorted(
        {label for subsets in found.values() for s in subsets
         for label in s.actions})

    def with_count(count: int) -> List[str]:
        return [names[i] if names is not None else str(i) for i in labels
                if counts[i] == count]

    return [f'{text}: {listed(with_count(count))}'
            for count, text in ((0, 'classes without a training action'),
                                (1, 'classes with one training action'))
            if with_count(count)]


# --------------------------------------------------------------------- files
def open_files(found: Mapping[str, Sequence[Subset]], reads: Sequence[str],
               deadline: float) -> List[str]:
    """Check the files of all data sets.

    Every file is looked up. Videos are opened, and their first and last frame
    decoded, in random order until the deadline.

    Args:
        found: Data sets by role.
        reads: See :func:`check_data`.
        deadline: In seconds of ``time.monotonic``.

    Returns:
        How many were opened, and what is wrong with a few.

    Raises:
        RuntimeError: More are unreadable than ``max_broken_share`` allows.
        ValueError: A video is annotated in milliseconds.
    """
    lines: List[str] = []
    problems: List[str] = []
    opened: Dict[str, Optional[str]] = {}
    lengths: Dict[str, float] = {}
    total = {path for subsets in found.values() for s in subsets
             for path in s.paths}
    for role in ROLES:
        for subset in found.get(role, ()):
            broken: Dict[str, str] = {}
            order = list(zip(subset.videos, subset.paths, subset.durations))
            random.Random(0).shuffle(order)
            for name, path, duration in order:
                if path not in opened and (not _is_there(path)
                                           or time.monotonic() < deadline):
                    opened[path] = _reason(path, lengths)
                reason = opened.get(path)
                if reason is not None:
                    broken[name] = reason
                seconds = lengths.get(path)
                if duration and seconds:
                    require_seconds(f'{role}: video {name!r} of '
                                    f'{subset.ann_file!r}', duration, seconds)
                if duration and seconds and role != 'score' and (
                        seconds < duration - max(SECONDS, .01 * duration)):
                    lines.append(f'{role}: video {name!r} lasts '
                                 f'{seconds:.1f} s, annotated are '
                                 f'{duration:.1f} s')
            if broken:
                text = _broken_text(role, subset, broken)
                many = len(broken) > subset.max_broken_share * len(
                    subset.videos)
                (problems if many and role in reads else lines).append(text)
    if problems:
        raise RuntimeError('\n'.join(problems) + '\nReplace these files, '
                           'leave the videos out with block_list, or allow '
                           'more with max_broken_share')
    if len(lines) > 2 * SHOWN:
        more = len(lines) - 2 * SHOWN
        lines = [*lines[:2 * SHOWN], f'{more} more of these']
    if total and len(opened) < len(total):
        lines.append(f'{len(opened)} of {_count(len(total), "file")} opened, '
                     'drawn at random; the others are only looked up')
    return lines


def _is_there(path: str) -> bool:
    """Whether a file is there and holds something."""
    return osp.isfile(path) and osp.getsize(path) > 0


def _reason(path: str, lengths: Dict[str, float]) -> Optional[str]:
    """What is wrong with a file; notes the seconds of a video."""
    if not osp.isfile(path):
        return absence(path)
    if not osp.getsize(path):
        return 'the file has zero bytes'
    try:
        if path.endswith('.npy'):
            np.load(path, mmap_mode='r', allow_pickle=False)
        elif not path.endswith('.csv'):
            timing = inspect_video(path)
            lengths[path] = timing.frames / timing.fps
    except read_errors() as error:
        return decoding_reason(error)
    except (ValueError, OSError, EOFError) as error:
        return str(error)
    return None


def _broken_text(role: str, subset: Subset, broken: Mapping[str, str]) -> str:
    """Say which videos cannot be read."""
    paths = dict(zip(subset.videos, subset.paths))
    shown = '; '.join(f'{name!r}: {reason} ({paths[name]})'
                      for name, reason in [*broken.items()][:SHOWN])
    more = f' and {len(broken) - SHOWN} more' if len(broken) > SHOWN else ''
    allowed = int(subset.max_broken_share * len(subset.videos))
    first = next(iter(broken))
    folder = Path(paths[first]).parent
    hint = '' if osp.exists(paths[first]) or not folder.is_dir() else (
        did_you_mean(Path(paths[first]).name,
                     (p.name for p in folder.iterdir())))
    return (f'{role}: {len(broken)} of '
            f'{_count(len(subset.videos), "video")} cannot be read '
            f'(max_broken_share={subset.max_broken_share} allows {allowed}): '
            f'{shown}{more}{hint}')


# ---------------------------------------------------------------------- disk
def check_disk(runner: Runner) -> List[str]:
    """Check that the disk has room for checkpoints.

    Args:
        runner: The runner, with its model.

    Returns:
        A line if it has room for one, but not for all.

    Raises:
        ValueError: Not even one checkpoint has room.
    """
    weights = sum(t.numel() * t.element_size()
                  for t in runner.model.state_dict().values())
    trained = sum(p.numel() * p.element_size()
                  for p in runner.model.parameters() if p.requires_grad)
    optimizer = (runner.cfg.get('optim_wrapper') or {}).get('optimizer')
    states = 2 if 'Adam' in type_name(optimizer or {}) else 1
    averages = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    size = weights * (1 + averages) + states * trained
    saving = [h for h in runner.hooks if isinstance(h, CheckpointHook)]
    free = shutil.disk_usage(runner.work_dir).free
    if saving and free < size:
        raise ValueError(
            f'work_dir={runner.work_dir!r} has {free / GIB:.2f} GiB left on '
            f'its disk; a checkpoint takes about {size / GIB:.2f} GiB')
    train_cfg = runner.cfg.get('train_cfg') or {}
    epochs = train_cfg.get('max_epochs') or 1
    many = 0
    for hook in saving:
        kept = hook.max_keep_ckpts
        every = hook.interval if hook.interval and hook.interval > 0 else 1
        many += 1 + (kept if kept > 0 else max(1, epochs // every))
        many += len(getattr(hook, 'key_indicators', None) or ())
    rounds = train_cfg.get('drops')
    total = many * size + weights * (
        rounds + 1 if isinstance(rounds, int) else 0)
    if free < total:
        return [f'work_dir={runner.work_dir!r} has {free / GIB:.2f} GiB left '
                f'on its disk; all checkpoints take about '
                f'{total / GIB:.2f} GiB']
    return []
