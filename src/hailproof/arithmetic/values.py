"""Exact values of what people write, and whether two of them are the same number."""

import math
import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from hailproof.parsing import MAX_NUMBER_CHARACTERS

MAX_EXPONENT = 64
MAX_BITS = 2_048
"""Values whose numerator or denominator has more bits are unknown."""
ROOT_BITS = 128
"""Binary digits after the point of a root that is no fraction."""
INEXACT = Fraction(1, 10**12)
"""How far, relatively, two values with such a root may be apart and still be the same."""
SHARES = {
    "fifth": Fraction(1, 5), "fifths": Fraction(1, 5), "fourth": Fraction(1, 4), "fourths": Fraction(1, 4),
    "half": Fraction(1, 2), "quarter": Fraction(1, 4), "quarters": Fraction(1, 4), "third": Fraction(1, 3),
    "thirds": Fraction(1, 3), "twice": Fraction(2),
}  # fmt: skip
"""Words for a share, or a multiple, of what stands beside them."""
_COUNTS = {"two": 2, "three": 3, "four": 4}
MAX_FACTORIAL = 300
MEASURES = {
    "second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86_400, "week": 604_800,
    "month": 2_629_746, "year": 31_556_952, "decade": 315_569_520,
    "inch": 1, "inche": 1, "foot": 12, "feet": 12, "yard": 36, "ounce": 1, "oz": 1, "pound": 16, "lb": 16,
    "gram": 1, "kilogram": 1000, "kg": 1000, "meter": 100, "metre": 100, "cm": 1, "centimeter": 1, "kilometer": 100_000,
}  # fmt: skip
"""Units, without their plural s, in the smallest of their kind: what sums of several of them are counted in."""


class Value(NamedTuple):
    """What an expression is.

    Attributes:
        number: Its value; ``None`` if it is unknown.
        letters: Its variables; ``None`` if its terms do not have the same ones.
        places: Digits after the point, if it is one written number.
        scale: What that number was multiplied with: 1/100 for a percentage.
        units: The units of its last number.
        written: Whether it is one written number.
        inexact: Whether a root was rounded for it.
    """

    number: Fraction | None
    letters: frozenset[str] | None = frozenset()
    places: int = 0
    scale: Fraction = Fraction(1)
    units: tuple[str, ...] = ()
    written: bool = False
    inexact: bool = False


def _limited(number: Fraction) -> Fraction | None:
    """The number, unless it is too large to go on with."""
    return number if max(number.numerator.bit_length(), number.denominator.bit_length()) <= MAX_BITS else None


@lru_cache(maxsize=4096)
def number_of(text: str) -> Value:
    """Reads a written number; unknown if it is too long or its separators are misplaced."""
    if len(text) > MAX_NUMBER_CHARACTERS:
        return Value(None)
    if text[:2].lower() in ("0b", "0o", "0x"):
        return Value(Fraction(int(text, 0)), written=True)
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, places = mantissa.partition(".")
    whole = re.sub("[ _'’]", ",", whole)
    separated = re.fullmatch(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}", whole)
    if re.fullmatch("0[0-9]{3}", whole) or ("," in whole and not separated):
        return Value(None)
    if abs(int(exponent or 0)) > MAX_EXPONENT:
        return Value(None)
    magnitude = Fraction(10) ** int(exponent or 0)
    number = Fraction(int(whole.replace(",", "") + places), 10 ** len(places)) * magnitude
    return Value(number, places=len(places), scale=magnitude, written=True)


@lru_cache(maxsize=1024)
def numeral_of(character: str) -> Value:
    """Reads a character that is a number by itself: ½, ⑤, Ⅷ, 五."""
    number = Fraction(unicodedata.numeric(character)).limit_denominator(1000)
    return Value(number, written=number.denominator == 1)


def in_base(digits: str, base: int) -> Value:
    """Reads the digits of a number in another base; unknown if it has other digits."""
    try:
        return Value(Fraction(int(digits, base)), written=True)
    except ValueError:
        return Value(None)


def root(value: Value, degree: int) -> Value:
    """The root; exact if it is a fraction, else rounded, or unknown if it is no square root."""
    number = value.number
    if number is None or number < 0 or value.letters != frozenset():
        return Value(None, value.letters)
    above, below = (_whole_root(part, degree) for part in (number.numerator, number.denominator))
    if above is not None and below is not None:
        return Value(Fraction(above, below))
    if degree != 2:
        return Value(None)
    rounded = math.isqrt((number.numerator << 2 * ROOT_BITS) // number.denominator)
    return Value(Fraction(rounded, 1 << ROOT_BITS), inexact=True)


def _whole_root(number: int, degree: int) -> int | None:
    """The root of a whole number, if it is one."""
    if degree == 2:
        found = math.isqrt(number)
        return found if found**2 == number else None
    if number.bit_length() > 512:
        return None
    near = round(number ** (1 / degree))
    return next((found for found in (near - 1, near, near + 1) if found**degree == number), None)


def add(left: Value, right: Value, negative: bool) -> Value:
    """The sum; if ``negative``, the difference."""
    letters = left.letters if left.letters == right.letters else None
    if left.number is None or right.number is None:
        return Value(None, letters)
    number = left.number - right.number if negative else left.number + right.number
    return Value(_limited(number), letters, units=right.units, inexact=left.inexact or right.inexact)


def multiply(left: Value, right: Value, divided: bool) -> Value:
    """The product; if ``divided``, the quotient, which is unknown where the divisor is 0."""
    letters = None if left.letters is None or right.letters is None else left.letters | right.letters
    if left.number is None or right.number is None or (divided and right.number == 0):
        return Value(None, letters)
    number = left.number / right.number if divided else left.number * right.number
    return Value(_limited(number), letters, units=right.units, inexact=left.inexact or right.inexact)


def raise_to(base: Value, exponent: Value) -> Value:
    """The power; unknown unless the exponent is a small whole number."""
    letters = frozenset[str]() if base.letters == exponent.letters == frozenset() else None
    number, times = base.number, exponent.number
    if number is None or times is None or times.denominator != 1 or abs(times) > MAX_EXPONENT:
        return Value(None, letters)
    if number == 0 and times < 0:
        return Value(None, letters)
    size = max(number.numerator.bit_length(), number.denominator.bit_length())
    power = number ** int(times) if size * abs(times) <= MAX_BITS else None
    return Value(power, letters, inexact=base.inexact)


def scale(value: Value, factor: Fraction) -> Value:
    """A number with a sign or word after it that multiplies it."""
    if value.number is None:
        return value
    return value._replace(number=_limited(value.number * factor), scale=value.scale * factor)


def factorial(value: Value) -> Value:
    """The factorial of a small whole number; of others it is unknown."""
    number = value.number
    if number is None or number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL:
        return Value(None, value.letters)
    return Value(_limited(Fraction(math.factorial(int(number)))), value.letters)


def share_of(words: list[str]) -> Fraction | None:
    """What words such as ``half``, ``two thirds``, ``one-fifth`` stand for; ``None`` if they hold no share."""
    words = [part for word in words for part in word.split("-")]
    for index, word in enumerate(words):
        if word in SHARES:
            return SHARES[word] * _COUNTS.get(words[index - 1] if index else "", 1)
    return None


def is_letter(word: str) -> bool:
    """Whether a word can be a variable: a letter, Latin or Greek, or its power."""
    letter = word.rstrip("²³")
    return len(letter) == 1 and letter < "\u0400"


def with_units(value: Value, words: list[str], units: list[str]) -> Value:
    """A number with what is written after it: ``words`` tell variables from units, ``units`` also hold the signs."""
    if words and is_letter(words[0]) and value.letters is not None:  # the x of 2x
        value = value._replace(letters=value.letters | {words[0]})
    elif words and is_letter(words[-1]):  # the x of "2 days, or x"
        value = value._replace(letters=None)
    names = tuple(unit.removesuffix("s") if len(unit) > 1 else unit for unit in units)
    return value._replace(units=value.units + names)


def _rounds_to(exact: Fraction, written: Value, freely: bool, from_decimal: bool = False) -> bool:
    """Whether a written number is an exact one rounded half up, or cut, at its own last digit.

    To whole numbers, only what has no end is rounded: 10/3 is 3, but 7/2 is not 3, and 20 is not 1 dozen. What is
    written as a decimal may be rounded to one, 3.5 = 4; ``freely`` it may be rounded at any digit.
    """
    if written.number is None:
        return False
    scaled, number, places = abs(exact / written.scale), abs(written.number / written.scale), written.places
    if number and (exact < 0) != (written.number < 0):
        return False
    if places == 0 and written.scale >= 1 and not (freely or from_decimal) and _terminates(abs(exact)):
        return False
    if freely:
        while number and places > -MAX_NUMBER_CHARACTERS and (number / Fraction(10) ** (1 - places)).denominator == 1:
            places -= 1
    shift = Fraction(10) ** places
    return number * shift in (scaled * shift // 1, (scaled * shift + Fraction(1, 2)) // 1)


def _terminates(number: Fraction) -> bool:
    """Whether a number has finitely many decimals."""
    return pow(10, MAX_BITS, number.denominator) == 0


def same(left: Value, right: Value, approximately: bool) -> bool | None:
    """Whether two values are equal, up to rounding where one is a written number; ``None`` if that is unknown."""
    if left.number is None or right.number is None:
        return None
    inexact = left.inexact or right.inexact
    if left.number == right.number or (inexact and abs(left.number - right.number) <= INEXACT * abs(left.number)):
        return True
    if right.written and _rounds_to(left.number, right, approximately, left.places > 0 or inexact):
        return True
    if left.written and not right.written and _rounds_to(right.number, left, approximately, inexact):
        return True
    return None if None in (left.letters, right.letters) or left.letters != right.letters else False
