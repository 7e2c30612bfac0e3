"""How far the mean of a part can be from the mean of the whole.

A race sees ``seen`` of ``total`` values in random order, without
repetition, and asks how much their mean may exceed the mean of all. The
finite-sample bounds are those of Bardenet and Maillard, *Concentration
inequalities for sampling without replacement*, Bernoulli 21 (2015).
"""
import functools
import math

import numpy as np

BOUNDS = ('student', 'bernstein', 'hoeffding')


def radius(values: np.ndarray, total: int, delta: float, bound: str,
           width: float) -> float:
    """One-sided confidence radius of a mean.

    With probability at least ``1 - delta`` the mean of ``values`` exceeds
    the mean of all ``total`` values by no more than the radius.

    - ``hoeffding``: corollary 2.5 there; holds for any values in an
      interval of ``width``.
    - ``bernstein``: theorem 4.3 there, with the variance that was observed;
      holds likewise, better for many values of small spread.
    - ``student``: the t interval with correction for a finite population;
      holds where the mean is close to normal, so it is an approximation,
      but the only one that decides on tens of values.

    Args:
        values: What was seen, [seen].
        total: Number of all values.
        delta: Probability of an error.
        bound: One of :data:`BOUNDS`.
        width: Length of the interval that holds all values; not used by
            ``student``.

    Returns:
        The radius; infinite if too few values were seen, zero once all were.
    """
    seen = len(values)
    if seen >= total:
        return 0.
    if seen < 2:
        return math.inf
    left = _left(seen, total)
    if bound == 'hoeffding':
        return width * math.sqrt(left * math.log(1 / delta) / (2 * seen))
    spread = float(values.std())
    if bound == 'bernstein':
        log, kappa = math.log(5 / delta), 7 / 3 + 3 / math.sqrt(2)
        return (spread * math.sqrt(2 * left * log / seen) +
                kappa * width * log / seen)
    error = spread / math.sqrt(seen - 1) * math.sqrt(1 - seen / total)
    return student_quantile(1 - delta, seen - 1) * error


@functools.lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution above one half.

    With ``t = sqrt(freedom) * tan(a)`` the density is proportional to
    ``cos(a) ** (freedom - 1)``, which is summed.

    Args:
        probability: In [0.5, 1).
        freedom: Degrees of freedom, at least 1.

    Returns:
        The quantile.
    """
    edges = np.linspace(0, math.pi / 2, 20001)
    density = np.cos((edges[1:] + edges[:-1]) / 2)**(freedom - 1)
    below = np.append(0, density.cumsum() / density.sum())
    angle = np.interp(2 * probability - 1, below, edges)
    return math.sqrt(freedom) * math.tan(angle)


def _left(seen: int, total: int) -> float:
    """Share of the uncertainty that is left, 1 for few values."""
    if 2 * seen <= total:
        return 1 - (seen - 1) / total
    return (1 - seen / total) * (1 + 1 / seen)
