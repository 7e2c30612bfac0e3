"""How each round is trained: epochs, evaluations, data, optimizer."""
import copy
import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .rebuild import Recipe
from .subset import EpochSubset

#: Keys of ``train_cfg.subset``.
SUBSET_KEYS = ('ratio', 'seed', 'rounds', 'epochs', 'val_begin',
               'val_interval', 'dynamic_intervals', 'param_scheduler')
#: Names for the rounds that ``train_cfg.subset`` is for.
NAMED_ROUNDS = ('first_half', 'all_but_last')


@dataclass
class Phase:
    """How a round is trained.

    Args:
        epochs: Epochs of the round.
        val_begin: First epoch of the round that is evaluated.
        val_interval: Epochs between evaluations.
        dynamic_intervals: Epoch of the round and interval that holds from
            there on, as in mmengine.
        dataloader: Training data.
        recipe: Optimizer and schedulers.
    """
    epochs: int
    val_begin: int = 1
    val_interval: int = 1
    dynamic_intervals: Sequence[Tuple[int, int]] = ()
    dataloader: Any = None
    recipe: Any = None

    def due(self, epoch: int) -> bool:
        """Whether an epoch is evaluated; the last one always is.

        Args:
            epoch: Number in the round, from one.

        Returns:
            True if it is.
        """
        interval = self.val_interval
        for milestone, later in sorted(self.dynamic_intervals):
            if epoch >= milestone:
                interval = later
        return epoch == self.epochs or (epoch >= self.val_begin
                                        and epoch % interval == 0)


class Schedule:
    """The phases of a run, round by round.

    Args:
        full: Rounds that train on everything.
        part: Rounds that train on a part.
        rounds: Which rounds those are.
        n_rounds: Rounds of the run.
    """

    def __init__(self,
                 full: Phase,
                 part: Optional[Phase] = None,
                 rounds: Union[str, Sequence[int]] = 'first_half',
                 n_rounds: int = 1) -> None:
        self.full, self.part = full, part
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
        if self.part is not None and in_part(self.rounds, number,
                                             self.n_rounds, self.before):
            return self.part
        return self.full

    @property
    def phases(self) -> List[Phase]:
        """Those there are, whether or not a round has them."""
        return [self.full] + ([self.part] if self.part else [])

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


def in_part(rounds: Union[str, Sequence[int]],
            number: int,
            n_rounds: int,
            before: int = 0) -> bool:
    """Whether a round trains on a part of the data.

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
    part = None
    rounds: Union[str, List[int]] = 'first_half'
    if subset is not None:
        rounds = check_subset(subset, n_rounds)
        part = _part(runner, full, subset, configured)
    full.recipe = Recipe(runner, full.epochs,
                         full.epochs * len(full.dataloader))
    return Schedule(full, part, rounds, n_rounds)


def check_subset(subset: Dict[str, Any],
                 n_rounds: int) -> Union[str, List[int]]:
    """Refuse a wrong ``train_cfg.subset``.

    Args:
        subset: The setting.
        n_rounds: Rounds of the run.

    Returns:
        The rounds it is for.

    Raises:
        ValueError: Names the key, what was found and what is possible.
    """
    unknown = sorted(set(subset) - set(SUBSET_KEYS))
    if unknown:
        raise ValueError(f'train_cfg.subset has no {unknown}; its keys are '
                         f'{list(SUBSET_KEYS)}.')
    ratio = subset.get('ratio', 1.)
    if not 0 < ratio <= 1:
        raise ValueError(f'train_cfg.subset.ratio={ratio!r} must be in '
                         '(0, 1].')
    if subset.get('epochs', 1) < 1:
        raise ValueError(f'train_cfg.subset.epochs={subset["epochs"]!r} must '
                         'be at least 1.')
    rounds = subset.get('rounds', 'first_half')
    if rounds in NAMED_ROUNDS:
        return rounds
    if isinstance(rounds, str) or not all(
            isinstance(n, int) and 1 <= n <= n_rounds for n in rounds):
        raise ValueError(f'train_cfg.subset.rounds={rounds!r}: expected '
                         f"{', '.join(map(repr, NAMED_ROUNDS))} or a list of "
                         f'rounds from 1 to {n_rounds}.')
    return list(rounds)


def _part(runner: Runner, full: Phase, subset: Dict[str, Any],
          configured: Any) -> Phase:
    """Phase of the rounds on a part of the data."""
    epochs = subset.get('epochs', full.epochs)
    dataloader = _part_of(runner, full.dataloader, subset, configured)
    return Phase(
        epochs=epochs,
        val_begin=subset.get('val_begin', full.val_begin),
        val_interval=subset.get('val_interval', full.val_interval),
        dynamic_intervals=subset.get('dynamic_intervals',
                                     full.dynamic_intervals) or (),
        dataloader=dataloader,
        recipe=Recipe(runner, epochs, epochs * len(dataloader),
                      subset.get('param_scheduler')))


def _part_of(runner: Runner, whole: DataLoader, subset: Dict[str, Any],
             configured: Any) -> DataLoader:
    """Loader of the part, like that of the whole."""
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
