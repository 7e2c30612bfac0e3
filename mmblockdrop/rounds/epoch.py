"""Tie the random draws of an epoch to its number."""
import random
from typing import Any, Optional

from mmblockdrop.registry import HOOKS

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner


def announce_epoch(dataset: Any, epoch: int) -> None:
    """Tell a data set which epoch begins, if it wants to know.

    Args:
        dataset: Training data, plain or wrapped.
        epoch: Number of the epoch, from zero.
    """
    if hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(epoch)


def seed_epoch(dataset: Any, seed: Optional[int], epoch: int) -> None:
    """Make an epoch draw the same numbers however the run got there.

    Args:
        dataset: Training data; told through ``set_epoch`` if it has that.
        seed: Seed of the run; None leaves the generators of the process alone.
        epoch: Number of the epoch, from zero.
    """
    announce_epoch(dataset, epoch)
    if seed is None:
        return
    value = (seed + 7919 * epoch + 104729 * get_rank()) % 2**32
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def follow_seed(dataloader: Any, old: Optional[int],
                new: Optional[int]) -> None:
    """Let the order of the data follow the seed of a resumed run.

    A run without a seed of its own draws one; resuming takes over the one
    in the checkpoint after the loaders were built.

    Args:
        dataloader: Training data.
        old: Seed that it was built with.
        new: Seed of the run now.
    """
    if getattr(dataloader.sampler, 'seed', None) == old and new is not None:
        dataloader.sampler.seed = new


@HOOKS.register_module()
class SeedEpochHook(Hook):
    """Seed every training epoch, for runs in mmengine's own loops.

    With it a resumed run sees the crops and the dropout of an uninterrupted
    one. ``DistillationLoop`` does the same by itself.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the epoch that begins."""
        seed_epoch(runner.train_dataloader.dataset, runner.seed, runner.epoch)
