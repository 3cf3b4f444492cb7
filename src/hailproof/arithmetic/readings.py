"""What words and signs with two meanings stand for, and the words that the readers of equations ask about."""

from fractions import Fraction
from typing import NamedTuple

COUNTED = frozenset(["day", "part", "phase", "question", "stage", "step", "week", "year"])
"""Words whose number says which one: ``Step 2``."""
CLAUSES = frozenset([
    "are", "because", "has", "have", "if", "is", "means", "meaning", "since", "so", "then", "therefore", "thus", "was",
    "were", "when", "which", "will",
])  # fmt: skip


class Reading(NamedTuple):
    """What the words and signs that have two meanings stand for.

    Attributes:
        percent: What a percent sign multiplies with.
        cents: What a sign for cents multiplies with.
        multiples: Whether ``dozen`` and the like multiply.
        marks: Whether what follows a number changes it: ``5!`` is 120, ``5²`` is 25, ``5 and a half`` is 5.5. If not,
            it is an exclamation, a footnote, a new thought.
        numbering: Whether parentheses, and a word with a number and a dash, before a number only count: ``(2) 5 + 3``,
            ``Step 2 - 5 + 3``.
        signs_last: Whether a power binds closer than the minus sign before it: ``-3²`` is -9.
        measures: Whether units of ``MEASURES`` multiply: ``1 hour + 30 minutes`` is 5400.
        powers: Whether ``squared`` and ``cubed`` after a number are powers of it.
        words: Whether numbers in words are numbers.
        relative: Whether a percentage that is added or taken away is one of what stands before it: ``$200 - 15%``.
        rates: Whether units may hold a number: ``3 degrees/5 minutes``.
        far_roots: Whether a root is taken of the whole sum that follows: ``the square root of 9 + 16``.
    """

    percent: Fraction = Fraction(1, 100)
    cents: Fraction = Fraction(1)
    multiples: bool = True
    marks: bool = True
    numbering: bool = False
    signs_last: bool = False
    measures: bool = False
    powers: bool = False
    words: bool = False
    relative: bool = False
    far_roots: bool = False
    rates: bool = False


DEFAULT = Reading()
OTHER_READINGS = (
    ({"percent"}, Reading(percent=Fraction(1))),
    ({"percent"}, Reading(relative=True)),
    ({"cents"}, Reading(cents=Fraction(1, 100))),
    ({"multiple"}, Reading(multiples=False)),
    ({"close", "minus"}, Reading(numbering=True)),
    ({"power", "superscript"}, Reading(signs_last=True)),
    ({"word"}, Reading(measures=True, powers=True)),
    ({"slash"}, Reading(rates=True)),
    ({"root"}, Reading(far_roots=True)),
)
"""Other meanings, each with the kinds of tokens that can have it."""


def unmarked(reading: Reading) -> Reading:
    """For right sides: what ends a sentence there is more often its end than a factorial."""
    return reading._replace(marks=False)
