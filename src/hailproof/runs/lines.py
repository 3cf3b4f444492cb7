"""The lines of ``rounds.jsonl``, each a table of numbers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hailproof.errors import RunError
from hailproof.runs.checkpoint import ANEW, Checkpoint
from hailproof.runs.files import Digest, from_json

LATE = 0.8
"""Held-out figures of a run are means over the evaluations after this share of its rounds."""


def lines_of(path: Path, data: bytes, safe: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each whole line; the last may be half a line, as of a run that is being written.

    Args:
        path: The file.
        data: What it holds.
        safe: The last round that the checkpoint stands on; ``None`` if there is no checkpoint to go on from.
    """
    *whole, rest = data.split(b"\n")
    for number, text in enumerate([*whole, rest], start=1):
        try:
            record = from_json(text)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and type(record.get("round")) is int and _is_figures(record):
            yield number, record
        elif number <= len(whole):
            replayed = safe is not None and number > safe
            advice = "resume the run, which plays that round again" if replayed else ANEW
            raise RunError(f"Line {number} of {path} is damaged; {advice}.")


def _is_figures(record: Mapping[str, Any]) -> bool:
    """Whether a line holds nothing but numbers, nulls and tables of them, and the digest of its part."""
    values = [value for key, value in record.items() if key != "part"]
    return all(
        _is_figures(value) if isinstance(value, Mapping) else value is None or isinstance(value, int | float)
        for value in values
    )


def check_lines(path: Path, data: bytes, checkpoint: Checkpoint) -> None:
    """Makes sure that a file begins with the lines that the checkpoint rests on."""
    if Digest.of(data[: checkpoint.rounds.size]) != checkpoint.rounds:
        raise RunError(
            f"{path} does not hold the {checkpoint.round} lines that the checkpoint rests on: it was changed or "
            f"damaged; {ANEW}."
        )


def late_evaluations(
    lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """The held-out evaluations of the last fifth of a run, in order; without ``evaluation.every`` it is the last one.

    Args:
        lines: All lines of ``rounds.jsonl``.
        summary: ``summary.json``, which holds the evaluation after the last round.

    Returns:
        What the evaluations found; empty if there was none.
    """
    last = len(lines)
    found = {line["round"]: line["held_out"] for line in lines if line.get("held_out") and line["round"] > LATE * last}
    if summary.get("held_out"):
        found[last] = summary["held_out"]  # of the same weights as one in the last line
    return list(found.values())
