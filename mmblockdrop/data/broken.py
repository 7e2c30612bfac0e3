"""Videos that cannot be read: counted, and too many stop the run."""
from typing import Sequence

from mmblockdrop.utils.video import UnreadableVideoError

import torch

from .annotations import warn


class BrokenVideos:
    """Which videos of a data set are unreadable, shared by its workers.

    Args:
        names: All videos.
        max_share: Share of them that may be unreadable.
        test_mode: Whether unreadable videos are shown black, and not skipped.
            For the message.
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

        Raises:
            RuntimeError: If more than ``max_share`` are unreadable.
        """
        self.flags[index] = 1
        reason = str(error)
        if not isinstance(error, UnreadableVideoError):
            reason = reason.splitlines()[0].rsplit('Check failed: ', 1)[-1]
            reason = f'its frames cannot be decoded ({reason})'
        self._check(f'video {self.names[index]!r}: {reason}')

    def note_missing(self, indices: Sequence[int], message: str) -> None:
        """Count videos without a file.

        Args:
            indices: Their places in ``names``.
            message: What they lack.

        Raises:
            RuntimeError: If more than ``max_share`` are unreadable.
        """
        self.flags[list(indices)] = 1
        self._check(f'{len(indices)} of {len(self.names)} videos {message}')

    def _check(self, message: str) -> None:
        count, total = len(self), len(self.names)
        message += (f'. Unreadable so far: {count} of {total} videos '
                    f'(max_broken_share={self.max_share})')
        if count > self.max_share * total:
            raise RuntimeError(message)
        shown = ('shown black, their actions count as missed'
                 if self.test_mode else 'skipped')
        warn(f'{message}; they are {shown}')
