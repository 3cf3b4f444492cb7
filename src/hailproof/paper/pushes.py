"""Figures 7 and 8: how hard a group pushes toward its poisoned part, by closed form and as the learner computes it."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from hailproof.learner.advantages import advantages
from hailproof.metrics.closed_forms import poison_push
from hailproof.seeds import derive


@dataclass(frozen=True, slots=True)
class PushCurve:
    """The push of groups of one size against one mean honest reward, by poisoned share.

    Attributes:
        group_size: G.
        honest_reward: Mean reward of the part that is not poisoned.
        shares: Poisoned shares k / G, for k from 0 to G.
        measured: Share times the mean advantage of the poisoned part, as the learner computes it; mean over draws.
        closed: The closed form, with the learner's G - 1 degrees of freedom.
    """

    group_size: int
    honest_reward: float
    shares: tuple[float, ...]
    measured: tuple[float, ...]
    closed: tuple[float, ...]

    @property
    def peak(self) -> float:
        """The share with the hardest measured push."""
        return self.shares[max(range(len(self.shares)), key=self.measured.__getitem__)]

    @property
    def distance(self) -> float:
        """The largest distance between measured and closed form."""
        return max(abs(a - b) for a, b in zip(self.measured, self.closed, strict=True))


def push_curve(group_size: int, honest_reward: float, variance: float, draws: int, seed: int = 0) -> PushCurve:
    """Computes a curve.

    Args:
        group_size: G.
        honest_reward: Mean reward of what is not poisoned.
        variance: Variance of those rewards, normal; 0 makes them all the same.
        draws: Groups that are drawn for each share.
        seed: Root of the draws.
    """
    shares, measured, closed = [], [], []
    for poisoned in range(group_size + 1):
        share = poisoned / group_size
        rng = random.Random(derive(seed, "push", group_size, str(honest_reward), poisoned))
        pushes = [
            _push(poisoned, [rng.gauss(honest_reward, variance**0.5) for _ in range(group_size - poisoned)])
            for _ in range(draws if variance else 1)
        ]
        shares.append(share)
        measured.append(fmean(pushes))
        closed.append(poison_push(share, honest_reward, variance) * ((group_size - 1) / group_size) ** 0.5)
    return PushCurve(group_size, honest_reward, tuple(shares), tuple(measured), tuple(closed))


def _push(poisoned: int, honest: Sequence[float]) -> float:
    (advantages_G,) = advantages([[1.0] * poisoned + list(honest)])
    return sum(advantages_G[:poisoned]) / len(advantages_G)


def findings(curves: Sequence[PushCurve]) -> dict[str, tuple[float, ...]]:
    """What the checks of the figures ask for, by name: ``peak``, ``distance``, ``falling`` and ``left``."""
    highest = [max(curve.measured) for curve in curves]
    return {
        "peak": tuple(curve.peak for curve in curves),
        "distance": tuple(curve.distance for curve in curves),
        "falling": (float(all(a > b for a, b in itertools.pairwise(highest))),),
        "left": (highest[-1] / highest[0],),
    }
