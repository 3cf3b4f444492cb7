"""Finds what a text says to be equal: by a sign, by an arrow, in words, and over a name, ``2 + 2 = x = 5``."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from operator import ge, gt, le, lt
from typing import Literal, NamedTuple

from hailproof.arithmetic.numerals import number_in_words
from hailproof.arithmetic.readings import CLAUSES, COUNTED
from hailproof.arithmetic.tokens import ARROWS, EQUALS, OPERATORS, Token

Sense = Literal["same", "about", "roughly", "leads", "says"]

MAX_NAME = 8
"""Tokens of a name between two signs."""
MAX_NAMES = 4
"""Names between two sides that are equal over them."""
MAX_LEAD = 6
"""Words between a sign and the number that it is about: ``= no less than 5``."""
MAX_RIGHT = 24
"""Tokens after a word that says so."""
NUMBERS = frozenset(["number", "numeral", "clock", "percent", "multiple"])
"""Kinds of tokens that hold a number."""
_BEFORE_NUMBERS = frozenset(["currency", "fraction", "minus", "root"])
_NO_NAME = NUMBERS | _BEFORE_NUMBERS | {"line", "stop"}
_SAME = frozenset(["=", "==", "===", ":=", "equals", r"\equiv", r"\doteq"])
_ABOUT = frozenset(["~=", r"\approx", r"\simeq", r"\cong"]) | frozenset(
    sign for sign in EQUALS if re.search("ALMOST|APPROX|ASYMPTOTIC|GEOMETRIC|IMAGE", unicodedata.name(sign))
)
_LEADS = frozenset(["->", "-->", "=>", "==>", "~>", "<->", "<=>", "<-->", "<==>", *ARROWS]) | frozenset(
    rf"\{arrow}" for arrow in (
        "to", "rightarrow", "Rightarrow", "longrightarrow", "Longrightarrow", "implies", "iff", "mapsto"
    )
)  # fmt: skip
_SAYS = frozenset([
    "is", "are", "was", "were", "be", "being", "make", "makes", "made", "making", "give", "gives", "gave", "giving",
    "equal", "equaled", "equalled", "equaling", "total", "totals", "totaling", "yield", "yields", "become", "becomes",
    "come", "comes", "came", "add", "adds", "sum", "sums", "amount", "amounts", "result", "results", "work", "works",
    "produce", "produces", "mean", "means", "get", "gets", "leave", "leaves", "leaving", "reach", "reaches", "return",
    "returns", "evaluate", "evaluates", "equate", "equates",
])  # fmt: skip
_FILLERS = frozenset([
    ",", "a", "about", "again", "all", "already", "also", "always", "an", "equal", "hence", "her", "him", "in",
    "indeed", "it", "just", "me", "now", "out", "so", "still", "the", "them", "then", "therefore", "thus", "to",
    "same", "total", "up", "us", "you", "as",
])  # fmt: skip
_BETWEEN = frozenset([
    "after", "and", "another", "as", "at", "before", "between", "but", "by", "during", "each", "every", "for", "from",
    "if", "in", "into", "less", "minus", "more", "never", "not", "of", "off", "on", "or", "out", "per", "plus", "since",
    "than", "times", "until", "when", "where", "while", "with", "without", "within", "isn't", "wasn't", "aren't",
])  # fmt: skip
"""Words after which a number is about something else than what stands before the sign."""
_COMPARED: tuple[tuple[str, Callable[[Fraction, Fraction], bool]], ...] = (
    (r"(?:no|not) (?:less|fewer|lower|smaller) than|at (?:the very )?least|minimum of", ge),
    (r"(?:no|not) (?:more|greater|higher|larger|bigger) than|at (?:the very )?most|up to|maximum of", le),
    (r"(?:less|fewer|lower|smaller) than|below|under", lt),
    (r"(?:more|greater|higher|larger|bigger) than|above|over", gt),
)
_ROUGHLY = re.compile(r"(?:about|almost|approximately|approx|around|circa|nearly|roughly|some)$")
_TAKEN_BACK = frozenset([
    "actually", "better", "correction", "er", "err", "hmm", "mean", "nah", "no", "nope", "oops", "rather", "scratch",
    "sorry", "strike", "wait",
])  # fmt: skip
_TAKEN_BACK_IN_TWO = frozenset([("i", "mean"), ("or", "rather"), ("make", "it"), ("make", "that"), ("not", "really")])
_COMPUTING = OPERATORS | {"percent", "root"}
_OF = re.compile(r"\b(?:amount|answer|count|product|result|sum|total|value) of$")
_PAUSES = frozenset(["minus", "stop", "ellipsis", "open", "exclamation"])


class Relation(NamedTuple):
    """Two lists of tokens of which a text says that they are equal.

    Attributes:
        before: What stands before the sign.
        after: What stands after it.
        sense: What says so: a sign, a sign for ``about``, a tilde, an arrow, a word.
        chained: Whether another relation ends where ``before`` begins.
    """

    before: list[Token]
    after: list[Token]
    sense: Sense
    chained: bool


class Lead(NamedTuple):
    """The words between a sign and a number.

    Attributes:
        length: How many tokens they are.
        compare: What they claim, ``no less than``; ``None`` for: is the same.
        roughly: Whether the number is rounded.
    """

    length: int
    compare: Callable[[Fraction, Fraction], bool] | None
    roughly: bool


def split(tokens: Iterator[Token]) -> tuple[list[Token], list[list[Token]]]:
    """Splits tokens at the signs between two sides; line ends next to a sign do not count."""
    signs: list[Token] = []
    sides: list[list[Token]] = [[]]
    for token in tokens:
        if token.kind == "relation":
            while sides[-1] and sides[-1][-1].kind == "line":
                sides[-1].pop()
            signs.append(token)
            sides.append([])
        elif token.kind != "line" or sides[-1]:
            sides[-1].append(token)
    return signs, sides


def relations(signs: Sequence[Token], sides: Sequence[list[Token]]) -> Iterator[Relation]:
    """Yields what the signs say, and what they say over the names between them; then what words say."""
    senses: list[Sense | None] = [_sense(sign) for sign in signs]
    for index in range(len(senses)):
        sense, following = senses[index], index + 1
        while sense:
            if sides[index] and sides[following]:
                yield Relation(sides[index], sides[following], sense, index > 0)
            last = following == min(len(signs), index + MAX_NAMES)
            if last or not _is_name(sides[following]) or _is_name(sides[index]):
                break
            sense = _joined(sense, senses[following])
            following += 1
    for side in sides:
        yield from _said(side)


def _sense(sign: Token) -> Sense | None:
    """What a sign says; ``None`` if it says something else than equality."""
    text = sign.text if sign.text.startswith("\\") else sign.text.lower()
    if text in _ABOUT:
        return "about"
    if text in _SAME or text in EQUALS:
        return "same"
    if text in ("~", r"\sim"):
        return "roughly"
    return "leads" if text in _LEADS else None


def _joined(first: Sense, second: Sense | None) -> Sense | None:
    """What two signs with a name between them say together."""
    if second is None or first == second:
        return second
    return next(sense for sense in ("roughly", "leads", "about") if sense in (first, second))


def _is_name(side: Sequence[Token]) -> bool:
    """Whether a side is nothing but a name, or the same name on both ends, as in ``= x, so x =``."""
    if len(side) > MAX_NAME or any(token.kind in _NO_NAME for token in side):
        return False
    words = [token.text.lower() for token in side if token.kind == "word"]
    if any(number_in_words([word]) for word in words):
        return False
    separated = any(token.text in (",", ";", "?") or token.text.lower() in CLAUSES for token in side)
    return not separated or (len(words) > 1 and words[0] == words[-1])


def _said(side: Sequence[Token]) -> Iterator[Relation]:
    """Yields what words of a side say to be equal: ``2 + 2 is 5``, ``two plus two comes to five``."""
    start, computed = 0, False
    for index, token in enumerate(side):
        word = token.text.lower() if token.kind == "word" else ""
        if token.kind in ("line", "stop") or word in _SAYS:
            if word and computed:
                following = index + 1
                while following < min(index + MAX_LEAD, len(side)) and _fills(side[following].text.lower()):
                    following += 1
                if following < len(side) and _announces(side[following]):
                    after = side[following : following + MAX_RIGHT]
                    yield Relation(list(side[start:index]), list(after), "says", False)
            start, computed = index + 1, False
        computed |= token.kind in _COMPUTING or word == "of"


def _fills(text: str) -> bool:
    """Whether something between a word that says so and the number changes nothing: ``is, clearly, 5``."""
    return text in _FILLERS or (text.endswith("ly") and text not in ("early", "hourly", "daily", "weekly", "monthly"))


def _announces(token: Token) -> bool:
    """Whether a number begins with a token."""
    if token.kind == "word":
        return number_in_words([token.text.lower()]) is not None
    return token.kind in NUMBERS | _BEFORE_NUMBERS or token.kind == "open"


def lead_in(after: Sequence[Token]) -> Lead | None:
    """Reads the words before the number of a right side; ``None`` if they make it something else than the result."""
    words: list[str] = []
    for index, token in enumerate(after[: MAX_LEAD + 1]):
        if token.kind == "word" and number_in_words([token.text.lower()]) is None:
            words.append(token.text.lower())
        elif _announces(token):
            return _meaning(words, index) if index else None
        elif token.text not in (",", ":", '"'):
            break
    return None


def _meaning(words: list[str], length: int) -> Lead | None:
    """What the words before a number claim of it."""
    text = " ".join(words)
    for pattern, compare in _COMPARED:
        if re.search(rf"\b(?:{pattern})$", text):
            return Lead(length, compare, False)
    if not _BETWEEN.isdisjoint(_OF.sub("", text).split()) or words[-1] in COUNTED:
        return None
    return Lead(length, None, _ROUGHLY.search(text) is not None)


def taken_back(after: Sequence[Token], start: int) -> int | None:
    """Where the number stands that replaces the one before it, as in ``= 4, no, 5``; ``None`` if there is none.

    Args:
        after: A right side.
        start: Where what follows its number begins.
    """
    words: list[str] = []
    for index in range(start, min(start + MAX_LEAD + 3, len(after))):
        token = after[index]
        if token.kind in ("number", "numeral", "currency") or _is_number_word(token):
            corrects = words[:1] and (words[0] in _TAKEN_BACK or tuple(words[:2]) in _TAKEN_BACK_IN_TWO)
            return index if corrects and _BETWEEN.isdisjoint(words[1:]) else None
        if token.kind == "word":
            words.append(token.text.lower())
        elif token.kind not in _PAUSES and token.text not in (",", ";", ":"):
            return None
    return None


def _is_number_word(token: Token) -> bool:
    return token.kind == "word" and number_in_words([token.text.lower()]) is not None
