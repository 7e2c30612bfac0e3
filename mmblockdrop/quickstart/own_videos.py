"""Derive the configs of the quickstart for a folder of videos."""
import inspect
from pathlib import Path
from statistics import median_low
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmblockdrop.backbones.pretrained import (FRAME_ENCODERS,
                                              frame_encoder_config)
from mmblockdrop.data.annotations import ActionReader, load_database
from mmblockdrop.data.prepare.run_check import similar_labels
from mmblockdrop.utils.messages import listed, require_file, require_folder
from mmblockdrop.utils.video import (UnreadableVideoError, find_media,
                                     probe_video)

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

ANNOTATIONS, VIDEOS = 'annotations.json', 'videos'
TUBELET = 2  # frames of one grid step, as the backbone's tubelet_size
CLIP_STEPS = 8
#: Videos of more frames per second are read at this rate.
MAX_FPS = 60.
#: Windows of an epoch, as many as the demonstration has videos.
EPOCH = 200
#: The same behind a pretrained encoder, which takes longer for each.
EPOCH_PRETRAINED = 60
#: Pixels of a frame for a pretrained encoder, and before it is cropped.
IMAGE, IMAGE_BEFORE_CROP = 84, 96
#: Training videos that candidates are scored on, or all if there are fewer.
#: On one or two every candidate may have the same mAP.
SCORED = 25
SPLIT = dict(ratio=0.15, seed=0)
#: Grid steps that a video of median length has at least.
LEAST_STEPS = 16
#: Where the full localizer goes, in the folder of results.
FULL = Path('full', 'best.pth')
#: What a config holds that is run, not inherited.
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters,
               'score_dataloader', 'custom_imports'}
LOADERS = ('train', 'val', 'test', 'score')


def write_configs(data: Path,
                  work: Path,
                  baseline: Path,
                  block_drop: Path,
                  backbone: Optional[str] = None) -> Tuple[Path, Path]:
    """Write ``baseline.py`` and ``blockdrop.py`` for a folder of videos.

    Grid steps are as long as the short actions need, and so short that a video
    has 16 of them; pyramid levels are as many as the long actions need. The
    encoder sees clips of 16 frames, and the rest is the given configs'. The
    files are complete and can be changed and run by themselves.

    Args:
        data: Holds ``annotations.json`` and ``videos``.
        work: Where the configs go.
        baseline: Config to start from.
        block_drop: Config of its compression.
        backbone: Pretrained encoder of frames that takes the place of the
            config's encoder, see :func:`pretrained_encoder`. Defaults to
            None.

    Returns:
        The two files.

    Raises:
        FileNotFoundError: A part of ``data`` does not exist, or ``backbone``
            is a file that does not.
        ValueError: The annotations lack what is needed, or ``backbone`` is
            not such an encoder.
    """
    database = read_database(data)
    cfg, drop = Config.fromfile(baseline), Config.fromfile(block_drop)
    encoder = pretrained_encoder(backbone) if backbone else None
    _fit(cfg, data, database)
    if encoder is not None:
        _use_pretrained(cfg, drop, encoder)
    for name in LOADERS:
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.data_root = str(data)
        dataset.pipeline[0].cache_dir = str(work / 'cache')
        drop[f'{name}_dataloader'] = cfg[f'{name}_dataloader']
    drop.train_cfg.score_dataloader = cfg.score_dataloader
    drop.model.localizer = cfg.model
    drop.model.checkpoint = str(work / FULL)
    files = work / 'baseline.py', work / 'blockdrop.py'
    work.mkdir(parents=True, exist_ok=True)
    for config, path in zip((cfg, drop), files):
        for key in {*config} - RUNNER_KEYS:  # variables of what was inherited
            config.pop(key)
        config.dump(str(path))
    print(f'Configs: {files[0]}, {files[1]}')
    others = [p.name for p in sorted(data.iterdir()) if p.is_file()
              and p.name != ANNOTATIONS]
    print(f'Classes: the labels of {ANNOTATIONS}, in alphabetical order' +
          (f'; not read: {listed(others)}' if others else ''))
    return files


def _fit(cfg: Config, data: Path, database: Dict[str, Any]) -> None:
    """Fit the grid, the subsets and the classes of a config to videos."""
    subsets = sorted({v['subset'] for v in database.values()})
    roles = choose_subsets(subsets, data)
    lengths, labels = read_actions(database)
    for names in similar_labels(labels):
        raise ValueError(
            f'{data / ANNOTATIONS} has the labels {listed(names)}, which '
            'differ by blanks or case alone: expected one spelling')
    if not len(lengths):
        raise ValueError(f'{data / ANNOTATIONS} holds no action with a label '
                         'and a segment [start, end], start < end')
    fps = frame_rate(data, [
        name for name, video in database.items()
        if video['subset'] == roles['train']['subset']])
    durations = [v['duration'] for v in database.values()]
    longest_step = min(
        np.quantile(lengths, 0.1) / 2, np.median(durations) / LEAST_STEPS)
    stride = max(TUBELET, TUBELET * int(longest_step * fps / TUBELET))
    longest = np.quantile(lengths, 0.95) * fps / stride
    levels = int(np.clip(np.ceil(np.log2(max(longest / 4, 1))) + 1, 3, 6))
    steps = np.median(durations) * fps / stride
    window = int(np.clip(np.ceil(steps / CLIP_STEPS), 4, 24)) * CLIP_STEPS

    common = dict(
        classes=labels,
        window_size=window,
        sample_fps=round(fps / stride, 6),
        snippet_stride=None,
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
    print(f'{len(database)} videos, {len(labels)} classes; training videos of '
          f'{fps:.1f} frames per second (median); a grid step is '
          f'{stride / fps:.2f} s, a window {window} steps, {levels} levels')


def pretrained_encoder(backbone: str) -> Optional[dict]:
    """Config of a pretrained encoder of frames, if its weights can be had.

    Says which encoder is used.

    Args:
        backbone: A name in ``FRAME_ENCODERS``, whose weights are downloaded,
            or the file or URL of a checkpoint of the same kind.

    Returns:
        The config; None if the weights cannot be downloaded: the encoder is
        then trained from scratch.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a checkpoint, or the name is unknown.
    """
    checkpoint = FRAME_ENCODERS.get(backbone, backbone)
    if checkpoint == backbone and '://' not in backbone:
        try:
            require_file(backbone, '--backbone')
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}; or one of {sorted(FRAME_ENCODERS)}') from None
        checkpoint = str(Path(backbone).resolve())
    try:
        cfg = frame_encoder_config(checkpoint, IMAGE)
    except ValueError as error:
        if '://' not in checkpoint:
            raise
        print(f'--backbone {backbone}: the weights cannot be had ({error}). '
              'The encoder is trained from scratch')
        return None
    arch = cfg['encoder']['arch']
    print(f'--backbone {backbone}: pretrained and frozen, '
          f'{arch["num_layers"]} blocks of width {arch["embed_dims"]}, from '
          f'{checkpoint}')
    return cfg


def _use_pretrained(cfg: Config, drop: Config, encoder: dict) -> None:
    """Put a frozen encoder of frames before the detector.

    Blocks are chosen by the features and repaired, since the encoder is not
    trained.
    """
    size = encoder['encoder']['img_size']
    for name in LOADERS:
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.frames_per_step = 1
        pipeline = []
        for transform in dataset.pipeline:
            kind = transform['type']
            if kind == 'mmblockdrop.CachedFrames':
                transform = dict(transform, transforms=[
                    dict(type='mmblockdrop.OpenVideo'),
                    dict(type='DecordDecode'),
                    dict(
                        type='Resize',
                        scale=(IMAGE_BEFORE_CROP, IMAGE_BEFORE_CROP),
                        keep_ratio=False)
                ])
            elif kind == 'RandomCrop':
                transform = dict(transform, size=size)
            elif kind == 'CenterCrop':
                transform = dict(transform, crop_size=size)
            if kind != 'mmblockdrop.JitterContrast':
                pipeline.append(transform)
        dataset.pipeline = pipeline
    training = cfg.train_dataloader.dataset
    training.windows_per_video = max(
        1, training.windows_per_video * EPOCH_PRETRAINED // EPOCH)
    cfg.model.data_preprocessor.update(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    cfg.model.backbone = encoder
    cfg.model.clip_frames = CLIP_STEPS
    cfg.model.projection.in_channels = 2 * encoder['encoder']['arch'][
        'embed_dims']
    drop.train_cfg.update(
        epochs_per_round=0,
        scorer=dict(type='mmblockdrop.FeatureErrorScorer'),
        repair=dict(type='mmblockdrop.LinearRepair'))
    stack = 'backbone.encoder.layers'
    drop.model.alignments = dict(
        block=dict(type='mmblockdrop.BlockAlignment', stack=stack),
        cls=dict(type='mmblockdrop.ClassAlignment'),
        seg=dict(type='mmblockdrop.SegmentAlignment'))
    for hook in drop.custom_hooks:
        if hook['type'] == 'mmblockdrop.BlockDropHook':
            hook['stack'] = stack


def read_database(data: Path) -> Dict[str, Any]:
    """Annotated videos of a folder.

    Args:
        data: Holds ``annotations.json`` and ``videos``.

    Returns:
        Name to entry.

    Raises:
        FileNotFoundError: A part of the folder does not exist.
        ValueError: The annotations are in another format.
    """
    path = data / ANNOTATIONS
    require_file(path, 'data')
    require_folder(data / VIDEOS, 'data')
    database = load_database(str(path))
    for name, entry in database.items():
        for key in ('subset', 'duration', 'annotations'):
            if entry.get(key) is None:
                raise ValueError(f'{path}: video {name!r} has no {key!r}')
    return database


def read_actions(database: Dict[str, Any]) -> Tuple[np.ndarray, List[str]]:
    """Lengths and classes of the actions that training will keep.

    Args:
        database: Annotated videos.

    Returns:
        Seconds [N] of the actions whose segment can be meant, and all labels
        in alphabetical order.
    """
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
        ValueError: There is no training or no other subset.
    """
    found = {}
    for role in ('train', 'val', 'test'):
        found[role] = next(
            (s for s in subsets if s.lower().startswith(role)), None)
    if not found['train'] or not (found['val'] or found['test']):
        raise ValueError(
            f'{data / ANNOTATIONS} has the subsets {subsets}; expected '
            "'training', and 'validation' or 'test' or both")
    if found['val'] and found['test']:
        return {role: dict(subset=name) for role, name in found.items()}
    return dict(
        train=dict(
            subset=found['train'], split=dict(part='train', **SPLIT)),
        val=dict(subset=found['train'], split=dict(part='val', **SPLIT)),
        test=dict(subset=found['test'] or found['val']))


def frame_rate(data: Path, names: Sequence[str]) -> float:
    """Median frame rate of videos, for the grid of all.

    Args:
        data: Folder of the data.
        names: The videos; those that cannot be read are passed over.

    Returns:
        Frames per second, at most 60.

    Raises:
        ValueError: No video can be read.
    """
    readable = filter(None, (find_readable(data, name) for name in names))
    rates = [probe_video(path)[1] for path in readable]
    if not rates:
        raise ValueError(f'{data / VIDEOS}: none of the {len(names)} training '
                         'videos can be read')
    return min(median_low(rates), MAX_FPS)


def find_readable(data: Path, name: str) -> Optional[Path]:
    """File of a video that can be read.

    Args:
        data: Folder of the data.
        name: The video.

    Returns:
        Its file; None if there is none, or it is damaged.
    """
    path = find_media(str(data / VIDEOS), name,
                      where=str(data / ANNOTATIONS))
    try:
        return path and probe_video(path) and Path(path)
    except UnreadableVideoError:
        return None
