"""Videos in, scored segments out.

A video is read window by window with the test pipeline of the config, so
memory does not grow with its length.
"""
import contextlib
import json
import os.path as osp
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from mmblockdrop.evaluation.activitynet import as_rows
from mmblockdrop.evaluation.tad_metric import TADMetric
from mmblockdrop.registry import METRICS
from mmblockdrop.structures.grid_rate import follow_grid
from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.io import PathLike
from mmblockdrop.utils.messages import require_choice, require_file
from mmblockdrop.utils.video import (UnreadableVideoError, probe_video,
                                     read_errors)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import nn

from .clip_cache import ClipMemory, clip_keys, encoder_of
from .prefetch import WindowBar, ahead

PRECISIONS = ('fp32', 'bf16')
#: Settings of a data set that choose its videos, not how they are read.
CHOICE_OF_VIDEOS = ('split', 'sample_ratio', 'indices', 'subset', 'data_root',
                    'filename_tmpl', 'suffixes', 'drop_labels', 'block_list')


class Window(NamedTuple):
    """A decoded window of a video.

    Attributes:
        video: The video.
        frames: Its frames.
        fps: Its frames per second.
        index: Number of the window.
        count: Windows of the video.
        sample: What the pipeline gave.
        keys: :func:`.clip_cache.clip_keys` of the window, or none.
    """
    video: PathLike
    frames: int
    fps: float
    index: int
    count: int
    sample: Dict[str, Any]
    keys: List[bytes]

    @property
    def is_last(self) -> bool:
        """Whether the video ends here."""
        return self.index + 1 == self.count


def localize_video(model: nn.Module,
                   video: PathLike,
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
        ``segments`` (seconds, [N, 2]), ``scores`` [N] in descending order,
        ``labels`` [N], and ``detections``, the same as a list of dicts with
        ``segment``, ``label`` and ``score``.

    Raises:
        FileNotFoundError: There is no such video.
        ValueError: The file is not a video, or is damaged.
    """
    found, = localize_videos(model, [video], score_thr, progress, **settings)
    return found


def localize_videos(model: nn.Module,
                    videos: Iterable[PathLike],
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
        FileNotFoundError: There is no such video.
        ValueError: A file is not a video or is damaged, or the precision is
            unknown.
    """
    require_choice('precision', precision, PRECISIONS)
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
            kind = entry.get('type')
            if isinstance(kind, str):
                kind = METRICS.get(kind)
            if isinstance(kind, type) and issubclass(kind, TADMetric):
                return METRICS.build(dict(entry, outfile=None))
    return TADMetric()


def read_windows(model: nn.Module, videos: Iterable[PathLike],
                 clip_frames: int) -> Iterator[Window]:
    """Decode the windows of one video after another.

    Args:
        model: What :func:`mmblockdrop.apis.init_localizer` gave.
        videos: The videos.
        clip_frames: Frames of a clip, for the keys; 0 makes none.

    Yields:
        In order.

    Raises:
        FileNotFoundError: There is no such video.
        ValueError: A file is not a video or is damaged, or the config
            reads no frames.
    """
    for video in videos:
        frames, fps = probe(video)
        with tempfile.TemporaryDirectory() as folder:
            dataset = _one_video_dataset(model, Path(video), frames, fps,
                                         folder)
            for i in range(len(dataset)):
                sample = _decode(dataset, i, video)
                keys = clip_keys(sample['inputs'],
                                 clip_frames) if clip_frames else []
                yield Window(video, frames, fps, i, len(dataset), sample, keys)


def _decode(dataset: Any, index: int, video: PathLike) -> dict:
    """One window of the video."""
    try:
        return dataset[index]
    except (RuntimeError, *read_errors()) as error:
        raise ValueError(f'{video} breaks off or is damaged in window '
                         f'{index + 1} of {len(dataset)}: {error}') from error


def probe(video: PathLike) -> Tuple[int, float]:
    """Number of frames and frame rate of a video.

    Args:
        video: The video.

    Returns:
        Frames, and frames per second.

    Raises:
        FileNotFoundError: There is no such video.
        ValueError: The file is not a video, or is damaged.
    """
    require_file(video, 'video')
    try:
        return probe_video(video)
    except UnreadableVideoError as error:
        raise ValueError(str(error)) from error


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
    follow_grid(cfg, model.dataset_meta)
    name = video.name
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
        data_prefix=dict(video=str(video.parent.absolute())),
        suffixes=[video.suffix.lower()],
        classes=list(classes),
        test_mode=True,
        max_broken_share=0.,
        pipeline=without_cache(cfg['pipeline']))
    return DATASETS.build(cfg)


def without_cache(pipeline: List[dict]) -> List[dict]:
    """Decode where a pipeline would read frames kept on disk.

    Args:
        pipeline: Test pipeline of a data set.

    Returns:
        The same with what ``mmblockdrop.CachedFrames`` does to a whole video
        done to the frames of the window.
    """
    result: List[dict] = []
    waiting: List[dict] = []
    for step in pipeline:
        kind = type_name(step)
        if kind == 'CachedFrames':
            opener, *waiting = step['transforms']
            result.append(opener)
        elif kind == 'DecordDecode' and waiting:
            result += waiting
            waiting = []
        else:
            result.append(step)
    return result
