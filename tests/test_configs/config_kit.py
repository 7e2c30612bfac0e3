"""Configs of the repository, whole and at a size that runs in seconds."""
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

from mmblockdrop.registry import MODELS

import cv2
import numpy as np
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
#: Folders whose configs train a localizer on videos.
FOLDERS = [
    *(f'configs/{name}' for name in ('thumos14', 'activitynet13',
                                     'multithumos', 'fineaction',
                                     'demo_actions')),
    *(f'projects/{name}/configs' for name in ('ceiling_adl', 'grid_words'))
]
PATHS = sorted(
    str(path.relative_to(ROOT)) for folder in FOLDERS
    for path in (ROOT / folder).glob('*.py'))
FULL_SIZE = [path for path in PATHS if '-768x160' in path]
#: Folders whose README has lines with ``--cfg-options``.
WITH_VARIANTS = ('thumos14', 'activitynet13')
PARTS = ('train', 'val', 'test', 'score')
FPS = 10.
LABELS = dict(
    thumos14='CricketShot',
    activitynet13='Hurling',
    multithumos='Jump',
    fineaction='running',
    demo_actions='run',
    ceiling_adl='standup',
    grid_words='bin')
#: Data sets whose official test part is called 'validation'.
PUBLIC = ('thumos14', 'activitynet13', 'multithumos', 'fineaction')
#: Steps and pixels of a window in a small run.
STEPS, PIXELS = 16, 32


def commands(folder: str) -> List[List[str]]:
    """Arguments of every line under *Variants* in a README, as bash reads it.

    Args:
        folder: One of ``WITH_VARIANTS``.

    Returns:
        For each line the program and its arguments.
    """
    card = (ROOT / 'configs' / folder / 'README.md').read_text()
    lines = card.split('## Variants')[1].split('```')[1]
    script = 'python() { printf "%s\\n" "$@" ""; }\n' + lines.replace(
        'shell', '', 1)
    done = subprocess.run(['bash', '-euc', script],
                          check=True,
                          capture_output=True,
                          text=True)
    return [call.split('\n') for call in done.stdout.strip().split('\n\n')]


@functools.lru_cache(maxsize=None)
def variants(folder: str) -> Dict[str, Config]:
    """Configs of these lines, merged as the program does, by work folder."""
    sys.path.insert(0, str(ROOT / 'tools'))
    from train import merge_args, parse_args, read_config
    found = {}
    for _, config, *rest in commands(folder):
        args = parse_args([str(ROOT / config), *rest])
        found[Path(args.work_dir).name] = merge_args(read_config(args), args)
    return found


def read(name: str) -> Config:
    """Config by its path, or by the name of a variant; without yapf."""
    if '/' in name:
        cfg = Config.fromfile(ROOT / name)
    else:
        cfg = variants(name.split('-')[0])[name]
    return Config(cfg.to_dict(), format_python_code=False)


def kind_of(name: str) -> str:
    """Data set of a config or variant."""
    return Path(name).parts[1] if '/' in name else name.split('-')[0]


def find(start: str) -> str:
    """The first config whose path begins so."""
    return next(path for path in PATHS if path.startswith(start))


def crop_sizes(pipeline: Sequence[Dict[str, Any]]) -> List[int]:
    """Sizes of the central or random squares that are cut out."""
    return [
        step.get('crop_size') or step['size'] for step in pipeline
        if step['type'].endswith('Crop')
    ]


def localizer_of(cfg: Config) -> Dict[str, Any]:
    """Config of the localizer, inside the wrapper or alone."""
    return cfg.model.get('localizer', cfg.model)


def datasets(cfg: Config) -> Dict[str, Dict[str, Any]]:
    """Dataset configs of all loaders, by part."""
    found = {part: cfg[f'{part}_dataloader'].dataset for part in PARTS}
    if 'score_dataloader' in cfg.get('train_cfg', {}):
        found['rounds'] = cfg.train_cfg.score_dataloader.dataset
    return found


def write_video(path: Path, frames: int) -> None:
    """A video of 64 x 48 pixels that gets brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'mp4v'), FPS, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), index * 255 // frames, np.uint8))
    writer.release()


def write_data(root: Path, kind: str, counts: Dict[str, int],
               frames: int) -> Path:
    """A data set in the form that the configs of ``kind`` expect.

    Args:
        root: Folder of all data sets.
        kind: The data set.
        counts: Videos by subset.
        frames: Length of each.

    Returns:
        Folder of this data set.
    """
    folder = root / kind
    label, duration = LABELS[kind], frames / FPS
    names = {
        f'{subset}_{i}': subset
        for subset, count in counts.items() for i in range(count)
    }
    database: Dict[str, Any] = {}
    for name, subset in names.items():
        segments = [[0.1 * duration, 0.5 * duration],
                    [0.6 * duration, 0.9 * duration]]
        database[name] = dict(
            subset=subset,
            duration=duration,
            annotations=[dict(segment=s, label=label) for s in segments])
        if kind in ('activitynet13', 'fineaction'):
            database[name].update(resolution='64x48', url='-')
        else:
            database[name].update(frame=frames, fps=FPS)
        stem = f'v_{name}' if kind == 'activitynet13' else name
        videos = root / ('thumos14' if kind == 'multithumos' else kind)
        write_video(videos / 'videos' / f'{stem}.mp4', frames)
    if kind == 'activitynet13':
        database['gone'] = dict(
            subset='validation', duration=9., annotations=[])
        database['hidden'] = dict(
            subset='testing', duration=9., annotations=[])
    files = dict(
        thumos14='thumos_14_anno.json',
        multithumos='multithumos_anno.json',
        activitynet13='activity_net.v1-3.min.json',
        fineaction='annotations_gt.json')
    notes = folder / ('annotations' if kind in PUBLIC else '')
    notes.mkdir(parents=True, exist_ok=True)
    (notes / files.get(kind, 'annotations.json')).write_text(
        json.dumps(dict(version='1', taxonomy=[], database=database)))
    (notes / 'category_idx.txt').write_text(f'another\n{label}\n')
    if kind == 'activitynet13':
        (notes / 'blocked.json').write_text('["gone"]')
    if kind in ('activitynet13', 'fineaction'):
        write_class_scores(folder / 'classifier.json', names, label)
    return folder


def write_class_scores(path: Path, videos: Sequence[str],
                       label: str) -> None:
    """Class scores of whole videos, of which ``label`` is the best."""
    content = {'class': ['another', label],
               'results': {name: [0.2, 0.8] for name in videos}}
    path.write_text(json.dumps(content))


def use_data(cfg: Config, folder: Path) -> Config:
    """Point all parts of a config at a folder."""
    for dataset in datasets(cfg).values():
        dataset.data_root = str(folder)
        for step in dataset.pipeline:
            if 'cache_dir' in step:
                step.cache_dir = str(folder / 'cache')
    for name in ('val_evaluator', 'test_evaluator'):
        if 'external_classifier' in cfg[name]:
            cfg[name].external_classifier.path = str(
                folder / 'classifier.json')
    return cfg


def shorten_windows(cfg: Config) -> int:
    """Windows of ``STEPS`` steps everywhere.

    Returns:
        Frames of such a window in the video.
    """
    for dataset in datasets(cfg).values():
        dataset.window_size = STEPS
    model = localizer_of(cfg)
    model.window_size = STEPS
    frames = STEPS * dataset.get('frames_per_step', 1)
    if model.get('clip_frames', 0) > frames:  # the window is one clip
        model.clip_frames = frames
    if 'max_seq_len' in model.projection:
        model.projection.max_seq_len = STEPS
    return STEPS * dataset.get('snippet_stride', dataset.frames_per_step)


def shrink(cfg: Config, work_dir: Path) -> Config:
    """The same config with three narrow blocks on tiny frames, one epoch.

    Every setting of data, rounds and schedule stays, but for sizes, for
    what needs a GPU, and for processes that load data.
    """
    shorten_windows(cfg)
    model = localizer_of(cfg)
    _shrink_model(model)
    for dataset in datasets(cfg).values():
        _shrink_frames(dataset.pipeline)
    loaders = [cfg[f'{part}_dataloader'] for part in PARTS]
    if 'score_dataloader' in cfg.train_cfg:
        loaders.append(cfg.train_cfg.score_dataloader)
    for loader in loaders:
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if 'max_epochs' in cfg.train_cfg:
        cfg.train_cfg.update(max_epochs=1, val_begin=1, val_interval=1)
    else:
        cfg.train_cfg.update(drops=1, epochs_per_round=1)
        if cfg.train_cfg.get('subset'):
            cfg.train_cfg.subset.epochs = 1
        if cfg.train_cfg.lora:
            cfg.train_cfg.lora.rank = 2
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('dtype')
        cfg.optim_wrapper.pop('loss_scale')
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.log_level = 'ERROR'
    cfg.visualizer = dict(type='Visualizer', vis_backends=None)
    return cfg


def _shrink_model(model: Dict[str, Any]) -> None:
    model.backbone.update(
        img_size=PIXELS,
        patch_size=16,
        embed_dims=16,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        pretrained=None)
    if model.backbone.get('lora'):
        model.backbone.lora.rank = 2
    if model.backbone.get('stem'):
        model.backbone.stem.channels = [4, 4, 4]
    model.projection.update(in_channels=16, out_channels=8, num_heads=2)
    model.neck.update(in_channels=8, out_channels=8)
    model.head.update(in_channels=8)


def _shrink_frames(pipeline: List[Dict[str, Any]]) -> None:
    for step in pipeline:
        if 'transforms' in step:
            _shrink_frames(step.transforms)
        elif step.type == 'Resize':
            step.scale = (-1 if -1 in step.scale else PIXELS, PIXELS)
        elif 'crop_size' in step:
            step.crop_size = PIXELS
        elif step.type == 'RandomCrop':
            step.size = PIXELS


def untrained(cfg: Config, path: Path) -> str:
    """Write a checkpoint of the localizer as it is built."""
    torch.manual_seed(0)
    model = MODELS.build(localizer_of(cfg))
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)
