"""Annotation documents of ELAN."""
from xml.etree import ElementTree

from mmblockdrop.utils.messages import require_choice

from .base import AnnotationFile, number, register


@register('elan', '.eaf', '.xml',
          matches=lambda root: root.tag == 'ANNOTATION_DOCUMENT')
def read_elan(file: AnnotationFile) -> None:
    """Time-aligned annotations of ELAN, in the units of its header."""
    root = file.content
    header = root.find('HEADER')
    header = ElementTree.Element('HEADER') if header is None else header
    unit = header.get('TIME_UNITS', 'milliseconds')
    units = {'milliseconds': 1000., 'PAL-frames': 25.,
             'NTSC-frames': 30000 / 1001}
    require_choice(file.where('TIME_UNITS'), unit, units)
    media = sorted(
        header.findall('MEDIA_DESCRIPTOR'),
        key=lambda m: not m.get('MIME_TYPE', '').startswith('video'))
    video = media[0].get('MEDIA_URL', '') if media else ''
    video = video or header.get('MEDIA_FILE', '') or file.named(
        'the header has no MEDIA_DESCRIPTOR')
    origin = float(number(media[0].get('TIME_ORIGIN', 0), 'TIME_ORIGIN',
                          file.where()) if media else 0) / 1000
    file.found.entry(video, file.where())
    slots = {slot.get('TIME_SLOT_ID'): slot.get('TIME_VALUE')
             for slot in root.iter('TIME_SLOT')}
    tiers = {tier.get('TIER_ID', ''): tier for tier in root.iter('TIER')}
    for name in file.options.tiers or ():
        require_choice(f'{file.path}: --tier', name, tiers)
    for name in file.options.tiers or tiers:
        file.found.left_out['ELAN annotations without own time'] += len(
            list(tiers[name].iter('REF_ANNOTATION')))
        for action in tiers[name].iter('ALIGNABLE_ANNOTATION'):
            where = file.where(f'tier {name!r}',
                               f'annotation {action.get("ANNOTATION_ID")!r}')
            times = [slots.get(action.get(f'TIME_SLOT_REF{side}'), '')
                     for side in (1, 2)]
            if None in times:  # between two aligned slots
                file.found.left_out['ELAN annotations without own time'] += 1
                continue
            start, end = (
                number(time, what, where) / units[unit] + origin
                for time, what in zip(times, ('start', 'end')))
            file.found.add(video, start, end,
                           action.findtext('ANNOTATION_VALUE'), where)
