"""Tables of intervals: CSV, TSV."""
import re
from typing import Dict, List, Optional, Tuple

from mmblockdrop.utils.messages import did_you_mean, listed, require_choice

from .base import COLUMNS, TIMING, AnnotationFile, number, register
from .boris import is_boris_table


def _plain(heading: str) -> str:
    """Letters and digits of a heading."""
    return re.sub(r'[^a-z0-9]', '', heading.lower())


_UNITS = {'': 1, 's': 1, 'sec': 1, 'seconds': 1, 'time': 1, 'timestamp': 1,
          'ms': 1e-3, 'timems': 1e-3, 'milliseconds': 1e-3, 'frame': None}
_STARTS, _ENDS = ('start', 'begin', 'onset', 'tstart'), (
    'end', 'stop', 'offset', 'tend', 'finish')
#: Headings, without blanks and signs, by what the column holds.
GUESSES: Dict[str, Tuple[str, ...]] = dict(
    video=('video', 'videoname', 'videoid', 'videofile', 'videopath',
           'filename', 'file', 'mediafile', 'mediafilename', 'clip', 'vid'),
    subset=('subset', 'split'),
    start=tuple(s + unit for unit in _UNITS for s in _STARTS) + ('timestamp',),
    end=tuple(s + unit for unit in _UNITS for s in _ENDS),
    label=('label', 'labelname', 'labelid', 'class', 'classname', 'action',
           'activity', 'behavior', 'behaviour', 'event', 'category'),
    video_duration=('videoduration', ), video_fps=('videofps', 'fps'),
    video_frames=('videoframes', ))


def _find_columns(file: AnnotationFile, headings: List[str]
                  ) -> Dict[str, int]:
    """Numbers of the columns of a table of intervals."""
    columns = {}
    for what, guesses in GUESSES.items():
        named = file.options.columns.get(what)
        if named is not None:
            require_choice(f'{file.path}: --column {what}', named, headings)
            columns[what] = headings.index(named)
            continue
        plain = [_plain(heading) for heading in headings]
        found = [guess for guess in guesses if guess in plain]
        if found:
            columns[what] = plain.index(found[0])
        elif what in ('start', 'end', 'label'):
            raise ValueError(
                f'{file.path}: no column for {what!r}; the headings are '
                f'{listed(headings)}, expected {guesses[0]!r} or --column '
                f'{what}=HEADING{did_you_mean(guesses[0], headings)}')
    return columns


@register('csv', '.csv', '.tsv',
          matches=lambda rows: not is_boris_table(rows))
def read_csv(file: AnnotationFile) -> None:
    """A table with one interval in a row; see :data:`GUESSES`."""
    rows = enumerate(file.content, 1)
    headings = next((row for _, row in rows if row), [])
    columns = _find_columns(file, headings)
    scale = {what: _scale(headings[columns[what]])
             for what in ('start', 'end')}
    for count, row in rows:
        if not row:
            continue
        where = file.where(f'row {count}')
        if len(row) < len(headings):
            row = row + [''] * (len(headings) - len(row))
        cells = {what: row[column] for what, column in columns.items()}
        video = cells.get('video') or file.named(
            f'row {count} names no video; the headings are '
            f'{listed(headings)}')
        entry = file.found.entry(video, where)
        if cells.get('subset'):
            entry['subset'] = cells['subset']
        for key, what in zip(TIMING, COLUMNS[-3:]):
            if cells.get(what):
                entry[key] = number(cells[what], what, where)
        if not (cells['start'] or cells['end'] or cells['label']):
            continue  # a video without actions
        times = [
            number(cells[what], what, where)
            * (scale[what] or 1 / file.rate(video, where))
            for what in ('start', 'end')]
        file.found.add(video, *times, cells['label'], where)


def _scale(heading: str) -> Optional[float]:
    """Seconds in a unit that a heading names; None for frames."""
    unit = re.sub(f'^({"|".join(_STARTS + _ENDS)})', '', _plain(heading))
    return _UNITS.get(unit.replace('number', ''), 1)
