"""Cuts prose into the signs and words that expressions are made of."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from hailproof.parsing import PLAIN_NUMBER, WORD

UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def _characters(least: int, most: int, *names: str, but: str = "not |less|greater|left|stroke|questioned") -> str:
    """The characters of a range whose Unicode name holds one of some words and none of others."""
    wanted, unwanted = re.compile("|".join(names)), re.compile(but.upper())
    named = ((chr(code), unicodedata.name(chr(code), "")) for code in range(least, most))
    return "".join(character for character, name in named if wanted.search(name) and not unwanted.search(name))


EQUALS = "≣" + _characters(0x2243, 0x2264, "EQUAL", "IDENTICAL", "EQUIVALENT") + _characters(0x2A6C, 0x2A78, "EQUAL")
"""Signs for: the same, or nearly the same."""
ARROWS = "".join(
    _characters(*block, "RIGHT.*ARROW|ARROW.*RIGHT|RIGHTWARDS")
    for block in ((0x2190, 0x2200), (0x2794, 0x27BF), (0x27F0, 0x2980), (0x2B00, 0x2BFF), (0x1F800, 0x1F900))
) + "".join(_characters(0x2190, 0x2200, "LEFT RIGHT.*ARROW", but="stroke"))
CURRENCIES = "".join(sign for sign in map(chr, range(0x10000)) if unicodedata.category(sign) == "Sc")
_INEQUALITIES = "≠≤≥≦≧≨≩≰≱≶≷"
_NUMBER = (
    r"0[bB][01]+(?![A-Za-z0-9])|0[oO][0-7]+(?![A-Za-z0-9])|0[xX](?=[0-9]*[A-Fa-f])[0-9A-Fa-f]+(?![A-Za-z0-9])"
    r"|[1-9][0-9]{0,2}(?:[_'’][0-9]{3})+(?![0-9])|[1-9][0-9]{0,2}(?:\ [0-9]{3}){1,5}(?![-,]|[.\ ]?[0-9])"
    rf"|{PLAIN_NUMBER}(?:[eE][-+]?[0-9]+(?![A-Za-z0-9]))?"
)
_WRITTEN = rf"(?:{'|'.join((*UNITS, *TENS))})(?![A-Za-z])"
_OPERAND = rf"(?=[ \t]*+\\?[{CURRENCIES}]?[ \t]*+(?:\.?[0-9]|[({{√∛∜⅐-⅞¼-¾]|\\[dt]?frac|\\sqrt))"
_OPERAND_IN_WORDS = rf"(?=[ \t]*+\\?[{CURRENCIES}]?[ \t]*+(?:\.?[0-9]|[({{√∛∜⅐-⅞¼-¾]|\\[dt]?frac|\\sqrt|{_WRITTEN}))"
_LAYOUT = (
    r"boxed|color|colorbox|fbox|fcolorbox|mbox|hbox|box|underline|emph|bf|bm|it|rm|tt|sf|em|bfseries|itshape|left|right"
    r"|[bB]igg?[lmr]?|quad|qquad|displaystyle|textstyle|scriptstyle|large|Large|LARGE|huge|Huge|small|tiny|normalsize"
    r"|operatorname|ensuremath|boldsymbol|pmb|limits|nolimits|strut|hfill|thinspace|medspace|thickspace|relax"
)
_TOKENS = re.compile(
    rf"""(?P<line>[\n\r\v\f\u2028\u2029]|\\\\)
    |(?P<markup></?(?:b|i|em|strong|u|span|font|mark|kbd|big|small|tt)
            (?:\s+[A-Za-z-]{{1,20}}=(?:"[^"<>=]{{0,80}}"|'[^'<>=]{{0,80}}'|[\w\#]{{1,20}}))*+\s?/?>
        |\\(?:[hv]space|[hv]?phantom|tag|label|color|definecolor)\*?(?:\[[^\[\]{{}}]{{0,40}}\])?\{{[^{{}}]{{0,40}}\}}
        |\\(?:textcolor|colorbox)(?:\[[^\[\]{{}}]{{0,40}}\])?\{{[^{{}}]{{0,40}}\}}
        |\\(?:text|math)(?:rm|bf|it|sf|tt|up|md|normal|color)?(?![A-Za-z]|\{{[^{{}}0-9+*^=]{{1,60}}\}})
        |\\(?:{_LAYOUT})(?![A-Za-z])|\\[()\[\],;!:\ ])
    |(?P<tag></?[A-Za-z]{{1,20}}[ ]?/?>)
    |(?P<relation><?[-=~]{{1,2}}>|[<>!:~]?=++>?|[{EQUALS}{ARROWS}{_INEQUALITIES}]
        |\\(?:approx|equiv|doteq|simeq|cong|neq?|leq?|geq?|to|(?:long|Long)?[rR]ightarrow|implies|iff|mapsto)(?![A-Za-z])
        |equals\b|(?<![=~])(?<![=~][ ])~(?=[ ]?[0-9])|\\sim(?![A-Za-z]))
    |(?P<clock>[0-9]+:[0-9:]+)
    |(?P<number>{_NUMBER})
    |(?P<base>(?<=[0-9)])_(?:[0-9]{{1,2}}|\{{[0-9]{{1,2}}\}})(?![0-9])|[₀-₉]{{1,2}})
    |(?P<power>\^|\*\*{_OPERAND})
    |(?P<emphasis>\*\*+|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|[`&])
    |(?P<times>\\?\*|[\u00d7\u00b7\u22c5\u2217]|\\(?:times|cdot)(?![A-Za-z])|[xX]{_OPERAND}
        |(?:times|multiplied\ by)\b{_OPERAND_IN_WORDS})
    |(?P<slash>[/\u00f7]|\\div(?![A-Za-z])|divided\ by\b{_OPERAND_IN_WORDS})
    |(?P<fraction>\\[dt]?frac(?![A-Za-z]))
    |(?P<root>[√∛∜]|\\sqrt(?![A-Za-z])(?:\[[2-9]\])?|sqrt(?=[ ]?[({{0-9])|(?:square|cube)\ root\ of\b{_OPERAND})
    |(?P<plus>\+|plus\b{_OPERAND_IN_WORDS})
    |(?P<minus>[-—―](?!>)|minus\b{_OPERAND_IN_WORDS})
    |(?P<percent>\\?%|percent\b)
    |(?P<cents>¢|cents?\b)
    |(?P<multiple>(?:dozens?|hundred|thousand|million|billion)\b)
    |(?P<word>{WORD}|\\(?:text|mathrm|textrm|mbox)\{{[^{{}}0-9+*^=]{{1,60}}\}})
    |(?P<superscript>⁻?[⁰¹²³⁴-⁹]++)
    |(?P<exclamation>!)
    |(?P<quote>["'\u00ab\u00bb\u2018-\u201f\u2032\u2033\u2039\u203a])
    |(?P<currency>\\?[{CURRENCIES}])
    |(?P<open>[(\[{{])
    |(?P<close>[)\]}}])
    |(?P<ellipsis>\.\.\.+|…|\\[lc]?dots(?![A-Za-z]))
    |(?P<stop>\.)
    |(?P<other>\S)""",
    re.VERBOSE | re.IGNORECASE,
)
SUMS = frozenset(["plus", "minus"])
OPERATORS = SUMS | {"times", "slash", "power"}


class Token(NamedTuple):
    """One sign, number or word; its kind is the name of a group of the pattern above, or ``numeral``, as ½ and ⑤."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> Iterator[Token]:
    """Splits a text; leaves out markup, the signs that begin the items of a list, and quotes that cannot be inches."""
    last = Token("line", "", 0, 0)
    emphasized = False
    for match in _TOKENS.finditer(text):
        kind, token = match.lastgroup or "", match.group()
        bullet = kind in ("times", "plus", "minus") and text[match.end() : match.end() + 1].isspace()
        if kind in ("markup", "emphasis") or (last.kind == "line" and bullet):
            continue
        if token == "*" and _is_emphasis(text, match, last, emphasized):
            emphasized = not emphasized
            continue
        if kind == "quote" and (last.kind, last.end) != ("number", match.start()):
            continue
        if token == "**":  # bold, unless it stands between numbers, with blanks on both sides or none
            glued_left, glued_right = last.end == match.start(), not text[match.end()].isspace()
            if last.kind not in ("number", "close") or glued_left != glued_right:
                continue
        if kind == "other" and (token.isalpha() or token.isnumeric()):
            kind = "numeral" if token.isnumeric() else "word"
        if last.kind == "relation" and kind in ("base", "superscript") and token.isdigit():  # = ⁵
            kind, token = "number", unicodedata.normalize("NFKC", token)
        last = Token("line" if kind == "tag" else kind, token, match.start(), match.end())
        yield last


def _is_emphasis(text: str, match: re.Match[str], last: Token, emphasized: bool) -> bool:
    """Whether a star begins what is emphasized, since there is nothing before it to multiply, or ends it."""
    if not emphasized:
        return last.kind in OPERATORS | {"line", "relation", "open"}
    return last.end == match.start() and not re.match(r"[ \t]*[0-9($]", text[match.end() : match.end() + 3])
