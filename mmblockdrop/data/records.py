"""Annotations of a video to what all its windows share."""
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

import numpy as np
from mmengine.utils import track_iter_progress

from .actions import ActionReader
from .annotations import read_timing
from .sources import VideoSources
from .windows import unique_actions

#: ``(segments in seconds, duration, fps, total frames)`` to frames.
ToFrames = Callable[[np.ndarray, float, float, int], np.ndarray]


class VideoRecords:
    """Records of one video after another.

    Args:
        database: Annotations by name.
        sources: The videos and their files.
        actions: Checks the actions.
        fps: Rate that overrides the annotation's.
        to_frames: Boundaries of actions in frames.
        class_agnostic: Whether all actions are of one class.
        min_action_share: Actions that take no more of the video are no ground
            truth.
    """

    def __init__(self, database: Mapping[str, dict], sources: VideoSources,
                 actions: ActionReader, fps: Optional[float],
                 to_frames: ToFrames, class_agnostic: bool,
                 min_action_share: float) -> None:
        self.database = database
        self.sources = sources
        self.actions = actions
        self.fps = fps
        self.to_frames = to_frames
        self.class_agnostic = class_agnostic
        self.min_action_share = min_action_share

    def __iter__(self) -> Iterator[dict]:
        """Yield the record of every video, in order.

        Raises:
            ValueError: For a wrong timing, label or segment.
            RuntimeError: If too many videos are unreadable.
        """
        for index, name in enumerate(self._progress(self.sources.names)):
            yield self._record(index, name, self.database[name])

    def _progress(self, names: Sequence[str]) -> Any:
        """The names, with a bar where many files must be opened."""
        missing = sum('fps' not in self.database[name] and not (
            {'frame', 'duration'} <= set(self.database[name]))
                      for name in names)
        slow = missing > 50 and self.fps is None and self.sources.data_prefix
        return track_iter_progress(names) if slow else names

    def _record(self, index: int, name: str,
                entry: Mapping[str, Any]) -> dict:
        duration, fps, frames = read_timing(
            f'video {name!r} of {self.sources.ann_file!r}', entry, self.fps,
            lambda: self.sources.probe(index, entry))
        segments, labels = self.actions.read(
            name, entry.get('annotations', ()), duration)
        if self.class_agnostic:
            labels = np.zeros_like(labels)
        share = (segments[:, 1] - segments[:, 0]) / duration
        shown = share > self.min_action_share
        actions = self.to_frames(segments, duration, fps, frames)
        actions, action_labels = unique_actions(actions[shown], labels[shown])
        return dict(
            video_name=name,
            video_index=index,
            filename=self.sources.paths[index],
            duration=duration,
            fps=fps,
            total_frames=frames,
            video_segments=segments,
            video_labels=labels,
            action_frames=actions,
            action_labels=action_labels)
