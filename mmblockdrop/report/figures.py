"""Pictures of a run and of one video.

All draw into their own Agg canvas: no display is needed and the state of
``pyplot`` stays as it is. Colours can be told apart by colour-blind readers
and never carry a meaning alone.
"""
import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from .table import format_metric, is_percent

PathLike = Union[str, Path]
#: Okabe and Ito's colours, the light ones last.
COLORS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9',
          '#F0E442', '#999999')
HATCHES = ('', '///', '...', 'xx', '--', '++', 'oo', '||')
GREY = '#d9d9d9'


class TimelineRow(NamedTuple):
    """One band of :func:`draw_timeline`.

    Attributes:
        name (str): What it shows, such as ``'ground truth'``.
        segments (array): Start and end in seconds, shape (N, 2).
        labels (Sequence): Class of each segment, N names or numbers.
        scores (Sequence[float], optional): N scores between 0 and 1.
    """
    name: str
    segments: Any
    labels: Sequence[Any]
    scores: Optional[Sequence[float]] = None


# ------------------------------------------------------------------- scores
def draw_scores(record: Dict[str, Any], path: PathLike) -> Path:
    """Heat map of the candidates' scores by round and block.

    Args:
        record (dict): Content of ``blockdrop.json``.
        path (str): PNG to write.

    Returns:
        Path: The picture. Blocks that are gone are grey, blocks that were
        not scored are hatched, the dropped one is framed.

    Raises:
        ValueError: If no round of the record has scores.
    """
    rounds = [r for r in record.get('rounds', []) if r.get('scores')]
    if not rounds:
        raise ValueError('no round of the record has scores to draw')
    depth = record['depth']
    values = np.full((len(rounds), depth), np.nan)
    for row, entry in enumerate(rounds):
        for block, score in entry['scores'].items():
            values[row, int(block)] = score
    criterion, percent = _criterion(record, rounds[0])
    values *= 100 if percent else 1

    width = max(6., 2.6 + 0.62 * depth)
    figure, axes = _figure(width, 1.75 + 0.5 * len(rounds))
    image = axes.imshow(values, cmap='cividis', aspect='auto')
    _mark_cells(axes, values, record, rounds, image, percent)
    axes.set_xticks(range(depth))
    axes.set_yticks(range(len(rounds)))
    axes.set_yticklabels([f'round {r["round"]}' for r in rounds])
    axes.set_xlabel('block (number in the uncompressed model)')
    better = 'higher' if rounds[0].get('higher_is_better', True) else 'lower'
    axes.set_title(f'Score of each candidate ({better} is better)')
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(criterion, fontsize=8)
    handles = [
        Patch(facecolor='white', edgecolor='#D55E00', linewidth=2,
              label='dropped in this round'),
        Patch(facecolor=GREY, label='dropped before')
    ]
    if any(set(r['scores']) < {str(b) for b in _left_before(record, r)}
           for r in rounds):
        handles.append(Patch(facecolor='white', edgecolor='grey',
                             hatch='///', label='not a candidate'))
    figure.legend(handles=handles, loc='outside lower center',
                  ncol=len(handles), frameon=False, fontsize=8)
    return _save(figure, path)


def _criterion(record: Dict[str, Any], entry: Dict[str, Any]) -> tuple:
    """Text for the scale of the scores, and whether they are percents."""
    name = str(entry.get('criterion', 'score'))
    metric = record.get('metric', '')
    if 'metric' in name.lower():
        percent = is_percent(metric)
        return f'{metric} (%)' if percent else metric, percent
    return {
        'LossScorer': 'loss',
        'BlockChangeScorer': 'change of the block (MSE)',
        'RandomScorer': 'random number'
    }.get(name, name), False


def _left_before(record: Dict[str, Any], entry: Dict[str, Any]) -> List[int]:
    """Blocks there were when a round began."""
    if 'blocks_left' in entry:
        return sorted({*entry['blocks_left'], *entry.get('dropped', [])})
    gone = set(record.get('start_dropped', []))
    for other in record['rounds']:
        if other['round'] < entry['round']:
            gone |= set(other.get('dropped', []))
    return [b for b in range(record['depth']) if b not in gone]


def _mark_cells(axes: Axes, values: np.ndarray, record: Dict[str, Any],
                rounds: Sequence[Dict[str, Any]], image: Any,
                percent: bool) -> None:
    """Numbers, grey, hatching and frames on the heat map."""
    size = 8 if values.shape[1] <= 16 else 7
    for row, entry in enumerate(rounds):
        left = _left_before(record, entry)
        for block in range(values.shape[1]):
            corner, value = (block - 0.5, row - 0.5), values[row, block]
            if block not in left:
                axes.add_patch(Rectangle(corner, 1, 1, color=GREY, lw=0))
            elif np.isnan(value):
                axes.add_patch(Rectangle(corner, 1, 1, facecolor='white',
                                         edgecolor='grey', hatch='///', lw=0))
            else:
                dark = sum(image.cmap(image.norm(value))[:3]) < 1.5
                axes.text(block, row, _short(value, percent), ha='center',
                          va='center', fontsize=size,
                          color='white' if dark else 'black')
        for block in entry.get('dropped', []):
            axes.add_patch(Rectangle((block - 0.44, row - 0.44), 0.88, 0.88,
                                     fill=False, edgecolor='#D55E00', lw=2.5))


def _short(value: float, percent: bool) -> str:
    if percent:
        return f'{value:.1f}'
    return f'{value:.2g}' if abs(value) < 0.1 else f'{value:.2f}'


# ----------------------------------------------------------------- trade-off
def draw_tradeoff(record: Dict[str, Any], path: PathLike) -> Path:
    """Metric against MACs and against latency, round by round.

    Args:
        record (dict): Content of ``blockdrop.json``.
        path (str): PNG to write.

    Returns:
        Path: The picture.

    Raises:
        ValueError: If the record has neither MACs nor latency.
    """
    metric = record.get('metric', 'metric')
    points = [dict(record.get('baseline', {}), round=0)]
    points += [r for r in record.get('rounds', []) if 'metric_after' in r]
    panels = [(key, unit, title) for key, unit, title in (
        ('macs', 1e9, 'cost of one window (GMACs, everything counted)'),
        ('latency_ms', 1, 'latency of one window (ms, measured)'))
              if any(key in p for p in points)]
    if not panels:
        raise ValueError("the record has neither 'macs' nor 'latency_ms'")
    figure = _canvas(5.2 * len(panels) + 0.4, 4.2)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    scale = 100 if is_percent(metric) else 1
    for axes, (key, unit, title) in zip(grid, panels):
        _draw_path(axes, [p for p in points if key in p], key, unit, scale)
        axes.set_xlabel(title)
        axes.grid(True, alpha=0.3)
        axes.margins(x=0.1, y=0.16)
    grid[0].set_ylabel(f'{metric} (%)' if scale == 100 else metric)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center',
                  ncol=len(handles), frameon=False, fontsize=9)
    return _save(figure, path)


def _draw_path(axes: Axes, points: Sequence[Dict[str, Any]], key: str,
               unit: float, scale: float) -> None:
    """The way from the full model down, with the dip before alignment."""
    def cost(entry: Dict[str, Any]) -> float:
        return entry[key] / unit

    after = [scale * p.get('metric_after', p.get('metric', math.nan))
             for p in points]
    rounds = [p for p in points if 'metric_before' in p]
    for i, entry in enumerate(rounds):
        axes.plot([cost(entry)] * 2, [scale * entry['metric_before'],
                                      scale * entry['metric_after']],
                  color='#999999', lw=1, ls=':', zorder=1)
    axes.plot([cost(e) for e in rounds],
              [scale * e['metric_before'] for e in rounds], 'v', mfc='white',
              color='#D55E00', ms=7, label='after the drop')
    axes.plot([cost(p) for p in points], after, 'o-', color='#0072B2', ms=7,
              label='after alignment')
    if points and points[0]['round'] == 0:
        axes.plot([cost(points[0])], after[:1], 's', color='black', ms=9,
                  label='uncompressed')
    for p, value in zip(points, after):
        if 'blocks_left' in p:
            axes.annotate(f'{len(p["blocks_left"])} blocks',
                          (cost(p), value), (0, 9), ha='center', fontsize=8,
                          textcoords='offset points')


# ------------------------------------------------------------------ timeline
def draw_timeline(video_path: Optional[PathLike],
                  rows: Sequence[Union[TimelineRow, tuple]],
                  duration: float,
                  path: PathLike,
                  title: Optional[str] = None,
                  classes: Optional[Sequence[str]] = None,
                  num_frames: int = 10) -> Path:
    """Segments of one video as bands above its frames.

    Args:
        video_path (str, optional): The video; None leaves out the frames.
        rows (Sequence): One :class:`TimelineRow`, or tuple of its entries,
            per band. Overlapping segments are put on several lanes; the
            higher the score the stronger the colour.
        duration (float): Length of the video in seconds.
        path (str): PNG to write.
        title (str, optional): Title of the picture.
        classes (Sequence[str], optional): Names of numeric labels.
        num_frames (int): Frames shown. Defaults to 10.

    Returns:
        Path: The picture.

    Raises:
        ValueError: If the duration is not positive.
    """
    if not duration > 0:
        raise ValueError(f'duration must be positive, found {duration}')
    rows = [_named(TimelineRow(*row), classes) for row in rows]
    lanes = [_lanes(row.segments) for row in rows]
    heights = [max(1, 1 + max(lane, default=0)) for lane in lanes]
    frames = [] if video_path is None else sample_frames(
        video_path, num_frames)
    names = sorted({str(label) for row in rows for label in row.labels})
    colors = {name: (COLORS[i % len(COLORS)],
                     HATCHES[i // len(COLORS) % len(HATCHES)])
              for i, name in enumerate(names)}

    width, strip = 13., 0.
    if frames:
        strip = 11.3 / len(frames) * frames[0].shape[0] / frames[0].shape[1]
    band = [0.12 + 0.27 * h for h in heights]
    legend = 0.25 * math.ceil(len(names) / 9) + 0.1
    figure = _canvas(width, sum(band) + strip + legend + 1.15)
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
    return _save(figure, path)


def sample_frames(video_path: PathLike, num_frames: int) -> List[np.ndarray]:
    """Frames at equal distances, decoded one by one.

    Args:
        video_path (str): The video.
        num_frames (int): Number of frames.

    Returns:
        list[ndarray]: RGB frames, uint8 (H, W, 3).
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


def _lanes(segments: np.ndarray) -> List[int]:
    """Lane of each segment so that none overlaps within a lane."""
    ends: List[float] = []
    lanes = [0] * len(segments)
    for i in np.argsort(segments[:, 0], kind='stable'):
        start, end = segments[i]
        free = [k for k, e in enumerate(ends) if e <= start]
        lane = free[0] if free else len(ends)
        if not free:
            ends.append(end)
        ends[lane] = end
        lanes[i] = lane
    return lanes


def _draw_band(axes: Axes, row: TimelineRow, lanes: Sequence[int],
               height: int, colors: Dict[str, tuple], duration: float,
               width: float) -> None:
    scores = row.scores if row.scores is not None else [None] * len(lanes)
    for (start, end), label, score, lane in zip(row.segments, row.labels,
                                                scores, lanes):
        color, hatch = colors[label]
        strength = 0.9 if score is None else 0.25 + 0.65 * float(score)
        axes.add_patch(Rectangle(
            (start, height - 1 - lane + 0.08), end - start, 0.84, lw=0.6,
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
    axes.set_ylabel(row.name, rotation=0, ha='right', va='center')
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
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.tick_params(labelbottom=True, bottom=True)


# ------------------------------------------------------------------- helpers
def _canvas(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float) -> tuple:
    figure = _canvas(width, height)
    return figure, figure.subplots()


def _save(figure: Figure, path: PathLike) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
