"""Random draws that follow from seed, epoch and index."""
import contextlib
import random
from typing import Iterator

import numpy as np
import torch


class EpochDraws:
    """Ties the draws of a sample to (seed, epoch, index).

    The epoch lies in shared memory and so reaches workers that run already.

    Args:
        seed: Seed of all epochs.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = torch.full((1, ), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; before the first, draws are left as they are."""
        self._epoch.fill_(epoch)

    @contextlib.contextmanager
    def of(self, index: int) -> Iterator[None]:
        """Draws of ``random`` and ``numpy`` of a sample, then as before.

        Args:
            index: The sample.
        """
        epoch = int(self._epoch)
        if epoch < 0:
            yield
            return
        states = random.getstate(), np.random.get_state()
        seed = ((self.seed * 1000003 + epoch) * 1000003 + index) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
