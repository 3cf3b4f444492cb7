"""A circuit breaker for whole rounds: an update that is out of line with the last ones is not made.

Threat: a round in which many senders turn at once, or one finds a way past everything else. Each measure of a round is
compared with its median over the last rounds: the norm of the gradient, the share of tokens whose probability the step
moves much, and the share of completions that defenses rejected. A round above a multiple of it is held.

What is held is remembered too, so that a lasting change goes through once it makes up half of what is remembered: the
breaker buys time for people and for tests by sender, and whoever trips it again and again cannot stop the training.
"""

import statistics
from collections.abc import Mapping
from typing import Any

from hailproof.learner.config import BreakerConfig

Measures = Mapping[str, float]
"""By the reason that a message gives: ``norm``, ``moved``, ``rejected``."""


class Breaker:
    """Remembers the measures of the last rounds.

    Args:
        config: Settings.
    """

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self._in_line = {"moved": config.moved, "rejected": config.rejected}
        self._past: dict[str, list[float]] = {}

    def out_of_line(self, measures: Measures) -> str:
        """Takes in the measures of a round.

        Args:
            measures: By name. What is not measured is left out.

        Returns:
            The name of the first measure that is out of line; empty if none is.
        """
        found = ""
        for name, value in measures.items():
            past = self._past.setdefault(name, [])
            usual = max(self.config.times * statistics.median(past), self._in_line.get(name, 0.0)) if past else value
            if not found and len(past) >= self.config.rounds // 2 and value > usual:
                found = name
            past.append(value)
            del past[: -self.config.rounds]
        return found

    def state_dict(self) -> dict[str, Any]:
        """The measures of the last rounds."""
        return {name: list(past) for name, past in self._past.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        self._past = {name: list(past) for name, past in state.items()}
