"""Text files of THUMOS14 and MultiTHUMOS."""
import re

from .base import AnnotationFile, register


@register('thumos', '.txt', matches=lambda lines: True)
def read_thumos(file: AnnotationFile) -> None:
    """Text of THUMOS: a file for each class, ``video start end`` in a line.

    The official validation part trains, as is customary.
    """
    label, _, part = file.path.stem.rpartition('_')
    if part not in ('val', 'test', 'validation'):
        label, part = file.path.stem, ''
    for count, line in enumerate(file.content, 1):
        where, cells = file.where(f'line {count}'), line.split()
        if not cells:
            continue
        if len(cells) != 3:
            raise ValueError(f"{where}: {line!r:.60}, expected 'video start "
                             "end'")
        entry = file.found.entry(cells[0], where)
        source = re.match('video_(val|test)', cells[0])
        if source or part:
            entry['subset'] = 'test' if (
                source[1] if source else part) == 'test' else 'training'
        file.found.add(*cells, label, where)
