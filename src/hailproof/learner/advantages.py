"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300; the names of the options are TRL's)."""

import statistics
from collections.abc import Sequence
from typing import Literal

ScaleRewards = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""

RESIDUE = 1e-12
"""Share of the largest advantage below which what a projection leaves is rounding."""


def advantages(groups: Sequence[Sequence[float]], scale_rewards: ScaleRewards = "group") -> list[list[float]]:
    """Advantages of the rewards of some groups.

    Args:
        groups: Rewards of the admitted completions of each group; a group may be empty.
        scale_rewards: ``group`` divides by the group's standard deviation (the paper), ``batch`` by that of all
            rewards, ``none`` does not divide (Dr. GRPO). The standard deviation has n - 1 degrees of freedom.

    Returns:
        ``(r - mean of the group) / (std + 1e-4)``, in the shape of ``groups``. A group of one, or without variance,
        has advantage 0.
    """
    batch_deviation = _deviation([reward for rewards_G in groups for reward in rewards_G])
    result = []
    for rewards_G in groups:
        mean = statistics.fmean(rewards_G) if rewards_G else 0.0
        match scale_rewards:
            case "group":
                divisor = _deviation(rewards_G) + EPSILON
            case "batch":
                divisor = batch_deviation + EPSILON
            case "none":
                divisor = 1.0
        result.append([(reward - mean) / divisor for reward in rewards_G])
    return result


def length_neutral(advantages_G: Sequence[float], lengths_G: Sequence[int]) -> list[float]:
    """Takes out of a group's advantages what goes along with length: ``A - b (L - mean L)``, least squares.

    The push of a group on length is, to first order, ``sum A (L - mean L)``: afterwards it is zero, and so is
    ``sum A`` still. Where right and wrong go with long and short exactly, as in a group of one long right answer and
    worthless decoys, nothing is left to learn, for an honest group as well.

    Args:
        advantages_G: Advantages of the admitted completions of a group; they sum to zero.
        lengths_G: Their lengths in tokens, as they are trained on.
    """
    mean = statistics.fmean(lengths_G) if lengths_G else 0.0
    offsets = [length - mean for length in lengths_G]
    spread = sum(offset**2 for offset in offsets)
    if not spread:
        return list(advantages_G)
    slope = sum(a * offset for a, offset in zip(advantages_G, offsets, strict=True)) / spread
    neutral = [a - slope * offset for a, offset in zip(advantages_G, offsets, strict=True)]
    residue = RESIDUE * max(map(abs, advantages_G))
    return [a if abs(a) > residue else 0.0 for a in neutral]


def _deviation(rewards: Sequence[float]) -> float:
    return statistics.stdev(rewards) if len(rewards) > 1 else 0.0
