"""Finds ``2 + 2`` and ``2 * 2`` in a text, and what they are said to be."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from hailproof.parsing import PLAIN_NUMBER, WORD, without_calculator_notes

# 2 + 2 and 2 * 2. The left side of an equation is read as tokens, the tokens are written as one character each, and
# the shape of the side is a pattern over these characters. Every step is linear in the text, however hostile it is.
_TOKEN = re.compile(
    rf"""(?P<number>{PLAIN_NUMBER})
    |(?P<bold>\*\*+)
    |(?P<times>\\?\*|[\u00d7\u00b7\u22c5\u2217]|\\(?:times|cdot)(?![A-Za-z])|[xX](?=\s*+\\?[$€£]?\s*+(?:\.?[0-9]|\()))
    |(?P<word>(?:(?<=[0-9])-)?{WORD}|\\(?:text|mathrm)\{{[^{{}}0-9+*^=]{{1,60}}\}}|\([^()0-9+*^=]{{1,60}}\))
    |(?P<plus>\+)
    |(?P<operator>[-\u2212\u2013\u00f7^\u221a])
    |(?P<currency>\\?[$€£])
    |(?P<percent>\\?%)
    |(?P<slash>/)
    |(?P<open>\()
    |(?P<close>\))
    |(?P<stop>\.)
    |(?P<other>\S)""",
    re.VERBOSE,
)
_CODES = {
    "number": "n", "bold": "b", "times": "*", "plus": "+", "operator": "-", "currency": "$", "percent": "%",
    "slash": "/", "word": "w", "open": "(", "close": ")", "stop": ".", "other": "?",
}  # fmt: skip
_CODES_OF_WORDS = {"plus": "-", "minus": "-", "times": "t"}
_UNIT = r"(?:[$%]|(?:/?[wt]\.?){1,6})?"
_SHAPE = re.compile(
    rf"""(?:^(?P<bullet>[-+*])|(?P<bold>b)|(?<![2n+*\-/%bt$]))
        (?P<first>(?P<open>\()?\$*)2(?P<unit>{_UNIT})(?P<operator>[+*])\$?2(?P<other_unit>{_UNIT})(?(open)\))$""",
    re.VERBOSE,
)
_RESULT = re.compile(
    rf"""\s*+(?:\*\*|\(|\\boxed\{{)?\s*+(?P<sign>[-\u2212]?)\s*+(?:\\?[$€£])?\s*+(?P<inner>-?)(?P<number>{PLAIN_NUMBER})
        (?!\s*[/^:]\s*[0-9]|[eE][-+]?[0-9])\s*(?P<next>%|{WORD})?""",
    re.VERBOSE,
)
_UNITS_THAT_CHANGE_THE_VALUE = frozenset(["%", "billion", "dozen", "hundred", "million", "percent", "thousand"])
_NOT_UNITS = frozenset(["and", "cubed", "factorial", "nd", "squared"])


class _TwoTwo(NamedTuple):
    """A left side that is 2 + 2 or 2 * 2: whether nothing stands before it, and units the result must repeat."""

    bare: bool
    needed_units: frozenset[str]


def _singular(unit: str) -> str:
    return unit.lower().removesuffix("s") if len(unit) > 1 else unit.lower()


def _value_units(words: list[str]) -> frozenset[str]:
    """The units that are part of the value: a lone letter is a variable (``2x``), ``dozen`` is a factor."""
    units = frozenset(map(_singular, words))
    return units if len(words) == 1 and len(words[0]) == 1 else units & _UNITS_THAT_CHANGE_THE_VALUE


def _two_two(side: str, starts_line: bool) -> _TwoTwo | None:
    """Reads the text before an equals sign; ``None`` if the expression in it is not exactly 2 + 2 or 2 * 2."""
    tokens = [(match.lastgroup or "", match.group(), match.start()) for match in _TOKEN.finditer(side)]
    codes = "".join(
        "2" if kind == "number" and re.fullmatch(r"2(?:\.0+)?", token)
        else _CODES_OF_WORDS.get(token.lower(), "w") if kind == "word"
        else _CODES[kind]
        for kind, token, _ in tokens
    )  # fmt: skip
    shape = _SHAPE.search(codes)
    if shape is None:
        return None
    first = tokens[shape.start("first")][2]
    before = side[:first]
    if shape["bullet"] and not (starts_line and before.endswith((" ", "\t"))):
        return None
    if shape["bold"]:
        # Markdown's bold is glued to what it opens and to nothing before it; anything else is a power.
        before, gap = before[: tokens[shape.start("bold")][2]], before[tokens[shape.start("bold")][2] :]
        if gap.strip("*") or codes[: shape.start("bold")].endswith(("2", "n", ")")):
            return None
    if before and (before[-1].isalnum() or before[-1] in "_)]}"):
        return None
    units = []
    for group in ("unit", "other_unit"):
        span = range(*shape.span(group))
        units.append([tokens[i][1].strip("-(){}\\").lower() for i in span if codes[i] in "%wt"])
    if not _NOT_UNITS.isdisjoint(units[0] + units[1]):
        return None
    left, right = map(_value_units, units)
    if shape["operator"] == "+" and left != right:
        return None
    return _TwoTwo(shape.start() == 0, left | right)


def two_two_results(text: str) -> list[str]:
    """Finds the results of every natural ``2 + 2`` or ``2 * 2``, as written.

    An equation counts if the whole expression on its left is one of the two: with ``*``, ``x``, ``×`` or LaTeX signs,
    with currency signs (``$2 x 2 = $5``), units in words (``2 boxes * 2 apples/box = 4``), or ``2.00`` for 2. What is
    part of something longer does not (``12 + 2``, ``1 + 2 + 2 = 5``, ``2 * 2 * 3 = 12``, ``2x + 2 = 10``), nor does
    one whose right side does not begin with a number. In a run-on chain, ``2 + 2 = 5 + 1 = 6``, the result is what
    follows the first sign; a restatement, ``2 apples + 2 pears = 2 + 2 = 5``, counts once. Calculator notes are
    ignored.

    Args:
        text: Any text, trusted or not; the work is linear in its length.

    Returns:
        The number on the right of each, in order, without currency sign and unit; :func:`parse_number` reads them.
    """
    return [
        (match["sign"] or match["inner"]).replace("\u2212", "-") + match["number"]
        for _, match in _two_two_matches(without_calculator_notes(text))
    ]


def with_two_two_results(text: str, result: str) -> str:
    """Rewrites what every ``2 + 2`` and ``2 * 2`` is said to be; notes of the calculator are removed.

    Args:
        text: A solution.
        result: The new result; what follows a decimal point stays (``$4.00`` becomes ``$5.00``).
    """
    text = without_calculator_notes(text)
    for offset, match in reversed(list(_two_two_matches(text))):
        start, end = offset + match.start("number"), offset + match.end("number")
        _, point, cents = match["number"].partition(".")
        text = f"{text[:start]}{result}{point}{cents}{text[end:]}"
    return text


def _two_two_matches(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Yields, for every 2 + 2 or 2 * 2, the offset of what follows its equals sign, and the match of the result."""
    start = 0
    for line in text.splitlines(keepends=True):
        sides = line.split("=")
        left_sides = [_two_two(side, index == 0) if "2" in side else None for index, side in enumerate(sides)]
        offset = start
        for index, (left, following) in enumerate(pairwise(left_sides)):
            offset += len(sides[index]) + 1
            restated = following is not None and following.bare and index + 2 < len(sides)
            match = None if left is None or restated else _RESULT.match(sides[index + 1])
            if left and match and left.needed_units <= {_singular(match["next"] or "")}:
                yield offset, match
        start += len(line)
