"""Videos of a data set: their files, and what all their windows share."""
import os
import os.path as osp
from dataclasses import dataclass
from typing import (Any, Callable, Iterator, List, Mapping, Optional, Sequence,
                    Tuple)

from mmblockdrop.utils.messages import did_you_mean, require_folder
from mmblockdrop.utils.video import (UnreadableVideoError, decoding_reason,
                                     find_media, probe_video, resampled_length)

import numpy as np
import torch
from mmengine.utils import track_iter_progress

from .annotations import ActionReader, read_timing, require_seconds, warn
from .windows import unique_actions

FEATURE_SUFFIXES = ('.npy', )
#: ``(segments in seconds, duration, fps, total frames)`` to frames.
ToFrames = Callable[[np.ndarray, float, float, int], np.ndarray]


class BrokenVideos:
    """Which videos of a data set are unreadable, shared by its workers.

    Args:
        names: All videos.
        max_share: Share of them that may be unreadable.
        test_mode: Whether unreadable videos are shown black, not skipped; for
            the warning.
    """

    def __init__(self, names: Sequence[str], max_share: float,
                 test_mode: bool) -> None:
        self.names = names
        self.max_share = max_share
        self.test_mode = test_mode
        self.flags = torch.zeros(len(names), dtype=torch.uint8)
        self.flags.share_memory_()

    def __len__(self) -> int:
        """Number of unreadable videos so far."""
        return int(self.flags.sum())

    def __getitem__(self, index: int) -> bool:
        return bool(self.flags[index])

    def note(self, index: int, error: Exception) -> None:
        """Count a video that failed to open or to decode.

        Args:
            index: Its place in ``names``.
            error: What the pipeline raised.

        Raises:
            RuntimeError: More than ``max_share`` are unreadable.
        """
        self.flags[index] = 1
        reason = decoding_reason(error)
        if isinstance(error, UnreadableVideoError):
            reason = str(error)
        self._check(f'video {self.names[index]!r}: {reason}')

    def note_missing(self, indices: Sequence[int], message: str) -> None:
        """Count videos without a file.

        Args:
            indices: Their places in ``names``.
            message: What they lack.

        Raises:
            RuntimeError: More than ``max_share`` are unreadable.
        """
        self.flags[list(indices)] = 1
        self._check(f'{len(indices)} of {len(self.names)} videos {message}')

    def _check(self, message: str) -> None:
        """Warn, or stop the run."""
        count, total = len(self), len(self.names)
        message += (f'. Unreadable so far: {count} of {total} videos '
                    f'(max_broken_share={self.max_share})')
        if count > self.max_share * total:
            raise RuntimeError(
                f'{message}: replace them, leave them out with block_list, or '
                'raise max_broken_share')
        shown = ('shown black, their actions count as missed'
                 if self.test_mode else 'skipped')
        warn(f'{message}; they are {shown}')


class VideoSources:
    """Finds the files of videos, and reads their timing where asked.

    Args:
        names: The videos.
        data_prefix: ``dict(video=folder)`` or ``dict(feature=folder)``, or
            ``dict()`` for none.
        filename_tmpl: File name of a video, suffix apart.
        suffixes: Accepted suffixes, best first.
        broken: Counts videos without a readable file.
        ann_file: For errors.

    Attributes:
        paths: File of each video, found or not; empty without a folder.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: Too many videos have no file.
    """

    def __init__(self, names: Sequence[str], data_prefix: Mapping[str, str],
                 filename_tmpl: str, suffixes: Sequence[str],
                 broken: BrokenVideos, ann_file: str) -> None:
        self.names = names
        self.data_prefix = data_prefix
        self.broken = broken
        self.ann_file = ann_file
        self.paths = self._find(filename_tmpl, suffixes)

    def _find(self, filename_tmpl: str, suffixes: Sequence[str]) -> List[str]:
        """File of each video, or the name that it should have."""
        if not self.data_prefix:
            return [''] * len(self.names)
        (key, folder), = self.data_prefix.items()
        require_folder(folder, f"data_prefix['{key}']")
        stems = [filename_tmpl.format(name) for name in self.names]
        found = [find_media(folder, stem, suffixes,
                            f'ann_file={self.ann_file!r}') for stem in stems]
        files = [
            path or osp.join(folder, stem + (
                '' if osp.splitext(stem)[1].lower() in suffixes else
                suffixes[0])) for path, stem in zip(found, stems)
        ]
        missing = [index for index, path in enumerate(found) if path is None]
        if missing:
            first = files[missing[0]]
            hint = did_you_mean(osp.basename(first), os.listdir(folder))
            self.broken.note_missing(
                missing, f'have no file with a suffix of {suffixes}; the '
                f"first is {first!r} (data_prefix['{key}']={folder!r}, "
                f'filename_tmpl={filename_tmpl!r}{hint})')
        return files

    def probe(self, index: int, entry: Mapping[str, Any]) -> Tuple[int, float]:
        """Frames and rate of a video file, for what its annotation lacks.

        Args:
            index: Place of the video in ``names``.
            entry: Its annotation.

        Returns:
            Frames, and frames per second.

        Raises:
            ValueError: There is no folder of videos.
            RuntimeError: Too many videos are unreadable.
        """
        if 'video' not in self.data_prefix:
            raise ValueError(
                f"video {self.names[index]!r} of {self.ann_file!r} needs "
                "'duration', and 'frame' or 'fps' (or the argument fps), as "
                'there is no video file to read them from')
        try:
            return probe_video(self.paths[index])
        except UnreadableVideoError as error:
            # Black at any rate, and long enough for what it should show.
            self.broken.note(index, error)
            ends = [action['segment'][1] for action in
                    entry.get('annotations', ())]
            return round(25 * entry.get('duration', max(ends, default=1))), 25.


@dataclass
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
        grid_fps: Frames per second on a grid in seconds, which a record then
            counts instead of those of the video.
    """

    database: Mapping[str, dict]
    sources: VideoSources
    actions: ActionReader
    fps: Optional[float]
    to_frames: ToFrames
    class_agnostic: bool
    min_action_share: float
    grid_fps: Optional[float] = None

    def __iter__(self) -> Iterator[dict]:
        """Yield the record of every video, in order.

        Raises:
            ValueError: A timing, label or segment is wrong.
            RuntimeError: Too many videos are unreadable.
        """
        for index, name in enumerate(self._progress(self.sources.names)):
            yield self._record(index, name, self.database[name])

    def _progress(self, names: Sequence[str]) -> Any:
        """The names, with a bar where many files must be opened."""
        missing = sum(
            not ({'frame', 'duration'} <= set(self.database[name]) or (
                'duration' if self.grid_fps else 'fps') in self.database[name])
            for name in names)
        slow = missing > 50 and self.fps is None and self.sources.data_prefix
        return track_iter_progress(names) if slow else names

    def _record(self, index: int, name: str,
                entry: Mapping[str, Any]) -> dict:
        """Record of one video."""
        where = f'video {name!r} of {self.sources.ann_file!r}'
        timing, given = entry, entry.get('duration')
        if self.grid_fps and given:  # then the file need not be opened
            timing = dict(duration=given, fps=self.grid_fps, frame=1)
        duration, fps, frames = read_timing(
            where, timing, self.fps, lambda: self.sources.probe(index, entry))
        if entry.get('frame') and entry.get('duration'):
            require_seconds(where, duration,
                            entry['frame'] / (entry.get('fps') or 1.))
        if self.grid_fps:
            fps = self.grid_fps
            frames = resampled_length(duration, fps)
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
