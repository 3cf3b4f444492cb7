"""Rewards of a round: each distinct answer is rewarded once, and each sender has a budget of seconds.

Rewards of programs run strangers' code, so that a sender of endless programs could hold a receiver up for as long as it
likes. A sender's budget is a fixed spare time plus what honest answers take in as many slots as it owes. Once it is
spent, its remaining answers are not rewarded: they count as if they had not come.

The budget is a matter of wall-clock time, on which nodes of unequal speed could differ. Honest answers take a few
milliseconds where the spare time is half a second, so it decides only about senders that no honest node misses.
"""

import time
from typing import final

from hailproof.protocols import Task
from hailproof.records import Problem

SPARE_SECONDS = 0.5
"""What a sender may spend beyond honest answers, in a round."""


@final
class Rewarder:
    """Rewards answers of one task; nodes in one process may share it, since a reward is a fact.

    Args:
        task: The task.
        spare_seconds: What a sender may spend beyond honest answers, in a round.
    """

    def __init__(self, task: Task, spare_seconds: float = SPARE_SECONDS) -> None:
        self.task = task
        self.spare_seconds = spare_seconds
        self._round = 0
        self._known: dict[tuple[str, str], tuple[float, float]] = {}

    def purse(self, round: int, slots: int) -> "Purse":
        """The budget of one sender in one round.

        Args:
            round: The round; what was rewarded in another one is forgotten.
            slots: How many answers the sender owes.
        """
        if round != self._round:
            self._round, self._known = round, {}
        return Purse(self, self.spare_seconds + slots * self.task.reward_seconds)

    def earned(self, problem: Problem, text: str) -> tuple[float, float]:
        """The reward of an answer, and the seconds that it took when it was computed first."""
        key = (problem.id, text)
        if key not in self._known:
            started = time.perf_counter()
            reward = self.task.reward(problem, text)
            self._known[key] = reward, time.perf_counter() - started
        return self._known[key]


@final
class Purse:
    """What is left of a sender's seconds in a round.

    Args:
        rewarder: Computes the rewards.
        seconds: What there is.
    """

    def __init__(self, rewarder: Rewarder, seconds: float) -> None:
        self.seconds = seconds
        self._rewarder = rewarder

    def earn(self, problem: Problem, text: str) -> float | None:
        """The reward of an answer; ``None`` if nothing is left to compute it with."""
        if self.seconds <= 0:
            return None
        reward, seconds = self._rewarder.earned(problem, text)
        self.seconds -= seconds
        return reward
