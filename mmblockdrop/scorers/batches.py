"""Scoring batches in a fixed order, kept in memory between rounds."""
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch.utils.data import DataLoader


class ShuffledBatches:
    """The batches of a loader in an order that a seed fixes.

    A batch holds the same samples as in the loader; only their order is
    drawn, the same on every process. What has been read stays in memory as
    the loader gave it (decoded frames as uint8) up to a limit, so that later
    passes decode nothing.

    Args:
        loader: Batches. Anything else that can be walked is read whole and
            kept.
        seed: Seed of the order; None keeps the loader's.
        cache_mb: Memory for decoded windows on each process, in MB of 1e6
            bytes; batches beyond it are read again.

    Attributes:
        dataset: That of the loader.
        read: Batches read so far, those from memory left out.
    """

    def __init__(self, loader: Any, seed: Optional[int] = 0,
                 cache_mb: float = 512.) -> None:
        self.loader = loader
        self.dataset = getattr(loader, 'dataset', None)
        self.read = 0
        self._room = cache_mb * 1e6
        self._kept: Dict[int, Any] = {}
        self._samples: List[List[int]] = []
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            self._samples = list(loader.batch_sampler)
            count = len(self._samples)
        else:
            self._kept = dict(enumerate(loader))
            self.read = count = len(self._kept)
        self.order = list(range(count)) if seed is None else (
            np.random.default_rng(seed).permutation(count).tolist())

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Tuple[int, Any]]:
        """Walk through the batches.

        Yields:
            Place of the batch in the loader, and the batch.
        """
        return iter(self.after(0))

    def after(self, done: int) -> '_Rest':
        """What comes behind the first ``done`` batches, which are not read.

        Args:
            done: How many to leave out.

        Returns:
            _Rest: Has a length and gives pairs as above.
        """
        return _Rest(self, self.order[done:])

    def walk(self, order: List[int]) -> Iterator[Tuple[int, Any]]:
        """Give some batches, from memory or read.

        Args:
            order: Their places in the loader.

        Yields:
            Place and batch.
        """
        absent = [i for i in order if i not in self._kept]
        fresh = iter(self._reader(absent)) if absent else iter(())
        for place in order:
            if place in self._kept:
                yield place, self._kept[place]
                continue
            batch = next(fresh)
            self.read += 1
            self._keep(place, batch)
            yield place, batch

    def _keep(self, place: int, batch: Any) -> None:
        size = _bytes(batch)
        if size <= self._room:
            self._room -= size
            self._kept[place] = batch

    def _reader(self, places: List[int]) -> DataLoader:
        """Loader of these batches only."""
        loader = self.loader
        options = {}
        if loader.num_workers:
            options['prefetch_factor'] = loader.prefetch_factor
        return DataLoader(
            loader.dataset,
            batch_sampler=[self._samples[i] for i in places],
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            **options)


class _Rest:
    """Some of the batches, in order."""

    def __init__(self, batches: ShuffledBatches, order: List[int]) -> None:
        self.batches, self.order = batches, order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Tuple[int, Any]]:
        return self.batches.walk(self.order)


def _bytes(value: Any) -> int:
    """Memory of all tensors in nested lists and dicts."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_bytes(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(v) for v in value)
    return 0
