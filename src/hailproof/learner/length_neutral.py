"""Length-neutral advantages: no sender pushes toward longer answers more than the others do.

The push of a group on length is, to first order, ``sum share * A (L - mean L)``. It is taken out of groups in which it
is positive, by least squares, ``A - b (L - mean L)``; ``sum share * A`` stays as it is. Where right and wrong go with
long and short exactly, as in a group of one long right answer and worthless decoys, nothing is left to learn. Where
long answers do worse, as rambling does, the group is left as it is: to take that out as well lets honest models ramble.

Only groups of senders are corrected who push beyond chance. To take out what chance makes of long and right, but never
what it makes of short and right, lets answers become short and wrong (``docs/archive`` has both). And long
answers do better for good reason as well, where reasoning pays or models have begun to leave out steps, which all
senders show alike. So:

* Of several senders of a group, those push whose right answers (``A > 0``) are longer than the right answers of the
  others; chance is the permutation of right answers among senders.
* Where one sender has the group alone, chance is the permutation of its advantages, and what the median of such senders
  shows is granted to all.

The statistic of a sender in a group has mean zero and standard deviation one. Those of the last rounds are added up,
with weights that fall by :data:`MEMORY` a round: honest pushes go up and down, an attacker's adds up, and so does one
that stays within chance in every single round. What it may have pushed toward shorter answers before counts for it.
"""

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hailproof.learner.advantages import weighted_mean

LEVEL = 0.05
"""Share of cases in which chance may pass for a push toward longer answers."""

MEMORY = 0.9
"""What a round counts for in the next one: half after seven."""

FORGOTTEN = 1e-4
"""Weight below which what a sender showed is dropped; a single group counts that little after 44 rounds."""

RESIDUE = 1e-12
"""Share of the largest advantage below which what a projection leaves is rounding."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sender's weighted statistics: their sum, and its variance if they are chance."""

    total: float
    variance: float


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


class LengthNeutral:
    """The correction, and what it remembers of senders."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, _Seen] = {}

    def __call__(
        self,
        advantages_BG: Sequence[Sequence[float]],
        lengths_BG: Sequence[Sequence[int]],
        shares_BG: Sequence[Sequence[float]],
        senders_BG: Sequence[Sequence[Hashable]],
    ) -> list[list[float]]:
        """The advantages of a round's groups, those of senders who push beyond chance corrected.

        Args:
            advantages_BG: Advantages of the admitted completions of each group.
            lengths_BG: Their lengths in tokens, as they are trained on.
            shares_BG: How much of each is learned from, as in :func:`hailproof.learner.advantages.advantages`.
            senders_BG: Who sent each.
        """
        pushes = [_Push.of(*group) for group in zip(advantages_BG, lengths_BG, shares_BG, senders_BG, strict=True)]
        self._remember(pushes)
        beyond = {sender: seen.total / math.sqrt(seen.variance) for sender, seen in self._seen.items()}
        alone = set().union(*(push.senders for push in pushes if len(push.senders) == 1))
        granted = statistics.median_low(beyond.get(sender, 0.0) for sender in alone) if len(alone) > 1 else 0.0

        def caught(push: _Push) -> bool:
            if push.slope <= 0:
                return False
            limit = statistics.NormalDist().inv_cdf(1 - LEVEL / len(push.senders))
            limit += max(0.0, granted) if len(push.senders) == 1 else 0.0
            return any(beyond.get(sender, 0.0) > limit for sender in push.senders)

        return [
            push.taken_out(group) if caught(push) else list(group)
            for group, push in zip(advantages_BG, pushes, strict=True)
        ]

    def _remember(self, pushes: Sequence[_Push]) -> None:
        """Adds a round's statistics to those of earlier rounds."""
        faded = {sender: _Seen(MEMORY * seen.total, MEMORY**2 * seen.variance) for sender, seen in self._seen.items()}
        self._seen = {sender: seen for sender, seen in faded.items() if seen.variance > FORGOTTEN}
        for push in pushes:
            for sender, size in push.sizes.items():
                seen = self._seen.get(sender, _Seen(0.0, 0.0))
                self._seen[sender] = _Seen(seen.total + size, seen.variance + 1)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by sender."""
        return {"seen": {sender: (seen.total, seen.variance) for sender, seen in self._seen.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        self._seen = {sender: _Seen(*seen) for sender, seen in state["seen"].items()}


def _sizes(pulls_G: Sequence[float], lengths_G: Sequence[int], senders_G: Sequence[Hashable]) -> dict[Hashable, float]:
    """By how many standard deviations of chance each sender's completions are longer than those of the others.

    Equally long ones are 0 longer. That must count: where models have come to agree, lengths hardly ever differ, and a
    sender that chance made stand out before would stand out for good.

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
        if count == total:
            continue
        variance = squares * count * (total - count) / (total * (total - 1))
        own = math.fsum(push for push, each in zip(pushes, senders_G, strict=True) if each == sender)
        sizes[sender] = own / math.sqrt(variance) if variance else 0.0
    return sizes


def _offsets(lengths: Sequence[int], weights: Sequence[float]) -> list[float]:
    """``L - mean L`` of what has weight, else 0; exactly 0 where all lengths are the same."""
    if len({length for length, weight in zip(lengths, weights, strict=True) if weight}) < 2:
        return [0.0] * len(lengths)
    mean = weighted_mean(lengths, weights)
    return [length - mean if weight else 0.0 for length, weight in zip(lengths, weights, strict=True)]
