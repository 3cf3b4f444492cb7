"""The completions that a report shows: which, with what marks, and how much of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from hailproof.attacks import ATTACKS
from hailproof.errors import HailproofError
from hailproof.plugins import make
from hailproof.protocols import AttackMeasure
from hailproof.records import Problem
from hailproof.reports.marks import REASON, Mark, attack_spans, marks_of, segments
from hailproof.reports.pages import cut
from hailproof.reports.surprise import Token, surprises
from hailproof.runs.config import RunConfig
from hailproof.runs.store import read_completions

# Limits that keep the file small: rounds and completions shown, and letters of each text.
ROUNDS_SHOWN = 11
PER_KIND = 3
HEAD, TAIL = 900, 300

LEVELS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Nats at which the color of a token changes; 0.1 are a probability of 90 %, 1 is 37 %, 4 are 2 %, 8 are 0.03 %."""

COLUMNS = [
    "round", "view", "sender", "malicious", "problem_id", "question", "slot", "text", "tokens", "token_ids",
    "finished", "raw_reward", "reward", "admitted", "success", "verdicts",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """The completions shown of one round.

    Attributes:
        round: The round.
        view: The node whose judgement is shown.
        cards: What the template shows of each completion.
    """

    round: int
    view: int
    cards: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A token in the heat strip.

    Attributes:
        text: Its characters; empty for the end token.
        level: Index of its color, from 0.
        nats: Its surprise.
    """

    text: str
    level: int
    nats: float


def read_samples(folder: Path, rounds: Sequence[int], config: RunConfig | None, surprise: bool) -> list[Sample]:
    """Picks completions of rounds from the first to the last, as the first computed receiver judged them.

    Args:
        folder: The run folder.
        rounds: The finished rounds.
        config: The configuration, which tells the attack; ``None`` if it cannot be read.
        surprise: Whether to look up the surprise of each token, which needs the configuration.
    """
    picked = [(number, rows) for number in _chosen(rounds) if (rows := _picked(_rows(folder, number)))]
    everything = [row for _, rows in picked for row in rows]
    tokens = surprises(config, everything) if surprise and config else [()] * len(everything)
    measure = _measure(config) if config else None
    cards = iter([_card(row, found, measure) for row, found in zip(everything, tokens, strict=True)])
    return [Sample(number, rows[0]["view"], tuple(next(cards) for _ in rows)) for number, rows in picked]


def _chosen(rounds: Sequence[int]) -> list[int]:
    count = min(ROUNDS_SHOWN, len(rounds))
    return sorted({rounds[round(index * (len(rounds) - 1) / max(count - 1, 1))] for index in range(count)})


def _rows(folder: Path, number: int) -> list[dict[str, Any]]:
    # While a run goes on, each round has a file of its own.
    files = (folder / "completions.parquet", folder / "completions" / f"round-{number:06d}.parquet")
    for path in files:
        if path.is_file():
            return read_completions(path, columns=COLUMNS, filters=[("round", "=", number)]).to_pylist()
    return []


def _picked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Honest completions as one view has them, then malicious ones."""
    view = min((row["view"] for row in rows), default=0)
    kinds = ([row for row in rows if row["view"] == view and row["malicious"] is kind] for kind in (False, True))
    return [row for kind in kinds for row in _pick(kind)]


def _pick(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Takes one completion of each outcome first, then others, none of them twice by its text."""
    distinct: dict[str, dict[str, Any]] = {}
    leaders: dict[str, dict[str, Any]] = {}
    for row in rows:
        distinct.setdefault(row["text"], row)
    for row in distinct.values():
        leaders.setdefault(_outcome(row), row)
    # Sorting is stable: leaders first, and otherwise the order of the slots.
    return sorted(distinct.values(), key=lambda row: leaders[_outcome(row)] is not row)[:PER_KIND]


def _outcome(row: Mapping[str, Any]) -> str:
    """What became of a completion: the key of its badge in the template."""
    stopped = not row["admitted"] or any(verdict["decision"] == "reject" for verdict in row["verdicts"] or [])
    if row["malicious"] and row["success"] and not stopped and any(v.get("muted") for v in row["verdicts"] or []):
        return "hushed"
    if row["malicious"]:
        return "stopped" if stopped else "succeeded" if row["success"] else "passed"
    return "wronged" if stopped else "infected" if row["success"] else "clean"


def _measure(config: RunConfig) -> AttackMeasure | None:
    """The attack of the run, if it comes with the package: a report runs nobody else's code."""
    if config.attack.name not in ATTACKS:
        return None
    try:
        return make("attacks", ATTACKS, config.attack)
    except (HailproofError, TypeError, ValueError, AttributeError):  # what options of the wrong type make it raise
        return None


def _card(row: Mapping[str, Any], tokens: Sequence[Token], measure: AttackMeasure | None) -> dict[str, Any]:
    verdicts = row["verdicts"] or []
    text: str = row["text"]
    head_end = len(text) if len(text) <= HEAD + TAIL else HEAD
    tail_start = len(text) if len(text) <= HEAD + TAIL else len(text) - TAIL
    marks = [*_shown(row, measure), *marks_of(verdicts, [token.end for token in tokens])]
    return {
        **{key: row[key] for key in ("sender", "malicious", "problem_id", "slot", "tokens", "finished", "raw_reward")},
        "reward": row["reward"],
        "admitted": row["admitted"],
        "outcome": _outcome(row),
        "question": cut(row["question"], HEAD),
        "head": segments(text, marks, 0, head_end),
        "hidden": tail_start - head_end,
        "tail": segments(text, marks, tail_start, len(text)),
        "verdicts": [{**verdict, "reason": cut(verdict["reason"], REASON)} for verdict in verdicts],
        "head_cells": cells_of(text, tokens, 0, head_end),
        "tail_cells": cells_of(text, tokens, tail_start, len(text)) if head_end < tail_start else [],
        "mean_nats": fmean(token.nats for token in tokens) if tokens else None,
    }


def _shown(row: Mapping[str, Any], measure: AttackMeasure | None) -> list[Mark]:
    """Marks of what shows the attack, in a completion that does."""
    if measure is None or not row["success"]:
        return []
    problem = Problem(row["problem_id"], row["question"], "")
    spans = attack_spans(partial(measure.success, problem), row["text"])
    return [Mark(start, end, "attack", "shows the attack") for start, end in spans]


def cells_of(text: str, tokens: Sequence[Token], start: int, end: int) -> list[Cell]:
    """The tokens of a stretch of a text, cut at its borders, each with its color.

    Args:
        text: The whole text.
        tokens: Its tokens.
        start: Where the stretch begins.
        end: Where it ends.
    """
    cells = []
    for token in tokens:
        left, right = max(token.start, start), min(token.end, end)
        if left < right or (token.start == token.end and start <= token.end <= end):
            cells.append(Cell(text[left:right], sum(token.nats >= level for level in LEVELS), token.nats))
    return cells
