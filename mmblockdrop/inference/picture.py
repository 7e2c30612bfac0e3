"""Picture of one video: segments above its frames, also when training ends."""
import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.io import PathLike, read_json
from mmblockdrop.utils.messages import find_video
from mmblockdrop.utils.video import Video

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from .localize import localize_video

#: Okabe and Ito's colours, the light ones last.
COLORS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9',
          '#F0E442', '#999999')
HATCHES = ('', '///', '...', 'xx', '--', '++', 'oo', '||')
#: Lanes of a band; what fits in none is counted, not drawn.
MAX_LANES = 6
#: Shorter segments are drawn as long as this share of the video.
MIN_SHARE = 0.002


class TimelineRow(NamedTuple):
    """One band of :func:`draw_timeline`.

    Attributes:
        name: What it shows, such as ``'ground truth'``.
        segments: Start and end in seconds, shape (N, 2).
        labels: Class of each segment, N names or numbers.
        scores: N scores between 0 and 1.
    """
    name: str
    segments: Any
    labels: Sequence[Any]
    scores: Optional[Sequence[float]] = None


def draw_timeline(video_path: Optional[PathLike],
                  rows: Sequence[Union[TimelineRow, tuple]],
                  duration: float,
                  path: PathLike,
                  title: Optional[str] = None,
                  classes: Optional[Sequence[str]] = None,
                  num_frames: int = 10) -> Path:
    """Segments of one video as bands above its frames.

    Args:
        video_path: The video; None leaves out the frames.
        rows: One :class:`TimelineRow`, or tuple of its entries, per band.
            Overlapping segments are put on up to six lanes, best scores first;
            the higher the score the stronger the colour.
        duration: Length of the video in seconds.
        path: PNG to write.
        title: Title of the picture.
        classes: Names of numeric labels.
        num_frames: Frames shown. Defaults to 10.

    Returns:
        The picture.

    Raises:
        ValueError: If the duration is not positive.
    """
    if not duration > 0:
        raise ValueError(f'duration must be positive, found {duration}')
    rows = [_named(TimelineRow(*row), classes) for row in rows]
    lanes = [_lanes(row) for row in rows]
    heights = [max(1, 1 + max(lane, default=0)) for lane in lanes]
    frames = [] if video_path is None else sample_frames(
        video_path, num_frames)
    names = sorted({str(label) for row in rows for label in row.labels})
    colors = {name: (COLORS[i % len(COLORS)],
                     HATCHES[i // len(COLORS) % len(HATCHES)])
              for i, name in enumerate(names)}

    width, strip = 13., 0.
    if frames:
        # A little more than the frames need at the full width of the axes.
        strip = 12.6 / len(frames) * frames[0].shape[0] / frames[0].shape[1]
    band = [0.12 + 0.27 * h for h in heights]
    legend = 0.25 * math.ceil(len(names) / 9) + 0.1
    figure = canvas(width, sum(band) + strip + legend + 1.15)
    axes = figure.subplots(
        len(rows) + bool(frames), 1, squeeze=False, sharex=True,
        height_ratios=band + [strip] * bool(frames))[:, 0]
    for ax, row, lane, height in zip(axes, rows, lanes, heights):
        _draw_band(ax, row, lane, height, colors, duration, width)
    if frames:
        _draw_strip(axes[-1], frames, duration)
    axes[-1].set_xlabel('time (s)')
    axes[-1].set_xlim(0, duration)
    if title:
        figure.suptitle(title, fontsize=11)
    handles = [Patch(facecolor=c, hatch=h, label=n, edgecolor='white')
               for n, (c, h) in colors.items()]
    if handles:
        figure.legend(handles=handles, loc='outside lower center',
                      ncol=min(9, len(handles)), frameon=False, fontsize=8)
    return save_figure(figure, path)


def sample_frames(video_path: PathLike, num_frames: int) -> List[np.ndarray]:
    """Frames at equal distances, decoded one by one.

    Args:
        video_path: The video.
        num_frames: Number of frames.

    Returns:
        RGB frames, uint8 (H, W, 3).

    Raises:
        UnreadableVideoError: The video is missing or damaged.
    """
    video = Video(video_path)
    position = (np.arange(num_frames) + 0.5) / num_frames * len(video)
    return [video[int(i)] for i in position]


def _named(row: TimelineRow,
           classes: Optional[Sequence[str]]) -> TimelineRow:
    labels = [classes[int(k)] if classes is not None and not isinstance(
        k, str) else str(k) for k in row.labels]
    return row._replace(
        labels=labels, segments=np.asarray(row.segments).reshape(-1, 2))


def _lanes(row: TimelineRow) -> List[int]:
    """Lane of each segment so that none overlaps within a lane.

    The best scored choose first; -1 where :data:`MAX_LANES` are full.
    """
    order = np.argsort(row.segments[:, 0], kind='stable')
    if row.scores is not None:
        order = np.argsort(-np.asarray(row.scores, float), kind='stable')
    taken: List[List[np.ndarray]] = [[] for _ in range(MAX_LANES)]
    lanes = [-1] * len(order)
    for i in order:
        start, end = row.segments[i]
        for lane, others in enumerate(taken):
            if all(end <= s or e <= start for s, e in others):
                others.append(row.segments[i])
                lanes[i] = lane
                break
    return lanes


def _draw_band(axes: Axes, row: TimelineRow, lanes: Sequence[int],
               height: int, colors: Dict[str, tuple], duration: float,
               width: float) -> None:
    scores = row.scores if row.scores is not None else [None] * len(lanes)
    for (start, end), label, score, lane in zip(row.segments, row.labels,
                                                scores, lanes):
        if lane < 0:
            continue
        color, hatch = colors[label]
        strength = 0.9 if score is None else 0.25 + 0.65 * float(score)
        length = max(end - start, MIN_SHARE * duration)
        axes.add_patch(Rectangle(
            (start, height - 1 - lane + 0.08), length, 0.84, lw=0.6,
            facecolor=color, alpha=strength, hatch=hatch, edgecolor='white'))
        text = label if score is None else f'{label} {score:.2f}'
        inches = (end - start) / duration * width * 0.86
        room = int(inches / 0.062)
        for candidate in (text, label, label[:room - 1] + '.'):
            if 1 < len(candidate) <= room:
                axes.text((start + end) / 2, height - 0.5 - lane, candidate,
                          ha='center', va='center', fontsize=7, clip_on=True,
                          path_effects=[withStroke(linewidth=2,
                                                   foreground='white')])
                break
    axes.set_ylim(0, height)
    axes.set_yticks([])
    more = sum(lane < 0 for lane in lanes)
    axes.set_ylabel(
        row.name + (f'\n({more} lower ones\nnot shown)' if more else ''),
        rotation=0, ha='right', va='center')
    axes.tick_params(labelbottom=False, bottom=False)
    if not len(lanes):
        axes.text(duration / 2, 0.5, 'nothing', ha='center', va='center',
                  color='grey', fontsize=8)


def _draw_strip(axes: Axes, frames: Sequence[np.ndarray],
                duration: float) -> None:
    step = duration / len(frames)
    for i, frame in enumerate(frames):
        axes.imshow(frame, extent=((i + 0.01) * step, (i + 0.99) * step, 0, 1),
                    aspect='auto')
    height, width = frames[0].shape[:2]
    axes.set_box_aspect(height / width / len(frames))
    axes.set_anchor('N')
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(labelbottom=True, bottom=True)


def read_actions(ann_file: PathLike, video: PathLike) -> Dict[str, Any]:
    """Annotated actions of one video.

    Args:
        ann_file: ActivityNet-style annotations.
        video: The video; its name without suffix is looked up, with or without
            ActivityNet's ``v_``.

    Returns:
        ``segments`` in seconds, [N, 2], and ``labels``, N names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is in another format or lacks the video.
    """
    content = read_json(ann_file, 'annotations')
    try:
        database = content['database']
    except (KeyError, TypeError) as error:
        raise ValueError(f'annotations={str(ann_file)!r} is not a JSON mapping'
                         " with a field 'database'") from error
    name = find_video(f'annotations={str(ann_file)!r}', Path(video).stem,
                      database)
    actions = database[name].get('annotations', [])
    try:
        return dict(
            segments=np.array([a['segment'] for a in actions],
                              np.float64).reshape(-1, 2),
            labels=[str(a['label']) for a in actions])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{ann_file}: video {name!r} has actions that are not of the '
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
                      path: PathLike,
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


@HOOKS.register_module()
class TimelineHook(Hook):
    """Draw what teacher and student find in a video, beside the truth.

    After training, ``timeline.png`` in the work directory shows the actions
    of one video below its frames: annotated, found by the teacher, found by
    the student. A model without teacher is drawn alone. If the picture
    cannot be made, for instance because the config reads features, the log
    says why and the run ends normally.

    Args:
        video: The video. Defaults to None, the first of the validation videos.
        score_thr: Segments of a lower score are left out. Defaults to 0.3.
    """
    priority = 'VERY_LOW'

    def __init__(self,
                 video: Optional[str] = None,
                 score_thr: float = 0.3) -> None:
        self.video = video
        self.score_thr = score_thr

    def after_train(self, runner: Runner) -> None:
        """Draw, in the first process.

        Args:
            runner: The runner, at the end of training.
        """
        if not is_main_process():
            return
        try:
            path = self._draw(runner)
        except (AttributeError, IndexError, KeyError, OSError, RuntimeError,
                ValueError) as error:
            runner.logger.warning(
                f'TimelineHook draws no picture: {error!r}')
            return
        runner.logger.info(f'A video as a picture: {path}')

    def _draw(self, runner: Runner) -> Path:
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        dataset = runner.val_dataloader.dataset
        video = self.video or dataset.filenames[0]
        try:
            truth = read_actions(dataset.ann_file, video)
        except ValueError:  # a video of one's own has no annotations
            truth = None
        else:
            truth = of_classes(truth, dataset.metainfo['classes'])
        found = {
            name: self._localize(getattr(model, name, None), runner, video)
            for name in ('student', 'teacher')
        }
        student = found['student'] or self._localize(model, runner, video)
        return draw_localization(
            student,
            Path(runner.work_dir) / 'timeline.png',
            teacher=found['teacher'],
            truth=truth,
            name='compressed' if found['teacher'] else 'localized')

    def _localize(self, model: Optional[nn.Module], runner: Runner,
                  video: str) -> Any:
        if model is None:
            return None
        # Suppressed as in validation, whose videos and classes these are.
        model.cfg = Config(
            {k: v for k, v in runner.cfg.items() if k != 'test_evaluator'})
        model.dataset_meta = runner.val_dataloader.dataset.metainfo
        was_training = model.training
        model.eval()
        try:
            return localize_video(model, video, self.score_thr)
        finally:
            model.train(was_training)
