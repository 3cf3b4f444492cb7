"""What verdicts lead to: one pure function, the same for a node and for a trainer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hailproof.protocols import Admission
from hailproof.records import Verdict


@dataclass(frozen=True, slots=True)
class Consequence:
    """What is learned from a completion.

    Attributes:
        reward: Its reward; ``None`` if it is left out of its group before mean and standard deviation.
        weight: What it counts for in the update and in the baseline of its group, in [0, 1].
        muted: Indices of tokens, under the receiver's tokenizer, from which nothing is learned.
    """

    reward: float | None
    weight: float
    muted: frozenset[int]


def consequence(
    reward: float | None, verdicts: Sequence[Verdict], admissions: Mapping[str, Admission]
) -> Consequence:
    """What a completion's reward and verdicts lead to.

    The first rejection decides: its defense drops the completion, or sets its reward to zero. Weights multiply, and
    what any verdict mutes is muted.

    Args:
        reward: The receiver's own reward; ``None`` if it was not computed, which leaves the completion out unless a
            rejection sets its reward to zero.
        verdicts: Every verdict on it.
        admissions: What each defense does with what it rejects, by name.

    Raises:
        KeyError: If a rejection comes from a defense without an admission.
    """
    weight = math.prod(verdict.weight for verdict in verdicts)
    muted = frozenset(token for verdict in verdicts for token in verdict.muted)
    rejection = next((verdict for verdict in verdicts if verdict.decision == "reject"), None)
    if rejection is not None:
        reward = 0.0 if admissions[rejection.defense] == "zero_reward" else None
    return Consequence(reward, weight, muted)
