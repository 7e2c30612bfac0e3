"""Derive the configs of the quickstart for someone's own videos."""
import glob
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from mmengine.config import Config

TUBELET = 2  # frames of one step, as the backbone's tubelet_size
CLIP_STEPS = 8
#: Windows of an epoch, as many as the demonstration has videos.
EPOCH = 200
#: Training videos that candidates are scored on, or all if there are fewer.
#: On one or two every candidate may have the same mAP.
SCORED = 25
SPLIT = dict(ratio=0.15, seed=0)
LOADERS = ('train', 'val', 'test', 'score')
PROJECTS = Path(__file__).resolve().parents[1] / 'projects'
#: Data sets with configs of their own in a clone, by the name of their folder.
KNOWN = {
    'grid_s1_words_tad': [
        'grid_words/configs/actionformer_vit-w96-d8_36e_grid-words.py',
        'grid_words/configs/blockdrop_vit-w96-d8_4x2e_grid-words.py'
    ],
    'ceiling_adl_tad': [
        'ceiling_adl/configs/actionformer_vit-w64-d8_30e_ceiling-adl.py',
        'ceiling_adl/configs/blockdrop_vit-w64-d8_2x5e_ceiling-adl.py'
    ],
}


def write_configs(data: Path, work: Path, baseline: str,
                  block_drop: str) -> Tuple[Path, Path]:
    """Write ``baseline.py`` and ``blockdrop.py`` for a folder of videos.

    A data set with configs in ``projects/``, known by the name of its
    folder, gets those; a wheel has no ``projects/``. For any other, steps
    are as long as the short actions need, levels as many as the long ones
    need, the encoder sees clips of 16 frames, and the rest is the
    demonstration's. The files are complete and can be changed and run by
    themselves.

    Args:
        data: Holds ``annotations.json`` and ``videos``.
        work: Where the configs go.
        baseline: Config to start from.
        block_drop: Config of its compression.

    Returns:
        The two files.

    Raises:
        SystemExit: The annotations lack what is needed.
    """
    database = read_database(data)
    known = [PROJECTS / name for name in KNOWN.get(data.name, ())]
    if known and all(path.is_file() for path in known):
        cfg, drop = map(Config.fromfile, known)
        print(f'{len(database)} videos; the configs of {known[0].parent}')
    else:
        cfg, drop = Config.fromfile(baseline), Config.fromfile(block_drop)
        _fit(cfg, data, database)
    for name in LOADERS:
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.data_root = str(data)
        dataset.pipeline[0].cache_dir = str(work / 'cache')
        drop[f'{name}_dataloader'] = cfg[f'{name}_dataloader']
    drop.train_cfg.score_dataloader = cfg.score_dataloader
    drop.model.localizer = cfg.model
    files = work / 'baseline.py', work / 'blockdrop.py'
    cfg.dump(str(files[0]))
    drop.dump(str(files[1]))
    print(f'Configs: {files[0]}, {files[1]}')
    return files


def _fit(cfg: Config, data: Path, database: Dict[str, Any]) -> None:
    """Fit the grid, the subsets and the classes of a config to videos."""
    subsets = sorted({v['subset'] for v in database.values()})
    roles = choose_subsets(subsets, data)
    lengths, labels = read_actions(database)
    if not len(lengths):
        raise SystemExit(f'{data}/annotations.json holds no action with a '
                         'label and a segment [start, end], start < end')
    fps = frame_rate(data, database)
    stride = max(
        TUBELET,
        TUBELET * int(np.quantile(lengths, 0.1) * fps / 2 / TUBELET))
    longest = np.quantile(lengths, 0.95) * fps / stride
    levels = int(np.clip(np.ceil(np.log2(max(longest / 4, 1))) + 1, 3, 6))
    durations = [v['duration'] for v in database.values()]
    steps = np.median(durations) * fps / stride
    window = int(np.clip(np.ceil(steps / CLIP_STEPS), 4, 24)) * CLIP_STEPS

    common = dict(
        classes=labels,
        window_size=window,
        snippet_stride=stride,
        frames_per_step=TUBELET,
        bad_segments='drop')
    for name, role in zip(LOADERS, ('train', 'val', 'test', 'train')):
        cfg[f'{name}_dataloader'].dataset.update(common, **roles[role])
    training = roles['train']['subset']
    videos = sum(v['subset'] == training for v in database.values())
    cfg.train_dataloader.dataset.windows_per_video = max(
        1, round(EPOCH / videos))
    cfg.score_dataloader.dataset.sample_ratio = min(1., SCORED / videos)
    cfg.model.window_size = window
    cfg.model.clip_frames = CLIP_STEPS * TUBELET
    cfg.model.backbone.num_frames = CLIP_STEPS * TUBELET
    cfg.model.backbone.shifted_windows = False
    cfg.model.projection.arch = (1, 0, levels - 1)
    cfg.model.projection.window_size = 19
    cfg.model.neck.num_levels = levels
    cfg.model.head.num_classes = len(labels)
    cfg.model.head.num_convs = 2
    cfg.model.head.strides = [2**i for i in range(levels)]
    print(f'{len(database)} videos, {len(labels)} classes, {fps:.1f} frames '
          f'per second; a step is {stride / fps:.2f} s, a window {window} '
          f'steps, {levels} levels')


def read_database(data: Path) -> Dict[str, Any]:
    """Annotated videos of a folder.

    Args:
        data: Holds ``annotations.json``.

    Returns:
        Name to entry.

    Raises:
        SystemExit: The file is absent or in another format.
    """
    from mmblockdrop.data.annotations import load_database
    path = data / 'annotations.json'
    if not path.is_file() or not (data / 'videos').is_dir():
        raise SystemExit(f'--data {data}: expected annotations.json and a '
                         'folder videos in it')
    try:
        database = load_database(str(path))
    except ValueError as error:
        raise SystemExit(f"{path} is not in ActivityNet's format, "
                         f'{{"database": {{...}}}}: {error}') from None
    for name, entry in database.items():
        for key in ('subset', 'duration', 'annotations'):
            if entry.get(key) is None:
                raise SystemExit(f'{path}: video {name!r} has no {key!r}')
    return database


def read_actions(database: Dict[str, Any]) -> Tuple[np.ndarray, List[str]]:
    """Lengths and classes of the actions that training will keep.

    Args:
        database: Annotated videos.

    Returns:
        Seconds [N] of the actions whose segment can be meant, and all labels
        in alphabetical order.
    """
    from mmblockdrop.data.annotations import ActionReader
    lengths, labels = [], set()
    for entry in database.values():
        for action in entry['annotations']:
            labels.add(action['label'])
            segment = action.get('segment')
            if ActionReader.defect(segment, entry['duration']) in (
                    None, 'reaches beyond the video'):
                lengths.append(float(segment[1]) - float(segment[0]))
    return np.array(lengths), sorted(labels)


def choose_subsets(subsets: List[str], data: Path) -> Dict[str, Any]:
    """Which videos train, choose the epoch, and test.

    Args:
        subsets: Names in the annotations.
        data: For the error.

    Returns:
        'train', 'val', 'test' to dataset arguments. Without a validation
        subset beside a test subset, a part of the training videos chooses the
        epoch.

    Raises:
        SystemExit: There is no training or no other subset.
    """
    found = {}
    for role in ('train', 'val', 'test'):
        found[role] = next(
            (s for s in subsets if s.lower().startswith(role)), None)
    if not found['train'] or not (found['val'] or found['test']):
        raise SystemExit(
            f'{data}/annotations.json has the subsets {subsets}; expected '
            "'training', and 'validation' or 'test' or both")
    if found['val'] and found['test']:
        return {role: dict(subset=name) for role, name in found.items()}
    return dict(
        train=dict(
            subset=found['train'], split=dict(part='train', **SPLIT)),
        val=dict(subset=found['train'], split=dict(part='val', **SPLIT)),
        test=dict(subset=found['test'] or found['val']))


def frame_rate(data: Path, database: Dict[str, Any]) -> float:
    """Median frame rate of some of the videos.

    Args:
        data: Folder of the data.
        database: Annotated videos.

    Returns:
        Frames per second.

    Raises:
        SystemExit: No video can be read.
    """
    rates = []
    for name in sorted(database):
        found = find_readable(data, name)
        if found is not None:
            rates.append(found[1])
        if len(rates) == 5:
            break
    if not rates:
        raise SystemExit(f'{data}/videos: none of the annotated videos can '
                         'be read')
    return float(np.median(rates))


def find_readable(data: Path, name: str) -> Optional[Tuple[Path, float]]:
    """File of a video that can be read.

    Args:
        data: Folder of the data.
        name: The video.

    Returns:
        Its file and its frames per second; None if there is none, or it is
        damaged.
    """
    from decord import VideoReader
    for path in sorted((data / 'videos').glob(f'{glob.escape(name)}.*')):
        try:
            return path, float(VideoReader(str(path)).get_avg_fps())
        except Exception:  # decord raises its own kind for bad files
            continue
    return None
