"""Folds what looks alike onto one character, so that the reader of equations sees what people see.

Variants of a character (full width, bold, small, digits of other scripts) become the usual one, entities of HTML the
character that they stand for; what shows nothing, what only marks the character before it, and what is struck out are
left out. Not digits as powers, as indices or in circles: they mean something else.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import regex

from hailproof.parsing import BLANKS, SIGNS, UNSEEN

_VARIANTS = (
    range(0x2100, 0x2150),  # letters as symbols
    range(0xFE50, 0xFE6C),  # small signs
    range(0xFF01, 0xFF5F),  # full width
    range(0x1D400, 0x1D800),  # mathematical letters and digits
    range(0x1FBF0, 0x1FBFA),  # digits of seven segments
)
_FOLDED: dict[int, str] = {
    code: variant for code in chain(*_VARIANTS) if len(variant := unicodedata.normalize("NFKC", chr(code))) == 1
}
_FOLDED |= {ord(sign): usual for sign, usual in zip("⁺⁼₊₌꞊🟰⹀゠᐀✖➗٬٫，٪∼", "+=+======×÷,.,%~", strict=True)}  # noqa: RUF001
_FOLDED |= {0x130: "I", 0x131: "i", 0x17F: "s"}  # what a pattern without case takes for an ASCII letter
_FOLDED |= SIGNS | BLANKS
for _dash in "—―":  # which may break a sentence instead
    del _FOLDED[ord(_dash)]
_REPLACED = regex.compile(
    rf"""(?P<unequal>[=≡≈]\u0338)
    |(?P<hidden>[[{UNSEEN}\p{{Mn}}\p{{Me}}]--[\t-\r\x1c-\x1f\x85]])
    |(?P<digit>[\p{{Nd}}--[0-9]])
    |(?P<ten>\U0001f51f)
    |(?P<entity>&(?:\#[0-9]{{1,7}}|\#[xX][0-9a-fA-F]{{1,6}}|[A-Za-z]{{2,31}}[0-9]{{0,2}});)
    |(?P<comma>(?<=[0-9,])(?:\{{,\}}|\\!)(?=[0-9,.]))
    |(?P<point>(?<=[0-9])\{{\.\}}(?=[0-9]))
    |(?P<thin>(?<=[0-9])(?:\\[,;:\ ]|~)(?=[0-9]{{3}}(?![0-9])))
    |(?P<comment><!--[^<>]{{0,200}}-->)
    |(?P<link>(?<=\])\((?:https?://|www\.|[/\#])[^()\s]{{0,200}}\))
    |(?P<struck>~~[^~\n]{{1,60}}~~|<(?P<tag>s|del|strike)>[^<>\n]{{1,60}}</(?P=tag)>
        |\\(?:[bx]?cancel|sout)\{{[^{{}}\n]{{1,60}}\}})""",
    regex.V1 | regex.VERBOSE,
)
_REPLACEMENTS = {
    "unequal": "≠", "hidden": "", "link": "", "ten": "10", "point": ".", "thin": " ", "struck": " ", "comment": " "
}  # fmt: skip


class Folded(NamedTuple):
    """A text as it looks.

    Attributes:
        text: What is seen.
        origins: For each of its characters, and for its end, the index in the text that was folded.
    """

    text: str
    origins: Sequence[int]


def fold(text: str) -> Folded:
    """Folds a text; the work is linear in its length."""
    text = text.translate(_FOLDED)
    parts: list[str] = []
    origins: list[int] = []
    end = 0
    for match in _REPLACED.finditer(text):
        usual = _usual(match)
        parts += text[end : match.start()], usual
        origins += [*range(end, match.start()), *[match.start()] * len(usual)]
        end = match.end()
    if not end:
        return Folded(text, range(len(text) + 1))
    return Folded("".join([*parts, text[end:]]), [*origins, *range(end, len(text) + 1)])


def _usual(match: regex.Match[str]) -> str:
    """What stands for something that is not seen as it is written."""
    kind, found = match.lastgroup or "", match.group()
    if match["tag"]:
        kind = "struck"
    if kind == "digit":
        return str(unicodedata.decimal(found))
    if kind == "comma":
        return "," if found == "{,}" else ""
    if kind == "entity":
        character = html.unescape(found)
        if len(character) != 1:
            return found
        return "" if unicodedata.category(character) == "Cf" else character.translate(_FOLDED)
    return _REPLACEMENTS[kind]


SWAPPED = re.compile(r"(?<=[0-9])[.,](?=[0-9])")


def with_decimal_commas(text: str) -> str:
    """The text as it would be written in English, if the writer wrote ``1.200,50`` for 1,200.50."""
    return SWAPPED.sub(lambda match: "," if match.group() == "." else ".", text)
