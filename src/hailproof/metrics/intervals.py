"""How sure a mean over a few seeds is: intervals, exchange tests, and how many seeds a difference needs."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy import stats

LEVEL = 0.95
METHOD = "95 % Student t interval of the mean over seeds"


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean.

    Args:
        values: At least two values, such as one per seed.
        level: Probability that the interval covers the mean, for normal values.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"An interval needs at least two values, not {len(values)}.")
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def exchange_p(treated: Sequence[float], control: Sequence[float]) -> float:
    """Probability that labels dealt at random separate the means at least as far: a one-sided permutation test.

    Args:
        treated: Values that are expected to be larger.
        control: Values that are expected to be smaller.

    Returns:
        The p-value; with three values on each side it cannot be below 1 / 20.
    """
    result = stats.permutation_test(
        (treated, control), lambda x, y: fmean(x) - fmean(y), vectorized=False, n_resamples=20_000,
        alternative="greater", rng=0,
    )  # fmt: skip
    return float(result.pvalue)


def seeds_needed(
    difference: float, deviation: float, power: float = 0.8, level: float = LEVEL, most: int = 1000
) -> int:
    """How many seeds on each side show a difference of means by a two-sided t test.

    Args:
        difference: The difference to be seen, above 0.
        deviation: Standard deviation over seeds, the same on both sides.
        power: Probability of seeing it.
        level: One minus the probability of a false alarm.
        most: Where the search ends.

    Returns:
        The smallest number of seeds; ``most`` if even that many do not do.
    """
    for seeds in range(2, most):
        freedom, shift = 2 * seeds - 2, difference / (deviation * math.sqrt(2 / seeds)) if deviation else math.inf
        bound = float(stats.t.ppf((1 + level) / 2, freedom))
        if math.isinf(shift) or float(stats.nct.sf(bound, freedom, shift)) >= power:
            return seeds
    return most


def upper_bound(successes: int, trials: int, level: float = LEVEL) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of a rate; about ``3 / trials`` where nothing was seen."""
    if successes >= trials:
        return 1.0
    return float(stats.beta.ppf(level, successes + 1, trials - successes))
