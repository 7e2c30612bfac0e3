"""Videos in, scored segments out.

A video is read window by window with the test pipeline of the config, so
memory does not grow with its length.
"""
import contextlib
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Union

from mmblockdrop.evaluation.activitynet import as_rows
from mmblockdrop.evaluation.tad_metric import TADMetric
from mmblockdrop.registry import METRICS

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from .clip_cache import ClipMemory, encoder_of
from .prefetch import WindowBar, ahead
from .windows import Window, read_windows, without_cache

__all__ = ['localize_video', 'localize_videos', 'metric_of', 'without_cache']

PRECISIONS = ('fp32', 'bf16')


def localize_video(model: nn.Module,
                   video: Union[str, Path],
                   score_thr: float = 0.,
                   progress: bool = True,
                   **settings: Any) -> Dict[str, Any]:
    """Find the actions of one video.

    Args:
        model: What :func:`mmblockdrop.apis.init_localizer` gave.
        video: The video.
        score_thr: Segments of a lower score are left out. Defaults to 0, all
            that the metric would keep.
        progress: Show a bar if it takes longer than some seconds. Defaults to
            True.
        **settings: ``batch_size``, ``read_ahead``, ``reuse_clips`` and
            ``precision`` of :func:`localize_videos`.

    Returns:
        ``video``, ``duration`` (seconds), ``fps``, ``classes`` (names),
        ``segments`` (seconds, [N, 2]), ``scores`` [N] in falling order,
        ``labels`` [N], and ``detections``, the same as a list of dicts with
        ``segment``, ``label`` and ``score``.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If the file is not a video, or is damaged.
    """
    found, = localize_videos(model, [video], score_thr, progress, **settings)
    return found


def localize_videos(model: nn.Module,
                    videos: Iterable[Union[str, Path]],
                    score_thr: float = 0.,
                    progress: bool = True,
                    batch_size: int = 1,
                    read_ahead: int = 2,
                    reuse_clips: bool = True,
                    precision: str = 'fp32') -> Iterator[Dict[str, Any]]:
    """Find the actions of many videos, one after the other.

    The next windows are decoded while the present ones are computed, and a
    batch is filled across the end of a video. Where windows overlap by whole
    clips, a clip is encoded once.

    Args:
        model: See :func:`localize_video`.
        videos: The videos.
        score_thr: See :func:`localize_video`.
        progress: See :func:`localize_video`.
        batch_size: Windows computed at once. Defaults to 1.
        read_ahead: Decoded windows that may wait; 0 decodes when it is needed.
            Defaults to 2.
        reuse_clips: Encode a clip of two windows once. Defaults to True.
        precision: ``'fp32'``, or ``'bf16'`` for autocast.

    Yields:
        As :func:`localize_video`, in the order of ``videos``.

    Raises:
        FileNotFoundError: If there is no such video.
        ValueError: If a file is not a video or is damaged, or on an unknown
            precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision is {precision!r}, expected one of '
                         f'{list(PRECISIONS)}')
    encoder = encoder_of(model) if reuse_clips else None
    clip_frames = 0 if encoder is None else encoder.clip_frames
    metric, memory = metric_of(model.cfg), ClipMemory(encoder)
    windows = ahead(read_windows(model, videos, clip_frames), read_ahead)
    waiting: List[dict] = []
    bar = WindowBar(progress)
    with contextlib.closing(windows):
        for batch in _batched(windows, batch_size):
            found = _predict(model, batch, memory, precision)
            bar.update(batch)
            for window, detections in zip(batch, found):
                waiting.append(detections)
                if window.is_last:
                    yield _merged(model, metric, window, waiting, score_thr)
                    waiting = []
    bar.close()


def _batched(windows: Iterable[Window], size: int) -> Iterator[List[Window]]:
    """Windows of one shape, up to ``size`` at once.

    If a window cannot be read, those before it are given first.
    """
    batch: List[Window] = []
    failure = None
    try:
        for window in windows:
            shape = window.sample['inputs'].shape
            if batch and shape != batch[0].sample['inputs'].shape:
                yield batch
                batch = []
            batch.append(window)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception as error:
        failure = error
    if batch:
        yield batch
    if failure is not None:
        raise failure


def _predict(model: nn.Module, batch: List[Window], memory: ClipMemory,
             precision: str) -> List[dict]:
    """Detections of each window as arrays."""
    data = pseudo_collate([window.sample for window in batch])
    device = next(model.parameters()).device.type
    with torch.no_grad(), memory.serving(
        [window.keys for window in batch]), torch.autocast(
            device, torch.bfloat16, enabled=precision == 'bf16'):
        samples = model.test_step(data)
    return [{
        key: np.asarray(sample.pred_instances[key].detach().float().cpu())
        for key in ('segments', 'scores', 'labels')
    } for sample in samples]


def _merged(model: nn.Module, metric: TADMetric, window: Window,
            windows: List[dict], score_thr: float) -> Dict[str, Any]:
    """The actions of a whole video."""
    name = Path(window.video).stem
    found = metric.merge([dict(w, video=name) for w in windows])
    keep = found.scores >= score_thr
    segments, scores, labels = (x[keep] for x in found)
    # An external classifier names classes that the localizer does not know.
    classes = metric.classes if metric.classifier is not None else \
        model.dataset_meta.get('classes')
    return dict(
        video=str(window.video),
        duration=window.frames / window.fps,
        fps=window.fps,
        classes=None if classes is None else list(classes),
        segments=segments,
        scores=scores,
        labels=labels,
        detections=as_rows(segments, scores, labels, classes))


def metric_of(cfg: Config) -> TADMetric:
    """The config's detection metric, for its suppression.

    Args:
        cfg: A whole config.

    Returns:
        Of ``test_evaluator`` or ``val_evaluator``, without output file; with
        default settings if there is none.
    """
    for key in ('test_evaluator', 'val_evaluator'):
        entries = cfg.get(key) or []
        for entry in [entries] if isinstance(entries, dict) else entries:
            if str(entry.get('type')).endswith('TADMetric'):
                return METRICS.build(dict(entry, outfile=None))
    return TADMetric()
