"""Tracks and tags of CVAT."""
import re
from typing import Any, Dict, Iterable, Iterator, List, Tuple

from .base import AnnotationFile, mapping, member, number, register


def _visible(shapes: Iterable[Tuple[float, bool]], step: int
             ) -> Iterator[Tuple[float, float]]:
    """First frame and frame after the last, of each visible run of a track."""
    begin = last = None
    for frame, outside in sorted(shapes):
        if outside and begin is not None:
            yield begin, frame
            begin = None
        elif not outside:
            begin, last = frame if begin is None else begin, frame
    if begin is not None:
        yield begin, last + step


def _tag_runs(tags: Iterable[Tuple[float, Any]], step: int
              ) -> Iterator[Tuple[float, float, Any]]:
    """Runs of frames that have the same tag."""
    frames: Dict[Any, List[float]] = {}
    for frame, label in tags:
        frames.setdefault(label, []).append(frame)
    for label, tagged in frames.items():
        tagged = sorted(set(tagged))
        for index, frame in enumerate(tagged):
            if index == 0 or frame - tagged[index - 1] > step:
                begin = frame
            if index + 1 == len(tagged) or tagged[index + 1] - frame > step:
                yield begin, frame + step, label


def _add_frames(file: AnnotationFile, video: str, begin: float, after: float,
                label: Any, where: str) -> None:
    """Add an action that is given by its first frame and that after it."""
    fps = file.rate(video, where)
    file.found.add(video, begin / fps, after / fps, label, where)


@register('cvat', '.xml', matches=lambda root: root.tag == 'annotations')
def read_cvat(file: AnnotationFile) -> None:
    """Tracks and tags of CVAT's XML: where they are visible, in frames."""
    root = file.content
    if root.find('meta/project') is not None:
        raise ValueError(f'{file.path}: it is the export of a project; '
                         'expected one file for each task')
    video = root.findtext('meta/source') or root.findtext(
        'meta/task/source') or file.named("'meta' has no 'source'")
    file.found.entry(video, file.where())
    step = re.search(r'step\s*=\s*(\d+)',
                     root.findtext('.//frame_filter') or '')
    step = int(step[1]) if step else 1
    for track in root.iter('track'):
        where = file.where(f'track {track.get("id")!r}')
        shapes = [(number(shape.get('frame'), 'frame', where),
                   shape.get('outside') == '1')
                  for shape in track if shape.get('frame') is not None]
        for begin, after in _visible(shapes, step):
            _add_frames(file, video, begin, after, track.get('label'), where)
    tags = [(number(image.get('id'), 'id', file.where('image')),
             tag.get('label'))
            for image in root.iter('image') for tag in image.iter('tag')]
    for begin, after, label in _tag_runs(tags, step):
        _add_frames(file, video, begin, after, label,
                    file.where(f'tag {label!r}'))


@register('cvat', '.json', matches=lambda content: any(
    isinstance(job, dict) and {'tracks', 'tags'} <= set(job) for job in (
        content if isinstance(content, list) else [content])))
def read_cvat_json(file: AnnotationFile) -> None:
    """Tracks and tags of ``annotations.json`` in the backup of a CVAT task."""
    video = file.named('the annotations of a backup do not name the video')
    file.found.entry(video, file.where())
    jobs = file.content if isinstance(file.content, list) else [file.content]
    for count, job in enumerate(jobs):
        where = file.where(f'job {count}')
        for track in member(job, 'tracks', list, where):
            label = member(track, 'label', str, f'{where}: track')
            shapes = [
                (number(mapping(shape, where).get('frame'), 'frame', where),
                 bool(shape.get('outside')))
                for shape in member(track, 'shapes', list, where)]
            for begin, after in _visible(shapes, 1):
                _add_frames(file, video, begin, after, label, where)
        tags = [(number(mapping(tag, where).get('frame'), 'frame', where),
                 member(tag, 'label', str, f'{where}: tag'))
                for tag in member(job, 'tags', list, where)]
        for begin, after, label in _tag_runs(tags, 1):
            _add_frames(file, video, begin, after, label, where)
