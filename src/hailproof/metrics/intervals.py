"""How sure a figure over a few seeds is: intervals, exchange tests, and how many seeds a difference needs.

Seeds are the independent units. Completions of one prompt, prompts of one round and rounds of one run share a model and
are not independent, so every interval is built on one value a seed (the ultimate cluster of survey statistics): what
happens inside a seed widens it through the spread between seeds, whatever its form.

``statsmodels`` is imported where it is used, since it takes a second.
"""

import math
import warnings
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from scipy import special, stats

LEVEL = 0.95
METHOD = (
    "95 %, seeds as the independent units: shares by Student's t on the logit scale of their mean, paired differences "
    "by Student's t, ratios by that of their logarithms; where no seed showed anything, Clopper-Pearson by completion"
)

ROUNDING = 1e-9
"""How far beside [0, 1] the rounding of sums may carry a share."""


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean, such as that of differences that are paired by seed.

    Args:
        values: At least two values, such as one per seed.
        level: Probability that the interval covers the mean, for normal values.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there are fewer than two values.
    """
    half = _half(values, level)
    return fmean(values) - half, fmean(values) + half


def _half(values: Sequence[float], level: float, least: float = 0.0) -> float:
    """Half the width of the t interval; the standard error is at least ``least``."""
    if len(values) < 2:
        raise ValueError(f"An interval needs at least two values, not {len(values)}.")
    error = max(least, stdev(values) / math.sqrt(len(values)))
    return float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error


def share_interval(
    values: Sequence[float], trials: float | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Interval of a share over seeds; it lies in [0, 1] and holds the mean.

    Student's t interval on the logit scale: the standard error of the mean over seeds is carried over by the delta
    method, with one degree of freedom less than seeds, and the ends are carried back. This is what survey software does
    with shares from clusters (Korn and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015, Journal of Survey
    Statistics and Methodology 3). The mean is transformed, not each seed, since many a seed is at exactly 0 or 1, and
    since the mean of transformed seeds would be another quantity.

    Completions that were independent would still scatter, so the standard error is never below that of ``trials`` of
    them: seeds that happen to agree do not make an interval of no width. Where every seed is at 0, or every one at 1,
    nothing is known of the spread, and the interval is that of Clopper and Pearson, of the trials; see
    :func:`upper_bounds` for what the seeds alone allow.

    Args:
        values: One share a seed, at least two.
        trials: How many completions (or prompts, if these are the smallest units) stand behind all of them together;
            ``None`` if nobody knows, and then the seeds count as the trials where all are at 0 or at 1.
        level: Probability that the interval covers the share.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If there are fewer than two values, or one is no share.
    """
    if not all(-ROUNDING <= value <= 1 + ROUNDING for value in values):
        raise ValueError(f"A share lies in [0, 1], not at {min(values):g} to {max(values):g}.")
    mean = min(max(fmean(values), 0.0), 1.0)
    number = max(len(values), trials or 0)
    half = _half(values, level, math.sqrt(mean * (1 - mean) / trials) if trials else 0.0)
    if mean * (1 - mean) == 0.0:
        return _exact(mean * number, number, level)
    center, scaled = special.logit(mean), half / (mean * (1 - mean))
    # Rounding on the way must not leave the mean outside.
    return min(mean, float(special.expit(center - scaled))), max(mean, float(special.expit(center + scaled)))


def _exact(successes: float, trials: float, level: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import proportion_confint

    ends = proportion_confint(successes, trials, alpha=1 - level, method="beta")
    low, high = np.asarray(ends, dtype=float).tolist()
    return low, high


def counted_interval(share: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """Exact (Clopper-Pearson) two-sided interval of one share of independent trials."""
    return _exact(share * trials, trials, level)


def difference_of_counts(
    share: float, trials: float, other: float, other_trials: float, level: float = LEVEL
) -> tuple[float, float]:
    """Newcombe's interval of the difference of two shares of independent trials; it lies in [-1, 1].

    Source: Newcombe 1998, Statistics in Medicine 17, method 10.

    Args:
        share: The first share.
        trials: Its trials.
        other: The share that is taken from it.
        other_trials: The trials of that one.
        level: Probability that the interval covers the difference.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        share * trials, trials, other * other_trials, other_trials, method="newcomb", compare="diff", alpha=1 - level
    )
    return max(float(low), -1.0), min(float(high), 1.0)


def difference_of_means(
    values: Sequence[float], others: Sequence[float], level: float = LEVEL
) -> tuple[float, float] | None:
    """Welch's t interval of the difference of two means of independent values, whose spreads may differ.

    Args:
        values: At least two values.
        others: At least two values, whose mean is taken from the other.
        level: Probability that the interval covers the difference, for normal values.

    Returns:
        Lower and upper end; ``None`` if no value differs from those beside it, so that nothing is known of the spread.

    Raises:
        ValueError: If there are fewer than two values on a side.
    """
    if min(len(values), len(others)) < 2:
        raise ValueError(f"An interval needs at least two values on each side, not {len(values)} and {len(others)}.")
    if len({*values}) == len({*others}) == 1:
        return None
    with warnings.catch_warnings(action="ignore"):  # scipy says that a side whose values are all equal has no spread
        ends = stats.ttest_ind(values, others, equal_var=False).confidence_interval(level)
    return float(ends.low), float(ends.high)


def ratio_interval(ratios: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of paired ratios on the log scale, carried back: of their geometric mean.

    Args:
        ratios: One ratio above 0 a seed, at least two.
        level: Probability that the interval covers the geometric mean.

    Raises:
        ValueError: If there are fewer than two ratios, or one is not above 0.
    """
    low, high = interval([math.log(ratio) for ratio in ratios], level)
    return math.exp(low), math.exp(high)


def geometric_mean(ratios: Sequence[float]) -> float:
    """What :func:`ratio_interval` is the interval of."""
    return float(stats.gmean(ratios))


def upper_bound(successes: int, trials: int, level: float = LEVEL) -> float:
    """One-sided exact (Clopper-Pearson) upper bound of a rate; about ``3 / trials`` where nothing was seen."""
    return _exact(successes, trials, 2 * level - 1)[1]


def upper_bounds(seeds: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """What a rate of which no seed showed anything can be at most, one-sided: by completion, and by seed.

    The first holds if completions are independent. The second, ``1 - (1 - level) ** (1 / seeds)``, assumes nothing of
    what happens inside a seed: it bounds the share of seeds in which anything shows at all, and so the rate.
    """
    return upper_bound(0, max(trials, seeds), level), upper_bound(0, seeds, level)


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
