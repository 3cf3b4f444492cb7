"""The cells of a bench as a Markdown table."""

import html
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hailproof.reports.pages import visible

COLUMNS = (
    ("attack success %", "attack_success", 100.0), ("above clean %", "excess_success", 100.0),
    ("honest kept %", "honest_kept", 100.0), ("forged kept %", "forged_kept", 100.0),
    ("honest learned %", "honest_learned", 100.0), ("reward %", "reward", 100.0),
    ("held-out reward %", "held_out_reward", 100.0), ("below clean %", "held_out_loss", 100.0),
    ("tokens", "tokens", 1.0), ("times clean", "tokens_ratio", 1.0), ("s/round", "seconds_per_round", 1.0),
    ("screening %", "screen_share", 100.0),
)  # fmt: skip
"""Heading, measure and factor of each column of the table."""


def table_of(cells: Sequence[Mapping[str, Any]]) -> str:
    """The cells as a Markdown table: means, and the range over seeds where there are several."""
    head = ("attack", "defense", "topology", "seeds", *(heading for heading, _, _ in COLUMNS))
    lines = [f"| {' | '.join(head)} |", "| " + "--- | " * len(head)]
    for cell in cells:
        name = f"{cell['attack']}, {cell['setting']}" if cell["setting"] else cell["attack"]
        name, defense, topology = (_plain(text) for text in (name, cell["defense"], cell["topology"]))
        seeds = _plain(", ".join(map(str, cell["seeds"])))
        figures = [_range(cell.get(f"{measure}_seeds", ()), factor) for _, measure, factor in COLUMNS]
        lines.append(f"| {' | '.join((name, defense, topology, seeds, *figures))} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A name, which may be anybody's, as one line of Markdown that says nothing but itself."""
    return html.escape(" ".join(visible(text).split()), quote=False).replace("|", "\\|")


def _range(values: Sequence[float | None], factor: float) -> str:
    defined = [factor * value for value in values if value is not None]
    if not defined:
        return "-"
    digits = 1 if factor == 100.0 or max(defined) >= 10 else 2
    mean = f"{fmean(defined):.{digits}f}"
    return mean if len(defined) == 1 else f"{mean} ({min(defined):.{digits}f} to {max(defined):.{digits}f})"
