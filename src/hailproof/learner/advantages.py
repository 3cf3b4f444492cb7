"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300; the names of the options are TRL's)."""

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Self

ScaleRewards = Literal["group", "batch", "none"]

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL."""

LEVEL = 0.05
"""Share of cases in which chance may pass for a push toward longer answers."""

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
    senders_BG: Sequence[Sequence[Hashable]],
) -> list[list[float]]:
    """Takes out of advantages what pushes toward longer answers: ``A - b (L - mean L)``, least squares in each group.

    The push of a group on length is, to first order, ``sum share * A (L - mean L)``. Groups are corrected in which it
    is positive, and only if one of its senders pushes toward longer answers beyond chance, all its groups taken
    together; the push is zero afterwards, and ``sum share * A`` still is. Where long answers do worse, as rambling
    does, the group is left as it is: to take that out as well lets honest models ramble. And to take out what chance
    makes of long and right, but never what it makes of short and right, lets answers become short and wrong
    (``docs/measurements.md`` has both). Where right and wrong go with long and short exactly, as in a group of one long
    right answer and worthless decoys, nothing is left to learn.

    Long answers do better for good reason as well, where reasoning pays or models have begun to leave out steps; all
    senders show that alike. So of several senders of a group those are caught whose right answers (``A > 0``) are
    longer than the right answers of the others, and chance is the permutation of right answers among senders. Where
    one sender has the group alone, it is the permutation of its advantages, and what the median of such senders shows
    is granted to all. The statistic has mean zero and a known standard deviation; in these, a sender's sum over its k
    groups is divided by ``sqrt(k)`` and held against the normal distribution, at 5 % for all senders of a group
    together.

    Args:
        advantages_BG: Advantages of the admitted completions of each group.
        lengths_BG: Their lengths in tokens, as they are trained on.
        shares_BG: How much of each is learned from, as in :func:`advantages`.
        senders_BG: Who sent each.
    """
    pushes = [_Push.of(*group) for group in zip(advantages_BG, lengths_BG, shares_BG, senders_BG, strict=True)]
    together: dict[Hashable, list[float]] = {}
    for push in pushes:
        for sender, size in push.sizes.items():
            together.setdefault(sender, []).append(size)
    beyond = {sender: sum(sizes) / math.sqrt(len(sizes)) for sender, sizes in together.items()}

    alone = set().union(*(push.senders for push in pushes if len(push.senders) == 1))
    common = max(0.0, statistics.median_low(beyond.get(sender, 0.0) for sender in alone)) if len(alone) > 1 else 0.0

    def caught(push: _Push) -> bool:
        if push.slope <= 0:
            return False
        limit = statistics.NormalDist().inv_cdf(1 - LEVEL / len(push.senders))
        limit += common if len(push.senders) == 1 else 0.0
        return any(beyond.get(sender, 0.0) > limit for sender in push.senders)

    return [
        push.taken_out(group) if caught(push) else list(group)
        for group, push in zip(advantages_BG, pushes, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Push:
    """What a group's advantages do to length.

    Attributes:
        slope: ``sum share * A (L - mean L) / sum share * (L - mean L)^2``.
        offsets_G: ``L - mean L`` of each completion that is learned from, else 0.
        senders: Those of whom something is learned.
        sizes: How much each sender pushes, in standard deviations of chance; who says nothing of it is not there.
    """

    slope: float
    offsets_G: list[float]
    senders: frozenset[Hashable]
    sizes: dict[Hashable, float]

    @classmethod
    def of(
        cls,
        advantages_G: Sequence[float],
        lengths_G: Sequence[int],
        shares_G: Sequence[float],
        senders_G: Sequence[Hashable],
    ) -> Self:
        offsets = _offsets(lengths_G, shares_G)
        members = list(zip(shares_G, advantages_G, offsets, strict=True))
        size = math.fsum(share * a * offset for share, a, offset in members)
        spread = math.fsum(share * offset**2 for share, _, offset in members)
        squares = math.fsum(share * a**2 for share, a, _ in members)
        sizes: dict[Hashable, float] = {}
        senders = frozenset(sender for sender, share in zip(senders_G, shares_G, strict=True) if share)
        if len(senders) > 1:
            sizes = _sizes([share * max(a, 0.0) for share, a, _ in members], lengths_G, senders_G)
        elif (scale := math.sqrt(squares * spread)) and (total := math.fsum(share**2 for share in shares_G)):
            effective = math.fsum(shares_G) ** 2 / total  # Kish's size of the group
            sizes = {sender: size / scale * math.sqrt(max(0.0, effective - 1)) for sender in senders}
        return cls(size / spread if spread else 0.0, offsets, senders, sizes)

    def taken_out(self, advantages_G: Sequence[float]) -> list[float]:
        residue = RESIDUE * max(map(abs, advantages_G))
        neutral = [a - self.slope * offset for a, offset in zip(advantages_G, self.offsets_G, strict=True)]
        return [a if abs(a) > residue else 0.0 for a in neutral]


def _sizes(pulls_G: Sequence[float], lengths_G: Sequence[int], senders_G: Sequence[Hashable]) -> dict[Hashable, float]:
    """By how many standard deviations of chance each sender's completions are longer than those of the others.

    Args:
        pulls_G: Weight of each; what has none does not count.
        lengths_G: Their lengths.
        senders_G: Their senders.
    """
    pushes = [pull * offset for pull, offset in zip(pulls_G, _offsets(lengths_G, pulls_G), strict=True)]
    counts = Counter(sender for sender, pull in zip(senders_G, pulls_G, strict=True) if pull)
    total, squares = counts.total(), math.fsum(push**2 for push in pushes)
    sizes = {}
    for sender, count in counts.items():
        if variance := squares * count * (total - count) / (total * max(1, total - 1)):
            own = math.fsum(push for push, each in zip(pushes, senders_G, strict=True) if each == sender)
            sizes[sender] = own / math.sqrt(variance)
    return sizes


def _offsets(lengths: Sequence[int], weights: Sequence[float]) -> list[float]:
    """``L - mean L`` of what has weight, else 0; exactly 0 where all lengths are the same."""
    if len({length for length, weight in zip(lengths, weights, strict=True) if weight}) < 2:
        return [0.0] * len(lengths)
    mean = _mean(lengths, weights)
    return [length - mean if weight else 0.0 for length, weight in zip(lengths, weights, strict=True)]


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
