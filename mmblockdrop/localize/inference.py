"""One video in, scored segments out.

The video is read window by window with the test pipeline of the config, so
memory does not grow with its length.
"""
import json
import os.path as osp
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.utils import ProgressBar
from torch import nn

from mmblockdrop.registry import METRICS
from .activitynet import as_rows
from .loading import last_line, require_file
from .metric import TADMetric

#: A bar is shown if the rest takes longer than this many seconds.
PATIENCE = 5.
#: Settings of a data set that choose its videos, not how they are read.
CHOICE_OF_VIDEOS = ('split', 'sample_ratio', 'indices', 'subset', 'data_root',
                    'filename_tmpl', 'suffixes', 'drop_labels')


def localize_video(model: nn.Module,
                   video: Union[str, Path],
                   score_thr: float = 0.,
                   progress: bool = True) -> Dict[str, Any]:
    """Find the actions of one video.

    Args:
        model (nn.Module): What :func:`mmblockdrop.apis.init_localizer` gave.
        video (str): The video.
        score_thr (float): Segments of a lower score are left out. Defaults
            to 0, all that the metric would keep.
        progress (bool): Show a bar if it takes longer than some seconds.
            Defaults to True.

    Returns:
        dict: ``video``, ``duration`` (seconds), ``fps``, ``classes`` (names),
        ``segments`` (seconds, [N, 2]), ``scores`` [N] in falling order,
        ``labels`` [N], and ``detections``, the same as a list of dicts
        with ``segment``, ``label`` and ``score``.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If the file is not a video, or is damaged.
    """
    frames, fps = probe(video)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _one_video_dataset(model, Path(video), frames, fps, folder)
        windows = [
            _predict(model, dataset, i, video)
            for i in _track(len(dataset), progress)
        ]
    found = metric_of(model.cfg).merge(windows)
    keep = found.scores >= score_thr
    segments, scores, labels = (x[keep] for x in found)
    classes = model.dataset_meta.get('classes')
    return dict(
        video=str(video),
        duration=frames / fps,
        fps=fps,
        classes=None if classes is None else list(classes),
        segments=segments,
        scores=scores,
        labels=labels,
        detections=as_rows(segments, scores, labels, classes))


def probe(video: Union[str, Path]) -> tuple:
    """Number of frames and frame rate of a video.

    Args:
        video (str): The video.

    Returns:
        tuple[int, float]: Frames, and frames per second.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If the file is not a video, or is damaged.
    """
    import decord
    require_file(video, 'video')
    try:
        reader = decord.VideoReader(str(video), num_threads=1)
        frames, fps = len(reader), float(reader.get_avg_fps())
    except Exception as error:  # decord raises RuntimeError or DECORDError
        raise ValueError(
            f'{video} cannot be read as a video: it is damaged, cut off or '
            f'something else ({last_line(error)})') from error
    if frames == 0 or not fps > 0:
        raise ValueError(f'{video} has {frames} frames at {fps} per second')
    return frames, fps


def metric_of(cfg: Config) -> TADMetric:
    """The config's detection metric, for its suppression.

    Args:
        cfg (Config): A whole config.

    Returns:
        TADMetric: Of ``test_evaluator`` or ``val_evaluator``, without
        output file; with default settings if there is none.
    """
    for key in ('test_evaluator', 'val_evaluator'):
        entries = cfg.get(key) or []
        for entry in [entries] if isinstance(entries, dict) else entries:
            if str(entry.get('type')).rsplit('.', 1)[-1] == 'TADMetric':
                return METRICS.build(dict(entry, outfile=None))
    return TADMetric()


def _one_video_dataset(model: nn.Module, video: Path, frames: int, fps: float,
                       folder: str) -> Any:
    """The config's test data set on a file that lists this video only."""
    cfg = (model.cfg.get('test_dataloader') or {}).get('dataset')
    if cfg is None:
        raise ValueError(f'{model.cfg.filename} has no '
                         'test_dataloader.dataset, whose pipeline reads '
                         'the video')
    cfg = {k: v for k, v in cfg.items() if k not in CHOICE_OF_VIDEOS}
    if 'feature' in cfg.get('data_prefix', {}):
        raise ValueError(
            f'{model.cfg.filename} reads features '
            "(test_dataloader.dataset.data_prefix has the key 'feature'); "
            'localizing a video needs a config that reads frames')
    name = video.stem
    entry = dict(
        subset='test',
        duration=frames / fps,
        fps=fps,
        frame=frames,
        annotations=[])
    ann_file = osp.join(folder, 'annotations.json')
    Path(ann_file).write_text(json.dumps(dict(database={name: entry})))
    head = getattr(model, 'head', None)
    classes = model.dataset_meta.get('classes') or [
        str(i) for i in range(getattr(head, 'num_classes', 1))
    ]
    cfg.update(
        ann_file=ann_file,
        data_prefix=dict(video=str(video.resolve().parent)),
        suffixes=[video.suffix],
        classes=list(classes),
        test_mode=True,
        max_broken_share=0.,
        pipeline=without_cache(cfg['pipeline']))
    return DATASETS.build(cfg)


def without_cache(pipeline: List[dict]) -> List[dict]:
    """Decode where a pipeline would read frames kept on disk.

    Args:
        pipeline (list[dict]): Test pipeline of a data set.

    Returns:
        list[dict]: The same with what ``mmblockdrop.CachedFrames`` does to a
        whole video done to the frames of the window.
    """
    result: List[dict] = []
    waiting: List[dict] = []
    for step in pipeline:
        kind = str(step['type']).rsplit('.', 1)[-1]
        if kind == 'CachedFrames':
            opener, *waiting = step['transforms']
            result.append(opener)
        elif kind == 'DecordDecode' and waiting:
            result += waiting
            waiting = []
        else:
            result.append(step)
    return result


def _predict(model: nn.Module, dataset: Any, index: int,
             video: Union[str, Path]) -> dict:
    """Detections of one window as arrays."""
    try:
        batch = pseudo_collate([dataset[index]])
    except RuntimeError as error:
        raise ValueError(f'{video} breaks off or is damaged in window '
                         f'{index + 1} of {len(dataset)}: {error}') from error
    with torch.no_grad():
        sample = model.test_step(batch)[0]
    return {
        key: np.asarray(sample.pred_instances[key].detach().float().cpu())
        for key in ('segments', 'scores', 'labels')
    }


def _track(count: int, progress: bool) -> Iterator[int]:
    """Count; show a bar once it is clear that it takes a while."""
    began, bar = time.perf_counter(), None
    for i in range(count):
        yield i
        if bar is not None:
            bar.update()
        elif progress:
            left = (time.perf_counter() - began) / (i + 1) * (count - i - 1)
            if left > PATIENCE:
                print_log(f'{count} windows', logger='current')
                bar = ProgressBar(count - i - 1)
    if bar is not None:
        bar.file.write('\n')
