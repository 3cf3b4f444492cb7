"""Does one sender pull the weights the same way round after round? A test by betting, one number of blocks a round.

For a direction that is fixed before a round (the sum of a sender's past departures from the others), and two honest
senders, what the round's completions of the one do along it and what those of the other do are exchangeable: on the
same prompts, or on prompts that both drew at random. So in each block of prompts the difference of the two is as
likely to be positive as negative, whatever its size. The sender's gambler bets that it is positive
(``defenses/betting.py``).

Differences are taken in two units: what is usual in the round, and the largest such unit of the past, which fades. By
the first alone a strong pull would weigh no more than the weak one the other way that follows it, so that whoever pulls
hard in one round and rests, or pulls back a little, in the next would never be found. In a round in which a sender
does little, little is bet, for the same reason: few completions would take back what many have shown.

Blocks are cut to what is usual, so that one wild block decides nothing. Whoever pulls in one block alone and a little
the other way in each of the rest would therefore never be found. So the sums over a round's blocks are bet on too.

Guaranteed, for a sender that is honest: its evidence ever reaches ``1 / alpha`` with probability at most ``alpha`` in a
run of any length, if at most ``malicious`` others are not honest. Attackers may know the past and send what they like:
the comparison of two honest senders does not depend on it, and of the comparisons the most suspicious ones are left
out. Where senders share groups, attackers must not know what honest senders draw in a round before they send: they
could choose in which groups these have an advantage (``docs/influence-broken.md``).
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from hailproof.defenses.betting import Gambler, evidence_against

KEPT = 0.97
"""What is left in each round of the largest unit of the past."""

CEILING_POWER = 1.5
"""Capital is cut to ``alpha ** -CEILING_POWER``: how long suspicion outlives its cause."""


class DriftTest:
    """Keeps a gambler for every two senders.

    Args:
        alpha: Probability with which an honest sender's evidence may ever reach ``1 / alpha``.
        malicious: Malicious senders that there may be; ``None``: as many as are a minority, at least one.
        tolerance: Mean advantage, in units of a block's typical difference, that honest senders may have over each
            other: above 0 where their models differ.
        memories: Number of directions that each sender has.
    """

    def __init__(self, alpha: float, malicious: int | None, tolerance: float, memories: int) -> None:
        self.alpha, self.malicious, self.tolerance, self.memories = alpha, malicious, tolerance, memories
        self._gamblers: dict[tuple[int, int], Gambler] = {}
        self._units: dict[tuple[int, int], np.ndarray] = {}  # [2, M] by pair, of the past: of blocks, of rounds

    def bet(self, sender: int, along: Mapping[int, Float[np.ndarray, "B M"]], part: float = 1.0) -> None:
        """Bets on a sender against every other one that has a part in the round.

        Args:
            sender: The sender.
            along: For each sender, what each block of its work does along the directions of ``sender``, per completion.
            part: How much the sender does in the round, of the most that it does, in (0, 1]. As little is bet: weights
                go by what all its completions do together, so that evidence must, too.
        """
        for other, values in along.items():
            if other == sender:
                continue
            differences = along[sender] - values
            past = KEPT * self._units.get((sender, other), np.zeros((2, self.memories)))
            by_block, unit = self._ranks(differences, part, past[0], self.tolerance)
            wider = min(1.0, self.tolerance * math.sqrt(len(by_block)))  # what adds up constantly outgrows chance
            of_round, unit_of_round = self._ranks(differences.sum(axis=0, keepdims=True), part, past[1], wider)
            ranks = np.zeros((len(by_block), 2 * by_block.shape[1]))
            ranks[:, : by_block.shape[1]] = by_block
            ranks[: len(of_round), by_block.shape[1] :] = of_round
            self._gambler(sender, other).bet(ranks)
            self._units[sender, other] = np.array([unit, unit_of_round])

    @staticmethod
    def _ranks(
        differences: Float[np.ndarray, "B M"], part: float, past: Float[np.ndarray, " M"], tolerance: float
    ) -> tuple[Float[np.ndarray, "L M2"], Float[np.ndarray, " M"]]:
        """Differences in the unit of the round and in the largest one so far, which is given back as well."""
        unit = usual(differences)
        largest = np.maximum(part * unit, past)
        now, ever = advantages_by_block(differences, unit), advantages_by_block(part * differences, largest)
        return (np.hstack([part * now, ever]) - tolerance) / (1 + tolerance), largest

    def _gambler(self, sender: int, other: int) -> Gambler:
        if (sender, other) not in self._gamblers:
            self._gamblers[sender, other] = Gambler([True] * self.memories * 4, self.alpha**-CEILING_POWER)
        return self._gamblers[sender, other]

    def evidence(self, sender: int, among: Collection[int]) -> float | None:
        """The e-value against a sender, of those against each of some others; ``None`` if there are too few.

        Args:
            sender: The sender.
            among: The others that count.
        """
        pairs = self._gamblers.items()
        capitals = [each.capital for (judged, other), each in pairs if judged == sender and other in among]
        malicious = max(1, len(capitals) // 2) if self.malicious is None else self.malicious
        return evidence_against(capitals, malicious)

    def forget(self, sender: int) -> None:
        """Starts anew with a sender, on both sides of its comparisons."""
        self._gamblers = {pair: each for pair, each in self._gamblers.items() if sender not in pair}
        self._units = {pair: each for pair, each in self._units.items() if sender not in pair}

    def state(self) -> dict[str, Any]:
        """Capital and unit by pair, with string keys as JSON has them."""
        return {
            f"{one} {other}": {**gambler.state(), "unit": self._units[one, other].tolist()}
            for (one, other), gambler in self._gamblers.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._gamblers, self._units = {}, {}
        for pair, saved in state.items():
            one, other = map(int, pair.split())
            self._gambler(one, other).restore(saved)
            self._units[one, other] = np.array(saved["unit"], dtype=float).reshape(2, self.memories)


def usual(differences: Float[np.ndarray, "B M"]) -> Float[np.ndarray, " M"]:
    """The root mean square of differences over the blocks that have any; 0 if none has.

    It is the same if signs change, so that a fair sign stays a fair bet.
    """
    live = differences[np.any(differences != 0, axis=1)]
    return np.sqrt(np.mean(live**2, axis=0)) if len(live) else np.zeros(differences.shape[1])


def advantages_by_block(
    differences: Float[np.ndarray, "B M"], unit: Float[np.ndarray, " M"]
) -> Float[np.ndarray, "B M"]:
    """Differences in a unit, cut to [-1, 1]; blocks without any are left out."""
    live = differences[np.any(differences != 0, axis=1)]
    return np.clip(live / np.where(unit > 0, unit, 1.0), -1.0, 1.0)
