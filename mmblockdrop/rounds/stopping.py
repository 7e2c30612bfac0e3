"""How many blocks may go, and when the run stops by itself."""
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from mmblockdrop.compression import Id, Structure
from mmblockdrop.utils.messages import require_choice, require_finite

#: What a budget may be set for: key of the record to what it is called.
COSTS = dict(
    params='parameters',
    macs='MACs',
    paper_macs='MACs by the counting of the paper',
    latency_ms='milliseconds of latency')


def count_drops(drops: Union[int, str, None],
                depth: int,
                protected: int,
                bounded: bool = False) -> int:
    """Blocks to drop out of a stack.

    Args:
        drops: A number, a share such as '25%', or None for as many as
            possible.
        depth: Blocks of the stack.
        protected: How many of them stay.
        bounded: Whether a tolerance or a budget ends the run, so that
            ``drops`` may be left out.

    Returns:
        The number.

    Raises:
        ValueError: Too many, too few, or not a number.
    """
    most = depth - max(protected, 1)
    if drops is None:
        if not bounded:
            raise ValueError(
                'train_cfg.drops is missing: give a number of blocks, a '
                "share such as '25%', or an end by train_cfg.stop.tolerance "
                'or train_cfg.stop.budget.')
        count = most
    elif isinstance(drops, str):
        try:
            count = round(float(drops.rstrip('%')) / 100 * depth)
        except ValueError:
            raise ValueError(f'train_cfg.drops={drops!r}: expected a number '
                             "of blocks or a share such as '25%'") from None
    else:
        count = drops
    if not isinstance(count, int):
        near = f"'{100 * count:g}%'" if 0 < count < 1 else f'{round(count)}'
        raise ValueError(
            f'train_cfg.drops={drops!r}: expected a whole number of blocks '
            f"or a share such as '25%'; did you mean {near}?")
    if not 1 <= count <= most:
        raise ValueError(
            f'train_cfg.drops={drops!r} means {count} of {depth} blocks with '
            f'{protected} protected: expected 1 to {most}')
    return count


def check_protected(protect: Sequence[Id], structure: Structure) -> None:
    """Check that what is protected exists, and stands there once.

    Args:
        protect: ``train_cfg.protect``.
        structure: What can be removed.

    Raises:
        ValueError: Names the block.
    """
    structure.check_known(protect, 'train_cfg.protect')
    check_once(protect, 'train_cfg.protect')


def check_once(parts: Sequence[Id], key: str) -> None:
    """Check that nothing is named twice.

    Args:
        parts: Ids.
        key: Config key they come from.

    Raises:
        ValueError: Names the block.
    """
    twice = [i for i in dict.fromkeys(parts) if list(parts).count(i) > 1]
    if twice:
        raise ValueError(f'{key}={list(parts)} names '
                         f'{", ".join(map(str, twice))} twice')


class Stopping:
    """The two rules by which a run stops before its last round.

    Both look at the record alone, so an interrupted run decides as an
    uninterrupted one.

    Args:
        tolerance: How far the metric after alignment may fall under the
            teacher's, in the unit of the metric. A round that falls further is
            rolled back (the paper's rule).
        budget: ``params``, ``macs`` or ``latency_ms`` to a number, or to a
            share of the full model such as '75%'. The run stops with the first
            round that meets all of them. Latency is judged by its ratio to
            that of the full model.
        higher_is_better: Direction of the metric.

    Raises:
        ValueError: A negative tolerance, an unknown key, no number.
    """

    def __init__(self,
                 tolerance: Optional[float] = None,
                 budget: Optional[Dict[str, Union[float, str]]] = None,
                 higher_is_better: bool = True) -> None:
        if tolerance is not None and require_finite(
                tolerance, 'train_cfg.stop.tolerance') < 0:
            raise ValueError(f'train_cfg.stop.tolerance={tolerance!r}: '
                             'expected zero or more')
        self.tolerance = tolerance
        self.budget = dict(budget or {})
        self.sign = 1 if higher_is_better else -1
        for key, value in self.budget.items():
            self._check(key, value)

    @property
    def given(self) -> bool:
        """Whether there is a rule."""
        return self.tolerance is not None or bool(self.budget)

    def verdict(self, record: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """Why the run stops after its last round.

        Args:
            record: The record, with the last round aligned.

        Returns:
            ``reason`` ('tolerance' or 'budget'), ``round`` and a sentence,
            ``text``; None if the run goes on.
        """
        last = record['rounds'][-1] if record['rounds'] else None
        if last is None or 'metric_after' not in last:
            return None
        name, number = record['metric'], last['round']
        teacher = self._teacher(record)
        fall = self.sign * (teacher - last['metric_after'])
        if self.tolerance is not None and not self.within(
                record, last['metric_after']):
            return dict(
                reason='tolerance',
                round=number,
                text=f'Round {number} is rolled back: {name} '
                f'{last["metric_after"]:.4g} is {fall:.4g} worse than '
                f"the teacher's {teacher:.4g}, more than the tolerance "
                f'{self.tolerance:g}.')
        if self.budget and not self.over(record, last):
            met = ', '.join(
                f'{self.cost(record, last, k):.4g} of {v:.4g} {COSTS[k]}'
                for k, v in self.limits(record).items())
            return dict(
                reason='budget',
                round=number,
                text=f'Round {number} meets the budget: {met}.')
        return None

    def within(self, record: Dict[str, Any], metric: float) -> bool:
        """Whether a metric is within the tolerance.

        Args:
            record: The record of the run.
            metric: The metric of a model.

        Returns:
            True or False. There is a tolerance.
        """
        assert self.tolerance is not None
        fall = self.sign * (self._teacher(record) - metric)
        return fall <= self.tolerance + 1e-12

    @staticmethod
    def _teacher(record: Dict[str, Any]) -> float:
        """Metric of the uncompressed model."""
        baseline = record['baseline']
        return baseline.get('teacher_metric', baseline['metric'])

    def spent(self, record: Dict[str, Any], dropped: int) -> Dict[str, Any]:
        """Why the run ends after its last round.

        Args:
            record: The record of the run.
            dropped: Blocks that the rounds have dropped.

        Returns:
            Like :meth:`verdict`, with ``reason`` 'drops'.
        """
        last = record['rounds'][-1]
        text = f'{dropped} blocks are dropped.'
        over = self.over(record, last)
        if over:
            text += ' The budget is not met: ' + ', '.join(
                f'{self.cost(record, last, k):.4g} of {v:.4g} {COSTS[k]}'
                for k, v in over.items()) + '.'
        return dict(reason='drops', round=last['round'], text=text)

    def check_start(self, record: Dict[str, Any]) -> None:
        """Check that a budget is not met before anything is dropped.

        Args:
            record: The record of the run, with its baseline.

        Raises:
            ValueError: Says what it costs now, or that it cannot be measured.
        """
        baseline = record['baseline']
        missing = [key for key in self.budget if key not in baseline]
        if missing:
            raise ValueError(
                f'train_cfg.stop.budget={self.budget}: {", ".join(missing)} '
                'of this model cannot be measured, the log says why; expected '
                f'one of {[key for key in COSTS if key in baseline]}')
        if self.budget and not self.over(record, baseline):
            now = ', '.join(
                f'{k} {self.cost(record, baseline, k):.4g} of {v:.4g}'
                for k, v in self.limits(record).items())
            raise ValueError(f'train_cfg.stop.budget={self.budget} is met '
                             f'before any block is dropped: {now}')

    def limits(self, record: Dict[str, Any]) -> Dict[str, float]:
        """The budget in numbers.

        Args:
            record: The record of the run.

        Returns:
            Cost to the most that is allowed.
        """
        full = record.get('full', record['baseline'])
        return {
            key: share * full[key] if relative else share
            for key, (share, relative) in (
                (k, _read(v)) for k, v in self.budget.items())
        }

    def over(self, record: Dict[str, Any],
             cost: Dict[str, float]) -> Dict[str, float]:
        """What of a cost is over the budget.

        Args:
            record: The record of the run.
            cost: ``params``, ``macs``, ``latency_ms``.

        Returns:
            The limits that are not met.
        """
        return {
            key: limit
            for key, limit in self.limits(record).items()
            if self.cost(record, cost, key) > limit
        }

    @staticmethod
    def cost(record: Dict[str, Any], cost: Dict[str, Any], key: str) -> float:
        """One cost, in the unit of its limit.

        Latency is that of the full model times the ratio of both, which are
        timed in turn; records of earlier versions have no ratio.

        Args:
            record: The record of the run.
            cost: A round of it, or its baseline.
            key: Which cost.

        Returns:
            The number.
        """
        full = record.get('full', record['baseline'])
        if key == 'latency_ms' and 'latency_ratio' in cost:
            return cost['latency_ratio'] * full[key]
        return cost[key]

    @staticmethod
    def _check(key: str, value: Any) -> None:
        """Check one limit of the budget."""
        require_choice('key of train_cfg.stop.budget', key, COSTS)
        try:
            number, _ = _read(value)
        except (TypeError, ValueError):
            number = 0.
        if not number > 0:
            raise ValueError(f'train_cfg.stop.budget[{key!r}]={value!r}: '
                             "expected a positive number or a share such as "
                             "'75%'")


def _read(value: Union[float, str]) -> Tuple[float, bool]:
    """Number of a limit, and whether it is a share of the full model."""
    if isinstance(value, str):
        if not value.endswith('%'):
            raise ValueError(value)
        return float(value[:-1]) / 100, True
    return float(value), False
