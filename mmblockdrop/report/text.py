"""Numbers, ids and tables as text."""
import os
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from mmblockdrop.compression.record import Id, all_ids

#: Metrics between 0 and 1 that are printed in percent.
PERCENT = ('mAP', 'AP/', 'AR@', 'AUC', 'acc', 'top')


def id_labels(record: Mapping[str, Any]) -> Dict[Id, str]:
    """Short names of all parts that a run can remove.

    Args:
        record: Content of ``blockdrop.json``.

    Returns:
        Id to name, in the order of the model: the number of a block; of a
        dotted path what follows the part that all have in common.
    """
    ids = all_ids(record) if {'ids', 'depth'} & {*record} else []
    paths = [str(i).split('.') for i in ids]
    shared = len(os.path.commonprefix(paths))
    shared = min([shared, *(len(path) - 1 for path in paths)])
    return {i: '.'.join(path[shared:]) for i, path in zip(ids, paths)}


def is_percent(metric: str) -> bool:
    """Whether a metric is printed in percent.

    Args:
        metric: Key of the metric.

    Returns:
        True for precision, recall and accuracy.
    """
    return any(part in metric for part in PERCENT)


def format_metric(value: Optional[float], metric: str) -> str:
    """Print a metric, in percent where that is customary.

    Args:
        value: None gives a dash.
        metric: Key of the metric.

    Returns:
        The text.
    """
    if value is None:
        return '-'
    return f'{100 * value:.2f}' if is_percent(metric) else f'{value:.4g}'


def interval_of(record: Mapping[str, Any],
                entry: Mapping[str, Any]) -> Optional[Sequence[float]]:
    """95 % interval of the metric of a model, by bootstrap over videos.

    Args:
        record: Content of ``blockdrop.json``.
        entry: Its baseline or a round.

    Returns:
        Low and high end; None if its evaluator gave none.
    """
    if 'metrics' in entry:
        return entry['metrics'].get(f'{record.get("metric")}_interval')
    return entry.get('intervals', {}).get(str(entry.get('best_epoch')))


def format_interval(interval: Optional[Sequence[float]], metric: str) -> str:
    """Print an interval behind a metric.

    Args:
        interval: Low and high end; None gives nothing.
        metric: Key of the metric.

    Returns:
        Such as ' [25.1, 40.2]'.
    """
    if interval is None:
        return ''
    low, high = interval
    if is_percent(metric):
        return f' [{100 * low:.1f}, {100 * high:.1f}]'
    return f' [{low:.3g}, {high:.3g}]'


def sample_text(metrics: Mapping[str, Any], metric: str) -> str:
    """Say on how much a metric was measured.

    Args:
        metrics: All that the evaluator gave.
        metric: Key of the metric, with its prefix.

    Returns:
        Such as '5 videos with 37 actions'; '' if the evaluator did not say.
    """
    prefix = metric.rpartition('/')[0]
    counts = [metrics.get(f'{prefix}/{what}') for what in ('videos',
                                                           'actions')]
    if None in counts:
        return ''
    return ' with '.join(f'{count:g} {what}{"" if count == 1 else "s"}'
                         for count, what in zip(counts, ('video', 'action')))


def scored_on_text(entry: Mapping[str, Any]) -> str:
    """Say which videos the scores of a round are of.

    Args:
        entry: A round of a record.

    Returns:
        Such as "25 videos of subset 'training'"; '' for records of earlier
        versions.
    """
    data = entry.get('scored_on')
    if not data:
        return ''
    count = data.get('videos', data['samples'])
    what = 'video' if 'videos' in data else 'sample'
    text = f'{count} {what}{"" if count == 1 else "s"}'
    subset = data.get('subset')
    if subset is not None:
        names = [subset] if isinstance(subset, str) else subset
        return f'{text} of subset {", ".join(map(repr, names))}'
    return f'{text} of {"validation" if data["validation"] else "scoring"}'


def format_count(value: Optional[float], unit: float, digits: int = 2) -> str:
    """Print a number in a unit; None gives a dash.

    Args:
        value: The number.
        unit: What it is divided by.
        digits: Decimals. Defaults to 2.

    Returns:
        The text.
    """
    return '-' if value is None else f'{value / unit:.{digits}f}'


def format_change(ratio: float) -> str:
    """Print a ratio as a change.

    Args:
        ratio: Such as 0.75.

    Returns:
        Such as '-25 %'.
    """
    return f'{100 * (ratio - 1):+.0f} %'


def latency_against(
        entry: Mapping[str, Any],
        baseline: Mapping[str, Any]) -> Optional[Tuple[float, float, float]]:
    """Latency of a model over that of the first one of its run.

    Args:
        entry: A round of a record.
        baseline: The record's baseline; blocks may have been gone before.

    Returns:
        The ratio and its quartiles; None for records of earlier versions.
    """
    if 'latency_ratio' not in entry:
        return None
    first = baseline.get('latency_ratio', 1.)
    low, high = entry['latency_spread']
    return entry['latency_ratio'] / first, low / first, high / first


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay out rows as Markdown with aligned columns.

    Args:
        rows: Text by column; all have the same columns.

    Returns:
        The table, without a final line break.
    """
    columns = list(rows[0])
    width = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}

    def line(cells: Sequence[str]) -> str:
        return '| ' + ' | '.join(cells) + ' |'

    lines = [
        line([c.rjust(width[c]) for c in columns]),
        line(['-' * (width[c] - 1) + ':' for c in columns])
    ]
    lines += [line([row[c].rjust(width[c]) for c in columns]) for row in rows]
    return '\n'.join(lines)
