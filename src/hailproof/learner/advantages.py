"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300; the names of the options are TRL's)."""

import math
import statistics
from collections.abc import Sequence
from itertools import chain
from typing import Literal

ScaleRewards = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""


def advantages(
    groups: Sequence[Sequence[float]],
    scale_rewards: ScaleRewards = "group",
    shares: Sequence[Sequence[float]] | None = None,
) -> list[list[float]]:
    """Advantages of the rewards of some groups.

    A completion has the place in its group's baseline that it has in the update, so that ``sum share * A`` is zero in
    every group. Otherwise right answers from which hardly anything is learned would raise the mean, push the others
    down, and push nothing up (``docs/archive`` has what that does; NeMo RL's pull request 3467 shows the same
    for completions that are masked whole).

    Args:
        groups: Rewards of the admitted completions of each group; a group may be empty.
        scale_rewards: ``group`` divides by the group's standard deviation (the paper), ``batch`` by that of all
            rewards, ``none`` does not divide (Dr. GRPO). The standard deviation has n - 1 degrees of freedom.
        shares: How much of each completion is learned from, in [0, 1]; without, all of all of them.

    Returns:
        ``(r - mean of the group) / (std + 1e-4)``, in the shape of ``groups``. A group of one, or without variance,
        has advantage 0, and so has what is not learned from. Mean and standard deviation are weighted by the shares,
        which are taken as reliabilities: a completion of share 0 counts as if it were not there. What is divided by is
        never less than without weights, so that the few tokens that are left of a right answer pull hardly harder
        than those of a whole one.
    """
    if shares is None:
        shares = [[1.0] * len(rewards_G) for rewards_G in groups]
    batch_deviation = _divisor(list(chain(*groups)), list(chain(*shares)))
    result = []
    for rewards_G, shares_G in zip(groups, shares, strict=True):
        mean = weighted_mean(rewards_G, shares_G)
        match scale_rewards:
            case "group":
                divisor = _divisor(rewards_G, shares_G) + EPSILON
            case "batch":
                divisor = batch_deviation + EPSILON
            case "none":
                divisor = 1.0
        result.append(
            [(reward - mean) / divisor if share else 0.0 for reward, share in zip(rewards_G, shares_G, strict=True)]
        )
    return result


def weighted_mean(values: Sequence[float], shares: Sequence[float]) -> float:
    """The mean of values by their shares; 0 if there are none."""
    return statistics.fmean(values, shares) if any(shares) else 0.0


def _divisor(rewards: Sequence[float], shares: Sequence[float]) -> float:
    """The standard deviation with weights, or without them, whichever is larger."""
    return max(_deviation(rewards, shares), _deviation(rewards, [float(share > 0) for share in shares]))


def _deviation(rewards: Sequence[float], shares: Sequence[float]) -> float:
    """The weighted standard deviation; with shares of 1 it has n - 1 degrees of freedom."""
    mean, total = weighted_mean(rewards, shares), math.fsum(shares)
    freedom = total - math.fsum(share**2 for share in shares) / total if total else 0.0
    if freedom <= 0:
        return 0.0
    squares = math.fsum(share * (reward - mean) ** 2 for reward, share in zip(rewards, shares, strict=True))
    return math.sqrt(squares / freedom)
