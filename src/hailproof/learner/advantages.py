"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300; the names of the options are TRL's)."""

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Self

ScaleRewards = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""

BEYOND_CHANCE = statistics.NormalDist().inv_cdf(0.95)
"""Standard deviations beyond which groups that push toward longer answers are not taken to do so by chance."""

RESIDUE = 1e-12
"""Share of the largest advantage below which what a projection leaves is rounding."""


def advantages(
    groups: Sequence[Sequence[float]],
    scale_rewards: ScaleRewards = "group",
    shares: Sequence[Sequence[float]] | None = None,
) -> list[list[float]]:
    """Advantages of the rewards of some groups.

    A completion has the place in its group's baseline that it has in the update, so that ``sum share * A`` is zero in
    every group. Otherwise right answers from which hardly anything is learned would raise the mean, push the others
    down, and push nothing up (``docs/measurements.md`` has what that does; NeMo RL's pull request 3467 shows the same
    for completions that are masked whole).

    Args:
        groups: Rewards of the admitted completions of each group; a group may be empty.
        scale_rewards: ``group`` divides by the group's standard deviation (the paper), ``batch`` by that of all
            rewards, ``none`` does not divide (Dr. GRPO). The standard deviation has n - 1 degrees of freedom.
        shares: How much of each completion is learned from, in [0, 1]; without, all of all of them.

    Returns:
        ``(r - mean of the group) / (std + 1e-4)``, in the shape of ``groups``. A group of one, or without variance,
        has advantage 0, and so has what is not learned from. Mean and standard deviation are weighted by the shares,
        which are taken as reliabilities: a completion of share 0 counts as if it were not there.
    """
    if shares is None:
        shares = [[1.0] * len(rewards_G) for rewards_G in groups]
    batch_deviation = _deviation(list(chain(*groups)), list(chain(*shares)))
    result = []
    for rewards_G, shares_G in zip(groups, shares, strict=True):
        mean = _mean(rewards_G, shares_G)
        match scale_rewards:
            case "group":
                divisor = _deviation(rewards_G, shares_G) + EPSILON
            case "batch":
                divisor = batch_deviation + EPSILON
            case "none":
                divisor = 1.0
        result.append(
            [(reward - mean) / divisor if share else 0.0 for reward, share in zip(rewards_G, shares_G, strict=True)]
        )
    return result


def length_neutral(
    advantages_BG: Sequence[Sequence[float]],
    lengths_BG: Sequence[Sequence[int]],
    shares_BG: Sequence[Sequence[float]],
    sources_B: Sequence[Hashable],
) -> list[list[float]]:
    """Takes out of advantages what pushes toward longer answers: ``A - b (L - mean L)``, least squares in each group.

    The push of a group on length is, to first order, ``sum share * A (L - mean L)``. Groups are corrected in which it
    is positive, and only if the groups of the same source push toward longer answers beyond chance when taken
    together; the push is zero afterwards, and ``sum share * A`` still is. Where long answers do worse, as rambling
    does, the group is left as it is: to take that out as well lets honest models ramble. And to take out what chance
    makes of long and right, but never what it makes of short and right, lets answers become short and wrong
    (``docs/measurements.md`` has both). Where right and wrong go with long and short exactly, as in a group of one long
    right answer and worthless decoys, nothing is left to learn.

    Chance is the permutation of a group's advantages: the push has mean zero then, and in standard deviations it is
    ``sqrt(n - 1)`` times the coefficient of correlation. The sum over a source's k groups is divided by ``sqrt(k)`` and
    held against the 95 % point of the normal distribution, so that of honest sources one in twenty is corrected.

    Args:
        advantages_BG: Advantages of the admitted completions of each group.
        lengths_BG: Their lengths in tokens, as they are trained on.
        shares_BG: How much of each is learned from, as in :func:`advantages`.
        sources_B: Where each group comes from: its senders.
    """
    pushes = [_Push.of(*group) for group in zip(advantages_BG, lengths_BG, shares_BG, strict=True)]
    together: dict[Hashable, list[float]] = {}
    for source, push in zip(sources_B, pushes, strict=True):
        if push.deviation:
            together.setdefault(source, []).append(push.size / push.deviation)
    caught = {source for source, sizes in together.items() if sum(sizes) / math.sqrt(len(sizes)) > BEYOND_CHANCE}
    return [
        push.taken_out(group) if source in caught and push.size > 0 else list(group)
        for group, push, source in zip(advantages_BG, pushes, sources_B, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Push:
    """What a group's advantages do to length.

    Attributes:
        size: ``sum share * A (L - mean L)``.
        deviation: Its standard deviation if the advantages are permuted; 0 in a group without variance of either.
        slope: ``size / sum share * (L - mean L)^2``.
        offsets_G: ``L - mean L`` of each completion that is learned from, else 0.
    """

    size: float
    deviation: float
    slope: float
    offsets_G: list[float]

    @classmethod
    def of(cls, advantages_G: Sequence[float], lengths_G: Sequence[int], shares_G: Sequence[float]) -> Self:
        mean = _mean(lengths_G, shares_G)
        offsets = [(length - mean) if share else 0.0 for length, share in zip(lengths_G, shares_G, strict=True)]
        members = list(zip(shares_G, advantages_G, offsets, strict=True))
        size = math.fsum(share * a * offset for share, a, offset in members)
        spread = math.fsum(share * offset**2 for share, _, offset in members)
        squares = math.fsum(share * a**2 for share, a, _ in members)
        concentration = math.fsum(share**2 for share in shares_G)
        freedom = math.fsum(shares_G) ** 2 / concentration - 1 if concentration else 0.0  # Kish's effective size
        deviation = math.sqrt(squares * spread / freedom) if freedom > 0 else 0.0
        return cls(size, deviation, size / spread if spread else 0.0, offsets)

    def taken_out(self, advantages_G: Sequence[float]) -> list[float]:
        residue = RESIDUE * max(map(abs, advantages_G))
        neutral = [a - self.slope * offset for a, offset in zip(advantages_G, self.offsets_G, strict=True)]
        return [a if abs(a) > residue else 0.0 for a in neutral]


def _mean(values: Sequence[float], shares: Sequence[float]) -> float:
    return statistics.fmean(values, shares) if any(shares) else 0.0


def _deviation(rewards: Sequence[float], shares: Sequence[float]) -> float:
    """The weighted standard deviation; with shares of 1 it has n - 1 degrees of freedom."""
    mean, total = _mean(rewards, shares), math.fsum(shares)
    freedom = total - math.fsum(share**2 for share in shares) / total if total else 0.0
    if freedom <= 0:
        return 0.0
    squares = math.fsum(share * (reward - mean) ** 2 for reward, share in zip(rewards, shares, strict=True))
    return math.sqrt(squares / freedom)
