"""Phrases that one sender repeats across prompts and rounds and others do not: learned from the past, for a bet now."""

import heapq
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

WORDS = 3
"""Words, numbers or signs in a phrase: ``2 + 2 = 5`` holds three phrases."""

DECAY = 0.8
"""What a count keeps per round."""

FORGOTTEN = 0.75
"""Counts below this are dropped: a phrase must come again within a round to be remembered, which bounds the memory."""

MARKED = 8
"""Phrases that a sender is held to."""

TIMES = 1.5
"""Smallest count of a phrase that can be marked: it was seen for more than one prompt."""

PROMPTS = ""
"""The key under which prompts are counted; every text holds the empty phrase."""

_WORD = re.compile(r"\w+|[^\w\s]")

Counts = dict[str, float]
"""For how many prompts, discounted by age, a sender used each phrase."""


def phrases(text: str) -> set[str]:
    """The phrases of a text, and the empty one."""
    words = _WORD.findall(text.lower())
    return {PROMPTS, *(" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))}


def remembered(counts: Mapping[str, float], groups: Iterable[Sequence[set[str]]]) -> Counts:
    """A sender's counts after a round.

    Args:
        counts: Before the round.
        groups: For each prompt of the round, the phrases of each completion of the sender.
    """
    result = Counter({phrase: DECAY * count for phrase, count in counts.items()})
    for group in groups:
        result.update(dict.fromkeys(set().union(*group), 1.0))
    return {phrase: count for phrase, count in result.items() if count >= FORGOTTEN}


def marked(counts: Counts, others: Sequence[Counts]) -> Counts:
    """The phrases that a sender used most beyond the median of the others, with how far beyond, in deviations.

    Args:
        counts: Of the sender.
        others: Of the others; more than half of them must be honest for their median to be.
    """
    prompts = counts.get(PROMPTS, 0.0)
    best: list[tuple[float, str]] = []
    often = ((count, phrase) for phrase, count in counts.items() if count >= TIMES and phrase != PROMPTS)
    for count, phrase in sorted(often, reverse=True):
        if len(best) == MARKED and math.sqrt(count) <= best[0][0]:
            break  # no lead is larger than the root of the count
        rates = [other.get(phrase, 0.0) / other[PROMPTS] for other in others if other.get(PROMPTS)]
        expected = prompts * statistics.median(rates or [0.0])
        lead = (count - expected) / math.sqrt(count + expected)
        if lead > 1:
            (heapq.heappushpop if len(best) == MARKED else heapq.heappush)(best, (lead, phrase))
    return {phrase: lead for lead, phrase in best}
