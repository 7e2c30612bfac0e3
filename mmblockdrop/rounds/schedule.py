"""How each round is trained: epochs, seeds, evaluations, data, optimizer."""
import copy
import math
import random
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmblockdrop.registry import HOOKS
from mmblockdrop.utils.messages import require_choice, require_whole

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from .rebuild import Recipe

#: Keys of ``train_cfg.subset``.
SUBSET_KEYS = ('ratio', 'seed', 'rounds', 'epochs', 'validation',
               'param_scheduler')
#: Names for the rounds that ``train_cfg.subset`` is for.
NAMED_ROUNDS = ('first_half', 'all_but_last')


@dataclass
class Validation:
    """Which epochs of a round are evaluated; the last one always is.

    Args:
        begin: First epoch of the round that is evaluated.
        interval: Epochs between evaluations.
        dynamic_intervals: Epoch of the round and interval that holds from
            there on, as in mmengine.
    """
    begin: int = 1
    interval: int = 1
    dynamic_intervals: Optional[Sequence[Tuple[int, int]]] = None

    def due(self, epoch: int) -> bool:
        """Whether an epoch is evaluated, if it is not the last.

        Args:
            epoch: Number in the round, from one.

        Returns:
            True if it is.
        """
        interval = self.interval
        for milestone, later in sorted(self.dynamic_intervals or ()):
            if epoch >= milestone:
                interval = later
        return epoch >= self.begin and epoch % interval == 0


@dataclass
class Phase:
    """How a round is trained.

    Args:
        epochs: Epochs of the round.
        validation: Which of them are evaluated.
        dataloader: Training data.
        recipe: Optimizer and schedulers.
    """
    epochs: int
    validation: Validation = field(default_factory=Validation)
    dataloader: Any = None
    recipe: Any = None

    def due(self, epoch: int) -> bool:
        """Whether an epoch is evaluated; the last one always is.

        Args:
            epoch: Number in the round, from one.

        Returns:
            True if it is.
        """
        return epoch == self.epochs or self.validation.due(epoch)


class Schedule:
    """The phases of a run, round by round.

    Args:
        full: Rounds that train on everything.
        subset: Rounds that train on a subset of the data.
        rounds: Which rounds those are.
        n_rounds: Rounds of the run.
    """

    def __init__(self,
                 full: Phase,
                 subset: Optional[Phase] = None,
                 rounds: Union[str, Sequence[int]] = 'first_half',
                 n_rounds: int = 1) -> None:
        self.full, self.subset = full, subset
        self.rounds = rounds
        self.n_rounds = n_rounds
        #: Rounds whose blocks were gone before the first.
        self.before = 0

    def __getitem__(self, number: int) -> Phase:
        """Phase of a round.

        Args:
            number: Round, from one.

        Returns:
            How it is trained.
        """
        if self.subset is not None and on_subset(self.rounds, number,
                                                 self.n_rounds, self.before):
            return self.subset
        return self.full

    @property
    def phases(self) -> List[Phase]:
        """Those there are, whether or not a round has them."""
        return [self.full] + ([self.subset] if self.subset else [])

    def epochs(self, rounds: int) -> int:
        """Epochs of the first rounds together.

        Args:
            rounds: How many.

        Returns:
            Their epochs.
        """
        return sum(self[n].epochs for n in range(1, rounds + 1))

    def first_epoch(self, earlier: Sequence[Dict[str, Any]]) -> int:
        """Epochs before a round, also where the config has changed since.

        Args:
            earlier: Entries of the rounds before.

        Returns:
            Their epochs.
        """
        planned = self.epochs(len(earlier))
        return earlier[-1].get('last_epoch', planned) if earlier else 0

    @property
    def iters(self) -> int:
        """Iterations of all rounds."""
        return sum(self[n].epochs * len(self[n].dataloader)
                   for n in range(1, self.n_rounds + 1))


def on_subset(rounds: Union[str, Sequence[int]],
              number: int,
              n_rounds: int,
              before: int = 0) -> bool:
    """Whether a round trains on a subset of the data.

    Args:
        rounds: 'first_half', 'all_but_last' or numbers of rounds. Half of an
            odd number is rounded down, and blocks that were gone before the
            run count as rounds, both as in the published code.
        number: Round of this run, from one.
        n_rounds: Rounds of this run.
        before: Rounds whose blocks were gone before.

    Returns:
        True if it does.
    """
    if rounds == 'first_half':
        return number + before <= (n_rounds + before) // 2
    if rounds == 'all_but_last':
        return number < n_rounds
    return number in rounds


def build_schedule(runner: Runner, full: Phase, subset: Optional[dict],
                   configured: Any, n_rounds: int) -> Schedule:
    """Make the schedule of a run.

    Args:
        runner: The runner, with its configs not yet built.
        full: As ``train_cfg`` describes it, with ``dataloader``.
        subset: ``train_cfg.subset``.
        configured: ``train_dataloader``.
        n_rounds: Rounds of the run.

    Returns:
        The schedule.

    Raises:
        ValueError: ``subset`` has wrong keys or values.
    """
    phase, rounds = None, 'first_half'
    if subset is not None:
        rounds = check_subset(subset, n_rounds)
        phase = _subset_phase(runner, full, subset, configured)
    full.recipe = Recipe(runner, full.epochs,
                         full.epochs * len(full.dataloader))
    return Schedule(full, phase, rounds, n_rounds)


def check_subset(subset: Dict[str, Any], n_rounds: int) -> Any:
    """Check ``train_cfg.subset``.

    Args:
        subset: The setting.
        n_rounds: Rounds of the run.

    Returns:
        The rounds it is for: a name or a list of numbers.

    Raises:
        ValueError: Names the key, what was found and what is possible.
    """
    for key in subset:
        require_choice('key of train_cfg.subset', key, SUBSET_KEYS)
    ratio = subset.get('ratio', 1.)
    if not 0 < ratio <= 1:
        raise ValueError(f'train_cfg.subset.ratio={ratio!r}: expected a '
                         'share in (0, 1]')
    require_whole('train_cfg.subset.epochs', subset.get('epochs', 1), 1)
    rounds = subset.get('rounds', 'first_half')
    if rounds in NAMED_ROUNDS:
        return rounds
    if isinstance(rounds, str) or not all(
            isinstance(n, int) and 1 <= n <= n_rounds for n in rounds):
        raise ValueError(f'train_cfg.subset.rounds={rounds!r}: expected '
                         f"{', '.join(map(repr, NAMED_ROUNDS))} or a list of "
                         f'rounds from 1 to {n_rounds}')
    return list(rounds)


def _subset_phase(runner: Runner, full: Phase, subset: Dict[str, Any],
                  configured: Any) -> Phase:
    """Phase of the rounds on a subset of the data."""
    epochs = subset.get('epochs', full.epochs)
    dataloader = _subset_loader(runner, full.dataloader, subset, configured)
    return Phase(
        epochs=epochs,
        validation=replace(full.validation, **subset.get('validation', {})),
        dataloader=dataloader,
        recipe=Recipe(runner, epochs, epochs * len(dataloader),
                      subset.get('param_scheduler')))


def _subset_loader(runner: Runner, whole: DataLoader, subset: Dict[str, Any],
                   configured: Any) -> DataLoader:
    """Loader of the subset, like that of the whole."""
    ratio = subset.get('ratio', 1.)
    if ratio == 1:
        return whole
    if not isinstance(configured, dict):
        raise ValueError('train_cfg.subset needs train_dataloader to be a '
                         f'config, found {type(configured).__name__}.')
    cfg = {k: copy.deepcopy(v) for k, v in configured.items()
           if k != 'dataset'}
    cfg['dataset'] = EpochSubset(whole.dataset, ratio, subset.get('seed', 0))
    return Runner.build_dataloader(cfg, seed=runner.seed)


def best_epoch(epochs: Dict[str, float], sign: int) -> str:
    """The epoch of a round that goes on; ties go to the earliest.

    Args:
        epochs: Epoch of the round to metric.
        sign: 1 if higher is better, -1 otherwise.

    Returns:
        Its number.
    """
    return max(epochs, key=lambda e: (sign * epochs[e], -int(e)))


def rounds_before(dropped: int, per_round: int) -> int:
    """Rounds that it takes to drop some blocks.

    Args:
        dropped: Blocks.
        per_round: Blocks of a round.

    Returns:
        Rounds.
    """
    return math.ceil(dropped / per_round)


# ------------------------------------------------------------------- seeds
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


class EpochSubset(Dataset):
    """A subset of a data set, drawn afresh for every epoch.

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
        """Draw the subset of an epoch.

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
