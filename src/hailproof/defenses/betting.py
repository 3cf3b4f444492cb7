"""Testing by betting: is one sender's work drawn like another's?

A gambler bets, round by round, that the work of one sender ranks above (or below) that of another. If both draw alike,
each bet is fair, so the capital is a martingale that starts at 1, and by Ville's inequality the probability that it
*ever* reaches ``1 / alpha`` is at most ``alpha``: a sequential test that may be looked at after every round, for ever.
Nothing is assumed of the distributions but that both senders have the same one.

The capital is spread over several statistics, sizes and sides of bets, and over starting rounds: a share ``1 / (t (t +
1))`` is put in at round t, so that an attack that begins late does not first have to win back what an honest past
lost. Averages of martingales are martingales, so the guarantee stays; it costs ``log(t (t + 1))`` nats of delay.

Sources: Shafer 2021 (Testing by betting), Vovk & Wang 2021 (E-values), Shin, Ramdas & Rinaldo 2023 (E-detectors,
arXiv 2203.03532). Their restarting e-detectors forget an honest past too, but promise only a mean time of ``1 / alpha``
rounds between false alarms: none at all for a run of more rounds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

BETS = np.array([-0.9, -0.3, -0.1, 0.1, 0.3, 0.9])
"""Share of the capital that is bet on a rank above the middle; negative: below. Below 1, so that none is ruinous."""

LARGEST_LOG = 500.0
"""Bound of the logarithm of what a round may win, so that it stays a number."""


def advantage_in_rank(first: Sequence[float], second: Sequence[float]) -> float:
    """Probability that a value of the first is above one of the second, less that it is below; ties count nothing.

    This is the centered Mann-Whitney statistic, in [-1, 1]; its mean is 0 if all values are exchangeable.
    """
    above = sum((one > other) - (one < other) for one in first for other in second)
    return above / (len(first) * len(second))


class Gambler:
    """Bets on one sender against one other.

    Args:
        one_sided: For each statistic, whether only bets on ranks above the middle are made.
        ceiling: Capital is cut to this, so that a sender that has become honest is cleared in bounded time; a cut
            martingale is a supermartingale, for which Ville's inequality holds.
    """

    def __init__(self, one_sided: Sequence[bool], ceiling: float) -> None:
        allowed = np.array([BETS > 0 if one else BETS != 0 for one in one_sided], dtype=float)
        self.shares: Float[np.ndarray, "S L"] = allowed / allowed.sum(axis=1, keepdims=True) / len(allowed)
        self.ceiling = ceiling
        self.rounds = 0
        self.stakes: Float[np.ndarray, "S L"] = np.zeros_like(self.shares)

    @property
    def capital(self) -> float:
        """What the gambler has: an e-value against the hypothesis that both draw alike."""
        return 1 / (self.rounds + 1) + float(self.stakes.sum())

    def bet(self, ranks: Float[np.ndarray, "M S"]) -> None:
        """Plays a round.

        Args:
            ranks: :func:`advantage_in_rank` of each of M independent comparisons, by statistic.
        """
        if not len(ranks):
            return
        self.rounds += 1
        won = np.log1p(ranks[:, :, None] * BETS).sum(axis=0)
        added = self.shares / (self.rounds * (self.rounds + 1))
        self.stakes = (self.stakes + added) * np.exp(np.minimum(won, LARGEST_LOG))
        self.stakes *= min(1.0, self.ceiling / float(self.stakes.sum()))

    def state(self) -> dict[str, Any]:
        """Rounds and stakes in plain types."""
        return {"rounds": self.rounds, "stakes": self.stakes.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self.rounds = int(state["rounds"])
        self.stakes = np.array(state["stakes"], dtype=float).reshape(self.shares.shape)


def evidence_against(capitals: Sequence[float], malicious: int) -> float | None:
    """One e-value against a sender, of those against each other sender, robust to liars among these.

    The ``malicious`` largest are left out and the rest is averaged. If the sender is honest and at most so many others
    are not, the average is at most that over as many honest others, which is a martingale: who compares badly with an
    attacker only is not suspected.

    Args:
        capitals: Capital of the gamblers on this sender against each other one.
        malicious: Largest number of malicious senders among the others.

    Returns:
        The e-value; ``None`` if nobody would be left to compare with.
    """
    kept = sorted(capitals)[: max(0, len(capitals) - malicious)]
    return float(np.mean(kept)) if kept else None


def trust(capital: float, alpha: float) -> float:
    """Weight of a sender: 1 up to a capital of ``alpha ** -0.5``, 0 from ``1 / alpha`` on, linear in its logarithm."""
    return float(np.clip(2 + 2 * np.log(max(capital, 1.0)) / np.log(alpha), 0, 1))
