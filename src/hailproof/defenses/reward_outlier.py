"""REWARD_OUTLIER: drop completions whose reward stands out in its group (the strawman of *Hail to the Thief*).

Idea: robust aggregation drops what lies far from the rest. This is a baseline. A poisoned completion earns full reward
like right honest ones, so it is no outlier. Where right answers are rare, the defense drops honest right ones too, from
which the group would learn. The largest possible z-score of a binary reward is (G - 1) / sqrt(G), reached by a single
completion against all others.

Rewards are the receiver's own, and are compared only within a group. No model is needed.

Limits: poison with full reward is no outlier.

Source: *Hail to the Thief* (arXiv 2511.09780), which discusses it.
"""

import statistics
from collections.abc import Sequence
from typing import Literal, get_args

from hailproof.defenses.base import BaseDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Evidence
from hailproof.records import Verdict

Method = Literal["z_score", "mad"]

MAD_TO_DEVIATION = 1.4826
"""The median absolute deviation times this estimates the standard deviation of normal data."""


def outlyingness(rewards_G: Sequence[float], method: Method) -> list[float]:
    """How far each reward of a group lies from its middle, in deviations; 0 where it does not lie apart.

    Args:
        rewards_G: Rewards of a group.
        method: ``z_score``: mean and standard deviation (n - 1). ``mad``: median and median absolute deviation, which
            a minority of outliers cannot move; where it is 0, every other reward is infinitely far.
    """
    if len(set(rewards_G)) == 1:  # whose mean may be off by rounding
        return [0.0] * len(rewards_G)
    if method == "z_score":
        middle = statistics.fmean(rewards_G)
        deviation = statistics.stdev(rewards_G) if len(rewards_G) > 1 else 0.0
    else:
        middle = statistics.median(rewards_G)
        deviation = MAD_TO_DEVIATION * statistics.median(abs(reward - middle) for reward in rewards_G)
    distances = [abs(reward - middle) for reward in rewards_G]
    return [distance / deviation if deviation else (float("inf") if distance else 0.0) for distance in distances]


class RewardOutlierDefense(BaseDefense):
    """Rejects completions whose reward is an outlier of its group.

    Args:
        threshold: Deviations beyond which a reward is one.
        method: ``z_score``, or ``mad``, which for binary rewards rejects whichever answer is in the minority.
        admission: What happens to rejected completions.
    """

    name = "reward_outlier"
    needs = frozenset({"groups"})

    def __init__(self, threshold: float = 2.0, method: Method = "z_score", admission: Admission = "drop") -> None:
        if method not in get_args(Method):
            raise ConfigError(f"Defense option method = {method} is unknown; use z_score or mad.")
        if not threshold > 0:
            raise ConfigError("Defense reward_outlier takes a threshold above 0.")
        super().__init__(admission)
        self.threshold = threshold
        self.method: Method = method

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the distance of its reward in deviations."""
        groups: dict[str, list[int]] = {}
        for index, submission in enumerate(evidence.submissions):
            groups.setdefault(submission.problem_id, []).append(index)
        scores: dict[int, float] = {}
        for members in groups.values():
            distances = outlyingness([evidence.rewards[index] for index in members], self.method)
            scores.update(zip(members, distances, strict=True))
        return [self._verdict(evidence.rewards[index], scores[index]) for index in range(len(scores))]

    def _verdict(self, reward: float, score: float) -> Verdict:
        if score > self.threshold:
            return Verdict(self.name, "reject", f"a reward of {reward:g} is {score:.1f} deviations off", score)
        return Verdict(self.name, "accept", "the reward does not stand out", score)
