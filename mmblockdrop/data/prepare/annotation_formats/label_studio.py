"""JSON that Label Studio exports."""
import re

from mmblockdrop.utils.messages import listed
from mmblockdrop.utils.video import VIDEO_SUFFIXES

from .base import AnnotationFile, mapping, member, number, register


@register('label-studio', '.json', matches=lambda content: isinstance(
    content, list) and bool(content) and all(
        isinstance(task, dict) and 'data' in task for task in content))
def read_label_studio(file: AnnotationFile) -> None:
    """Timeline segments of Label Studio, in frames, and others in seconds.

    Its first frame is 1, and both ends of a range belong to it.
    """
    for count, task in enumerate(file.content):
        where = file.where(f'task {task.get("id", count)}')
        data = member(task, 'data', dict, where)
        texts = [value for value in data.values() if isinstance(value, str)]
        media = [text for text in texts if any(
            suffix in text.lower() for suffix in VIDEO_SUFFIXES)]
        video = data.get('video') or (media or texts or [None])[0]
        if not isinstance(video, str):
            raise ValueError(f"{where}: 'data' has {listed(data)}, expected "
                             "'video'")
        upload = re.fullmatch(r'/data/upload/\d+/[0-9a-f]{8}-(.+)', video)
        video = upload[1] if upload else video
        file.found.entry(video, where)
        done = [a for a in member(task, 'annotations', list, where)
                if isinstance(a, dict) and not a.get('was_cancelled')]
        file.found.left_out['second annotations of a task'] += len(done[1:])
        for result in member(done[0], 'result', list, where) if done else ():
            place = f'{where}: result {mapping(result, where).get("id")!r}'
            value = member(result, 'value', dict, place)
            labels = value.get(str(result.get('type')), value.get('labels'))
            ranges = member(value, 'ranges', list, place,
                            [value] if 'start' in value else [])
            if not isinstance(labels, list) or not ranges:
                file.found.left_out['results without start'] += 1
                continue
            for span in ranges:
                start, end = (number(mapping(span, place).get(what), what,
                                     place)
                              for what in ('start', 'end'))
                if 'ranges' in value:
                    fps = file.rate(video, place)
                    start, end = (start - 1) / fps, end / fps
                for label in labels:
                    file.found.add(video, start, end, label, place)
