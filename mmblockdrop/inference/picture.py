"""Picture of one video: segments above its frames."""
import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.io import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

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
    """
    import decord
    reader = decord.VideoReader(str(video_path), num_threads=1)
    position = (np.arange(num_frames) + 0.5) / num_frames * len(reader)
    return [reader[int(i)].asnumpy() for i in position]


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
        for candidate in (text, label):
            if len(candidate) * 0.062 < inches:
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
