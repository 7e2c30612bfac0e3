"""Who is still in, given a value per candidate and batch."""
from typing import Dict, List, NamedTuple, Sequence

import numpy as np

from .bounds import radius

#: The better half goes on at every check, whatever the differences.
HALVING = 'halving'
#: Gap of one that left without being behind.
TIE = 1e-12


class Lost(NamedTuple):
    """A candidate that left the race.

    Attributes:
        number: Its number.
        leader: Who was ahead of it.
        gap: By how much on average over the batches both saw, in the
            criterion's unit; above zero.
    """
    number: int
    leader: int
    gap: float


class Race:
    """Lets candidates go that are behind.

    Batches come in random order. At a check every candidate is compared
    with the leader on the batches seen so far, batch by batch, which takes
    away what makes a batch easy or hard for all. It leaves if the mean gap
    exceeds the confidence radius of :func:`~.bounds.radius`, taken at
    ``delta`` divided by the number of comparisons that the whole race can
    make. So the candidate with the best mean over all batches is lost with
    probability at most ``delta``, by the bound's own assumptions.

    Args:
        candidates: Numbers.
        total: Batches of the whole subset.
        checks: Numbers of seen batches at which candidates may leave.
        higher_is_better: Direction of the values.
        delta: Probability of losing the best.
        bound: See :func:`~.bounds.radius`; or ``'halving'``.
        width: Length of the interval that holds all values.
        keep: So many stay in any case.
        corrected: Whether ``delta`` holds for the whole race. If not, it is
            that of a single comparison, and the race as a whole loses the best
            more often. Defaults to True.
    """

    def __init__(self, candidates: Sequence[int], total: int,
                 checks: Sequence[int], higher_is_better: bool, delta: float,
                 bound: str, width: float, keep: int = 1,
                 corrected: bool = True) -> None:
        self.left = list(candidates)
        self.total, self.keep = total, keep
        self.checks = set(checks)
        self.sign = 1 if higher_is_better else -1
        self.bound, self.width = bound, 2 * width  # of differences
        pairs = max(1, len(self.left) - 1) * max(1, len(self.checks))
        self.delta = delta / pairs if corrected else delta
        self.lost: List[Lost] = []

    def check(self, values: Dict[int, np.ndarray]) -> None:
        """Let candidates go.

        Args:
            values: Values on the batches seen so far, the same batches for all
                that are left; not-a-number where a batch tells nothing.
        """
        means = {i: self.sign * np.nanmean(values[i]) for i in self.left}
        order = sorted(self.left, key=lambda i: (-means[i], i))
        leader = order[min(self.keep, len(order)) - 1]
        half = max(self.keep, -(-len(order) // 2))
        for index in reversed(order[self.keep:]):
            gaps = self.sign * (values[leader] - values[index])
            gaps = gaps[np.isfinite(gaps)]
            if not len(gaps):
                continue
            gap = float(gaps.mean())
            if self.bound == HALVING:
                leaves = index in order[half:]
            else:
                leaves = gap > 0 and gap > radius(
                    gaps, self.total, self.delta, self.bound, self.width)
            if leaves:
                self.lost.append(Lost(index, leader, max(gap, TIE)))
                self.left.remove(index)
