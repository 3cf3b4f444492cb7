"""The ways to read one equation: words and signs have several meanings, and it holds if one of them makes it true."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

from hailproof.arithmetic.characters import with_decimal_commas
from hailproof.arithmetic.expressions import MAX_SIDE
from hailproof.arithmetic.numerals import number_in_words
from hailproof.arithmetic.readings import DEFAULT, OTHER_READINGS, Reading, unmarked
from hailproof.arithmetic.relations import Lead, Relation, lead_in
from hailproof.arithmetic.surroundings import without_loose_end, without_loose_start
from hailproof.arithmetic.tokens import OPERATORS, Token, tokens

NEAR = 48
"""Tokens on each side of a sign that views other than the first look at."""
MARGIN = 12
"""Tokens around the expressions of a view that other readings of them look at."""
_BARS = frozenset(["|", "¦", "‖", "│", "｜"])  # noqa: RUF001
_DASHES = frozenset(["—", "―"])
_DECIMAL_COMMA = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?|[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})|[0-9]+")
_HOLDS_SEPARATOR = re.compile("[0-9][.,][0-9]")
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")


class View(NamedTuple):
    """One way to read an equation.

    Attributes:
        before: The tokens before its sign.
        after: Those after it.
        reading: What words and signs with two meanings stand for.
        loose: Whether something around the sign was left out, so that one number before it says nothing.
        trimmed: Whether what stands before ``before`` was left out.
        lead: What words before the number on the right claim.
        careful: Whether what else stands before the expression on the left makes this reading doubtful.
        size_only: Whether bars may take away the sign.
    """

    before: list[Token]
    after: list[Token]
    reading: Reading = DEFAULT
    loose: bool = False
    trimmed: bool = False
    lead: Lead | None = None
    careful: bool = False
    size_only: bool = False


def views(relation: Relation, text: str) -> Iterator[View]:
    """Yields the usual view, then those that read what it cannot, where there is something to read in their way.

    Args:
        relation: Two sides.
        text: What they are cut from.
    """
    tight = without_loose_end(relation.before)
    loose = len(tight) < len(relation.before)
    after = without_loose_start(relation.after[:MAX_SIDE])
    usual = View(tight[-MAX_SIDE:], after, DEFAULT, loose, len(tight) >= MAX_SIDE)
    yield usual
    usual = usual._replace(before=tight[-NEAR:], after=after[:NEAR], trimmed=len(tight) > NEAR)
    near = [*usual.before, *usual.after]
    if any(token.text in _BARS for token in near):
        yield usual._replace(before=_without(usual.before, _BARS), after=_without(usual.after, _BARS))
    spelled = usual._replace(reading=Reading(words=True), careful=True)
    if any(token.kind == "word" and number_in_words([token.text.lower()]) for token in near):
        yield spelled
    lead = lead_in(usual.after)
    if lead and (lead.compare or relation.sense not in ("leads", "says")):
        yield spelled._replace(after=usual.after[lead.length :], lead=lead, loose=True)
    end = len(usual.before)
    while end and usual.before[end - 1].kind == "close":
        end -= 1
    if end < len(usual.before) and not _is_operand(usual.before):
        kinds = [token.kind for token in tight]
        stray = not relation.chained and kinds.count("close") > kinds.count("open")  # 2 + 2) = 5
        yield usual._replace(before=usual.before[:end], loose=True, trimmed=usual.trimmed or not stray)
    yield from _with_decimal_commas(usual, text)


def otherwise(view: View, start: int, end: int) -> Iterator[tuple[View, Reading]]:
    """Yields other views of the same sides, each with the reading of the right one, by which they may be equal.

    Args:
        view: A view.
        start: Where the expression on its left begins.
        end: Where that on its right ends.
    """
    start, end = max(0, start - MARGIN), end + MARGIN
    view = view._replace(before=view.before[start:], after=view.after[:end], trimmed=view.trimmed or start > 0)
    near = [*view.before, *view.after]
    kinds, signs = {token.kind for token in near}, {token.text for token in near}
    yield view, view.reading
    plain = unmarked(view.reading)
    for ambiguous, reading in OTHER_READINGS:
        if ambiguous & kinds:
            yield view._replace(reading=reading), unmarked(reading)
    if _DASHES & signs:
        broken = view._replace(before=_breaking(view.before), after=_breaking(view.after))
        yield broken._replace(loose=True), plain
    if ":" in signs or "clock" in kinds:
        yield view._replace(before=_divided(view.before), after=_divided(view.after)), plain
    if _BARS & signs:
        bare = view._replace(before=_without(view.before, _BARS), after=_without(view.after, _BARS))
        yield bare._replace(size_only=True), plain
    if "times" in kinds and "0" in signs:
        yield view._replace(before=_hexadecimal(view.before), after=_hexadecimal(view.after)), plain


def _is_operand(before: Sequence[Token]) -> bool:
    """Whether the parenthesis that ends a left side is computed with: ``(2 + 1) + (2 + 2)``, but not ``so (2 + 2)``."""
    depth = 0
    for place in reversed(range(len(before))):
        depth += (before[place].kind == "close") - (before[place].kind == "open")
        if depth == 0:
            signed = place > 1 and before[place - 1].kind in OPERATORS
            return signed and before[place - 2].kind in ("number", "close")
    return False


def clock_is(number: Fraction, clock: str) -> bool | None:
    """Whether ``5:30`` is a number of hours, on a dial or not, or of minutes, or a ratio; ``None`` if it is no time."""
    hours, _, minutes = clock.partition(":")
    if not (minutes.isdigit() and len(hours) <= 4 and len(minutes) <= 4):
        return None
    above, below = Fraction(int(hours)), Fraction(int(minutes))
    time = above + below / 60
    return (number - time) % 12 == 0 or number == above * 60 + below or number * below == above


def _without(tokens: Sequence[Token], texts: frozenset[str]) -> list[Token]:
    return [token for token in tokens if token.text not in texts]


def _breaking(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with long dashes that break the sentence."""
    return [token._replace(kind="other") if token.text in _DASHES else token for token in tokens]


def _divided(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with colons that divide."""
    found: list[Token] = []
    for token in tokens:
        if token.kind == "clock" and token.text.count(":") == 1 and not token.text.endswith(":"):
            above, _, below = token.text.partition(":")
            colon = token.start + len(above)
            found += [Token("number", above, token.start, colon), Token("slash", ":", colon, colon + 1)]
            found.append(Token("number", below, colon + 1, token.end))
        else:
            found.append(token._replace(kind="slash") if token.text == ":" else token)
    return found


def _hexadecimal(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with ``0x10`` as one number."""
    found: list[Token] = []
    for token in tokens:
        prefix = [each.text.lower() for each in found[-2:]] == ["0", "x"]
        if prefix and token.kind == "number" and token.text.isdigit() and found[-2].end + 1 == token.start:
            found[-2:] = [Token("number", f"0x{token.text}", found[-2].start, token.end)]
        else:
            found.append(token)
    return found


def _with_decimal_commas(view: View, text: str) -> Iterator[View]:
    """Yields the view with ``1.200,50`` for 1,200.50, if all its numbers may be written so."""
    before = view.before
    last = max((index for index, token in enumerate(before) if token.kind in ("line", "stop")), default=-1)
    before = before[last + 1 :]
    if not before or not view.after:
        return
    cut = next((index for index, token in enumerate(view.after) if token.kind == "line"), len(view.after))
    after = view.after[:cut] or view.after[:1]
    parts = [(part[0].start, part[-1].end) for part in (before, after)]
    written = [text[start:end] for start, end in parts]
    if not any(map(_HOLDS_SEPARATOR.search, written)):
        return
    if not all(_DECIMAL_COMMA.fullmatch(number) for part in written for number in _NUMBER.findall(part)):
        return
    swapped = [_moved(with_decimal_commas(part), start) for part, (start, _) in zip(written, parts, strict=True)]
    yield view._replace(before=swapped[0], after=swapped[1], trimmed=view.trimmed and last < 0)


def _moved(text: str, offset: int) -> list[Token]:
    """The tokens of a part of a text, as they stand in the whole."""
    return [token._replace(start=token.start + offset, end=token.end + offset) for token in tokens(text)]
