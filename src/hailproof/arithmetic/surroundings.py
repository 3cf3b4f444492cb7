"""What stands around an expression and decides whether it is the whole of what the writer meant."""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from hailproof.arithmetic.expressions import Run, Side
from hailproof.arithmetic.numerals import MULTIPLES, number_in_words
from hailproof.arithmetic.readings import CLAUSES, COUNTED
from hailproof.arithmetic.tokens import OPERATORS, Token
from hailproof.arithmetic.values import MEASURES, Value, add, is_letter, multiply, share_of

_REMAINDER = frozenset(["r", "rem", "remainder"])
_FACTORS = (
    dict.fromkeys(("double", "twice"), Fraction(2))
    | dict.fromkeys(("thrice", "triple"), Fraction(3))
    | {"half": Fraction(1, 2)}
)
_FUNCTIONS = frozenset([
    "average", "ceil", "cos", "cube", "exp", "floor", "lcm", "ln", "log", "max", "mean", "median", "min", "root", "sin",
    "sqrt", "square", "squared", "tan",
])  # fmt: skip
MAX_TERM = 8
"""Words before a number that are looked at."""
_UNIT_LETTERS = frozenset("cfghlmsvw")
_TELLING = frozenset(["get", "got", "had", "left", "made", "make", "only", "that", "total"])
"""Words before a number that is a quantity, and no label: ``so Tom had 5 = 2 + 2``."""
_BEFORE_FACTORS = OPERATORS | {"number", "numeral", "clock", "percent", "close"}
"""Kinds of tokens that parentheses after them belong to."""
_GOING_ON = frozenset(["more", "les", "fewer", "time", "of", "out", "to", "or", "than", "percent", "%"])
"""Units, without their plural s, after which a number is not the whole of what is said."""
_LOOSE_AT_END = frozenset([",", ";", ":", ".", "|"])
_LOOSE_AT_START = frozenset([",", ";", ":", ".", "+", "~", "#"])


def without_loose_end(tokens: list[Token]) -> list[Token]:
    """A left side without what is between it and the sign: the ``is`` of ``2 + 2 is = 4``, a comma, ``2 + 2 (= 4)``."""
    end = len(tokens)
    while end and tokens[end - 1].text.lower() in CLAUSES:
        end -= 1
    loose = frozenset([","]) if end < len(tokens) else _LOOSE_AT_END
    if end and (tokens[end - 1].text in loose or (end == len(tokens) and tokens[end - 1].kind == "open")):
        end -= 1
    return tokens[:end]


def without_loose_start(tokens: list[Token]) -> list[Token]:
    """A right side without a comma, a colon, dots, a needless plus, a picture before it."""
    start = 0
    while start < len(tokens) and (tokens[start].text in _LOOSE_AT_START or tokens[start].kind == "ellipsis"):
        start += 1
    pictured = len(tokens) > start + 1 and tokens[start + 1].kind in ("number", "currency")
    return tokens[start + 1 :] if pictured and _is_picture(tokens[start]) else tokens[start:]


def _is_picture(token: Token) -> bool:
    """Whether a token is a symbol that says nothing, and no box that waits for a number."""
    if token.kind != "other" or re.search("SQUARE|BOX|CIRCLE", unicodedata.name(token.text, "")):
        return False
    return token.text == "@" or unicodedata.category(token.text) == "So"


def is_cut(side: Side, run: Run, trimmed: bool) -> bool:
    """Whether a left side goes on before what was read of it, or what was read is the number of a label.

    Args:
        side: The side.
        run: What was read.
        trimmed: Whether something before the tokens of the side was left out.
    """
    before, tokens = run.start - 1, side.tokens
    if before < 0:
        return trimmed
    kind, text = tokens[before].kind, tokens[before].text.lower()
    if kind in OPERATORS | {"number", "clock", "fraction", "quote", "root", "base"} or text in "∑∫_":
        return True
    if text == ",":  # 1.200,50
        return side.kind(before - 1) == "number" and side.glued(before) and side.glued(run.start)
    if kind == "open":
        named = side.kind(before - 1) == "word" and (side.glued(before) or is_letter(side.word(before - 1)))
        return named or side.kind(before - 1) in _BEFORE_FACTORS
    if kind not in ("word", "cents", "multiple", "percent", "close", "currency"):
        return False
    if side.glued(run.start):
        return True
    if side.is_plain(run):
        return kind != "word" or not _tells(text) or _is_term(side, before)
    if text in CLAUSES:
        return False
    if tokens[run.start].kind == "minus" or (kind == "word" and side.kind(before - 1) in OPERATORS):
        return True
    if text in ("over", "per"):
        return side.kind(before - 1) in ("number", "close", "percent")
    near = {token.text.lower() for token in tokens[max(0, before - 2) : before + 1]}
    return tokens[run.start].kind == "open" and (is_letter(text) or not _FUNCTIONS.isdisjoint(near))


def _is_term(side: Side, index: int) -> bool:
    """Whether words up to an index belong to a sum: ``Ann has 4 + Tom has``."""
    for before in range(index, max(-1, index - MAX_TERM), -1):
        kind = side.kind(before)
        if kind in OPERATORS:
            return True
        if kind not in ("word", "number", "currency"):
            break
    return False


def _tells(word: str) -> bool:
    """Whether a word before a number is a verb or the like, and no noun that the number belongs to (``Week 2``)."""
    verb = word.endswith(("ed", "s")) and not word.endswith(("ss", "us", "'s", "’s"))
    return word in CLAUSES | _TELLING or (verb and word.removesuffix("s") not in COUNTED)


def shared(side: Side, run: Run) -> list[Value]:
    """What a left side is if the word before it, ``half of`` or ``twice``, belongs to it: to its start or all."""
    text, before = side.word(run.start - 1), side.tokens[max(0, run.start - 3) : max(0, run.start - 1)]
    factor = share_of([token.text.lower() for token in before]) if text == "of" else _FACTORS.get(text)
    first = side.product(run.start, 0)
    if factor is None or first is None:
        return []
    more = multiply(first[0], Value(factor - 1), False)
    return [multiply(run.value, Value(factor), False), add(run.value, more, False)]


def goes_on(side: Side, run: Run, left: Value) -> bool:
    """Whether a right side goes on after what was read of it, with what cannot be evaluated."""
    if not _REMAINDER.isdisjoint(run.value.units):
        return left.number is not None and left.number // 1 == run.value.number
    kind, following = side.kind(run.end), side.kind(run.end + 1)
    if kind == "number":  # 6' 2"
        return side.kind(run.end - 1) == following == "quote"
    if kind == "minus":  # that may also be a dash
        word = side.word(run.end + 1)
        return is_letter(word) and not side.is_article(run.end + 1)
    return kind in OPERATORS and following in ("word", "open", "other")


def is_unfinished(side: Side, run: Run) -> bool:
    """Whether a right side goes on with anything, or holds words in parentheses, which may be a factor."""
    words = any(index in side.partner and side.group(index, 0) is None for index in range(run.start, run.end))
    return side.kind(run.end) in OPERATORS or words


def unit_letter(side: Side, run: Run) -> str:
    """The one letter after a number that is a usual unit, as in ``5 m``; not that of ``5m``, a variable."""
    word = next((index for index in range(run.start, run.end) if side.kind(index) == "word"), 0)
    letter = next(iter(run.value.letters)) if run.value.letters and len(run.value.letters) == 1 else ""
    variable = side.glued(word) and side.kind(word - 1) == "number"
    return letter if letter.rstrip("²³") in _UNIT_LETTERS and not variable else ""


def counts_anew(left: Run, side: Side, right: Run) -> bool:
    """Whether a sum without units says what a quantity is made of, ``5 apples = 2 + 2``, and is no conversion of it.

    ``3 weeks = 7 + 7 + 7`` is one: it has as many equal terms as there are weeks.
    """
    inside = range(right.start, right.end)
    if not MEASURES.keys().isdisjoint(left.value.units) or not MULTIPLES.keys().isdisjoint(left.value.units):
        return False
    if right.value.units or any(side.kind(index) not in ("number", "plus") for index in inside):
        return False
    terms = {side.tokens[index].text for index in inside if side.kind(index) == "number"}
    count = sum(side.kind(index) == "number" for index in inside)
    return count > 1 and not (len(terms) == 1 and count == left.value.number)


def is_doubtful(side: Side, run: Run) -> bool:
    """Whether number words on the left may be no numbers (``each one + 2``), or belong to words before them."""
    words = {side.word(index) for index in range(run.start, run.end)}
    if side.word(run.start) and side.is_plain(run):
        return True
    before = side.tokens[run.start - 1] if run.start else None
    return "one" in words or (before is not None and before.kind == "word" and before.text.lower() not in CLAUSES)


def may_say_more(left_side: Side, left: Run, side: Side, run: Run) -> bool:
    """Whether ``is`` and the like may say something else than that a number is the result.

    ``3 + 4 is 2 more than 5`` goes on; ``4 x 6 photos are 5 dollars`` and ``ages 3-4 are 2 groups`` compute nothing.
    """
    if side.kind(run.end) in OPERATORS or not _GOING_ON.isdisjoint(run.value.units):
        return True
    inside = range(left.start, left.end)
    letter = any(left_side.tokens[index].text in ("x", "X") for index in inside) and bool(left.value.units)
    span = any(left_side.kind(index) == "minus" and left_side.glued(index) for index in inside)
    return letter or span


def last_number(tokens: Sequence[Token], run: Run) -> Token:
    """The last token of an expression, but for the units after it."""
    inside = tokens[run.start : run.end]
    numbers = ("number", "numeral", "clock", "percent", "close", "base")
    return next((token for token in reversed(inside) if token.kind in numbers or _is_numeral(token)), inside[-1])


def _is_numeral(token: Token) -> bool:
    return token.kind == "word" and number_in_words([token.text.lower()]) is not None
