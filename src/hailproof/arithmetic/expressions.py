"""Reads the expressions at the ends of a list of tokens."""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import NamedTuple
from unicodedata import normalize

from hailproof.arithmetic.numerals import MAX_WORDS, MULTIPLES, number_in_words
from hailproof.arithmetic.readings import CLAUSES, COUNTED, Reading
from hailproof.arithmetic.tokens import OPERATORS, SUMS, Token
from hailproof.arithmetic.values import (
    MEASURES,
    Value,
    add,
    factorial,
    in_base,
    is_letter,
    multiply,
    number_of,
    numeral_of,
    raise_to,
    root,
    scale,
    share_of,
    with_units,
)

MAX_DEPTH = 16
"""Parentheses inside parentheses; what is deeper does not parse."""
MAX_SIDE = 256
"""Tokens before and after an equals sign that may belong to its expressions."""
MAX_UNIT_WORDS = 8
MAX_SIGNS = 3
"""Signs and currency signs before a number."""
PADDING = 8
"""Tokens beyond the end of a side that may be asked for."""
_ROOTS = {"\u221b": 3, "\u221c": 4}
_IMPLICIT_PRODUCTS = frozenset([("number", "open"), ("close", "open"), ("close", "number")])
_NO_UNITS = frozenset(["", "plus", "times", "power", "close", "number", "relation", "line"])
"""Kinds of tokens with which no unit begins."""
_ARTICLES = frozenset(["a", "i"])
"""Words of one letter, if another word follows; else they are variables."""
_OPERATIONS = frozenset(["by", "divided", "less", "minus", "more", "multiplied", "of", "over", "plus", "than", "times"])
_POWERS = {"squared": 2, "cubed": 3}


class Run(NamedTuple):
    """An expression and the tokens that it takes up, units included."""

    start: int
    end: int
    value: Value


def _raised(exponent: Value, base: Value) -> Value:
    return raise_to(base, exponent)


class Side:
    """Reads the expressions of the tokens on one side of an equals sign.

    Every method that reads takes the index of a token, and gives a value and the index after it, or ``None``.
    """

    def __init__(self, tokens: Sequence[Token], reading: Reading) -> None:
        self.tokens = tokens
        self.reading = reading
        self.kinds = [*(token.kind for token in tokens), *[""] * PADDING]
        self.words = [token.text.lower() if token.kind == "word" else "" for token in tokens] + [""] * PADDING
        self.partner: dict[int, int] = {}
        self.groups: dict[int, tuple[Value, int] | None] = {}
        self.atoms: dict[tuple[int, int], tuple[Value, int] | None] = {}
        opened: list[int] = []
        for index, kind in enumerate(self.kinds):
            if kind == "open":
                opened.append(index)
            elif kind == "close" and opened:
                self.partner[opened.pop()] = index

    def kind(self, index: int) -> str:
        """The kind of a token; empty beyond the ends."""
        return self.kinds[index]

    def word(self, index: int) -> str:
        """A word in lower case; empty if the token is none."""
        return self.words[index]

    def glued(self, index: int) -> bool:
        """Whether nothing is between a token and the one before it."""
        return 0 < index < len(self.tokens) and self.tokens[index - 1].end == self.tokens[index].start

    def last_run(self) -> Run | None:
        """The longest expression that ends with the side."""
        run, index = None, 0
        while index < len(self.tokens):
            if self.reading.numbering and self.words[index] in COUNTED and self.kinds[index + 2] == "minus":
                index += 3
                continue
            read = self.sum(index, 0)
            if read:
                run = Run(index, read[1], read[0])
            index = read[1] if read else index + 1
        return run if run and run.end == len(self.tokens) else None

    def first_runs(self) -> list[Run]:
        """The whole expression that the side begins with, then its first number (or fraction)."""
        start = 0
        while self.kinds[start] == "open" and start not in self.partner:
            start += 1
        runs = []
        for read in (self.sum(start, 0), self.fraction(start, 0) or self.atom(start, 0)):
            if read:
                runs.append(Run(start, read[1], read[0]))
        return runs

    def is_plain(self, run: Run) -> bool:
        """Whether an expression is only a number or a fraction, so that nothing is computed."""
        reads = self.atom(run.start, 0), self.fraction(run.start, 0)
        if not any(read and read[1] == run.end for read in reads):
            return False
        first = run.start
        while self.kinds[first] in ("minus", "currency"):
            first += 1
        if self.kinds[first] == "root":
            return False
        groups = [first] if self.kinds[first] == "open" else []
        if self.kinds[first] == "fraction":
            groups = [first + 1, self.partner[first + 1] + 1]
        return all(self.is_plain(Run(group + 1, self.partner[group], run.value)) for group in groups)

    def sum(self, index: int, depth: int) -> tuple[Value, int] | None:
        """Reads ``a + b - c``."""
        read = self.product(index, depth)
        while read and self.kinds[read[1]] in SUMS:
            following = self.product(read[1] + 1, depth)
            if following is None:
                break
            negative, term = self.kinds[read[1]] == "minus", following[0]
            if self.reading.relative and self.is_percentage(read[1] + 1, following[1]):
                term = multiply(read[0], term, False)
            read = add(read[0], term, negative), following[1]
        return read

    def is_percentage(self, index: int, end: int) -> bool:
        """Whether a term is one number with a percent sign."""
        return self.kinds[index] == "number" and self.kinds[index + 1] == "percent" and end >= index + 2

    def product(self, index: int, depth: int) -> tuple[Value, int] | None:
        """Reads ``a * b / c``; also ``3(4 + 5)`` and ``20% of 50``."""
        read = self.power(index, depth)
        while read:
            value, after = read
            divided = self.kinds[after] == "slash"
            if divided:  # 3 / 1/4 is a division by a quarter
                tight = None if self.glued(after + 1) else self.fraction(after + 1, depth)
                following = tight or self.power(after + 1, depth)
            elif self.kinds[after] == "times" or self.is_part(after):
                following = self.power(after + 1, depth)
            elif self.is_product(after):
                following = self.power(after, depth)
            else:
                break
            if following is None:
                break
            read = multiply(value, following[0], divided), following[1]
        return read

    def is_product(self, index: int) -> bool:
        """Whether two factors stand side by side: ``2(3 + 4)``, ``(1/2) 18``."""
        pair = self.kinds[index - 1], self.kinds[index]
        return pair in _IMPLICIT_PRODUCTS and not (self.reading.numbering and pair == ("close", "number"))

    def power(self, index: int, depth: int) -> tuple[Value, int] | None:
        """Reads ``a ^ b ^ c``, from the right."""
        if self.reading.signs_last and self.kinds[index] == "minus" and self.kinds[index + 1] != "minus":
            read = self.power(index + 1, depth)
            return (multiply(read[0], Value(Fraction(-1)), False), read[1]) if read else None
        values, end = [], index
        read = self.atom(index, depth)
        while read:
            values.append(read[0])
            end = read[1]
            read = self.atom(end + 1, depth) if self.kinds[end] == "power" else None
        return (reduce(_raised, reversed(values)), end) if values else None

    def fraction(self, index: int, depth: int) -> tuple[Value, int] | None:
        """Reads ``3/4`` without blanks."""
        if self.kinds[index : index + 3] != ["number", "slash", "number"]:
            return None
        if not (self.glued(index + 1) and self.glued(index + 2)):
            return None
        above, below = self.atom(index, depth), self.atom(index + 2, depth)
        if above is None or below is None:
            return None
        return multiply(above[0], below[0], True), below[1]

    def atom(self, index: int, depth: int) -> tuple[Value, int] | None:
        r"""Reads one number, ``(…)`` or ``\frac{…}{…}``, with the signs before and the units after it."""
        if (index, depth) not in self.atoms:  # remembered, for one may look at all that follow, ``1/1 1/1 1/1 …``
            self.atoms[index, depth] = self.new_atom(index, depth)
        return self.atoms[index, depth]

    def new_atom(self, index: int, depth: int) -> tuple[Value, int] | None:
        """The same, read for the first time."""
        negative = False
        units: list[str] = []
        start = index
        while self.kinds[index] in ("minus", "currency") and index < start + MAX_SIGNS:
            if self.kinds[index] == "currency":
                units.append(self.tokens[index].text.lstrip("\\"))
            negative ^= self.kinds[index] == "minus"
            index += 1
        kind = self.kinds[index]
        if kind == "number":
            read = self.number(index)
        elif kind == "clock":
            read = Value(None), index + 1
        elif kind == "numeral" and self.kinds[index + 1] not in ("number", "numeral", "currency", "open"):
            read = numeral_of(self.tokens[index].text), index + 1
        elif kind == "word" and self.reading.words:
            read = self.number_in_words(index)
        elif kind == "root" and depth < MAX_DEPTH:
            read = self.rooted(index, depth)
        elif kind == "open" and index in self.partner and depth < MAX_DEPTH:
            read = self.group(index, depth)
        elif kind == "fraction" and depth < MAX_DEPTH:
            read = self.latex_fraction(index, depth)
        else:
            return None
        if read is None:
            return None
        value, index = read
        if negative and value.number is not None:
            value = value._replace(number=-value.number)
        return self.with_units(value, index, units, depth)

    def number(self, index: int) -> tuple[Value, int]:
        """Reads ``5``, ``1 1/2``, ``5½``, ``101₂``."""
        value = number_of(self.tokens[index].text)
        following = self.kinds[index + 1]
        if following == "base" and self.glued(index + 1):
            digits = normalize("NFKC", self.tokens[index + 1].text).strip("_{}")
            return in_base(self.tokens[index].text, int(digits)) if 2 <= int(digits) <= 36 else Value(None), index + 2
        if following == "numeral":
            share = numeral_of(self.tokens[index + 1].text)
            if not share.written and not value.places:
                return add(value, share, False), index + 2
        return self.mixed(index, value) or (value, index + 1)

    def number_in_words(self, index: int) -> tuple[Value, int] | None:
        """Reads ``twenty-one`` and ``five hundred``."""
        stop = min(index + MAX_WORDS, len(self.tokens))
        read = number_in_words([token.text.lower() for token in self.tokens[index:stop]])
        return (Value(read[0], written=read[0].denominator == 1), index + read[1]) if read else None

    def rooted(self, index: int, depth: int) -> tuple[Value, int] | None:
        r"""Reads ``√16``, ``\sqrt[3]{8}``, ``sqrt(16)``, ``the square root of 16``."""
        sign = self.tokens[index].text.lower()
        degree = int(sign[-2]) if sign.endswith("]") else 3 if sign.startswith("cube") else _ROOTS.get(sign, 2)
        read = (self.sum if self.reading.far_roots else self.atom)(index + 1, depth + 1)
        return (root(read[0], degree), read[1]) if read else None

    def latex_fraction(self, index: int, depth: int) -> tuple[Value, int] | None:
        r"""Reads ``\frac{1}{2}`` and ``\frac12``."""
        token = self.tokens[index + 1].text if self.kinds[index + 1] == "number" else ""
        if re.fullmatch("[0-9][1-9]", token):
            return Value(Fraction(int(token[0]), int(token[1]))), index + 2
        above = self.group(index + 1, depth)
        below = self.group(above[1], depth) if above else None
        return (multiply(above[0], below[0], True), below[1]) if above and below else None

    def joins_units(self, index: int, after_words: bool) -> bool:
        """Whether a sign belongs to a unit: that of ``miles/hour``, ``2-hour``, ``lbs. *``."""
        kind, following = self.kinds[index], self.kinds[index + 1]
        if kind == "slash":
            letter = following == "word" and len(self.tokens[index + 1].text) == 1
            if following == "number" and self.reading.rates:
                return after_words and self.glued(index) and self.glued(index + 1)
            return following in ("word", "multiple", "cents") and (self.glued(index + 1) or not letter)
        if kind == "minus":
            return following == "word" and self.glued(index) and self.glued(index + 1)
        if kind == "stop" and after_words:
            return following in OPERATORS
        return kind == "stop" and self.glued(index) and following in OPERATORS - {"minus"}

    def is_remark(self, index: int, after_words: bool, depth: int) -> bool:
        """Whether parentheses only comment on the number before them."""
        if index not in self.partner:
            return False
        following = self.kinds[self.partner[index] + 1]
        return self.group(index, depth) is None or (after_words and following not in OPERATORS)

    def is_factor(self, index: int) -> bool:
        """Whether parentheses after a number belong to it, ``3(x + 1)``, and are no remark, ``3 (boys + girls)``."""
        inside = self.tokens[index + 1 : self.partner[index]]
        if self.reading.marks and (self.glued(index) or any(token.kind in OPERATORS for token in inside)):
            return True
        return any(token.kind == "word" and is_letter(token.text.lower()) for token in inside)

    def group(self, index: int, depth: int) -> tuple[Value, int] | None:
        """Reads an expression in parentheses, which must fill them."""
        if index not in self.partner or depth >= MAX_DEPTH:
            return None
        if index not in self.groups:  # remembered, since whoever meets it asks more than once
            read = self.sum(index + 1, depth + 1)
            filled = read and read[1] == self.partner[index]
            self.groups[index] = (read[0], read[1] + 1) if read and filled else None
        return self.groups[index]

    def is_part(self, index: int) -> bool:
        """Whether a word is an ``of`` that takes a share of what follows: ``20% of 50``, ``1/2 of 50``."""
        share = self.kinds[index - 1] in ("percent", "close") or self.kinds[index - 2] == "slash"
        return self.words[index] == "of" and share and self.kinds[index + 1] in ("number", "currency", "open")

    def mixed(self, index: int, whole: Value) -> tuple[Value, int] | None:
        """Reads ``1 1/2`` and ``1 and 1/2`` as one number."""
        start = index + (2 if self.words[index + 1] == "and" else 1)
        if self.glued(start) or self.kinds[start + 3] == "slash" or self.fraction(start, MAX_DEPTH) is None:
            return None
        above, below = number_of(self.tokens[start].text).number, number_of(self.tokens[start + 2].text).number
        if whole.places or whole.number is None or above is None or not below or above >= below:
            return None
        return Value(whole.number + above / below), start + 3

    def factor(self, kind: str, token: str) -> Fraction:
        """What a word or sign after a number multiplies it with."""
        if kind == "multiple":
            return Fraction(MULTIPLES[token.removesuffix("s")] if self.reading.multiples else 1)
        return self.reading.percent if kind == "percent" else self.reading.cents

    def with_units(self, value: Value, index: int, units: list[str], depth: int) -> tuple[Value, int]:
        """Reads what follows a number and belongs to it; skips remarks in parentheses."""
        if not units and self.kinds[index] in _NO_UNITS:
            return value, index
        words: list[str] = []
        while len(words) < MAX_UNIT_WORDS:
            kind = self.kinds[index]
            token = self.tokens[index].text.lower() if kind else ""
            if kind in ("percent", "cents") or (kind == "multiple" and not words):
                value = scale(value, self.factor(kind, token))
            elif kind in ("superscript", "exclamation") and self.glued(index) and (kind == "superscript" or not words):
                if words:  # m²
                    words[-1] += token
                else:
                    value = self.marked(value, kind, token)
                index += 1
                continue
            elif kind == "quote" or token == "°" or self.is_article(index) or self.is_currency_after(index):
                pass
            elif self.joins_units(index, bool(words)):
                index += 1
                while self.kinds[index] in ("number", "percent") and self.glued(index):
                    index += 1
                continue
            elif kind == "open" and self.is_remark(index, bool(words), depth):
                if not words and self.is_factor(index):
                    value = value._replace(number=None)
                index = self.partner[index] + 1
                continue
            elif kind not in ("word", "multiple", "ellipsis") or self.ends_units(index, token):
                break
            elif self.reading.powers and token in _POWERS and not words:
                value = raise_to(value, Value(Fraction(_POWERS[token])))
            elif words and kind == self.kinds[index - 1] == "word" and self.glued(index):  # scripts without WORD
                words[-1] += token
            elif kind != "ellipsis":
                words.append(token)
            units.append(token)
            index += 1
        if not self.reading.marks and self.is_name(words, index):
            words.pop()
        if self.reading.measures and words:
            value = scale(value, Fraction(MEASURES.get(words[0].removesuffix("s"), 1)))
        if words[:1] == ["and"] and self.reading.marks:
            value = self.with_share(value, words[1:5])
        return with_units(value, words, units), index

    def ends_units(self, index: int, word: str) -> bool:
        """Whether a word is no unit: it begins a clause, a share of what follows, or another number."""
        number = self.reading.words and number_in_words([word]) is not None
        return number or word in CLAUSES or self.is_part(index)

    def is_currency_after(self, index: int) -> bool:
        """Whether a token is a currency sign that belongs to the number before it."""
        return self.kinds[index] == "currency" and self.kinds[index + 1] not in ("number", "open")

    def is_article(self, index: int) -> bool:
        """Whether a word is the ``a`` of ``a lot`` or the ``I`` of ``I think``, and no variable."""
        return self.words[index] in _ARTICLES and not self.glued(index) and self.kinds[index + 1] == "word"

    def is_name(self, words: list[str], end: int) -> bool:
        """Whether the last of the words before ``end`` is a letter that names something, as in ``5 eggs in bag B``."""
        if len(words) < 2 or not is_letter(words[-1]) or is_letter(words[0]) or self.kinds[end] in OPERATORS:
            return False
        return _OPERATIONS.isdisjoint(words)

    def marked(self, value: Value, kind: str, token: str) -> Value:
        """A number with an exclamation mark or a power glued to it."""
        if not self.reading.marks:
            return value
        if kind == "exclamation":
            return factorial(value)
        exponent = int(normalize("NFKC", token[:MAX_UNIT_WORDS]).replace("\u2212", "-"))
        return raise_to(value, Value(Fraction(exponent)))

    def with_share(self, value: Value, words: list[str]) -> Value:
        """The number of ``2 and a half``; unknown before ``of``."""
        share = share_of(words)
        if share is None or value.number is None:
            return value
        return value._replace(number=None if "of" in words or share > 1 else value.number + share, written=False)
