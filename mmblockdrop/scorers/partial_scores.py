"""What scoring has found so far, on disk, and the batches it leaves."""
import hashlib
import json
import math
import pickle
import re
import shutil
import time
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from mmblockdrop.compat.checkpoint import load_file
from mmblockdrop.utils.checkpoint import write_checkpoint

import torch
from mmengine.dist import (all_reduce, barrier, get_rank, get_world_size,
                           is_main_process)
from mmengine.logging import print_log
from torch.utils.data import DataLoader

#: Folder in the work directory.
FOLDER = 'blockdrop_scoring'
#: Seconds between two files.
INTERVAL = 10.


class PartialScores:
    """Lets scoring go on after the last batch it had finished.

    Every process writes what it found since its last file into a new one,
    whole or not at all. Files of another scoring (other weights, data,
    candidates, rule or number of processes) are not read.

    Args:
        folder: Folder of its own.
        key: What must be equal for the files to be of use; plain data.
        every: Seconds between two files. Defaults to :data:`INTERVAL`.
    """

    def __init__(self,
                 folder: Path,
                 key: Any,
                 every: Optional[float] = None) -> None:
        self.folder = folder
        self.key = digest([key, get_world_size()])
        self.every = INTERVAL if every is None else every
        self._new: List[Any] = []
        self._count = 0
        self._written = time.monotonic()

    def read(self) -> List[Any]:
        """What an interrupted scoring kept.

        Returns:
            One entry per batch, as many on every process.
        """
        states: List[Any] = []
        for first, path in self._files():
            content = self._load(path)
            if content is None or first != len(states):
                break
            states += content['states']
        count = torch.tensor(len(states))
        all_reduce(count, 'min')
        self._count = int(count)
        if not self._count:
            self.clear()
        self._remove_behind()
        return states[:self._count]

    def add(self, state: Any) -> None:
        """Keep what the next batch gave.

        Args:
            state: Tensors, arrays, plain data.
        """
        self._new.append(state)
        if time.monotonic() - self._written >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what is not yet written."""
        if not self._new:
            return
        self.folder.mkdir(exist_ok=True)
        self._write(self._count, self._new)
        self._count += len(self._new)
        self._new = []
        self._written = time.monotonic()

    def clear(self) -> None:
        """Remove the files; all processes return when they are gone."""
        clear(self.folder)

    def _files(self) -> Iterator[Tuple[int, Path]]:
        """Files of this process: number of the first batch, and path."""
        for path in sorted(self.folder.glob(f'rank{get_rank()}_*.pt')):
            number = re.fullmatch(r'rank\d+_(\d{8})', path.stem)
            if number:
                yield int(number.group(1)), path

    def _write(self, first: int, states: List[Any]) -> None:
        path = self.folder / f'rank{get_rank()}_{first:08d}.pt'
        write_checkpoint(
            dict(key=self.key, first=first, states=states), path)

    def _load(self, path: Path) -> Optional[dict]:
        """Content of a file; None where it is damaged or of another run."""
        try:
            content = load_file(path, map_location=None)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError,
                ValueError, ImportError) as error:
            print_log(f'{path} is not used: {error}', 'current')
            return None
        ours = isinstance(content, dict) and content.get('key') == self.key
        if not ours or not isinstance(content.get('states'), list):
            return None
        return content

    def _remove_behind(self) -> None:
        """Forget batches that not every process has finished.

        The file that holds the first of them is overwritten later under
        another name, so what it holds beyond is cut off here.
        """
        for first, path in list(self._files()):
            content = self._load(path)
            keep = self._count - first
            if content is None or keep <= 0:
                path.unlink()
            elif keep < len(content['states']):
                self._write(first, content['states'][:keep])


def clear(folder: Path) -> None:
    """Remove what scoring kept; all processes return when it is gone.

    Args:
        folder: Folder of partial scores.
    """
    barrier()
    if is_main_process() and folder.is_dir():
        shutil.rmtree(folder)
    barrier()


def can_skip(batches: Any) -> bool:
    """Whether single batches can be read without those before them."""
    return isinstance(batches,
                      DataLoader) and batches.batch_sampler is not None


def batches_at(batches: Any, places: Sequence[int]) -> Any:
    """Some of the batches, in any order; of a loader others are not read.

    Args:
        batches: A loader whose order does not change, or anything that can be
            walked, which is read whole.
        places: Places of the batches.

    Returns:
        These batches; has a length.
    """
    if not can_skip(batches):
        every = list(batches)
        return [every[place] for place in places]
    samples = list(batches.batch_sampler)
    options = dict(prefetch_factor=batches.prefetch_factor) if (
        batches.num_workers) else {}
    return DataLoader(
        batches.dataset,
        batch_sampler=[samples[place] for place in places],
        num_workers=batches.num_workers,
        collate_fn=batches.collate_fn,
        pin_memory=batches.pin_memory,
        worker_init_fn=batches.worker_init_fn,
        multiprocessing_context=batches.multiprocessing_context,
        **options)


def repeated_samples(batches: Any) -> int:
    """Samples at the end of this process's share that others have, too.

    Args:
        batches: A loader whose sampler shares samples out one by one and
            repeats the first ones until all processes have as many.

    Returns:
        None or one.
    """
    sampler = getattr(batches, 'sampler', None)
    if get_world_size() == 1 or not getattr(sampler, 'round_up', False):
        return 0
    own = math.ceil(
        (len(batches.dataset) - get_rank()) / get_world_size())
    return len(batches.sampler) - own


def digest(content: Any) -> str:
    """Short name of plain data.

    Args:
        content: Lists, dicts, numbers, text; anything else counts by its type.

    Returns:
        Twelve hexadecimal digits, equal for equal data.
    """
    text = json.dumps(content, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    try:
        return list(value)
    except TypeError:
        return f'{type(value).__module__}.{type(value).__qualname__}'
