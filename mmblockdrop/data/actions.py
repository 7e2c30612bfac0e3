"""Annotated actions, checked one by one."""
import math
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from mmblockdrop.utils.messages import did_you_mean, require_choice

import numpy as np

from .annotations import warn

BAD_SEGMENTS = ('error', 'drop')


class ActionReader:
    """Checked actions of one video after another, with a count of defects.

    Args:
        classes: Names in the order of their labels.
        drop_labels: Labels to leave out. Any other label that is not a class
            is an error.
        bad_segments: ``error`` or ``drop``, for segments that are reversed,
            not numbers, or wholly outside the video.
        ann_file: For messages.
    """

    def __init__(self, classes: Sequence[str], drop_labels: Sequence[str],
                 bad_segments: str, ann_file: str) -> None:
        require_choice('bad_segments', bad_segments, BAD_SEGMENTS)
        self.index = {name: label for label, name in enumerate(classes)}
        self.drop_labels = set(drop_labels)
        self.bad_segments = bad_segments
        self.ann_file = ann_file
        self.counts: Dict[str, int] = {}
        self.first: Dict[str, str] = {}

    def read(self, name: str, annotations: Sequence[Mapping[str, Any]],
             duration: float) -> Tuple[np.ndarray, np.ndarray]:
        """Actions of a video.

        Args:
            name: The video.
            annotations: ``segment`` and ``label`` each.
            duration: Seconds.

        Returns:
            Segments float64 [N, 2] in seconds as they are written, and labels
            int64 [N].

        Raises:
            ValueError: For an unknown label, or, unless ``bad_segments`` is
                ``drop``, a segment that cannot be meant.
        """
        segments, labels = [], []
        for action in annotations:
            where = f'video {name!r} of {self.ann_file!r}: {dict(action)}'
            label = action.get('label')
            if label in self.drop_labels:
                continue
            if label not in self.index:
                raise ValueError(
                    f'{where} has a label that is neither in classes nor in '
                    f'drop_labels{did_you_mean(label, self.index)}')
            defect = self.defect(action.get('segment'), duration)
            if defect and not self._tolerate(defect, where, duration):
                continue
            segments.append([float(time) for time in action['segment']])
            labels.append(self.index[label])
        return (np.array(segments, dtype=np.float64).reshape(-1, 2),
                np.array(labels, dtype=np.int64))

    @staticmethod
    def defect(segment: Any, duration: float) -> Optional[str]:
        """What is wrong with a segment.

        Args:
            segment: What the annotation says.
            duration: Seconds of the video.

        Returns:
            Words that follow 'the segment'.
        """
        try:
            start, end = (float(time) for time in segment)
        except (TypeError, ValueError):
            return 'is not two numbers'
        if not (math.isfinite(start) and math.isfinite(end)):
            return 'is not finite'
        if end < start:
            return 'is reversed'
        if end == start:
            return 'has zero length'
        if start >= duration or end <= 0:
            return 'is outside the video'
        if end > duration or start < 0:
            return 'reaches beyond the video'
        return None

    def _tolerate(self, defect: str, where: str, duration: float) -> bool:
        """Count a defect; whether the action is kept all the same."""
        beyond = defect == 'reaches beyond the video'
        if self.bad_segments == 'error' and not beyond and (
                defect != 'has zero length'):
            raise ValueError(
                f'{where}: the segment {defect} (of {duration:.2f} s). '
                "Correct it, or leave such out with bad_segments='drop'")
        self.counts[defect] = self.counts.get(defect, 0) + 1
        self.first.setdefault(defect, where)
        return beyond

    def report(self) -> None:
        """Warn once of what was tolerated, with its number."""
        for defect, count in self.counts.items():
            done = ('are cut at its ends when shown'
                    if defect == 'reaches beyond the video' else
                    'are left out')
            warn(f'{count} actions whose segment {defect} {done}; the first: '
                 f'{self.first[defect]}')
