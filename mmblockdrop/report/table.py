"""The record of a run as a Markdown table, and the report of a run."""
from pathlib import Path
from typing import Any, Dict, List, Mapping

from mmblockdrop.utils.io import PathLike

from .figures import draw_scores, draw_tradeoff
from .text import (format_change, format_count, format_interval, format_metric,
                   id_labels, interval_of, is_percent, latency_against,
                   markdown_table, sample_text, scored_on_text)


def round_table(record: Dict[str, Any]) -> str:
    """One line for the uncompressed model and one for each round.

    Args:
        record: Content of ``blockdrop.json``, finished or not.

    Returns:
        Markdown. Savings are relative to the uncompressed model; ``GMACs``
        counts everything that multiplies and accumulates, for one window.
        Behind the saving of latency stand the quartiles of its measurement,
        behind the metric its 95 % interval by bootstrap over videos.
    """
    metric = record.get('metric', 'metric')
    baseline = record.get('baseline', {})
    unit = f'{metric} (%)' if is_percent(metric) else metric
    labels = id_labels(record)
    score = 'score (%)' if scores_in_percent(record) else 'score'
    rows = [{
        'round': '0',
        'dropped': '-',
        'blocks': str(len(baseline['blocks_left']))
                  if 'blocks_left' in baseline else str(len(labels)),
        score: _percent(baseline.get('score'), record),
        f'{unit} after drop': '-',
        f'{unit} after alignment': format_metric(
            baseline.get('metric'), metric) + format_interval(
                interval_of(record, baseline), metric),
        'best epoch': '-',
        **cost_cells(baseline, {}),
        'minutes': '-'
    }]
    for entry in record.get('rounds', []):
        rows.append({
            'round': str(entry['round']) +
                     (' (rolled back)' if entry.get('state') == 'rejected'
                      else ''),
            'dropped': ', '.join(
                labels.get(i, str(i))
                for i in entry.get('dropped', [])) or '-',
            'blocks': str(len(entry['blocks_left']))
                      if 'blocks_left' in entry else '-',
            score: _score(entry, record),
            f'{unit} after drop': format_metric(
                entry.get('metric_before'), metric),
            f'{unit} after alignment': format_metric(
                entry.get('metric_after'), metric) + format_interval(
                    interval_of(record, entry), metric),
            'best epoch': str(entry.get('best_epoch', '-')),
            **cost_cells(entry, baseline),
            'minutes': format_count(
                sum(entry.get('seconds', {}).values()) or None, 60, 1)
        })
    return markdown_table(rows)


def write_report(record: Dict[str, Any], work_dir: PathLike) -> List[Path]:
    """Write the table and the pictures of a run into its work directory.

    Args:
        record: Content of ``blockdrop.json``, finished or not.
        work_dir: The folder.

    Returns:
        ``blockdrop.md``, ``blockdrop_scores.png`` and
        ``blockdrop_tradeoff.png``, as far as the record has what they show.
    """
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / 'blockdrop.md']
    text = round_table(record) + '\n' + table_notes(record)
    if 'stopped' in record:
        text += (f'\n{record["stopped"]["text"]} The result is '
                 f'{record["result"]}.\n')
    files[0].write_text(text)
    rounds = record.get('rounds', [])
    if any(entry.get('scores') for entry in rounds):
        files.append(draw_scores(record, folder / 'blockdrop_scores.png'))
    if any('metric_after' in entry for entry in rounds) and (
            {'macs', 'latency_ms'} & set(record.get('baseline', {}))):
        files.append(draw_tradeoff(record, folder / 'blockdrop_tradeoff.png'))
    return files


def table_notes(record: Dict[str, Any]) -> str:
    """What the numbers of the table were measured on.

    Args:
        record: Content of ``blockdrop.json``.

    Returns:
        Lines that follow the table; '' for records of earlier versions.
    """
    metric = record.get('metric', 'metric')
    metrics = record.get('baseline', {}).get('metrics') or {}
    lines = []
    sample = sample_text(metrics, metric)
    if sample:
        text = f'{metric}: validation, {sample}'
        if f'{metric}_interval' in metrics:
            text += '; in brackets 95 % intervals by bootstrap over the videos'
        lines.append(f'{text}. The best of several epochs is a little too '
                     'good on the data that chose it.')
    texts = [scored_on_text(r) for r in record.get('rounds', [])]
    for text in dict.fromkeys(filter(None, texts)):
        lines.append(f'score: {text}.')
    return ''.join(f'\n{line}\n' for line in lines)


def scores_in_percent(record: Mapping[str, Any]) -> bool:
    """Whether the scores of all rounds are metrics printed in percent.

    Args:
        record: Content of ``blockdrop.json``.
    """
    rounds = record.get('rounds', [])
    return bool(rounds) and is_percent(record.get('metric', '')) and all(
        'metric' in str(r.get('criterion', '')).lower() for r in rounds)


def _percent(value: Any, record: Mapping[str, Any]) -> str:
    """A score, in percent where scores are metrics."""
    if value is None:
        return '-'
    return (f'{100 * value:.2f}' if scores_in_percent(record) else
            f'{value:.4g}')


def _score(entry: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Scores of what was chosen."""
    scores = entry.get('scores', {})
    chosen = [scores.get(str(i)) for i in entry.get('dropped', [])]
    return ', '.join(_percent(s, record) for s in chosen
                     if s is not None) or '-'


def cost_cells(entry: Mapping[str, Any],
               baseline: Mapping[str, Any]) -> Dict[str, str]:
    """Cells of a table for the cost of a model.

    Args:
        entry: Baseline or a round of a record.
        baseline: What it is compared with; empty compares with nothing.

    Returns:
        Text by column.
    """
    cells = {}
    for title, key, unit, digits in (('params (M)', 'params', 1e6, 2),
                                     ('GMACs', 'macs', 1e9, 2),
                                     ('latency (ms)', 'latency_ms', 1, 1)):
        cells[title] = format_count(entry.get(key), unit, digits)
        if entry.get(key) and baseline.get(key):
            cells[title] += f' ({format_change(entry[key] / baseline[key])})'
    timed = latency_against(entry, baseline)
    if timed and baseline:
        change, low, high = map(format_change, timed)
        cells['latency (ms)'] = (f'{entry["latency_ms"]:.1f} ({change}; '
                                 f'{low} to {high})')
    if 'temporal_reach' in {**baseline, **entry}:
        cells['temporal reach'] = str(entry.get('temporal_reach', '-'))
    return cells
