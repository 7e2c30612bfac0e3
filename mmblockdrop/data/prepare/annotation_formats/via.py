"""Projects of VIA 3 (VGG Image Annotator)."""
from mmblockdrop.utils.messages import require_choice

from .base import AnnotationFile, member, register


@register('via', '.json', matches=lambda content: isinstance(
    content, dict) and {'file', 'metadata'} <= set(content))
def read_via(file: AnnotationFile) -> None:
    """Temporal segments of a project of VIA 3, in seconds."""
    media = member(file.content, 'file', dict, file.where())
    attributes = member(file.content, 'attribute', dict, file.where())
    views = member(file.content, 'view', dict, file.where())
    names = {key: member(value, 'aname', str, file.where('attribute', key))
             for key, value in attributes.items()}
    for tier in file.options.tiers or ():
        require_choice(f'{file.path}: --tier', tier, names.values())
    for key, record in member(
            file.content, 'metadata', dict, file.where()).items():
        where = file.where(f'metadata {key!r}')
        times = member(record, 'z', list, where)
        if len(times) != 2:
            file.found.left_out['marks and regions without duration'] += 1
            continue
        view = member(views, member(record, 'vid', str, where), dict, where)
        media_id = str(next(iter(member(view, 'fid_list', list, where)), ''))
        video = member(member(media, media_id, dict, where), 'fname', str,
                       where)
        for attribute, value in member(record, 'av', dict, where).items():
            name = names.get(attribute)
            if name is None or value == '' or (
                    file.options.tiers and name not in file.options.tiers):
                continue
            options = member(attributes[attribute], 'options', dict, where,
                             {})
            for choice in (str(value).split(',') if attributes[attribute].get(
                    'type') == 2 else [str(value)]):
                file.found.add(video, *times, options.get(choice, choice),
                               where)
