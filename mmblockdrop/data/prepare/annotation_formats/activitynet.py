"""JSON as of ActivityNet, ActionFormer and mmaction2."""
from typing import Any

from mmblockdrop.data.annotations import entry_defects

from .base import TIMING, AnnotationFile, register


def _entries(content: Any) -> Any:
    """Entries of ActivityNet's JSON or mmaction2's."""
    return content.get('database', content) if isinstance(
        content, dict) else None


@register('activitynet', '.json', matches=lambda content: isinstance(
    content, dict) and ('database' in content or bool(content) and all(
        isinstance(entry, dict) and 'annotations' in entry
        for entry in content.values())))
def read_activitynet(file: AnnotationFile) -> None:
    """ActivityNet's JSON, ActionFormer's, and mmaction2's without database."""
    entries = _entries(file.content)
    if not isinstance(entries, dict):
        raise ValueError(f"{file.path}: 'database' is {entries!r:.60}, "
                         'expected a mapping')
    for name, entry in entries.items():
        for defect in entry_defects(entry):
            raise ValueError(f'{file.path}: video {name!r} {defect}')
        where = file.where(f'video {name!r}')
        kept = file.found.entry(name, where)
        if 'duration_second' in entry:
            entry = dict(entry, duration=entry['duration_second'],
                         frame=entry.get('duration_frame'), fps=None)
        kept.update({key: entry[key] for key in ('subset', *TIMING)
                     if entry.get(key) is not None})
        for action in entry.get('annotations', ()):
            segment = action.get('segment')
            if not isinstance(segment, list) or len(segment) != 2:
                raise ValueError(f'{where}: segment {segment!r:.60}, expected '
                                 '[start, end]')
            file.found.add(name, *segment, action['label'], where)
