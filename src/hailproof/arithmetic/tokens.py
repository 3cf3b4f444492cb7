"""Cuts prose into the signs and words that expressions are made of."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple
from unicodedata import normalize

import regex

from hailproof.parsing import PLAIN_NUMBER, UNSEEN, WORD

_NUMBER = (
    rf"[1-9][0-9]{{0,2}}(?:\ [0-9]{{3}}){{1,5}}(?![-,]|[.\ ]?[0-9])|{PLAIN_NUMBER}(?:[eE][-+]?[0-9]+(?![A-Za-z0-9]))?"
)
_OPERAND_FOLLOWS = r"(?=[ \t]*+\\?[$€£]?[ \t]*+(?:\.?[0-9]|[({]|\\[dt]?frac))"
_TOKENS = re.compile(
    rf"""(?P<line>[\n\r\v\f\u2028\u2029]|\\\\|</?[A-Za-z]{{1,20}}[ ]?/?>)
    |(?P<relation>[<>!:~]?=++>?|[≈≃≅≠≤≥]|\\(?:approx|neq?|leq?|geq?)(?![A-Za-z])|equals\b)
    |(?P<clock>[0-9]+:[0-9:]+)
    |(?P<number>{_NUMBER})
    |(?P<power>\^|\*\*{_OPERAND_FOLLOWS})
    |(?P<markup>\*\*+|\\[()\[\],;!: ]|\\(?:left|right|boxed|displaystyle|quad|qquad)(?![A-Za-z])
        |\\(?:text|math)(?:rm|bf|it|sf|tt|up|md|normal)?(?=\{{[^{{}}0-9]{{0,60}}[0-9][^{{}}]{{0,60}}\}})
        |(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|[`&])
    |(?P<times>\\?\*|[\u00d7\u00b7\u22c5\u2217]|\\(?:times|cdot)(?![A-Za-z])|[xX]{_OPERAND_FOLLOWS}
        |(?:times|multiplied\ by)\b{_OPERAND_FOLLOWS})
    |(?P<slash>[/\u00f7\u2215]|\\div(?![A-Za-z])|divided\ by\b{_OPERAND_FOLLOWS})
    |(?P<fraction>\\[dt]?frac(?![A-Za-z]))
    |(?P<plus>\+|plus\b{_OPERAND_FOLLOWS})
    |(?P<minus>[-\u2212\u2013](?!>)|minus\b{_OPERAND_FOLLOWS})
    |(?P<percent>\\?%|percent\b)
    |(?P<cents>¢|cents?\b)
    |(?P<multiple>(?:dozens?|hundred|thousand|million|billion)\b)
    |(?P<word>{WORD}|\\(?:text|mathrm|textrm|mbox)\{{[^{{}}0-9+*^=]{{1,60}}\}})
    |(?P<superscript>⁻?[⁰¹²³⁴-⁹]++)
    |(?P<exclamation>!)
    |(?P<quote>["'\u00ab\u00bb\u2018-\u201f\u2032\u2033\u2039\u203a])
    |(?P<currency>\\?[$€£])
    |(?P<open>[(\[{{])
    |(?P<close>[)\]}}])
    |(?P<ellipsis>\.\.\.+|…)
    |(?P<stop>\.)
    |(?P<other>\S)""",
    re.VERBOSE | re.IGNORECASE,
)
# Variants of a character are folded onto it, and what shows nothing, or only marks the character before it, onto a
# blank; both keep every index where it is. Not digits as powers, as indices or in circles (which count the items of a
# list): they mean something else.
_VARIANTS = (
    range(0x2100, 0x2150),  # letters as symbols
    range(0xFE50, 0xFE6C),  # small signs
    range(0xFF01, 0xFF5F),  # full width
    range(0x1D400, 0x1D800),  # mathematical letters and digits
    range(0x1FBF0, 0x1FBFA),  # digits of seven segments
)
_FOLDED: dict[int, str] = {
    code: variant for code in chain(*_VARIANTS) if len(variant := normalize("NFKC", chr(code))) == 1
}
_FOLDED |= {ord(sign): usual for sign, usual in zip("⁺⁼₊₌꞊🟰\u2795\u2796✖➗", "+=+===+-×÷", strict=True)}
_FOLDED |= {0x130: "I", 0x131: "i", 0x17F: "s"}  # what a pattern without case takes for an ASCII letter
_BLANKED = regex.compile(rf"[[{UNSEEN}\p{{Mn}}\p{{Me}}]--[\t-\r\x1c-\x1f\x85]]", regex.V1)
SUMS = frozenset(["plus", "minus"])
OPERATORS = SUMS | {"times", "slash", "power"}


class Token(NamedTuple):
    """One sign, number or word; its kind is the name of a group of the pattern above."""

    kind: str
    text: str
    start: int
    end: int


def fold(text: str) -> str:
    """Folds variants of a character (full width, bold …) onto it, what is not seen onto blanks; keeps every index."""
    return _BLANKED.sub(" ", text.translate(_FOLDED))


def tokens(text: str) -> Iterator[Token]:
    """Splits a text; leaves out markup, the signs that begin the items of a list, and quotes that cannot be inches."""
    last = Token("line", "", 0, 0)
    for match in _TOKENS.finditer(text):
        kind, token = match.lastgroup or "", match.group()
        bullet = kind in ("times", "plus", "minus") and text[match.end() : match.end() + 1].isspace()
        if kind == "markup" or (last.kind == "line" and (bullet or token == "*")):
            continue
        if kind == "quote" and (last.kind, last.end) != ("number", match.start()):
            continue
        if token == "**":  # bold, unless it stands between numbers, with blanks on both sides or none
            glued_left, glued_right = last.end == match.start(), not text[match.end()].isspace()
            if last.kind not in ("number", "close") or glued_left != glued_right:
                continue
        last = Token("word" if kind == "other" and token.isalpha() else kind, token, match.start(), match.end())
        yield last
