"""The cells of a bench as a Markdown table."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from hailproof.metrics.established import CLAIMS
from hailproof.reports.claimed import Claimed, claimed, number_of, p_text
from hailproof.reports.pages import visible

COLUMNS = (
    ("attack success %", "attack_success", 100.0), ("above clean %", "excess_success", 100.0),
    ("on held-out prompts %", "held_out_success", 100.0),
    ("2∘2 answers from 5 %", "two_two_from_five", 100.0),
    ("honest kept %", "honest_kept", 100.0), ("honest learned %", "honest_learned", 100.0),
    ("forged kept %", "forged_kept", 100.0), ("forged learned %", "forged_learned", 100.0),
    ("honest pull %", "honest_pull", 100.0), ("forged pull %", "forged_pull", 100.0),
    ("honest excluded %", "honest_excluded", 100.0),
    ("reward %", "reward", 100.0), ("held-out reward %", "held_out_reward", 100.0),
    ("below clean %", "held_out_loss", 100.0), ("tokens", "tokens", 1.0), ("times clean", "tokens_ratio", 1.0),
    ("s/round", "seconds_per_round", 1.0), ("screening %", "screen_share", 100.0),
)  # fmt: skip
"""Heading, measure and factor of each column of the table."""


def table_of(cells: Sequence[Mapping[str, Any]]) -> str:
    """The cells as a Markdown table: means with their intervals, and what each cell establishes."""
    head = ("attack", "defense", "topology", "seeds", *(heading for heading, _, _ in COLUMNS))
    head = (*head, *(claim.label for claim in CLAIMS))
    lines = [f"| {' | '.join(head)} |", "| " + "--- | " * len(head)]
    for cell, claims in zip(cells, claimed(cells), strict=True):
        name = f"{cell['attack']}, {cell['setting']}" if cell["setting"] else cell["attack"]
        name, defense, topology = (_plain(text) for text in (name, cell["defense"], cell["topology"]))
        seeds = _plain(", ".join(map(str, cell["seeds"])))
        figures = [_figure(cell, measure, factor) for _, measure, factor in COLUMNS]
        said = [_claim(claims.get(claim.key)) for claim in CLAIMS]
        lines.append(f"| {' | '.join((name, defense, topology, seeds, *figures, *said))} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A name, which may be anybody's, as one line of Markdown that says nothing but itself."""
    return html.escape(" ".join(visible(text).split()), quote=False).replace("|", "\\|")


def _figure(cell: Mapping[str, Any], measure: str, factor: float) -> str:
    """Mean and interval; where no seed showed anything, what it can be at most by completion and by seed."""
    mean, low, high = (number_of(cell.get(f"{measure}_{part}")) for part in ("mean", "low", "high"))
    if mean is None:
        return "-"
    bounds = [number_of(cell.get(f"{measure}_upper_{unit}")) for unit in ("completion", "seed")]
    digits = 1 if factor == 100.0 or factor * mean >= 10 else 2
    shown = f"{factor * mean:.{digits}f}"
    if None not in bounds and low is not None:
        by_completion, by_seed = (f"{factor * (bound or 0.0):.2g}" for bound in bounds)
        return f"{shown} (≤ {by_completion} by completion, ≤ {by_seed} by seed)"
    if low is None or high is None:
        return shown
    return f"{shown} ({factor * low:.{digits}f} to {factor * high:.{digits}f})"


def _claim(said: Claimed | None) -> str:
    if said is None or said.p is None:
        return "-"
    return f"{'**established**' if said.established else said.word} (p {p_text(said.corrected)})"
