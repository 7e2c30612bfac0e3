"""What scoring has found so far, batch by batch, on disk."""
import hashlib
import json
import math
import pickle
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

from mmblockdrop.compat.checkpoint import load_file
from mmblockdrop.utils.io import whole_file
from mmblockdrop.utils.progress import with_progress

import torch
from mmengine.dist import (all_reduce, barrier, get_rank, get_world_size,
                           is_main_process)
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from .batches import ShuffledBatches

FOLDER = 'blockdrop_scoring'


class Journal:
    """Lets scoring go on after the last batch it had finished.

    Every process writes what it found since its last file into a new one,
    to a temporary name that is renamed. Files of another scoring (other
    weights, data, candidates, rule or number of processes) are not read.

    Args:
        folder: Folder of its own.
        key: What must be equal for the files to be of use; plain data.
        every: Seconds between two files.
    """

    def __init__(self, folder: Path, key: Any, every: float = 10.) -> None:
        self.folder = folder
        self.key = digest([key, get_world_size()])
        self.every = every
        self._new: List[Any] = []
        self._count = 0
        self._written = time.monotonic()

    def read(self) -> List[Any]:
        """What an interrupted scoring kept.

        Returns:
            One entry per batch, as many on every process.
        """
        states: List[Any] = []
        for path in sorted(self.folder.glob(f'rank{get_rank()}_*.pt')):
            content = self._load(path)
            if content is None or content['first'] != len(states):
                break
            states += content['states']
        count = torch.tensor(len(states))
        all_reduce(count, 'min')
        self._count = int(count)
        if not self._count:
            self.clear()
        self._drop_files_behind()
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
        with whole_file(self._path(self._count)) as temporary:
            torch.save(
                dict(key=self.key, first=self._count, states=self._new),
                temporary)
        self._count += len(self._new)
        self._new = []
        self._written = time.monotonic()

    def clear(self) -> None:
        """Remove the files; all processes return when they are gone."""
        clear(self.folder)

    def _path(self, first: int) -> Path:
        return self.folder / f'rank{get_rank()}_{first:08d}.pt'

    def _load(self, path: Path) -> Optional[dict]:
        try:
            content = load_file(path, map_location=None)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError,
                ValueError, ImportError) as error:
            print_log(f'{path} is not used: {error}', 'current')
            return None
        return content if content.get('key') == self.key else None

    def _drop_files_behind(self) -> None:
        """Forget batches that not every process has finished.

        The file that holds the first of them is overwritten later under
        another name, so what it holds beyond is cut off here.
        """
        for path in sorted(self.folder.glob(f'rank{get_rank()}_*.pt')):
            content = self._load(path)
            keep = self._count - int(path.stem.split('_')[1])
            if content is None or keep <= 0:
                path.unlink()
            elif keep < len(content['states']):
                content['states'] = content['states'][:keep]
                with whole_file(path) as temporary:
                    torch.save(content, temporary)


def clear(folder: Path) -> None:
    """Remove what scoring kept; all processes return when it is gone.

    Args:
        folder: Folder of a journal.
    """
    barrier()
    if is_main_process() and folder.is_dir():
        shutil.rmtree(folder)
    barrier()


def walk(batches: Any,
         journal: Optional[Journal],
         take: Callable[[], Any],
         put: Callable[[Any], None],
         padded: bool = True) -> Iterator[Any]:
    """Walk through batches, keeping what each gave.

    Args:
        batches: Batches.
        journal: None keeps nothing.
        take: Gives what the last batch added.
        put: Takes back what ``take`` gave in an earlier process.
        padded: Whether a sample that several processes see, because their
            number does not divide that of the samples, stays in. Metrics leave
            it out themselves; sums must not count it twice.

    Yields:
        The batches that an interrupted scoring has not finished.
    """
    kept = isinstance(batches, ShuffledBatches)
    loader = batches.loader if kept else batches
    if not isinstance(loader, DataLoader):
        yield from with_progress(batches)
        return
    states = journal.read() if journal is not None else []
    for state in states:
        put(state)
    if states:
        print_log(f'{len(states)} of {len(batches)} batches were scored '
                  'before the interruption', 'current')
    extra = 0 if padded else repeated_samples(loader)
    done = len(states)
    rest = with_progress(
        batches.after(done) if kept else batches_after(batches, done))
    for number, batch in enumerate(rest, done + 1):
        if kept:
            _, batch = batch
        if extra and number == len(batches) and isinstance(batch, dict):
            batch = {k: v[:-extra] for k, v in batch.items()}
            if not any(len(v) for v in batch.values()):
                batch = None
        if batch is not None:
            yield batch
        if journal is not None:
            journal.add(take())


def repeated_samples(batches: DataLoader) -> int:
    """Samples at the end of this process's share that others have, too.

    Args:
        batches: Batches of a sampler that shares samples out one by one and
            repeats the first ones until all have as many.

    Returns:
        None or one.
    """
    sampler = batches.sampler
    if get_world_size() == 1 or not getattr(sampler, 'round_up', False):
        return 0
    own = math.ceil(
        (len(batches.dataset) - get_rank()) / get_world_size())
    return len(sampler) - own


def batches_after(batches: Any, done: int) -> Any:
    """The batches of a loader without the first ones, which are not read.

    Args:
        batches: Batches in an order that does not change.
        done: How many to leave out; with none the loader itself.

    Returns:
        The rest.
    """
    if not done:
        return batches
    options = dict(prefetch_factor=batches.prefetch_factor) if (
        batches.num_workers) else {}
    return DataLoader(
        batches.dataset,
        batch_sampler=list(batches.batch_sampler)[done:],
        num_workers=batches.num_workers,
        collate_fn=batches.collate_fn,
        pin_memory=batches.pin_memory,
        worker_init_fn=batches.worker_init_fn,
        **options)


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
