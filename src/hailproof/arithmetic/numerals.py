"""Reads numbers in words: ``five``, ``twenty-one``, ``two hundred and five``, ``three quarters``, ``a half``."""

from collections.abc import Sequence
from fractions import Fraction

from hailproof.arithmetic.tokens import TENS, UNITS
from hailproof.arithmetic.values import SHARES

MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
MAX_WORDS = 12
"""Of one number."""
_WORDS = {word: number for number, word in enumerate(UNITS)} | {word: 10 * n for n, word in enumerate(TENS, start=2)}


def number_in_words(words: Sequence[str]) -> tuple[Fraction, int] | None:
    """Reads the number that some words begin with.

    Args:
        words: In lower case, empty for what is no word.

    Returns:
        The number, and how many words it takes up; ``None`` if they do not begin with a number.
    """
    total, group, taken = 0, 0, 0
    for index, word in enumerate(words[:MAX_WORDS]):
        small, multiple = _below_hundred(word), MULTIPLES.get(word.removesuffix("s"))
        if word == "and" and taken == index and (total or group >= 100):
            continue
        if small is not None and (not taken or _goes_on(total, group, small)):
            group += small
        elif multiple and taken:
            total, group = (total, group * multiple) if multiple <= 100 else (total + group * multiple, 0)
        else:
            break
        taken = index + 1
    if taken == 1 or (taken == 0 and words and words[0].split("-")[0] in _WORDS):
        share = _share(words[:2])
        if share:
            return share
    return (Fraction(total + group), taken) if taken else None


def _below_hundred(word: str) -> int | None:
    """The value of ``five``, ``twenty``, ``twenty-five``."""
    tens, _, ones = word.partition("-")
    if not ones:
        return _WORDS.get(word)
    return _WORDS[tens] + _WORDS[ones] if tens in TENS and 0 < _WORDS.get(ones, 0) < 10 else None


def _goes_on(total: int, group: int, small: int) -> bool:
    """Whether a number below a hundred belongs to the words before it."""
    tens = group % 100
    return (tens == 0 and (total or group) > 0) or (tens >= 20 and tens % 10 == 0 and 0 < small < 10)


def _share(words: Sequence[str]) -> tuple[Fraction, int] | None:
    """Reads ``two thirds`` and ``two-thirds``."""
    parts = words[0].split("-") if "-" in words[0] else list(words)
    if len(parts) != 2 or parts[0] not in _WORDS or SHARES.get(parts[1], 2) >= 1:
        return None
    return _WORDS[parts[0]] * SHARES[parts[1]], 1 if "-" in words[0] else 2
