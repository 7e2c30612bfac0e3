"""The file behind each video of a data set."""
import os.path as osp
from os import listdir
from typing import Any, List, Mapping, Sequence, Tuple

from mmblockdrop.utils.messages import did_you_mean, require_folder
from mmblockdrop.utils.video import (UnreadableVideoError, find_media,
                                     probe_video)

from .broken import BrokenVideos

FEATURE_SUFFIXES = ('.npy', )


class VideoSources:
    """Finds the files of videos, and reads their timing where asked.

    Args:
        names: The videos.
        data_prefix: ``dict(video=folder)`` or ``dict(feature= folder)``, or
            ``dict()`` for none.
        filename_tmpl: File name of a video, suffix apart.
        suffixes: Accepted suffixes, best first.
        broken: Counts videos without a readable file.
        ann_file: For messages.

    Attributes:
        paths: File of each video, found or not; empty without a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        RuntimeError: If too many videos have no file.
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
        if not self.data_prefix:
            return [''] * len(self.names)
        (key, folder), = self.data_prefix.items()
        require_folder(folder, f"data_prefix['{key}']")
        stems = [filename_tmpl.format(name) for name in self.names]
        found = [find_media(folder, stem, suffixes) for stem in stems]
        files = [path or osp.join(folder, stem + suffixes[0])
                 for path, stem in zip(found, stems)]
        missing = [index for index, path in enumerate(found) if path is None]
        if missing:
            first = files[missing[0]]
            hint = did_you_mean(osp.basename(first), sorted(listdir(folder)))
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
            ValueError: If there is no folder of videos.
            RuntimeError: If too many videos are unreadable.
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
