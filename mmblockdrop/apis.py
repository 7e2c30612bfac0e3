"""Use of trained and compressed localizers from Python.

    from mmblockdrop.apis import init_localizer, localize_video
    model = init_localizer('config.py', 'work_dir/round_2.pth')
    print(localize_video(model, 'video.mp4')['detections'])
"""
import copy
import logging
from pathlib import Path
from typing import Any, Dict, Optional, Union

from mmblockdrop.compression import check_classes, load_localizer, merge_lora
from mmblockdrop.evaluation.activitynet import write_detections
from mmblockdrop.inference import (draw_localization, localize_video,
                                   of_classes, read_actions)
from mmblockdrop.registry import MODELS
from mmblockdrop.structures.grid_rate import follow_grid
from mmblockdrop.utils.config import localizer_config
from mmblockdrop.utils.io import PathLike, read_lines
from mmblockdrop.utils.messages import require_file

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import nn

__all__ = [
    'draw_localization', 'init_localizer', 'localization_text',
    'localize_to_files', 'localize_video', 'of_classes', 'read_actions'
]


def init_localizer(
        config: Union[PathLike, Config],
        checkpoint: Optional[PathLike] = None,
        device: Union[str, torch.device, None] = None) -> nn.Module:
    """Load a localizer, compressed or not.

    Args:
        config: Config of the baseline or of block drop; it is not changed.
        checkpoint: Weights. Blocks that its record names are dropped, LoRA is
            merged. None keeps random weights.
        device: Defaults to the GPU if there is one.

    Returns:
        The localizer in evaluation mode, ready for :func:`localize_video`,
        with ``cfg`` and ``dataset_meta`` as attributes. ``cfg`` is a copy
        whose data sets have the ``sample_fps`` of the checkpoint.

    Raises:
        FileNotFoundError: Config or checkpoint does not exist.
        ValueError: The checkpoint is damaged or does not fit.
    """
    if not isinstance(config, Config):
        require_file(config, 'config')
        config = Config.fromfile(config)
    init_default_scope(config.get('default_scope', 'mmaction'))
    model_cfg = copy.deepcopy(localizer_config(config))
    if isinstance(model_cfg.get('backbone'), dict):
        model_cfg['backbone'].pop('pretrained', None)
    model = MODELS.build(model_cfg)
    meta: dict = {}
    if checkpoint is None:
        merge_lora(model)
    else:
        meta = load_localizer(model, str(checkpoint))
    model.dataset_meta = meta.get('dataset_meta') or _meta_of_config(config)
    check_classes(model, model.dataset_meta.get('classes'),
                  'the data that it was trained on', one_for_all=True)
    model.cfg = copy.deepcopy(config)
    for key in ('val_dataloader', 'test_dataloader'):
        follow_grid((model.cfg.get(key) or {}).get('dataset'),
                    model.dataset_meta)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return model.to(device).eval()


def localize_to_files(video: PathLike,
                      config: Union[PathLike, Config],
                      checkpoint: PathLike,
                      out_dir: PathLike,
                      teacher_checkpoint: Optional[PathLike] = None,
                      teacher_config: Union[PathLike, Config, None] = None,
                      ann_file: Optional[PathLike] = None,
                      score_thr: float = 0.3,
                      device: Optional[str] = None,
                      compile: bool = False,
                      **settings: Any) -> Dict[str, Any]:
    """Localize one video, write its detections and draw them.

    Args:
        video: The video.
        config: Config of the localizer.
        checkpoint: Its weights, compressed or not.
        out_dir: Folder for ``<video>.json``, in ActivityNet's format of
            results, and ``<video>.png``.
        teacher_checkpoint: Weights of the uncompressed model, for the picture.
        teacher_config: Its config; defaults to ``config``.
        ann_file: ActivityNet-style annotations, for the picture.
        score_thr: Least score that is kept.
        device: Defaults to the GPU if there is one.
        compile: Let torch compile the encoder first.
        **settings: See :func:`mmblockdrop.inference.localize.localize_videos`.

    Returns:
        What :func:`localize_video` returns; ``score_thr``; ``best_score``, the
        highest of all; and ``files``, the two that were written.

    Raises:
        FileNotFoundError: One of the files does not exist.
        ValueError: One of them is damaged or does not fit.
    """
    truth = None if ann_file is None else read_actions(ann_file, video)

    def localize(config: Union[PathLike, Config],
                 checkpoint: PathLike) -> Dict[str, Any]:
        model = init_localizer(config, checkpoint, device)
        if compile and getattr(model, 'backbone', None) is not None:
            model.backbone.compile()
        found = localize_video(model, video, **settings)
        return _above(found, score_thr)

    found = localize(config, checkpoint)
    teacher = None if teacher_checkpoint is None else localize(
        teacher_config or config, teacher_checkpoint)
    if truth is not None:
        truth = of_classes(truth, found['classes'])
    stem = Path(video).stem
    files = [Path(out_dir) / f'{stem}.{end}' for end in ('json', 'png')]
    write_detections(
        files[0],
        {stem: (found['segments'], found['scores'], found['labels'])},
        found['classes'],
        duration=found['duration'])
    draw_localization(found, files[1], teacher, truth,
                      'localized' if teacher is None else 'compressed')
    return dict(found, files=files, score_thr=score_thr)


def _above(found: Dict[str, Any], score_thr: float) -> Dict[str, Any]:
    """Keep the detections that reach a score."""
    keep = found['scores'] >= score_thr
    kept = {key: found[key][keep] for key in ('segments', 'scores', 'labels')}
    kept['detections'] = [d for d, k in zip(found['detections'], keep) if k]
    return dict(found, best_score=max(found['scores'], default=0.), **kept)


def localization_text(found: Dict[str, Any]) -> str:
    """Lay out detections in order of time.

    Args:
        found: What :func:`localize_to_files` returned.

    Returns:
        A headline and one line for each; or that there are none.
    """
    detections = found['detections']
    if not detections:
        return (f'No segment reaches a score of {found["score_thr"]}; the '
                f'best scores {found["best_score"]:.3f}.')
    width = max([5, *(len(d['label']) for d in detections)])
    lines = [f'{"start (s)":>9} {"end (s)":>9}  {"label":<{width}}  score']
    for d in sorted(detections, key=lambda d: d['segment']):
        start, end = d['segment']
        lines.append(f'{start:9.2f} {end:9.2f}  {d["label"]:<{width}}  '
                     f'{d["score"]:5.3f}')
    return '\n'.join(lines)


def _meta_of_config(cfg: Config) -> dict:
    """Class names as far as the config's data set can give them."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    classes = dataset.get('classes')
    if isinstance(classes, str):
        path = Path(dataset.get('data_root', '')) / classes
        classes = None
        if path.is_file() and path.suffix == '.txt':
            classes = read_lines(path, 'test_dataloader.dataset.classes')
    if classes is None:
        print_log(
            'The names of the classes are neither in the checkpoint nor in '
            'the config; numbers are shown instead.',
            logger='current',
            level=logging.WARNING)
        return {}
    return dict(classes=list(classes))
