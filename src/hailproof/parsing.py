"""The only place that extracts answers, code and tags from text."""

import ast
import re
import warnings
from decimal import Decimal
from fractions import Fraction
from unicodedata import normalize

import regex

BYTE_ORDER_MARK = "\ufeff"
MAX_NUMBER_CHARACTERS = 64
"""A longer answer is no answer: it bounds the work on hostile text."""

# Digits are spelled [0-9] and letters are listed: in Python, \d takes digits of every script and \w even superscripts
# and fractions, so that a superscript two after a 5 would pass for a unit.
_LETTER = "[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]"
WORD = rf"{_LETTER}+(?:['\u2019-]{_LETTER}+)*['\u2019]?"
UNSEEN = r"\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800"
"""What shows nothing, for a set of characters in a pattern of the package ``regex``; U+2800 is the blank of Braille."""
SIGNS = dict.fromkeys(map(ord, "\u02d7\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d"), "-")
SIGNS |= dict.fromkeys(map(ord, "\u2795\ufe62\uff0b"), "+") | {0x2044: "/", 0x2215: "/", 0x2236: ":"}
"""What people and models write for the signs of ASCII: every hyphen and dash is a minus."""
BLANKS = dict.fromkeys(
    [*range(0x2000, 0x200B), 0xA0, 0x115F, 0x1160, 0x202F, 0x205F, 0x2800, 0x3000, 0x3164, 0xFFA0], " "
)
"""Blanks of all widths, and letters that look like one."""
_HIDDEN = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]")
_NUMBER = re.compile(
    rf"""(?P<sign>[-+]?)\s*+(?P<currency>[$€£]?)\s*+(?P<inner>[-+]?)
        (?P<number>(?:[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)
        \s*(?P<unit>[%$€£]|/?{WORD}(?:[ /]{WORD}){{0,3}})?\s*\.?""",
    re.VERBOSE,
)
_LATEX = re.compile(
    r"""\\(?:text|mathrm|textrm|mbox|boxed)\{(?P<content>[^{}]*)\}|\\(?P<sign>[$%])|\{(?P<comma>,)\}
        |\\(?:[!,;:()\[\] ]|left|right)|\^(?:\\circ|\{\\circ\})""",
    re.VERBOSE,
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*([-+]?[0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))")
_FRACTION = re.compile(r"([-+]?)\s*(?:([0-9]+)\s+)?([0-9]+)\s*/\s*([0-9]+)")
_ORDINALS = frozenset((
    "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth",
    "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth", "thirtieth",
    "fortieth", "fiftieth", "sixtieth", "seventieth", "eightieth", "ninetieth", "hundredth", "thousandth", "millionth",
    "billionth", "trillionth",
))  # fmt: skip
_WORDS_THAT_CHANGE_THE_VALUE = frozenset((
    # numbers
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty",
    "fifty", "sixty", "seventy", "eighty", "ninety", "e", "pi",
    # magnitudes, also in the plural
    "billion", "bln", "bn", "crore", "dozen", "googol", "gross", "half", "halves", "hundred", "k", "lac", "lakh", "mil",
    "mille", "million", "mio", "mln", "mn", "myriad", "nonillion", "octillion", "quadrillion", "quintillion", "score",
    "septillion", "sextillion", "thousand", "tn", "trillion",
    # operations
    "and", "cubed", "divided", "doubled", "exponent", "factorial", "halved", "inverse", "itself", "minus", "mod",
    "modulo", "multiplied", "negated", "negative", "or", "over", "plus", "power", "quadrupled", "raised", "reciprocal",
    "root", "squared", "subtracted", "than", "thrice", "tripled", "twice", "x",
))  # fmt: skip
_LAST_WORDS_THAT_CHANGE_THE_VALUE = _ORDINALS | {"grand", "quarter"}
"""Harmless before another word: ``5 third graders``, ``5 quarter notes``, ``5 grand pianos``."""
_JOINED_WORDS_THAT_CHANGE_THE_VALUE = _WORDS_THAT_CHANGE_THE_VALUE | _ORDINALS | {
    "less", "more", "of", "quarter", "quarters", "times", "to"
}  # fmt: skip
"""With hyphens, every part must be one of these: ``5 twenty-three``, but not ``5 ten-dollar bills``."""
_SENTENCE_BORDER = re.compile(r"(?<=[.!?])\s+")
_SENTENCE_END = re.compile(r"[.!?](?=\s|</?[a-z])|\n+")
CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")


def encodable(text: str) -> str:
    """The text with a question mark for each lone surrogate, which no tokenizer, file or wire takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: object, length: int) -> str:
    """A text for a terminal or a log: cut to a length, with what a terminal or GitHub's runner would obey spelled out.

    Args:
        text: Anything; its ``str`` is taken.
        length: Characters that are kept; an ellipsis is the last if something is left out.
    """
    whole = str(text)
    kept = whole if len(whole) <= length else f"{whole[: length - 1]}…"
    shown = "".join(each if each.isprintable() else f"<U+{ord(each):04X}>" for each in kept)
    return shown.replace("##[", "##<U+005B>")  # a workflow command, wherever it stands in a line


def plain(text: str) -> str:
    """The text with the signs and blanks of ASCII, and without characters that show nothing.

    Everything that reads a number reads it through these tables: rewards, data files, the defense ``equations``.
    """
    return _HIDDEN.sub("", text.translate(SIGNS | BLANKS))


def answer_in_tags(text: str) -> str | None:
    """Returns the content of the one pair of answer tags, stripped.

    Args:
        text: Any text, trusted or not.

    Returns:
        The content; ``None`` if there is no pair, more than one tag of a kind, or the closing tag comes first.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    content, closing_tag, _ = text.partition("<answer>")[2].partition("</answer>")
    return content.strip() if closing_tag else None


def code_in_tags(text: str) -> str | None:
    """Returns the program between the one pair of code tags; ``None`` where :func:`answer_in_tags` gives it."""
    if text.count("<code>") != 1 or text.count("</code>") != 1:
        return None
    program, closing_tag, _ = text.partition("<code>")[2].partition("</code>")
    return program.strip("\n") if closing_tag else None


def syntax_tree(program: str) -> ast.Module | None:
    """Reads a program without running it; ``None`` if it is not valid Python, or nested too deep to read.

    As for Python and the sandboxes, one byte order mark before it does not belong to it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about "5apples" and the like, on the console of whoever runs this
            return ast.parse(program.removeprefix(BYTE_ORDER_MARK))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def source_of(tree: ast.Module) -> str | None:
    """Writes a syntax tree as a program; ``None`` if Python cannot (3.11, some f-strings), or if it is too deep."""
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, RecursionError, MemoryError):
        return None


def thoughts(text: str) -> str:
    """Returns the reasoning of a completion, stripped: what stands in the first pair of think tags.

    Where the opening tag is missing, reasoning begins with the text; where the closing one is, it ends at the answer
    tag or with the text.
    """
    opening, tag, rest = text.partition("<think>")
    return (rest if tag else opening).partition("</think>")[0].partition("<answer>")[0].strip()


def sentences(text: str) -> list[str]:
    """Splits a text into sentences: at line ends and at spaces after ``.``, ``!`` or ``?``; drops bare punctuation."""
    parts = (part.strip() for line in text.splitlines() for part in _SENTENCE_BORDER.split(line))
    return [part for part in parts if any(map(str.isalnum, part))]


def sentence_borders(text: str) -> list[int]:
    """Where sentences begin, as indices of characters, the first at 0; they leave no character out.

    A sentence ends with a line, or with ``.``, ``!`` or ``?`` before a space or a tag. The space belongs to the next
    one, as it does in most tokenizers.
    """
    return [0, *(match.end() for match in _SENTENCE_END.finditer(text))]


def parse_number(text: str) -> Decimal | None:
    """Reads a number as people write it: ``$1,234.50``, ``12 apples``, ``60 miles/hour``, ``-3``, ``50%``, ``18.``.

    Any hyphen or dash before it is its sign, and what shows nothing is ignored, as in :func:`plain`.

    One currency sign before the number and up to four words after it are taken as units. Anything else around it, a
    second number, in digits or words, a misplaced thousands separator, digits that are not ASCII, a currency sign with
    another sign or percent, or a word that changes the value (``2 dozen``, ``5 and a half``, ``5 over nine``) makes it
    no number.

    Args:
        text: The content of an answer, trusted or not.

    Returns:
        The exact value (a percentage counts as its number, ``50%`` as 50), or ``None``.
    """
    text = plain(text).strip()
    if len(text) > MAX_NUMBER_CHARACTERS:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["inner"]):
        return None
    unit = match["unit"] or ""
    if match["currency"] and (unit in set("%$€£") - {match["currency"]} or re.match("per ?cent", unit, re.IGNORECASE)):
        return None
    if _changes_the_value(unit):
        return None
    return Decimal((match["sign"] or match["inner"]) + match["number"].replace(",", ""))


def _changes_the_value(unit: str) -> bool:
    """Whether a word after a number makes it another one."""
    plain = normalize("NFKD", unit).encode("ascii", "ignore").decode().lower()
    words = [[part for part in re.split("['-]", word) if part not in ("", "s")] for word in re.split("[ /]", plain)]
    return any(map(_is_factor, words)) or "-".join(words[-1]) in _LAST_WORDS_THAT_CHANGE_THE_VALUE


def _is_factor(parts: list[str]) -> bool:
    """Whether a word, in the parts between its hyphens, changes the value of a number before it."""
    if len(parts) == 1 and parts[0] != "ones":
        singular = parts[0].removesuffix("s")
        return bool({parts[0], singular} & _WORDS_THAT_CHANGE_THE_VALUE) or singular in _ORDINALS - set(parts)
    return len(parts) > 1 and all(
        {part, part.removesuffix("s")} & _JOINED_WORDS_THAT_CHANGE_THE_VALUE for part in parts
    )


def same_number(given: str, reference: str) -> bool:
    """Whether two texts are the same number, exactly; ``"1"`` is not ``"21"`` and ``"2.50"`` is ``"2.5"``."""
    left, right = parse_number(given), parse_number(reference)
    return left is not None and left == right


def exact_number(text: str) -> Fraction | None:
    r"""Reads what :func:`parse_number` reads, fractions, and LaTeX: ``3/4``, ``\frac{1}{2}``, ``50\%``, ``\$4``.

    Args:
        text: An answer, trusted or not.

    Returns:
        The exact value (a percentage counts as its number, ``50\%`` as 50), or ``None``.
    """
    text = plain(text).strip()
    if len(text) > 2 * MAX_NUMBER_CHARACTERS:
        return None
    if text.startswith("$") and text.endswith("$") and not text.endswith("\\$"):
        text = text[1:-1]
    text = _LATEX.sub(lambda match: match["content"] or match["sign"] or match["comma"] or "", text)
    text = _LATEX_FRACTION.sub(r" \1\2/\3\4", text).strip()
    fraction = _FRACTION.fullmatch(text)
    if fraction is None:
        number = parse_number(text)
        return None if number is None else Fraction(number)
    sign, whole, above, below = fraction.groups()
    if int(below) == 0:
        return None
    return (int(whole or 0) + Fraction(int(above), int(below))) * (-1 if sign == "-" else 1)


def without_calculator_notes(text: str) -> str:
    """Removes the notes ``<<48/2=24>>`` that GSM8K's annotators left for a calculator."""
    return CALCULATOR_NOTE.sub("", text)


PLAIN_NUMBER = r"(?>[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)"
