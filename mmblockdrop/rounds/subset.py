"""Training data of the rounds that see only a part of them."""
import random
from typing import Any, Dict

import torch
from torch.utils.data import Dataset

from .epoch import announce_epoch


class EpochSubset(Dataset):
    """A part of a data set, drawn afresh for every epoch.

    The draw depends on seed and epoch alone, so it is the same on every
    process and after an interruption. Workers that stay alive see it.

    Args:
        dataset: The whole data.
        ratio: Share of the samples, in (0, 1].
        seed: Seed of the draws.
    """

    def __init__(self, dataset: Dataset, ratio: float, seed: int = 0) -> None:
        self.dataset, self.seed = dataset, seed
        count = max(1, int(len(dataset) * ratio))
        self.chosen = torch.zeros(count, dtype=torch.long).share_memory_()
        self.set_epoch(0)

    @property
    def metainfo(self) -> Dict[str, Any]:
        """That of the whole data."""
        return getattr(self.dataset, 'metainfo', {})

    def set_epoch(self, epoch: int) -> None:
        """Draw the part for an epoch.

        Args:
            epoch: Number of the epoch, from zero.
        """
        announce_epoch(self.dataset, epoch)
        order = random.Random(1000003 * self.seed + epoch)
        chosen = order.sample(range(len(self.dataset)), len(self.chosen))
        self.chosen.copy_(torch.tensor(chosen))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.chosen[index])]
