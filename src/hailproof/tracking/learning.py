"""Is my node learning? The answer in one line: yes, no or not yet, and what it rests on.

The reward of the last five rounds is compared with that of the first five, by Welch's interval of the difference of
their means, one value a round. Given the weights of each round, its prompts and draws are new, so what chance adds to
the ten values is uncorrelated; that rewards rise inside the five rounds widens the interval. The level holds for one
look at a run, not for the best of many looks.

Where held-out problems were asked within the first five rounds, the last such evaluation is compared with the first,
by Newcombe's interval, with the problems as trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

WINDOW = 5
"""Rounds on each side of the comparison."""
LITTLE = 0.02
"""A gain that is certainly below this share of the largest reward is none."""


class Evaluation(NamedTuple):
    """What held-out problems said: their mean reward in [0, 1], and their number."""

    reward: float
    problems: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a node learns.

    Attributes:
        word: ``yes``: reward rose. ``no``: it fell, or any rise is too small to count. ``not yet``: nobody can tell.
        evidence: What it rests on, in one line.
    """

    word: Literal["yes", "no", "not yet"]
    evidence: str

    def __str__(self) -> str:
        return f"{self.word}: {self.evidence}"


def is_learning(rewards: Mapping[int, float], held_out: Mapping[int, Evaluation] | None = None) -> Answer:
    """Says whether a node learns.

    Args:
        rewards: Mean reward by round.
        held_out: Evaluations on held-out problems, by the round after which they were made.
    """
    asked = sorted((held_out or {}).items())
    if len(asked) > 1 and asked[0][0] <= WINDOW:
        return _by_held_out(*asked[0], *asked[-1])
    values = [rewards[round] for round in sorted(rewards)]
    if len(values) < 2 * WINDOW:
        have = f"{len(values)} round{'s have' if len(values) != 1 else ' has'} a reward"
        return Answer("not yet", f"{have}; the last {WINDOW} are compared with the first {WINDOW}")
    return _by_rounds(values)


def _by_rounds(values: list[float]) -> Answer:
    from hailproof.metrics.intervals import difference_of_means

    first, last = values[:WINDOW], values[-WINDOW:]
    shown = _Shown(all(0 <= value <= 1 for value in values))
    now, start = fmean(last), fmean(first)
    said = f"reward {shown.level(now)} in the last {WINDOW} rounds against {shown.level(start)} in the first {WINDOW}"
    ends = difference_of_means(last, first)
    scale = 1.0 if shown.shares else max(abs(value) for value in values)
    return _answer(said, now - start, ends, scale, shown)


def _by_held_out(first: int, start: Evaluation, last: int, now: Evaluation) -> Answer:
    from hailproof.metrics.intervals import difference_of_counts

    shown = _Shown(shares=True)
    said = (
        f"reward on held-out problems {shown.level(now.reward)} after round {last} against "
        f"{shown.level(start.reward)} after round {first}"
    )
    ends = difference_of_counts(now.reward, now.problems, start.reward, start.problems)
    return _answer(said, now.reward - start.reward, ends, 1.0, shown)


def _answer(said: str, gain: float, ends: tuple[float, float] | None, scale: float, shown: "_Shown") -> Answer:
    low, high = ends or (gain, gain)
    interval = f"95 % interval {shown.plain(low)} to {shown.plain(high)}" if ends else "the same in each round"
    evidence = f"{said} ({shown.plain(gain, sign=True)}, {interval})"
    if low > 0:
        return Answer("yes", evidence)
    if high < LITTLE * scale:
        return Answer("no", evidence)
    return Answer("not yet", f"{evidence}, which chance may explain")


class _Shown(NamedTuple):
    """How rewards are written: those in [0, 1] in percent, others as they are."""

    shares: bool

    def level(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.shares else f"{value:.3g}"

    def plain(self, value: float, sign: bool = False) -> str:
        number = f"{100 * value:.1f}" if self.shares else f"{value:.3g}"
        number = "0.0" if number == "-0.0" else number
        return f"+{number}" if sign and value >= 0 else number
