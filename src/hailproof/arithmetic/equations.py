"""Finds the equations of a text and evaluates them exactly, in fractions; what cannot be evaluated is left open.

An equation is what stands around an equals sign, an arrow, or a word such as ``is``: on its left the longest expression
that ends there, on its right the longest that begins there. Expressions are written as people write them: numbers with
currency signs, units, percent and thousands separators, all usual signs for the operations, LaTeX, words. The words
around them are skipped, and names between two signs: ``2 + 2 = x = 5`` says 2 + 2 = 5.

Whoever reads prose guesses, and an honest text must not pay for a wrong guess: an equation holds if *one* usual reading
of it holds. These are the readings, and there are no others:

* The right side is either the whole expression or only the first number of it, since people run on:
  ``2 + 3 = 5 * 4 = 20`` says 2 + 3 = 5, then 5 * 4 = 20. As a chain it is false, which ``runs_on`` tells.
* ``(2) 5 + 3 = 8`` and ``Step 2 - 5 + 3 = 8`` are numbered, or multiply and subtract; ``-3² = -9``, or 9;
  ``3 squared + 4 squared`` is 25, or 7 of something; ``1 hour + 30 minutes = 90 minutes``, or 31 of something.
* ``20%`` is 20/100, or (``20 / 100 * 100 = 20%``) 20, or (``$200 - 15% = $170``) a share of what stands before it;
  ``50 cents`` is 50, or (``$1 + 50 cents = $1.50``) 50/100; ``2 dozen`` is 24, or (``1 dozen + 1 dozen = 2 dozen``) 2.
* A colon divides, ``12 : 4 = 3``, or ends a label, ``Answer: 4 = 3 + 1``; a long dash is a minus, or a break.
* ``1.200`` is 1.2, or, where all numbers of the equation may be written so, 1,200; ``0x10`` is 0, or 16.
* Bars separate the cells of a table, or take away a sign: ``|3 - 5| = 2``.
* The root of ``9 + 16`` is that of 9, or of 25. A time is hours, on a dial or not, or minutes: ``7 + 90/60 = 8:30``.
* On the right, ``5!`` is 5 or 120, ``5²`` is 5 (and a footnote) or 25, ``5 and a half`` is 5 or 5.5.
* A number may be rounded, half up, or cut, at the digits that are written: 10/3 is 3.33 and 2/3 is 0.66 or 0.67.
  Whole numbers are rounded only from what has no end, 10/3 = 3, or is a decimal already, 3.5 = 4; 7/2 is neither 3
  nor 4. After ``≈`` it may be rounded at any digit: 198 ≈ 200.

Words before the number on the right are skipped, ``= clearly 5``, or compare, ``= no less than 5``. A number that is
taken back counts as the one that replaces it: ``= 4, no, 5``.

Left open are equations with variables (``2x = 10``; ``2 + 3 = 5 m`` has none), those that rename a quantity rather than
compute one (``1 hour = 60 minutes``; a result only by a whole factor, ``120 minutes = 2 hours``), those that a word
before them makes true (``half of 8 + 2 = 5``), and whatever does not parse. The work is linear in the text, however
hostile it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from hailproof.arithmetic.characters import fold
from hailproof.arithmetic.expressions import MAX_SIDE, Run, Side
from hailproof.arithmetic.readings import DEFAULT, Reading, unmarked
from hailproof.arithmetic.relations import NUMBERS, Relation, relations, split, taken_back
from hailproof.arithmetic.surroundings import (
    counts_anew,
    goes_on,
    is_cut,
    is_doubtful,
    is_unfinished,
    last_number,
    may_say_more,
    shared,
    unit_letter,
)
from hailproof.arithmetic.tokens import OPERATORS, tokens
from hailproof.arithmetic.values import Value, same
from hailproof.arithmetic.views import View, clock_is, otherwise, views
from hailproof.parsing import CALCULATOR_NOTE

MAX_CHARACTERS = 32_768
"""What follows in a longer text is not read."""
LEAST_PATIENCE = 20
CHARACTERS_A_DOUBT = 80
_CONVERSIONS = frozenset([60, 3600, *(10**power for power in range(1, 10))])
"""How many of one unit are another, ``600 + 400 = 1 l``; both ways."""

_AFTER_COMPUTING = frozenset(["roughly", "leads", "says"])
"""Senses of relations that say something only after an expression: ``3 → 4`` does not say that 3 is 4."""
_TIMES = frozenset(["am", "pm", "hour", "hours", "minute", "minutes", "min", "o'clock"])


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation of a text.

    Attributes:
        start: Index of its first character.
        end: Index after its last character.
        left: The expression before the sign, as written.
        right: What the sign is followed by, as written: the first number or the whole expression.
        holds: Whether one of its usual readings is true; ``None`` if it cannot be evaluated.
        expected: What the left side is; empty where ``holds`` is ``None``.
        runs_on: Whether it holds for the first number on the right alone, ``2 + 2 = 4 + 1``.
    """

    start: int
    end: int
    left: str
    right: str
    holds: bool | None
    expected: str = ""
    runs_on: bool = False

def equations(text: str) -> list[Equation]:
    """Finds every equation, calculator notes ``<<48/2=24>>`` included, in the order of the equals signs.

    What stands in the marks of a note and is no whole equation is read as if they were not there.

    Args:
        text: Any text, trusted or not; it never raises.
    """
    seen = fold(text[:MAX_CHARACTERS])
    found: list[Equation] = []

    def without_note(note: re.Match[str]) -> str:
        content, offset = note.group()[2:-2], note.start() + 2
        if not _is_equation(content):
            return f"  {content}  "
        for equation in _equations(content):
            found.append(replace(equation, start=equation.start + offset, end=equation.end + offset))
        return " " * len(note.group())

    found += _equations(CALCULATOR_NOTE.sub(without_note, seen.text))
    places = ((seen.origins[each.start], seen.origins[each.end]) for each in found)
    found = [replace(each, start=start, end=end) for each, (start, end) in zip(found, places, strict=True)]
    return sorted(found, key=lambda equation: (equation.end, equation.start))


def _is_equation(text: str) -> bool:
    """Whether a text is an equation, or a chain of them, and nothing else."""
    signs, sides = split(tokens(text))
    reads = [Side(side[:MAX_SIDE], DEFAULT).sum(0, 0) for side in sides]
    return bool(signs) and all(read and read[1] == len(side) for read, side in zip(reads, sides, strict=True))


class _Patience:
    """How many equations of a text that do not hold at first sight are read in other ways: so many a character.

    What is left after that is judged as it looks, so that nobody gains by filling a text with doubtful ones.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self.left = LEAST_PATIENCE + len(text) // CHARACTERS_A_DOUBT

    def lasts(self) -> bool:
        """Takes one away; whether there was one left."""
        self.left -= 1
        return self.left >= 0


def _equations(text: str) -> Iterator[Equation]:
    patience = _Patience(text)
    for relation in relations(*split(tokens(text))):
        equation = _equation(text, relation, patience)
        if equation is not None:
            yield equation


def _equation(text: str, relation: Relation, patience: _Patience) -> Equation | None:
    """Judges what stands around a sign; ``None`` if there is no expression on both sides.

    It holds if a view of it holds. Else the first view in which it can be evaluated decides.
    """
    decided = found = None
    for view in views(relation, text):
        equation = _judged(text, view, relation, patience)
        if equation is None:
            continue
        if equation.holds:
            return equation
        found = found or equation
        if decided is None and equation.holds is not None:
            decided = equation
    return decided or (found if relation.sense != "says" else None)


class _Sides(NamedTuple):
    """Both expressions of an equation as one view reads them.

    Attributes:
        left_side: What stands before the sign.
        right_side: What stands after it.
        left: The expression before the sign.
        right: The whole expression after the sign, then its first number.
    """

    left_side: Side
    right_side: Side
    left: Run
    right: list[Run]


def _sides(view: View, right_reading: Reading) -> _Sides | None:
    """Reads both sides; ``None`` if there is no expression on both."""
    left_side, right_side = Side(view.before, view.reading), Side(view.after, right_reading)
    left = left_side.last_run()
    right = right_side.first_runs() if left else []
    return _Sides(left_side, right_side, left, right) if left and right else None


def _judged(text: str, view: View, relation: Relation, patience: _Patience) -> Equation | None:
    """Judges an equation by one view, and by all others that may make it true."""
    sides = _sides(view, unmarked(view.reading))
    if sides is None:
        return None
    left, right = sides.left, sides.right
    computed = not sides.left_side.is_plain(left)
    restated = relation.chained and left.start == 0 and view.lead is None  # 2 + 2 = 4, = 5
    if not computed and ((view.loose and not restated) or relation.sense in _AFTER_COMPUTING):
        return None
    letter = unit_letter(sides.right_side, right[-1]) if computed and left.value.letters == frozenset() else ""
    if letter:
        right = [run._replace(value=_without_letter(run.value, letter)) for run in right]
    start, middle = view.before[left.start].start, view.before[left.end - 1].end
    second, stop = view.after[right[0].start].start, last_number(view.after, right[0]).end
    expected = _text(left.value.number)
    equation = Equation(start, stop, text[start:middle], text[second:stop], None)
    about = relation.sense in ("about", "roughly") or any(token.text == "~" for token in relation.after[:1])
    if view.lead is not None:
        about |= view.lead.roughly
        if view.lead.compare is not None:
            return _compared(equation, view, sides)
    outcomes = [same(left.value, run.value, about) for run in right]
    if True in outcomes:
        if _is_taken_back(view, sides, about):
            return replace(equation, holds=False, expected=expected)
        goes_on_computing = sides.right_side.kind(right[-1].end) in OPERATORS
        return replace(
            equation, holds=True, expected=expected, runs_on=computed and outcomes[0] is False and goes_on_computing
        )
    others = otherwise(view, left.start, max(run.end for run in right))
    if patience.lasts() and any(_agree(other, reading, about) for other, reading in others):
        return replace(equation, holds=True, expected=expected)
    if _is_open(view, relation, sides, computed) or (letter and _converts(left.value.number, right[-1].value.number)):
        return equation
    if None in outcomes and not _is_no_such_time(view, sides):
        return equation
    if True in {same(value, run.value, about) for value in shared(sides.left_side, left) for run in right}:
        return equation
    return replace(equation, holds=False, expected=expected)


def _agree(view: View, right_reading: Reading, about: bool) -> bool:
    """Whether a view makes both sides equal."""
    sides = _sides(view, right_reading)
    if sides is None or (view.loose and sides.left_side.is_plain(sides.left)):
        return False
    left = sides.left.value
    if view.size_only and left.number is not None and left.number < 0:
        left = left._replace(number=-left.number)
    return any(same(left, run.value, about) for run in sides.right)


def _is_open(view: View, relation: Relation, sides: _Sides, computed: bool) -> bool:
    """Whether what stands around two values that differ may say something else than that they are equal."""
    left, right = sides.left, sides.right
    halves = view.before[left.start : left.end]
    if any(token.text.lower() in ("am", "pm") for token in halves):  # 8 am + 5 hours = 1 pm
        return True
    if is_cut(sides.left_side, left, view.trimmed) or goes_on(sides.right_side, right[0], left.value):
        return True
    if view.careful and is_doubtful(sides.left_side, left):
        return True
    if not computed and is_unfinished(sides.right_side, right[0]):
        return True
    if relation.sense == "says" and may_say_more(sides.left_side, left, sides.right_side, right[-1]):
        return True
    if computed or not left.value.units or left.value.units == right[0].value.units:
        return False
    if relation.chained and left.start == 0 and not _is_renamed(left.value, right[0].value):
        return False
    return not counts_anew(left, sides.right_side, right[0])


def _compared(equation: Equation, view: View, sides: _Sides) -> Equation:
    """Judges ``2 + 2 = no less than 5``."""
    left, right = sides.left.value, sides.right[-1].value
    if sides.left_side.is_plain(sides.left) or is_cut(sides.left_side, sides.left, view.trimmed):
        return equation
    if left.number is None or right.number is None or left.letters or right.letters or view.lead is None:
        return equation
    assert view.lead.compare is not None
    return replace(equation, holds=view.lead.compare(left.number, right.number), expected=_text(left.number))


def _is_taken_back(view: View, sides: _Sides, about: bool) -> bool:
    """Whether a right number is replaced by another one, ``= 4, no, 5``."""
    run = sides.right[-1]
    number = next((index for index in range(run.start, run.end) if view.after[index].kind in NUMBERS), run.start)
    place = taken_back(view.after, number + 1)
    if place is None:
        return False
    side = Side(view.after[place:], unmarked(view.reading._replace(words=True)))
    runs = side.first_runs()
    if not runs or side.kind(runs[-1].end) in OPERATORS:
        return False
    return same(sides.left.value, runs[-1].value, about) is False


def _is_no_such_time(view: View, sides: _Sides) -> bool:
    """Whether a right side is a time of day, ``2 + 2 = 5:00``, that the left side, which has none, is not."""
    left, right = sides.left, sides.right[-1]
    tokens = view.after[right.start : right.end]
    if left.value.number is None or left.value.letters != frozenset() or not tokens or tokens[0].kind != "clock":
        return False
    if any(token.kind == "clock" or token.text.lower() in _TIMES for token in view.before[left.start : left.end]):
        return False
    return clock_is(left.value.number, tokens[0].text) is False


def _without_letter(value: Value, letter: str) -> Value:
    """A value whose letter is a unit."""
    return value if value.letters is None else value._replace(letters=value.letters - {letter})


def _converts(left: Fraction | None, right: Fraction | None) -> bool:
    """Whether one number may be the other in another unit."""
    if not left or not right:
        return False
    return left / right in _CONVERSIONS or right / left in _CONVERSIONS


def _is_renamed(left: Value, right: Value) -> bool:
    """Whether a result may be told in another unit: ``2 * 60 = 120 minutes = 2 hours``, but not ``2 + 2 = $4 = 5``."""
    if not left.number or not right.number or not right.units:
        return False
    return 1 in ((left.number / right.number).denominator, (right.number / left.number).denominator)


def _text(number: Fraction | None) -> str:
    """A value for people: exact if it has at most six decimals."""
    if number is None:
        return ""
    if number.denominator == 1:
        return str(number.numerator)
    rounded = Fraction(round(number * 10**6), 10**6)
    digits = f"{abs(rounded.numerator) * 10**6 // rounded.denominator:07d}"
    decimal = f"{'-' if number < 0 else ''}{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
    return decimal if rounded == number else f"about {decimal}"
