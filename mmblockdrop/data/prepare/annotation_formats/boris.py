"""Projects of BORIS, and the tables that it exports."""
import math
import re
from typing import Dict, Iterable, Iterator, List

from mmblockdrop.utils.messages import listed

from .base import AnnotationFile, mapping, member, number, register


def is_boris_table(rows: List[List[str]]) -> bool:
    """Whether a table begins as those that BORIS exports.

    Args:
        rows: Cells by row.
    """
    return bool(rows) and rows[0][:1] == ['Observation id']


def _pairs(events: Iterable[tuple]) -> Iterator[tuple]:
    """Start and end of the states of BORIS, which begin and end in turn.

    Events are (time, owner, label, place); a state belongs to its owner.
    Yields (owner, start, end, label, place of the end).
    """
    begun: Dict[tuple, tuple] = {}
    for time, owner, label, where in sorted(events, key=lambda e: e[0]):
        start = begun.pop((owner, label), None)
        if start is None:
            begun[owner, label] = (time, where)
        else:
            yield owner, start[0], time, label, where
    for (_, label), (time, where) in begun.items():
        raise ValueError(f'{where}: {label!r} starts at {time:g} s and does '
                         'not stop; expected a STOP event')


@register('boris', '.boris', '.json', matches=lambda content: isinstance(
    content, dict) and 'behaviors_conf' in content)
def read_boris(file: AnnotationFile) -> None:
    """State events of a project of BORIS, of the first player."""
    states = set()
    for key, behavior in member(
            file.content, 'behaviors_conf', dict, file.where()).items():
        where = file.where('behaviors_conf', key)
        kind = member(behavior, 'type', str, where)
        if kind.lower().startswith('state'):
            states.add(member(behavior, 'code', str, where))
    for name, record in member(
            file.content, 'observations', dict, file.where()).items():
        where = file.where(f'observation {name!r}')
        if mapping(record, where).get('type') != 'MEDIA':
            file.found.left_out['observations without video'] += 1
            continue
        if record.get('media_creation_date_as_offset'):
            raise ValueError(f'{where}: its times count from the creation of '
                             'the file; expected times of the media')
        paths = member(member(record, 'file', dict, where), '1', list, where)
        info = member(record, 'media_info', dict, where, {})
        known, rates = (member(info, key, dict, where, {})
                        for key in ('length', 'fps'))
        for path in paths:
            file.found.entry(path, where)
        lengths = [number(known[path], 'length', where)
                   if path in known else math.inf for path in paths]
        if not paths or math.inf in lengths[:-1]:
            raise ValueError(f'{where}: player 1 has the files '
                             f'{listed(paths)}; expected media_info with the '
                             'length of each')
        for path, length in zip(paths, lengths):
            entry = file.found.entry(path, where)
            if length < math.inf:
                entry['duration'] = length
            if rates.get(path):
                entry['fps'] = number(rates[path], 'fps', where)
        offset = number(record.get('time offset', 0), 'time offset', where)
        events = []
        for count, event in enumerate(member(record, 'events', list, where)):
            place = f'{where}: event {count}'
            if not isinstance(event, list) or len(event) < 4:
                raise ValueError(f'{place}: {event!r:.60}, expected [time, '
                                 'subject, behavior, modifier, ...]')
            if str(event[2]) not in states:
                file.found.left_out['point events'] += 1
                continue
            events.append((number(event[0], 'time', place) - offset,
                           (str(event[1]), str(event[3])), event[2], place))
        for _, start, end, label, place in _pairs(events):
            left = 0
            while left + 1 < len(paths) and start >= lengths[left]:
                start, end = start - lengths[left], end - lengths[left]
                left += 1
            if left + 1 < len(paths) and end > lengths[left]:
                raise ValueError(f'{place}: {label!r} goes on in the next '
                                 'file; expected it to stop before')
            file.found.add(paths[left], start, end, label, place)


@register('boris', '.csv', '.tsv', matches=is_boris_table)
def read_boris_table(file: AnnotationFile) -> None:
    """Aggregated or single events that BORIS exports."""
    rows = list(enumerate(file.content, 1))
    top = next((index for index, (_, row) in enumerate(rows)
                if 'Behavior' in row), None)
    if top is None:
        raise ValueError(f"{file.path}: no row of headings with 'Behavior', "
                         "'Start (s)' and 'Stop (s)', or 'Time'")
    headings = rows[top][1]
    above = {row[0]: row[1] for _, row in rows[:top] if len(row) > 1}
    aggregated = 'Start (s)' in headings
    status = 'Status' if 'Status' in headings else 'Behavior type'
    media = next((name for name in ('Media file name', 'Media file path',
                                    'Media file') if name in headings), None)
    for name in ('Stop (s)' if aggregated else 'Time', status, media):
        if name not in headings:
            raise ValueError(f'{file.path}: no column '
                             f'{name or "Media file name"!r}; the headings '
                             f'are {listed(headings)}')
    events, videos = [], {}
    for count, row in rows[top + 1:]:
        if not row:
            continue
        where = file.where(f'row {count}')
        cells = {**dict.fromkeys(headings, ''), **above,
                 **dict(zip(headings, row))}
        if cells.get(status, '').upper() not in ('STATE', 'START', 'STOP'):
            file.found.left_out['point events'] += 1
            continue
        seen, video = cells.get('Observation id'), cells[media]
        if video in ('', 'NA', 'Not found'):
            video = file.named(f'row {count} names no video')
        if videos.setdefault(seen, video) != video:
            raise ValueError(
                f'{where}: observation {seen!r} has the videos '
                f'{videos[seen]!r} and {video!r}, whose times follow each '
                'other; convert the .boris project')
        entry = file.found.entry(video, where)
        for name, key in (('FPS', 'fps'), ('Media duration (s)', 'duration')):
            if re.fullmatch(r'\d+(\.\d*)?', cells.get(name, '')):
                entry[key] = float(cells[name])
        if aggregated:
            file.found.add(video, cells['Start (s)'], cells.get('Stop (s)'),
                           cells.get('Behavior'), where)
            continue
        owner = (video, seen, *(cells[name] for name in headings if re.match(
            'Subject|Modifier', name)))
        offset = number(cells.get('Time offset (s)') or 0, 'time offset',
                        where)
        events.append((number(cells['Time'], 'time', where) - offset, owner,
                       cells.get('Behavior'), where))
    for owner, start, end, label, where in _pairs(events):
        file.found.add(owner[0], start, end, label, where)
