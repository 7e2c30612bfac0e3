"""Use of trained and compressed localizers from Python.

    from mmblockdrop.apis import init_localizer, localize_video
    model = init_localizer('config.py', 'work_dir/round_2.pth')
    print(localize_video(model, 'video.mp4')['detections'])
"""
import difflib
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

from mmblockdrop.compression import merge_lora, shape_localizer
from mmblockdrop.evaluation.activitynet import write_detections
from mmblockdrop.inference import draw_timeline
from mmblockdrop.inference.loading import build_localizer
from mmblockdrop.inference.localize import localize_video
from mmblockdrop.utils.io import read_json

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

__all__ = [
    'detections_table', 'draw_localization', 'init_localizer',
    'localize_to_files', 'localize_video', 'of_classes', 'read_actions'
]


def init_localizer(
        config: Union[str, Config],
        checkpoint: Optional[str] = None,
        device: Union[str, torch.device, None] = None) -> nn.Module:
    """Load a localizer, compressed or not.

    Args:
        config: Config of the baseline or of block drop.
        checkpoint: Weights. Blocks that its record names are dropped, LoRA is
            merged. None keeps random weights.
        device: Defaults to the GPU if there is one.

    Returns:
        The localizer, ready for :func:`localize_video`.

    Raises:
        FileNotFoundError: If config or checkpoint does not exist.
        ValueError: If the checkpoint is damaged or does not fit.
    """
    model = build_localizer(
        config, checkpoint, device, prepare=shape_localizer)
    merge_lora(model)
    return model


def read_actions(ann_file: str, video: Union[str, Path]) -> Dict[str, Any]:
    """Annotated actions of one video.

    Args:
        ann_file: ActivityNet-style annotations.
        video: The video; its name without suffix is looked up, with or without
            ActivityNet's ``v_``.

    Returns:
        ``segments`` in seconds, [N, 2], and ``labels``, N names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is in another format or lacks the video.
    """
    if not Path(ann_file).is_file():
        raise FileNotFoundError(f'annotations: there is no file {ann_file}')
    try:
        database = read_json(ann_file, 'annotations')['database']
    except (KeyError, TypeError) as error:
        raise ValueError(f"{ann_file} is not JSON with a field 'database'"
                         ) from error
    name = Path(video).stem
    found = [n for n in (name, name.removeprefix('v_')) if n in database]
    if not found:
        near = difflib.get_close_matches(name, database, 1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ValueError(f'{ann_file} has no video {name!r} among its '
                         f'{len(database)}{hint}')
    actions = database[found[0]].get('annotations', [])
    try:
        return dict(
            segments=np.array([a['segment'] for a in actions],
                              np.float64).reshape(-1, 2),
            labels=[str(a['label']) for a in actions])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{ann_file}: video {found[0]!r} has actions that are not of the '
            "form {'segment': [start, end], 'label': name}: "
            f'{error!r}') from error


def of_classes(actions: Dict[str, Any],
               classes: Optional[Sequence[str]]) -> Dict[str, Any]:
    """Annotated actions of the classes that a localizer knows.

    Args:
        actions: What :func:`read_actions` returned.
        classes: Names. ``action`` alone, as of a class-agnostic data set,
            stands for every action; None keeps all.

    Returns:
        The same form.
    """
    if classes is None:
        return actions
    if tuple(classes) == ('action', ):
        return dict(actions, labels=['action'] * len(actions['labels']))
    keep = [label in classes for label in actions['labels']]
    return dict(
        segments=actions['segments'][keep],
        labels=[label for label in actions['labels'] if label in classes])


def draw_localization(found: Dict[str, Any],
                      path: Union[str, Path],
                      teacher: Optional[Dict[str, Any]] = None,
                      truth: Optional[Dict[str, Any]] = None,
                      name: str = 'localized') -> Path:
    """Picture of ground truth, teacher and localizer above the frames.

    Args:
        found: What :func:`localize_video` returned.
        path: PNG to write.
        teacher: The same of the uncompressed model.
        truth: What :func:`read_actions` returned.
        name: Name of the band of ``found``.

    Returns:
        The picture.
    """
    rows: List[tuple] = []
    if truth is not None:
        rows.append(('ground truth', truth['segments'], truth['labels']))
    for title, result in (('teacher', teacher), (name, found)):
        if result is not None:
            labels = [d['label'] for d in result['detections']]
            rows.append((title, result['segments'], labels, result['scores']))
    return draw_timeline(found['video'], rows, found['duration'], path,
                         Path(found['video']).name)


def localize_to_files(video: Union[str, Path],
                      config: Union[str, Config],
                      checkpoint: Union[str, Path],
                      out_dir: Union[str, Path],
                      teacher_checkpoint: Union[str, Path, None] = None,
                      teacher_config: Union[str, Config, None] = None,
                      ann_file: Union[str, Path, None] = None,
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
        What :func:`localize_video` returns, ``best_score``, the highest one
        before ``score_thr``, and ``files``, the two that were written.

    Raises:
        FileNotFoundError: One of the files does not exist.
        ValueError: One of them is damaged or does not fit.
    """
    truth = None if ann_file is None else read_actions(str(ann_file), video)

    def localize(config: Union[str, Config],
                 checkpoint: Union[str, Path]) -> Dict[str, Any]:
        model = init_localizer(config, str(checkpoint), device)
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
    return dict(found, files=files)


def _above(found: Dict[str, Any], score_thr: float) -> Dict[str, Any]:
    """Keep the detections that reach a score."""
    keep = found['scores'] >= score_thr
    kept = {key: found[key][keep] for key in ('segments', 'scores', 'labels')}
    kept['detections'] = [d for d, k in zip(found['detections'], keep) if k]
    return dict(found, best_score=max(found['scores'], default=0.), **kept)


def detections_table(detections: Sequence[Dict[str, Any]]) -> str:
    """Lay out detections in order of time.

    Args:
        detections: ``segment`` in seconds, ``label``, ``score``.

    Returns:
        A headline, and one line for each.
    """
    width = max([5, *(len(d['label']) for d in detections)])
    lines = [f'{"start (s)":>9} {"end (s)":>9}  {"label":<{width}}  score']
    for d in sorted(detections, key=lambda d: d['segment']):
        start, end = d['segment']
        lines.append(f'{start:9.2f} {end:9.2f}  {d["label"]:<{width}}  '
                     f'{d["score"]:5.3f}')
    return '\n'.join(lines)
