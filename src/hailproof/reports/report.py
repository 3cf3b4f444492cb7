"""The report of a run: one self-contained HTML file with curves, sample completions and tables.

Everything in a run folder may have been written by an attacker: completions, questions, the reasons that quote them.
So the template escapes all of it, control and direction-changing characters are spelled out, a content security
policy forbids every request and every script but the report's own, and each text is cut to a bounded length.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hailproof.errors import HailproofError
from hailproof.reports.charts import SIZE, Chart, chart_of, stops_of
from hailproof.reports.curves import panels_of
from hailproof.reports.figures import draw_run
from hailproof.reports.pages import percent, plain, render
from hailproof.reports.samples import LEVELS, read_samples
from hailproof.reports.surprise import reader_of, why_not
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.files import replacing
from hailproof.runs.store import read_rounds, read_summary
from hailproof.runs.words import plan_text

KINDS = ("honest", "malicious")

# What summary.json holds, in the order of the tiles: key, label, kind of number.
TILES = (
    ("attack_success", "attack success", "percent"),
    ("reward", "reward", "percent"),
    ("completion_tokens", "tokens per completion", "number"),
    ("honest_acceptance", "honest accepted", "percent"),
    ("malicious_acceptance", "malicious accepted", "percent"),
    ("seconds_per_round", "seconds per round", "number"),
)
SHARES = {"attack_success", "reward", "honest_acceptance", "malicious_acceptance"}
BRIEF = ("attack success", "reward", "length")
"""What the bar with the slider calls the first line of each chart but the last, of which it shows every line."""


def write_report(folder: Path, surprise: bool = True) -> Path:
    """Writes ``report.html`` and ``curves.png`` into a run folder.

    Args:
        folder: The run folder; the run may still be going on.
        surprise: Whether to show how surprising each token of the samples is, where the models of the run are shipped.

    Returns:
        The path of the report.

    Raises:
        RunError: If the folder holds no readable run.
    """
    records = read_rounds(folder)
    draw_run(folder, folder / "curves.png")
    rounds = [record["round"] for record in records]
    summary, config_path = read_summary(folder) or {}, folder / "config.toml"
    config, without = _config(config_path, surprise)
    samples = read_samples(folder, rounds, config, surprise=not without)
    stops = stops_of(rounds)
    charts = [chart_of(panel, rounds, stops) for panel in panels_of(records)]
    page = render(
        "report",
        name=str(summary.get("name") or folder.resolve().name),
        rounds=rounds,
        seed=summary.get("seed"),
        finished=bool(summary),
        plan=plan_text(config) if config else "",
        tiles=_tiles(summary),
        summary=json.dumps(summary, indent=2) if summary else "",
        config=config_path.read_text(encoding="utf-8", errors="replace") if config_path.is_file() else "",
        charts=charts,
        size=SIZE,
        stops=stops,
        brief=_brief(charts),
        defenses=_defense_rows(records),
        screened={kind: sum(record.get("screened", {}).get(kind, 0) for record in records) for kind in KINDS},
        stages=_stage_rows(records),
        samples=samples,
        without=without,
        levels=LEVELS,
        readers=" and ".join(dict.fromkeys(reader_of(config, sample.view) for sample in samples)) if config else "",
    )
    out = folder / "report.html"
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def _config(path: Path, surprise: bool) -> tuple[RunConfig | None, str]:
    """The configuration, and why the surprise of tokens is left out; empty if it is not."""
    try:
        config = load_config(path)
    except HailproofError as error:
        return None, f"the configuration cannot be read: {error}".rstrip(".")
    return config, why_not(config) if surprise else "the report was asked to leave it out"


def _brief(charts: Sequence[Chart]) -> list[tuple[int, int, str]]:
    """What the bar with the slider shows: column of the table of rounds, color, and name of each."""
    brief, column = [], 0
    for place, chart in enumerate(charts):
        for color, curve in enumerate(chart.curves):
            name = f"{curve.label} kept" if place >= len(BRIEF) else BRIEF[place] if color == 0 else ""
            if name and any(height is not None for height, _ in curve.values):
                brief.append((column, color, name))
            column += 1
    return brief


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    formats = {"percent": percent, "number": plain}
    tiles = [(label, formats[kind](summary[key])) for key, label, kind in TILES if key in summary]
    for key, value in (summary.get("held_out") or {}).items():
        if value is None or isinstance(value, int | float):
            label = f"held-out {key.replace('_', ' ')}"
            share = key in SHARES or key.startswith("reward_")
            tiles.append((label, percent(value) if share else plain(value)))
    return tiles


def _defense_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sums the decisions of each defense on each kind of completion over all rounds."""
    outcomes = ("accept", "reject", "abstain", "error")
    totals: dict[tuple[str, str], dict[str, int]] = {}
    for record in records:
        for name, kinds in record.get("defenses", {}).items():
            for kind in KINDS:
                total = totals.setdefault((name, kind), dict.fromkeys(outcomes, 0))
                for outcome in outcomes:
                    total[outcome] += kinds.get(kind, {}).get(outcome, 0)
    rows = []
    for (name, kind), total in totals.items():
        seen = sum(total.values())
        kept = (total["accept"] + total["abstain"]) / seen if seen else None
        rows.append({"name": name, "kind": kind, **total, "kept": kept})
    return rows


def _stage_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sums the seconds of each stage; ``share`` is of the time of all stages."""
    totals: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.get("seconds", {}).items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    everything = sum(totals.values()) or 1.0
    return [
        {"name": stage, "total": total, "mean": total / len(records), "share": total / everything}
        for stage, total in totals.items()
    ]
