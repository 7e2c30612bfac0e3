"""What a preview found: points, table, picture, and which depth to take."""
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from mmblockdrop.compression.record import Id
from mmblockdrop.utils.canvas import canvas, save_figure
from mmblockdrop.utils.io import PathLike, write_json

from .text import (format_change, format_count, format_metric, id_labels,
                   is_percent, markdown_table)

#: The metric of a preview on videos without labels.
FEATURE_ERROR = 'feature_error'
#: How far a model may fall under the full one, in the unit of the metric; on
#: videos without labels, how large the error of its features may be.
TOLERANCE = 0.01
#: What a budget may be set for: key of a point to its unit and name.
COSTS = dict(
    macs=(1e9, 'GMACs'),
    params=(1e6, 'million parameters'),
    latency_ms=(1, 'ms of latency'))

Point = Dict[str, Any]


class Choice(NamedTuple):
    """A depth that was chosen.

    Attributes:
        why: The condition, in words.
        point: The point; None if no depth meets the condition.
        is_full: Whether it is the model as it came in.
    """
    why: str
    point: Optional[Point]
    is_full: bool = False


def preview_points(record: Mapping[str, Any]) -> List[Point]:
    """Gather what a preview has measured, depth by depth.

    Args:
        record: Content of ``blockdrop.json`` of a preview.

    Returns:
        For the model as it came in, and for each round: ``dropped`` (all ids
        that are gone, in the order in which they went), ``blocks_left``,
        ``feature_error``, ``metric`` (None without labels) and
        ``metric_interval``, ``macs``, ``params``, ``latency_ratio`` to the
        uncompressed model with its quartiles ``latency_spread``,
        ``latency_ms`` (that of the first model, times the ratio of both) and
        ``checkpoint``.
    """
    baseline = record['baseline']
    gone: List[Id] = list(record['start_dropped'])
    entries = [dict(baseline, **_measured(record, baseline['metrics']))]
    entries += [r for r in record['rounds'] if r['state'] == 'aligned']
    points = []
    for entry in entries:
        gone += entry.get('dropped', [])
        points.append(
            dict(
                dropped=[*gone],
                **{
                    key: entry.get(key)
                    for key in ('blocks_left', 'feature_error', 'metric',
                                'metric_interval', 'macs', 'params',
                                'latency_ratio', 'latency_spread')
                },
                latency_ms=baseline['latency_ms'] * entry['latency_ratio'] /
                baseline['latency_ratio'],
                checkpoint=entry.get('checkpoint')))
    return points


def _measured(record: Mapping[str, Any],
              metrics: Mapping[str, Any]) -> Dict[str, Any]:
    """What validation gave, under the keys of a point."""
    name = record['metric']
    return dict(
        feature_error=metrics[FEATURE_ERROR],
        metric=None if name == FEATURE_ERROR else metrics[name],
        metric_interval=metrics.get(f'{name}_interval'))


def choose_depth(points: Sequence[Point],
                 tolerance: Optional[float] = None,
                 budget: Optional[Mapping[str, Any]] = None,
                 drops: Optional[int] = None,
                 higher_is_better: bool = True) -> Choice:
    """Choose one of the depths.

    Args:
        points: See :func:`preview_points`.
        tolerance: The shortest model that is no further under the first one is
            taken: in the metric, or, where there is none, by the error of the
            features.
        budget: ``macs``, ``params`` or ``latency_ms`` to a number, or to a
            share of the first model such as '75%'; the longest model that
            meets all of them is taken. With a tolerance none is shorter.
        drops: Number of dropped blocks, or the most of them.
        higher_is_better: Direction of the metric.

    Returns:
        The choice.
    """
    reach, why = list(points), []
    if drops is not None:
        why.append(f'{drops} dropped')
        reach = [p for p in points
                 if len(p['dropped']) - len(points[0]['dropped']) <= drops]
    if budget:
        why += [_limit_text(points[0], *pair) for pair in budget.items()]
        met = [i for i, p in enumerate(reach) if all(
            p[key] <= limit_of(points[0], key, value) * (1 + 1e-9)
            for key, value in budget.items())]
        reach = reach[:met[0] + 1] if met else []
    if tolerance is not None:
        name = 'metric' if points[0]['metric'] is not None else 'features'
        why.append(f'within {tolerance:g} of the full model by {name}')
        reach = [p for p in reach
                 if _fall(points[0], p, higher_is_better) <= tolerance + 1e-12]
    found = reach[-1] if reach else None
    return Choice(', '.join(why), found, found is points[0])


def _fall(first: Point, point: Point, higher_is_better: bool) -> float:
    """How far a point is under the first one."""
    if first['metric'] is None:
        return point['feature_error']
    fall = first['metric'] - point['metric']
    return fall if higher_is_better else -fall


def limit_of(first: Point, key: str, value: Any) -> float:
    """A budget as a number.

    Args:
        first: The point of the model as it came in.
        key: Which cost.
        value: A number, or a share such as '75%'.

    Returns:
        The number.
    """
    if isinstance(value, str):
        return float(value.rstrip('%')) / 100 * first[key]
    return float(value)


def _limit_text(first: Point, key: str, value: Any) -> str:
    unit, name = COSTS[key]
    limit = f'{limit_of(first, key, value) / unit:.4g} {name}'
    share = f' ({value})' if isinstance(value, str) else ''
    return f'at most {limit}{share}'


# ---------------------------------------------------------------------- text
def preview_table(record: Mapping[str, Any]) -> str:
    """Lay out a preview, one line per depth.

    Args:
        record: Content of ``blockdrop.json`` of a preview.

    Returns:
        Markdown. In brackets: the 95 % interval of the metric over videos,
        the savings, and the quartiles of the ratio of latencies.
    """
    points = preview_points(record)
    first, metric = points[0], record['metric']
    labels = id_labels(record)
    unit = f'{metric} (%)' if is_percent(metric) else metric
    rows = []
    for point in points:
        new = point['dropped'][len(rows and points[len(rows) - 1]['dropped']):]
        row = {
            'blocks': str(len(point['blocks_left'])),
            'dropped': ', '.join(labels.get(i, str(i)) for i in new) or '-',
            'feature error': f'{point["feature_error"]:.4f}',
            unit: '-'
        }
        if point['metric'] is not None:
            row[unit] = format_metric(point['metric'], metric)
            if point['metric_interval']:
                low, high = (format_metric(x, metric)
                             for x in point['metric_interval'])
                row[unit] += f' ({low} to {high})'
        else:
            del row[unit]
        for title, key, size in (('params (M)', 'params', 1e6),
                                 ('GMACs', 'macs', 1e9)):
            row[title] = format_count(point[key], size)
            if point is not first and first[key]:
                row[title] += f' ({format_change(point[key] / first[key])})'
        low, high = point['latency_spread']
        row['latency / full'] = f'{point["latency_ratio"]:.2f}' + (
            f' ({low:.2f} to {high:.2f})' if low < high else '')
        rows.append(row)
    return markdown_table(rows)


def describe_preview(
        record: Mapping[str, Any],
        tolerance: Optional[float] = None,
        budgets: Sequence[Mapping[str, Any]] = ()) -> str:
    """Table of a preview, and which depth to take.

    Args:
        record: Content of ``blockdrop.json`` of a preview.
        tolerance: See :func:`choose_depth`. Defaults to :data:`TOLERANCE`.
        budgets: Each is answered by itself.

    Returns:
        Lines of text.
    """
    points = preview_points(record)
    better = record.get('higher_is_better', True)
    choices = [
        choose_depth(
            points,
            TOLERANCE if tolerance is None else tolerance,
            higher_is_better=better)
    ]
    choices += [choose_depth(points, budget=b) for b in budgets]
    lines = [preview_table(record), '']
    lines += [_choice_text(record, points[0], choice) for choice in choices]
    if not points[0]['metric'] and points[0]['metric'] is not None:
        lines.append(f'The full model has {record["metric"]} 0: go by the '
                     'feature error.')
    repairs = [e for r in record['rounds'] for e in r.get('repair', [])]
    if repairs and not any(e.get('kept') for e in repairs):
        why = next((e['why_not'] for e in repairs if 'why_not' in e),
                   'no change lowered the error on held-out tokens')
        lines.append(f'Nothing was repaired: {why}. The models are only cut.')
    return '\n'.join([*lines, _data_text(record)])


def _choice_text(record: Mapping[str, Any], first: Point,
                 choice: Choice) -> str:
    """One recommendation."""
    why = choice.why[0].upper() + choice.why[1:]
    point = choice.point
    if point is None:
        return f'{why}: no depth that was looked at.'
    if choice.is_full:
        return f'{why}: none is shorter than the full model.'
    metric, labels = record['metric'], id_labels(record)
    value = f'feature error {point["feature_error"]:.4f}'
    if point['metric'] is not None:
        value = (f'{metric} {format_metric(point["metric"], metric)} '
                 f'(full: {format_metric(first["metric"], metric)})')
    gone = point['dropped'][len(first['dropped']):]
    cost = ', '.join(f'{name} {format_change(point[key] / first[key])}'
                     for name, key in (('MACs', 'macs'),
                                       ('latency', 'latency_ms'))
                     if first[key])
    return (f'{why}: {len(point["blocks_left"])} of '
            f'{len(first["blocks_left"])} remain, {value}, {cost}. '
            f'Dropped: {", ".join(labels.get(i, str(i)) for i in gone)}; '
            f'--drop {len(gone)} --no-training writes this model.')


def _data_text(record: Mapping[str, Any]) -> str:
    """On how much the metric was measured."""
    metrics = record['baseline']['metrics']
    prefix = record['metric'].rpartition('/')[0]
    counts = [
        f'{metrics[key]:.0f} {name}' for name in ('videos', 'actions')
        if (key := f'{prefix}/{name}'.lstrip('/')) in metrics
    ]
    if record['metric'] == FEATURE_ERROR:
        return ('No label was used: the error of the features says what the '
                'detector is given, not what it makes of it.')
    on = f' on {" and ".join(counts)} of validation' if counts else ''
    return (f'{record["metric"]} was measured{on}; it chooses a depth, it is '
            'not the number to report. tools/test.py measures a model on the '
            'test data.')


# ------------------------------------------------------------------- picture
def draw_preview(record: Mapping[str, Any], path: PathLike) -> Path:
    """Metric against latency, with an interval on each point.

    Args:
        record: Content of ``blockdrop.json`` of a preview.
        path: PNG to write.

    Returns:
        The picture. Where there is no metric it shows the error of the
        features.
    """
    points = preview_points(record)
    metric = record['metric']
    labelled = points[0]['metric'] is not None
    scale = 100 if labelled and is_percent(metric) else 1
    key = 'metric' if labelled else 'feature_error'
    at = [p['latency_ratio'] for p in points]
    values = [scale * p[key] for p in points]
    figure = canvas(6.4, 4.4)
    axes = figure.subplots()
    axes.plot(at, values, 'o-', color='#0072B2', ms=6, zorder=3,
              label='repaired, nothing trained')
    for x, value, point in zip(at, values, points):
        axes.errorbar(
            [x], [value],
            yerr=_bars(value, [scale * v for v in
                               point['metric_interval'] or ()]),
            xerr=_bars(x, point['latency_spread']), color='#0072B2', alpha=.45,
            capsize=3, lw=1.2, zorder=2)
        axes.annotate(f'{len(point["blocks_left"])}', (x, value), (5, 6),
                      fontsize=9, textcoords='offset points')
    axes.plot(at[:1], values[:1], 's', color='black', ms=9, zorder=4,
              label='uncompressed')
    axes.axhline(values[0], color='#999999', lw=1, ls=':')
    axes.set_xlabel('latency of one window / that of the uncompressed model '
                    '(measured in turn)')
    name = f'{metric} of validation' + (' (%)' if scale == 100 else '')
    axes.set_ylabel(name if labelled else 'error of the features (share of '
                    'their variance)')
    axes.set_title('Numbers are blocks that remain' + (
        '; bars: 95 % over videos, quartiles of latency' if labelled else
        '; bars: quartiles of latency'), fontsize=10)
    axes.grid(True, alpha=0.3)
    axes.margins(0.12)
    figure.legend(loc='outside lower center', ncol=2, frameon=False,
                  fontsize=9)
    return save_figure(figure, path)


def _bars(value: float, ends: Sequence[float]) -> Optional[List[List[float]]]:
    """Lengths of an error bar below and above a value."""
    if not ends:
        return None
    return [[max(value - ends[0], 0)], [max(ends[-1] - value, 0)]]


def write_preview(record: Mapping[str, Any], out_dir: PathLike) -> List[Path]:
    """Write points, table and picture of a preview.

    Args:
        record: Content of ``blockdrop.json`` of a preview.
        out_dir: The folder.

    Returns:
        ``preview.json``, ``preview.md`` and ``preview.png``.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f'preview.{end}' for end in ('json', 'md', 'png')]
    write_json(preview_points(record), files[0])
    files[1].write_text(describe_preview(record) + '\n')
    draw_preview(record, files[2])
    return files
