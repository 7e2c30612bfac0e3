"""The config of a preview: a block-drop run that trains nothing."""
import copy
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from mmblockdrop.utils.checkpoint import read_checkpoint
from mmblockdrop.utils.config import localizer_config, plain_config, type_name
from mmblockdrop.utils.io import PathLike, read_lines, write_json
from mmblockdrop.utils.messages import require_folder
from mmblockdrop.utils.video import (VIDEO_SUFFIXES, UnreadableVideoError,
                                     probe_video)

from mmengine.config import Config
from mmengine.logging import print_log

from .loading import meta_of

#: Data sets that can read any folder of videos.
VIDEO_DATASETS = ('UntrimmedVideoDataset', 'PublishedVideoDataset')
#: One of so many unlabelled videos is held out to measure on.
HELD_OUT = 5
FITTED, HELD = 'calibration', 'held_out'


def preview_config(cfg: Config,
                   out_dir: PathLike,
                   until: Optional[int] = None,
                   drops: Union[int, str, None] = None,
                   budget: Optional[dict] = None,
                   calibrate: Optional[PathLike] = None) -> Config:
    """Turn the config of a block-drop run into that of its preview.

    Args:
        cfg: The config, with ``DistillationLoop``; it is not changed.
        out_dir: Where ``preview.json``, table and picture go; the models of
            each depth go into its folder ``preview``.
        until: Blocks that remain in the end; see ``PreviewLoop``.
        drops: Blocks to drop, in its place.
        budget: ``stop.budget`` of ``DistillationLoop``.
        calibrate: Folder of videos without labels, which take the place of
            scoring and validation data. There is no metric then.

    Returns:
        The config.

    Raises:
        ValueError: The config is of no block-drop run, or its data are no
            videos.
        FileNotFoundError: There is no such folder, or no video in it that can
            be read.
    """
    if type_name(cfg.get('train_cfg')) != 'DistillationLoop':
        raise ValueError(
            f'train_cfg.type={cfg.get("train_cfg", {}).get("type")!r} of '
            f'{cfg.filename}: expected mmblockdrop.DistillationLoop')
    cfg = copy.deepcopy(cfg)
    old = cfg.train_cfg
    loop = {
        key: old[key]
        for key in ('metric', 'higher_is_better', 'protect',
                    'score_dataloader', 'repair') if old.get(key) is not None
    }
    loop.setdefault('repair', dict(type='mmblockdrop.LinearRepair'))
    loop['scorer'] = dict(type='mmblockdrop.FeatureErrorScorer')
    if type_name(old.get('scorer')) == 'FeatureErrorScorer':
        loop['scorer'] = old['scorer']
    if calibrate is not None:
        _without_labels(cfg, loop, Path(calibrate), Path(out_dir))
    elif cfg.get('test_dataloader') and plain_config(
            cfg.val_dataloader.dataset) == plain_config(
                cfg.test_dataloader.dataset):
        print_log(
            'val_dataloader and test_dataloader read the same videos: what '
            'is chosen by the metric is chosen on the test data. Let '
            'val_dataloader read others, or choose by the error of the '
            'features (--calibrate).',
            logger='current',
            level=logging.WARNING)
    cfg.train_cfg = dict(
        type='mmblockdrop.PreviewLoop',
        out_dir=str(out_dir),
        labelled=calibrate is None,
        **loop)
    for key, value in (('until', until), ('drops', drops), ('budget', budget)):
        if value is not None:
            cfg.train_cfg[key] = value
    cfg.model.alignments = {}
    cfg.custom_hooks = [
        hook for hook in cfg.get('custom_hooks') or []
        if type_name(hook) == 'BlockDropHook'
    ]
    cfg.train_dataloader = copy.deepcopy(
        loop.get('score_dataloader') or cfg.val_dataloader)
    cfg.optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.))
    cfg.param_scheduler = cfg.load_from = None
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    cfg.auto_scale_lr = None
    cfg.resume = False
    cfg.log_level = 'WARNING'
    cfg.work_dir = str(Path(out_dir) / 'preview')
    return cfg


def _without_labels(cfg: Config, loop: Dict[str, Any], folder: Path,
                    out_dir: Path) -> None:
    """Let a config read a folder of videos, and know no metric."""
    require_folder(folder, '--calibrate')
    loader = next((cfg[key] for key in ('val_dataloader', 'test_dataloader')
                   if cfg.get(key)), loop.get('score_dataloader'))
    old = plain_config((loader or {}).get('dataset') or {})
    if type_name(old) not in VIDEO_DATASETS or 'feature' in (
            old.get('data_prefix') or {}):
        raise ValueError(
            f'--calibrate {folder}: val_dataloader.dataset of {cfg.filename} '
            f'is {old.get("type")!r}, expected mmblockdrop.'
            'UntrimmedVideoDataset on videos')
    ann_file = (out_dir / 'preview' / 'calibration.json').absolute()
    subsets = list_videos(folder, ann_file)
    for key in ('split', 'sample_ratio', 'block_list', 'drop_labels', 'fps',
                'filename_tmpl', 'suffixes'):
        old.pop(key, None)
    for step in old.get('pipeline', []):
        if 'cache_dir' in step:
            step['cache_dir'] = str(ann_file.parent / 'cache')
    classes = _classes(cfg, old)
    old.update(
        ann_file=str(ann_file),
        data_root='',
        data_prefix=dict(video=str(folder.absolute())),
        classes=classes,
        test_mode=True)
    loop['score_dataloader'], cfg.val_dataloader = (
        dict(
            plain_config(loader),
            dataset=dict(old, subset=subset),
            sampler=dict(type='DefaultSampler', shuffle=False))
        for subset in (FITTED, HELD if subsets[HELD] else FITTED))
    cfg.val_cfg = dict()
    cfg.val_evaluator = []
    loop.update(metric='feature_error', higher_is_better=False)


def _classes(cfg: Config, dataset: Dict[str, Any]) -> List[str]:
    """Names of the classes: the checkpoint's, the config's, or numbers."""
    meta = meta_of(read_checkpoint(cfg.model.checkpoint)).get('dataset_meta')
    if isinstance(meta, dict) and meta.get('classes'):
        return list(meta['classes'])
    classes = dataset.get('classes') or []
    if not isinstance(classes, str):
        return list(classes) or _numbered(cfg)
    path = Path(dataset.get('data_root', '')) / classes
    if path.is_file() and path.suffix == '.txt':
        return read_lines(path, 'classes')
    return _numbered(cfg)


def _numbered(cfg: Config) -> List[str]:
    """Names for as many classes as the localizer has."""
    counts = [
        part['num_classes'] for part in localizer_config(cfg).values()
        if isinstance(part, dict) and 'num_classes' in part
    ]
    return [f'class {i}' for i in range(max([1, *counts]))]


def list_videos(folder: Path, ann_file: Path) -> Dict[str, List[str]]:
    """Write annotations without actions for the videos of a folder.

    Args:
        folder: The videos.
        ann_file: The file, in ActivityNet's format. Every fifth video, or the
            last of fewer, has the subset ``held_out``, the others
            ``calibration``, and so has a single one.

    Returns:
        Subset to the names of its videos.

    Raises:
        FileNotFoundError: No video in the folder can be read.
    """
    database: Dict[str, Dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        try:
            frames, fps = probe_video(path)
        except UnreadableVideoError as error:
            print_log(f'Left out: {error}', 'current', logging.WARNING)
            continue
        database[path.stem] = dict(
            duration=frames / fps, frame=frames, fps=fps, annotations=[])
    if not database:
        raise FileNotFoundError(
            f'--calibrate {folder}: no video in it can be read; looked for '
            f'the suffixes {", ".join(VIDEO_SUFFIXES)}')
    names = list(database)
    held = names[HELD_OUT - 1::HELD_OUT] or names[-1:]
    found: Dict[str, List[str]] = {FITTED: [], HELD: []}
    for name in names:
        subset = HELD if name in held and len(names) > 1 else FITTED
        database[name]['subset'] = subset
        found[subset].append(name)
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    write_json(dict(database=database), ann_file)
    return found
