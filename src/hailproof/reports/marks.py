"""What is marked in a completion: what verdicts rest on, what is not learned from, and what shows the attack."""

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hailproof.parsing import sentence_borders
from hailproof.reports.pages import cut

MARKS = 40
"""Marks in a text; more would be no help, and a stranger may have written them."""
NOTES = 3
"""Notes of a verdict that are repeated for one stretch."""
REASON = 240
"""Letters of what a verdict says."""
MAX_LETTERS = 4000
"""Longer texts are not searched for what shows the attack."""

TONES = ("reject", "muted", "note")
"""Kinds of marks of verdicts, the strongest first."""
_WRAPPING = re.compile(r"(?:\s|</?\w+>)+")
_PIECE = re.compile(r"\w+|\W")


class Mark(NamedTuple):
    """A marked stretch of a text, as indices of characters."""

    start: int
    end: int
    tone: str
    note: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a completion's text under the same marks.

    Attributes:
        text: The stretch.
        tone: The strongest of ``TONES`` that a verdict marks it with, else empty.
        attack: Whether it shows the attack.
        note: What is said of it.
    """

    text: str
    tone: str = ""
    attack: bool = False
    note: str = ""


def marks_of(verdicts: Sequence[Mapping[str, Any]], ends: Sequence[int] = ()) -> list[Mark]:
    """What the verdicts on a completion point at.

    Args:
        verdicts: The verdicts, as stored.
        ends: Where the tokens end that verdicts count; if unknown, a verdict that mutes is taken to rest on what it
            mutes.
    """
    marks = []
    for verdict in verdicts:
        name, muted = verdict["defense"], verdict.get("muted") or []
        spans = verdict["spans"] or []
        if muted and ends:
            for start, end in _stretches(muted, ends):
                why = [span["note"] for span in spans if span["start"] < end and span["end"] > start and span["note"]]
                said = ", ".join(list(dict.fromkeys(why))[:NOTES])
                marks.append(Mark(start, end, "muted", f"{name}: not learned{said and f' ({said})'}"))
            continue
        tone = "reject" if verdict["decision"] == "reject" else "muted" if muted else "note"
        for span in spans:
            marks.append(Mark(span["start"], span["end"], tone, f"{name}: {span['note']}" if span["note"] else name))
    return marks


def _stretches(tokens: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Characters of neighboring tokens, as one stretch each."""
    known = sorted({token for token in tokens if 0 <= token < len(ends)})
    for _, run in itertools.groupby(enumerate(known), key=lambda pair: pair[1] - pair[0]):
        held = [token for _, token in run]
        yield (ends[held[0] - 1] if held[0] else 0), ends[held[-1]]


def segments(text: str, marks: Sequence[Mark], start: int, end: int) -> list[Segment]:
    """Divides a stretch of a completion where its marks begin and end.

    Marks may overlap, be empty or lie outside; at most ``MARKS`` of them are shown.

    Args:
        text: The whole text.
        marks: What is marked in it; the tone ``"attack"`` goes beside the others.
        start: Where the stretch begins.
        end: Where it ends.

    Returns:
        Segments whose texts, joined, are ``text[start:end]``.
    """
    within = [mark._replace(start=max(mark.start, start), end=min(mark.end, end)) for mark in marks]
    within = [mark for mark in within if mark.start < mark.end][:MARKS]
    edges = sorted({start, end, *(mark.start for mark in within), *(mark.end for mark in within)})
    result = []
    for left, right in itertools.pairwise(edges):
        over = [mark for mark in within if mark.start <= left and right <= mark.end]
        tones = {mark.tone for mark in over}
        tone = next((tone for tone in TONES if tone in tones), "")
        note = cut("; ".join(dict.fromkeys(mark.note for mark in over)), REASON)
        result.append(Segment(text[left:right], tone, "attack" in tones, note))
    return result


def attack_spans(succeeds: Callable[[str], bool | None], text: str) -> list[tuple[int, int]]:
    """Finds what in a text shows an attack, by asking its measure about parts of the text.

    Sentences that show it alone are trimmed while they still do. If there are none, as with a program whose import and
    call stand on two lines, it is the sentences without which the text does not show it.

    Args:
        succeeds: The attack's measure, which says that the whole text shows it.
        text: The completion.

    Returns:
        Stretches of the text; none if no part is more to blame than another, or the text is too long to search.
    """
    if len(text) > MAX_LETTERS:
        return []
    borders = [*sentence_borders(text), len(text)]
    units = [_unwrapped(text, start, end) for start, end in itertools.pairwise(borders)]
    units = [(start, end) for start, end in units if start < end][:MARKS]
    alone = [_trimmed(succeeds, text, *unit) for unit in units if succeeds(text[slice(*unit)])]
    return alone or [(start, end) for start, end in units if not succeeds(text[:start] + text[end:])]


def _unwrapped(text: str, start: int, end: int) -> tuple[int, int]:
    """A sentence without the tags and spaces around it."""
    for wrapping in _WRAPPING.finditer(text, start, end):
        if wrapping.start() == start:
            start = wrapping.end()
        elif wrapping.end() == end:
            end = wrapping.start()
    return start, end


def _trimmed(succeeds: Callable[[str], bool | None], text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a sentence that is left when words at its ends go as long as it shows the attack."""
    edges = [start, *(match.end() for match in _PIECE.finditer(text, start, end))]
    last = len(edges) - 1
    # Both by bisection: a stranger wrote the text, and a measure reads all of what it is asked about.
    left = bisect_left(range(1, last), True, key=lambda place: not succeeds(text[edges[place] : end]))
    start = edges[left]
    less = bisect_left(range(1, last - left), True, key=lambda less: not succeeds(text[start : edges[last - less]]))
    return start, edges[last - less]
