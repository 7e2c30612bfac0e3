"""Rounds of configs that count iterations: endless samplers, no epochs."""
import copy
from typing import Any, Dict, Iterator, List, Optional, Sequence

from mmblockdrop.utils.config import type_name
from mmblockdrop.utils.messages import require_whole

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Sampler

from .schedule import Phase, Validation

#: Samplers that never end.
ENDLESS = ('InfiniteSampler', )


class StretchSampler(Sampler):
    """Samples of one stretch of iterations after another.

    A stretch goes on in the data where the one before has ended; a new pass
    over the data has a new order. What a stretch holds depends on seed and
    number alone, so a resumed run sees what an uninterrupted one does.

    Args:
        dataset: The data, of any length.
        iters: Iterations of a stretch.
        batch_size: Samples of an iteration, per process.
        shuffle: Draw an order for every pass.
        seed: Seed of the orders. Defaults to None, one that all processes
            agree on.
    """

    def __init__(self,
                 dataset: Any,
                 iters: int,
                 batch_size: int,
                 shuffle: bool = True,
                 seed: Optional[int] = None) -> None:
        self.size = len(dataset)
        self.samples = iters * batch_size
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to a stretch.

        Args:
            epoch: Its number, from zero.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        """Samples of this process in a stretch."""
        return self.samples

    def __iter__(self) -> Iterator[int]:
        """Places in the data."""
        number, order = -1, []
        first = self.epoch * self.samples * self.world_size + self.rank
        for step in range(self.samples):
            place = first + step * self.world_size
            if place // self.size != number:
                number = place // self.size
                order = self._order(number)
            yield order[place % self.size]

    def _order(self, number: int) -> List[int]:
        """Order of one pass over the data."""
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed(self.seed + number)
        return torch.randperm(self.size, generator=generator).tolist()


def ending_loader(dataloader: Any, iters: Optional[int] = None) -> Any:
    """Config of a loader whose epochs end.

    Args:
        dataloader: ``train_dataloader``.
        iters: Iterations of an epoch. Defaults to None, one pass over the
            data.

    Returns:
        A config with another sampler where that is needed; otherwise as it
        was given.

    Raises:
        ValueError: ``iters`` with a loader whose batches have a sampler of
            their own, or that is built already.
    """
    sampler = dataloader.get('sampler') if isinstance(dataloader,
                                                      dict) else None
    kind = type_name(sampler)
    if iters is None and kind not in ENDLESS:
        return dataloader
    if sampler is None or dataloader.get('batch_sampler'):
        found = 'a batch_sampler' if sampler else 'no config of a sampler'
        raise ValueError('train_cfg.iters_per_round needs '
                         f'train_dataloader.sampler, found {found}; '
                         'train_cfg.epochs_per_round works with any loader '
                         'that ends')
    loader: Dict[str, Any] = {
        key: copy.deepcopy(value)
        for key, value in dataloader.items()
    }
    kept = {k: v for k, v in sampler.items() if k in ('shuffle', 'seed')}
    loader['sampler'] = dict(type='DefaultSampler', **kept)
    if iters is not None:
        loader['sampler'] = dict(
            type=StretchSampler,
            iters=iters,
            batch_size=loader['batch_size'],
            **kept)
    return loader


def require_length(dataset: Any) -> None:
    """Check that data has a length, before it is read.

    Args:
        dataset: ``train_dataloader.dataset``.

    Raises:
        ValueError: It is a stream.
    """
    kind: Any = type(dataset)
    if isinstance(dataset, dict):
        kind = dataset.get('type')
        if isinstance(kind, str):
            kind = DATASETS.get(kind)
    if isinstance(kind, type) and not hasattr(kind, '__len__'):
        raise ValueError(
            f'train_dataloader.dataset.type={kind.__name__!r} has no length: '
            'expected a data set with __len__ and __getitem__, so that a '
            'round ends and a resumed one sees the same samples')


def stretches(iters: int, validation: Dict[str, Any],
              subset: Any) -> Phase:
    """Turn a round of iterations into stretches between evaluations.

    Args:
        iters: ``train_cfg.iters_per_round``.
        validation: ``train_cfg.validation``, in iterations.
        subset: ``train_cfg.subset``, which counts epochs.

    Returns:
        A phase whose epochs are stretches.

    Raises:
        ValueError: The interval does not divide the round, or settings that
            count epochs.
    """
    key = 'train_cfg.iters_per_round'
    require_whole(key, iters, 1)
    for name, value in (('subset', subset),
                        ('validation.dynamic_intervals',
                         validation.get('dynamic_intervals'))):
        if value:
            raise ValueError(f'train_cfg.{name} counts epochs and cannot '
                             f'stand beside {key}={iters}')
    interval = validation.get('interval', iters)
    require_whole('train_cfg.validation.interval', interval, 1)
    if iters % interval:
        fits = [n for n in range(1, iters + 1) if iters % n == 0]
        nearest = min(fits, key=lambda n: abs(n - interval))
        raise ValueError(
            f'train_cfg.validation.interval={interval} does not divide '
            f'{key}={iters}; the nearest that does is {nearest}')
    begin = validation.get('begin', 1)
    return Phase(iters // interval, Validation(-(-begin // interval)))


def save_by_epoch(runner: Runner, hooks: Sequence[Any]) -> None:
    """Let checkpoints be written where rounds can be resumed.

    Args:
        runner: The runner, for its log.
        hooks: Its hooks; a ``CheckpointHook`` that counts iterations writes
            after every epoch instead.
    """
    for hook in hooks:
        if isinstance(hook, CheckpointHook) and not hook.by_epoch:
            runner.logger.info(
                'CheckpointHook counts iterations, and rounds are resumed '
                'after epochs: checkpoints are written after every epoch '
                f'instead of every {hook.interval} iterations.')
            hook.by_epoch, hook.interval = True, 1
            hook.filename_tmpl = 'epoch_{}.pth'
