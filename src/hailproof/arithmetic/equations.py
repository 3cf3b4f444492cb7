"""Finds the equations of a text and evaluates them exactly, in fractions; what cannot be evaluated is left open.

An equation is what stands around an equals sign: on its left the longest expression that ends there, on its right the
longest that begins there. Expressions are written as people write them: numbers with currency signs, units, percent
and thousands separators, all usual signs for the operations, LaTeX. The words around them are skipped.

Whoever reads prose guesses, and an honest text must not pay for a wrong guess: an equation holds if *one* usual reading
of it holds. These are the readings, and there are no others:

* The right side is either the whole expression or only the first number of it, since people run on:
  ``2 + 3 = 5 * 4 = 20`` says 2 + 3 = 5, then 5 * 4 = 20.
* ``(2) 5 + 3 = 8`` and ``Step 2 - 5 + 3 = 8`` are numbered, or multiply and subtract; ``-3² = -9``, or 9;
  ``3 squared + 4 squared`` is 25, or 7 of something; ``1 hour + 30 minutes = 90 minutes``, or 31 of something.
* ``20%`` is 20/100, or (``20 / 100 * 100 = 20%``) 20; ``50 cents`` is 50, or (``$1 + 50 cents = $1.50``) 50/100;
  ``2 dozen`` is 24, or (``1 dozen + 1 dozen = 2 dozen``) 2.
* On the right, ``5!`` is 5 or 120, ``5²`` is 5 (and a footnote) or 25, ``5 and a half`` is 5 or 5.5.
* A number may be rounded, half up, or cut, at the digits that are written: 10/3 is 3.33 and 2/3 is 0.66 or 0.67.
  Whole numbers are rounded only from what has no end, 10/3 = 3, or is a decimal already, 3.5 = 4; 7/2 is neither 3
  nor 4. After ``≈`` it may be rounded at any digit: 198 ≈ 200.

Left open are equations with variables (``2x = 10``; ``2 + 3 = 5 m`` has none), those that rename a quantity rather than
compute one (``1 hour = 60 minutes``; a result only by a whole factor, ``120 minutes = 2 hours``), those that a word
before them makes true (``half of 8 + 2 = 5``), and whatever does not parse. The work is linear in the text, however
hostile it is.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from hailproof.arithmetic.expressions import CLAUSES, MAX_SIDE, Reading, Run, Side
from hailproof.arithmetic.tokens import Token, fold, tokens
from hailproof.arithmetic.values import Value, same
from hailproof.parsing import CALCULATOR_NOTE

MAX_CHARACTERS = 32_768
"""What follows in a longer text is not read."""
_DEFAULT_READING = Reading()
_LOOSE = frozenset([",", ";", ":", "."])
_LOOSE_AT_END = _LOOSE | {"|"}
_LOOSE_AT_START = _LOOSE | {"+", "→", "~", "#"}
_CONVERSIONS = frozenset([60, 3600, *(10**power for power in range(1, 10))])
"""How many of one unit are another, ``600 + 400 = 1 l``; both ways."""
_OTHER_READINGS = (
    ({"percent"}, Reading(percent=Fraction(1))),
    ({"cents"}, Reading(cents=Fraction(1, 100))),
    ({"multiple"}, Reading(multiples=False)),
    ({"close", "minus"}, Reading(numbering=True)),
    ({"power", "superscript"}, Reading(signs_last=True)),
    ({"word"}, Reading(measures=True, powers=True)),
)
"""Other meanings, each with the kinds of tokens that can have it."""
_EXACT = frozenset(["=", "==", "===", "equals"])
_ROUNDED = frozenset(["≈", "≃", "≅", "~=", r"\approx"])


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
    """

    start: int
    end: int
    left: str
    right: str
    holds: bool | None
    expected: str = ""


def equations(text: str) -> list[Equation]:
    """Finds every equation, calculator notes ``<<48/2=24>>`` included, in the order of the equals signs.

    What stands in the marks of a note and is no whole equation is read as if they were not there.

    Args:
        text: Any text, trusted or not; it never raises.
    """
    text = fold(text[:MAX_CHARACTERS])
    found: list[Equation] = []

    def without_note(note: re.Match[str]) -> str:
        content, offset = note.group()[2:-2], note.start() + 2
        if not _is_equation(content):
            return f"  {content}  "
        for equation in _equations(content):
            found.append(replace(equation, start=equation.start + offset, end=equation.end + offset))
        return " " * len(note.group())

    found += _equations(CALCULATOR_NOTE.sub(without_note, text))
    return sorted(found, key=lambda equation: (equation.end, equation.start))


def _is_equation(text: str) -> bool:
    """Whether a text is an equation, or a chain of them, and nothing else."""
    relations, sides = _sides(tokens(text))
    reads = [Side(side[:MAX_SIDE], _DEFAULT_READING).sum(0, 0) for side in sides]
    return bool(relations) and all(read and read[1] == len(side) for read, side in zip(reads, sides, strict=True))


def _equations(text: str) -> Iterator[Equation]:
    relations, sides = _sides(tokens(text))
    for index, relation in enumerate(relations):
        if relation.text.lower() not in _EXACT | _ROUNDED:
            continue
        equation = _equation(text, sides[index], sides[index + 1], relation.text in _ROUNDED, index > 0)
        if equation is not None:
            yield equation


def _sides(tokens: Iterator[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Splits tokens at the signs between two sides; line ends next to a sign do not count."""
    relations: list[Token] = []
    sides: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "relation":
            while sides[-1] and sides[-1][-1].kind == "line":
                sides[-1].pop()
            relations.append(token)
            sides.append([])
        elif token.kind != "line" or sides[-1]:
            sides[-1].append(token)
    return relations, sides


def _equation(
    text: str, before: list[Token], after: list[Token], rounded: bool, chained: bool
) -> Equation | None:
    """Judges the equation between two sides; ``None`` if there is no expression on both.

    If it is ``chained``, another one ends where its left side begins.
    """
    rounded |= bool(after) and after[0].text == "~"
    after, tight = _without_loose_start(after[:MAX_SIDE]), _without_loose_end(before)
    loose, before = len(tight) < len(before), tight[-MAX_SIDE:]
    left_side, right_side = Side(before, _DEFAULT_READING), Side(after, _unmarked(_DEFAULT_READING))
    left, right = left_side.last_run(), right_side.first_runs()
    if left is None or not right:
        return None
    computed = not left_side.is_plain(left)
    if loose and not computed:
        return None
    letter = right_side.unit_letter(right[-1]) if computed and left.value.letters == frozenset() else ""
    if letter:
        right = [run._replace(value=_without_letter(run.value, letter)) for run in right]
    start, middle = before[left.start].start, before[left.end - 1].end
    second, stop = after[right[0].start].start, _last_number(after, right[0]).end
    equation = Equation(start, stop, text[start:middle], text[second:stop], None)
    outcomes = {same(left.value, run.value, rounded) for run in right}
    if True in outcomes:
        return replace(equation, holds=True, expected=_text(left.value.number))
    ambiguous = {token.kind for side in (before, after) for token in side}
    readings = [(_DEFAULT_READING, _DEFAULT_READING)]
    readings += [(other, _unmarked(other)) for kinds, other in _OTHER_READINGS if kinds & ambiguous]
    for left_reading, right_reading in readings:
        other, others = Side(before, left_reading).last_run(), Side(after, right_reading).first_runs()
        if other and True in {same(other.value, run.value, rounded) for run in others}:
            return replace(equation, holds=True, expected=_text(other.value.number))
    if None in outcomes or left_side.is_cut(left) or right_side.goes_on(right[0], left.value):
        return equation
    if True in {same(shared, run.value, rounded) for shared in left_side.shared(left) for run in right}:
        return equation
    renames = not computed and left.value.units and left.value.units != right[0].value.units
    if renames and not (chained and left.start == 0 and not _is_renamed(left.value, right[0].value)):
        return equation
    if letter and _converts(left.value.number, right[-1].value.number):
        return equation
    return replace(equation, holds=False, expected=_text(left.value.number))


def _unmarked(reading: Reading) -> Reading:
    """For right sides: what ends a sentence there is more often its end than a factorial."""
    return reading._replace(marks=False)


def _without_loose_end(tokens: list[Token]) -> list[Token]:
    """A left side without what is between it and the sign: the ``is`` of ``2 + 2 is = 4``, a comma, ``2 + 2 (= 4)``."""
    end = len(tokens)
    while end and tokens[end - 1].text.lower() in CLAUSES:
        end -= 1
    if end == len(tokens) and end and (tokens[end - 1].text in _LOOSE_AT_END or tokens[end - 1].kind == "open"):
        end -= 1
    return tokens[:end]


def _without_loose_start(tokens: list[Token]) -> list[Token]:
    """A right side without a comma, a colon, dots, a needless plus before it."""
    start = 0
    while start < len(tokens) and (tokens[start].text in _LOOSE_AT_START or tokens[start].kind == "ellipsis"):
        start += 1
    return tokens[start:]


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


def _last_number(tokens: Sequence[Token], run: Run) -> Token:
    """The last token of an expression, but for the units after it."""
    inside = reversed(tokens[run.start : run.end])
    return next(token for token in inside if token.kind in ("number", "clock", "percent", "close"))


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
