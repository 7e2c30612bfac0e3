"""Pictures of a run, without a display.

Colours can be told apart by colour-blind readers and never carry a meaning
alone.
"""
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from mmblockdrop.compression.record import Id, all_ids
from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.io import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from .text import (id_labels, interval_of, is_percent, latency_against,
                   sample_text, scored_on_text)

GREY = '#d9d9d9'


# ------------------------------------------------------------------- scores
def draw_scores(record: Dict[str, Any], path: PathLike) -> Path:
    """Heat map of the candidates' scores, by round and removable part.

    Args:
        record: Content of ``blockdrop.json``.
        path: PNG to write.

    Returns:
        The picture. Parts that were dropped before are grey, parts that were
        not scored are hatched, the dropped one is framed.

    Raises:
        ValueError: If no round of the record has scores.
    """
    rounds = [r for r in record.get('rounds', []) if r.get('scores')]
    if not rounds:
        raise ValueError('no round of the record has scores to draw')
    labels = id_labels(record)
    values = np.array([[r['scores'].get(str(part), np.nan) for part in labels]
                       for r in rounds], float)
    criterion, percent = _criterion(record, rounds[0])
    values *= 100 if percent else 1

    longest = max(map(len, labels.values()))
    figure = canvas(
        max(6., 2.6 + 0.62 * len(labels)),
        1.75 + 0.5 * len(rounds) + 0.07 * longest)
    axes = figure.subplots()
    image = axes.imshow(values, cmap='cividis', aspect='auto')
    score = record.get('baseline', {}).get('score')
    if score is not None and 'metric' in criterion_name(rounds[0]):
        score *= 100 if percent else 1
        image.set_clim(*np.nanquantile([*values.ravel(), score], [0, 1]))
    else:
        score = None
    _mark_cells(axes, values, record, rounds, image, percent)
    axes.set_xticks(
        range(len(labels)),
        labels=[*labels.values()],
        rotation=0 if longest <= 4 else 90)
    axes.set_yticks(range(len(rounds)))
    axes.set_yticklabels([f'round {r["round"]}' for r in rounds])
    whole = all(isinstance(part, int) for part in labels)
    axes.set_xlabel(f'{"block (number" if whole else "part (name"} '
                    'in the uncompressed model)')
    better = 'higher' if rounds[0].get('higher_is_better', True) else 'lower'
    title = f'Score of each candidate ({better} is better)'
    data = scored_on_text(rounds[0])
    if data:
        title += f', of {data}'
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    if score is not None:
        title += ('\nuncompressed (line on the scale): '
                  f'{_short(score, percent)}')
        bar.ax.axhline(score, color='#D55E00', lw=2.5, clip_on=False)
    axes.set_title(title, fontsize=10)
    bar.set_label(criterion, fontsize=8)
    handles = [
        Patch(facecolor='white', edgecolor='#D55E00', linewidth=2,
              label='dropped in this round'),
        Patch(facecolor=GREY, label='dropped before')
    ]
    if any({*r['scores']} < {*map(str, _remaining_before(record, r))}
           for r in rounds):
        handles.append(Patch(facecolor='white', edgecolor='grey',
                             hatch='///', label='not a candidate'))
    figure.legend(handles=handles, loc='outside lower center',
                  ncol=len(handles), frameon=False, fontsize=8)
    return save_figure(figure, path)


def criterion_name(entry: Mapping[str, Any]) -> str:
    """Name of the scorer of a round, in lower case."""
    return str(entry.get('criterion', 'score')).lower()


def _criterion(record: Dict[str, Any], entry: Dict[str, Any]) -> tuple:
    """Text for the scale of the scores, and whether they are percents."""
    name = str(entry.get('criterion', 'score'))
    metric = record.get('metric', '')
    if 'metric' in criterion_name(entry):
        percent = is_percent(metric)
        return f'{metric} (%)' if percent else metric, percent
    return {
        'LossScorer': 'loss',
        'BlockChangeScorer': 'change of the block (MSE)',
        'RandomScorer': 'random number'
    }.get(name, name), False


def _remaining_before(record: Mapping[str, Any],
                      entry: Mapping[str, Any]) -> List[Id]:
    """Parts that remained when a round began."""
    if 'blocks_left' in entry:
        there = {*entry['blocks_left'], *entry.get('dropped', [])}
        return [i for i in all_ids(record) if i in there]
    removed = {*record.get('start_dropped', [])}
    for other in record['rounds']:
        if other['round'] < entry['round']:
            removed |= {*other.get('dropped', [])}
    return [i for i in all_ids(record) if i not in removed]


def _mark_cells(axes: Axes, values: np.ndarray, record: Dict[str, Any],
                rounds: Sequence[Dict[str, Any]], image: Any,
                percent: bool) -> None:
    """Numbers, grey, hatching and frames on the heat map."""
    size = 8 if values.shape[1] <= 16 else 7
    ids = all_ids(record)
    for row, entry in enumerate(rounds):
        remaining = _remaining_before(record, entry)
        for column, part in enumerate(ids):
            corner, value = (column - 0.5, row - 0.5), values[row, column]
            if part not in remaining:
                axes.add_patch(Rectangle(corner, 1, 1, color=GREY, lw=0))
            elif np.isnan(value):
                axes.add_patch(Rectangle(corner, 1, 1, facecolor='white',
                                         edgecolor='grey', hatch='///', lw=0))
            else:
                dark = sum(image.cmap(image.norm(value))[:3]) < 1.5
                axes.text(column, row, _short(value, percent), ha='center',
                          va='center', fontsize=size,
                          color='white' if dark else 'black')
        for part in entry.get('dropped', []):
            left = ids.index(part) - 0.44
            axes.add_patch(Rectangle((left, row - 0.44), 0.88, 0.88,
                                     fill=False, edgecolor='#D55E00', lw=2.5))


def _short(value: float, percent: bool) -> str:
    if percent:
        return f'{value:.1f}'
    return f'{value:.2g}' if abs(value) < 0.1 else f'{value:.2f}'


# ----------------------------------------------------------------- trade-off
def draw_tradeoff(record: Dict[str, Any], path: PathLike) -> Path:
    """Metric against MACs and against latency, round by round.

    All axes begin at zero where the values are positive.

    Args:
        record: Content of ``blockdrop.json``.
        path: PNG to write.

    Returns:
        The picture. Latency is that of the first model times the ratio of
        both, which were timed in turn; flat bars show the quartiles of the
        ratio, upright ones the 95 % interval of the metric by bootstrap over
        videos.

    Raises:
        ValueError: If the record has neither MACs nor latency.
    """
    metric = record.get('metric', 'metric')
    baseline = record.get('baseline', {})
    points = [dict(baseline, round=0)]
    points += [r for r in record.get('rounds', []) if 'metric_after' in r]
    panels = [(key, title) for key, title in (
        ('macs', 'cost of one window (GMACs, everything counted)'),
        ('latency_ms', 'latency of one window (ms, measured)'))
              if any(key in p for p in points)]
    if not panels:
        raise ValueError("the record has neither 'macs' nor 'latency_ms'")
    figure = canvas(5.2 * len(panels) + 0.4, 4.2)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    scale = 100 if is_percent(metric) else 1
    for axes, (key, title) in zip(grid, panels):
        costs = [_cost(p, baseline, key) for p in points if key in p]
        shown = [p for p in points if key in p]
        _draw_path(axes, shown, costs, scale,
                   [interval_of(record, p) for p in shown])
        axes.set_xlabel(title)
        axes.grid(True, alpha=0.3)
        axes.margins(x=0.1, y=0.2)
        _from_zero(axes)
        _label_blocks(axes, shown, [cost for cost, _, _ in costs])
    grid[0].set_ylabel(f'{metric} (%)' if scale == 100 else metric)
    sample = sample_text(baseline.get('metrics') or {}, metric)
    if sample:
        figure.suptitle(f'validation: {sample}', fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center',
                  ncol=len(handles), frameon=False, fontsize=9)
    return save_figure(figure, path)


def _cost(entry: Dict[str, Any], baseline: Dict[str, Any],
          key: str) -> Tuple[float, float, float]:
    """A cost in the unit of the axis, and its quartiles."""
    if key == 'macs':
        return (entry[key] / 1e9, ) * 3
    timed = latency_against(entry, baseline)
    if timed is None or key not in baseline:
        return (entry[key], ) * 3
    ratio, low, high = timed
    first = baseline[key]
    return ratio * first, low * first, high * first


def _draw_path(axes: Axes, points: Sequence[Dict[str, Any]],
               costs: Sequence[Tuple[float, float, float]], scale: float,
               intervals: Sequence[Any]) -> None:
    """Draw the metric round by round, with the dip before alignment."""
    after = [scale * p.get('metric_after', p.get('metric', math.nan))
             for p in points]
    at = [cost for cost, _, _ in costs]
    before = [(x, scale * p['metric_before'], y)
              for x, p, y in zip(at, points, after) if 'metric_before' in p]
    for x, low, high in before:
        axes.plot([x] * 2, [low, high], color='#999999', lw=1, ls=':',
                  zorder=1)
    axes.plot([x for x, _, _ in before], [y for _, y, _ in before], 'v',
              mfc='white', color='#D55E00', ms=7, label='after the drop')
    axes.plot(at, after, 'o-', color='#0072B2', ms=7, label='after alignment')
    for (_, low, high), value in zip(costs, after):
        if low < high:
            axes.plot([low, high], [value] * 2, color='#0072B2', lw=4,
                      alpha=0.35, solid_capstyle='butt')
    if points and points[0]['round'] == 0:
        axes.plot(at[:1], after[:1], 's', color='black', ms=9,
                  label='uncompressed')
    for x, interval in zip(at, intervals):
        if interval is not None:
            axes.plot([x] * 2, [scale * end for end in interval], '_-',
                      color='#0072B2', lw=1, ms=6, alpha=0.6, zorder=1)


def _from_zero(axes: Axes) -> None:
    """Begin both axes at zero, so that small changes look small."""
    for limits, set_limits in ((axes.get_xlim(), axes.set_xlim),
                               (axes.get_ylim(), axes.set_ylim)):
        if limits[1] > 0:
            set_limits(min(0, limits[0]), 1.03 * limits[1])


def _label_blocks(axes: Axes, points: Sequence[Dict[str, Any]],
                  costs: Sequence[float]) -> None:
    """Number of blocks of each point above the frame, off the lines."""
    transform = axes.get_xaxis_transform()
    ends: List[float] = []  # where the labels of each row end
    width = 0.05 * axes.get_xlim()[1]
    for x, entry in sorted(zip(costs, points), key=lambda pair: pair[0]):
        if 'blocks_left' not in entry:
            continue
        row = next((i for i, end in enumerate(ends) if x - width / 2 > end),
                   len(ends))
        ends[row:row + 1] = [x + width / 2]
        axes.text(x, 1.02 + 0.05 * row, str(len(entry['blocks_left'])),
                  ha='center', fontsize=8, transform=transform)
    if ends:
        axes.text(0, 1.02, 'blocks that remain:', fontsize=8,
                  transform=axes.transAxes)
