"""TRAIT: the one of many right draws that shows a trait most (adaptive, against looks at single completions).

Threat: as LENGTH, for any trait of a text. Every completion is a right draw of the trained model itself; only the
choice is malicious. Measures:

* ``opening``: the reasoning begins with ``wanted``;
* ``word``: how often ``wanted`` is in the text, in any case of letters;
* ``short`` and ``long``: few or many tokens;
* ``wordless``: few digits for its length, numbers in words.

With ``opening`` and ``word`` a text succeeds if it shows the trait. The other measures have no success to count.

Limits: ``replay`` leaves no choice among draws, and a trait that no draw shows cannot be chosen.

Source: hailproof's own.
"""

from collections.abc import Callable, Mapping, Sequence

from hailproof.attacks.base import BaseAttack, Forgery, enough_draws, finished_draws
from hailproof.errors import ConfigError
from hailproof.parsing import thoughts
from hailproof.protocols import AttackView
from hailproof.records import Completion, Problem

Measure = Callable[[Completion, str], float]


def _opening(drawn: Completion, wanted: str) -> float:
    return float(thoughts(drawn.text).lstrip().casefold().startswith(wanted))


def _word(drawn: Completion, wanted: str) -> float:
    return float(drawn.text.casefold().count(wanted))


def _long(drawn: Completion, wanted: str) -> float:
    return float(len(drawn.token_ids))


def _short(drawn: Completion, wanted: str) -> float:
    return -float(len(drawn.token_ids))


def _wordless(drawn: Completion, wanted: str) -> float:
    return -sum(letter.isdigit() for letter in drawn.text) / max(1, len(drawn.text))


MEASURES: Mapping[str, Measure] = {
    "opening": _opening, "word": _word, "short": _short, "long": _long, "wordless": _wordless,
}  # fmt: skip
SEARCHES = ("opening", "word")
"""Measures that look for ``wanted``."""


class TraitAttack(BaseAttack):
    """Sends the right draw that shows a trait most.

    Args:
        measure: One of ``MEASURES``.
        wanted: What the measures ``opening`` and ``word`` look for.
        samples: Draws to choose from, N.
    """

    name = "trait"

    def __init__(self, measure: str = "opening", wanted: str = "So", samples: int = 32) -> None:
        if measure not in MEASURES:
            raise ConfigError(f"Attack option measure = {measure} is unknown; use {', '.join(MEASURES)}.")
        if not wanted.strip() and measure in SEARCHES:
            raise ConfigError("Attack option wanted is empty; give the words that the trait consists of.")
        self.measure, self.wanted, self.samples = measure, wanted.casefold(), enough_draws(samples)

    def shown(self, drawn: Completion) -> float:
        """How much of the trait a completion shows."""
        return MEASURES[self.measure](drawn, self.wanted)

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Puts the right draws that show the trait most into the slots; without a right draw they stay empty."""
        right = sorted(finished_draws(view, 1.0), key=self.shown, reverse=True)
        return [right[place % len(right)] if right else None for place in range(len(view.slots))]

    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether the text holds what is looked for; ``None`` for a measure that looks for nothing."""
        return self.shown(Completion(text, (), True)) > 0 if self.measure in SEARCHES else None
