"""The report of a run: one self-contained HTML file with curves, tables and sample completions.

Everything in a run folder may have been written by an attacker: completions, questions, the reasons that quote them.
So the template escapes all of it, control and direction-changing characters are spelled out, a content security
policy forbids every request and every script but the report's own, and each text is cut to a bounded length.
"""

import base64
import hashlib
import importlib.resources
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
from jinja2 import Environment, StrictUndefined, Template

from hailproof.experiments.figures import Panel, draw_run, lonely, panels_of, read_rounds

KINDS = ("honest", "malicious")

# Limits that keep the file small: rounds and completions shown, letters of each text, marks in it, strips that
# answer the pointer.
ROUNDS_SHOWN = 9
PER_KIND = 3
HEAD, TAIL = 900, 300
REASON = 240
MARKS = 40
HOVERS = 200

# The view box of a chart and the margins around its axes.
WIDTH, HEIGHT = 440, 236
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 10, 36

COLUMNS = [
    "round",
    "view",
    "sender",
    "malicious",
    "problem_id",
    "question",
    "slot",
    "text",
    "tokens",
    "finished",
    "raw_reward",
    "reward",
    "admitted",
    "success",
    "verdicts",
]

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

# Letters that show nothing or rearrange what is around them; a newline and a tab are only text.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Chart:
    """The geometry of one panel as SVG, in units of its view box.

    Attributes:
        title: What is plotted, with its unit.
        curves: Label, path and isolated points of each line.
        x_ticks: Position and label of each tick on the axis of rounds.
        y_ticks: Position and label of each tick on the axis of values.
        hovers: Left edge, width, center and text of each strip that answers the pointer.
        undefined: Whether no line has any value.
    """

    title: str
    curves: tuple[tuple[str, str, tuple[tuple[float, float], ...]], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    hovers: tuple[tuple[float, float, float, str], ...]
    undefined: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a completion's text under the same marks.

    Attributes:
        text: The stretch.
        tone: ``"reject"`` under a rejection's span, ``"note"`` under any other verdict's, else empty.
        note: What the verdicts say of it.
    """

    text: str
    tone: str = ""
    note: str = ""


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` and ``curves.png`` into a run folder.

    Args:
        folder: The run folder; the run may still be going on.

    Returns:
        The path of the report.

    Raises:
        RunError: If the folder holds no readable run.
    """
    records = read_rounds(folder)
    draw_run(folder, folder / "curves.png")
    rounds = [record["round"] for record in records]
    summary_path, config_path = folder / "summary.json", folder / "config.toml"
    summary = json.loads(summary_path.read_text(encoding="utf-8")) if summary_path.is_file() else {}
    page = _template().render(
        name=str(summary.get("name") or folder.resolve().name),
        rounds=rounds,
        seed=summary.get("seed"),
        finished=bool(summary),
        tiles=_tiles(summary),
        summary=json.dumps(summary, indent=2) if summary else "",
        config=config_path.read_text(encoding="utf-8") if config_path.is_file() else "",
        charts=[_chart(panel, rounds) for panel in panels_of(records)],
        size=(WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM),
        defenses=_defense_rows(records),
        screened={kind: sum(record.get("screened", {}).get(kind, 0) for record in records) for kind in KINDS},
        stages=_stage_rows(records),
        samples=_samples(folder, rounds),
    )
    out = folder / "report.html"
    out.write_text(page, encoding="utf-8")
    return out


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    environment.filters["percent"] = _percent
    environment.filters["number"] = _plain
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    source = (
        importlib.resources.files("hailproof.experiments").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    return environment.from_string(source)


def visible(text: object) -> str:
    """Spells out the letters of a text that a page would hide or obey, such as a change of writing direction.

    Args:
        text: Anything; its ``str`` is taken.

    Returns:
        The text with each such letter as ``<U+202E>``; still to be escaped.
    """
    return INVISIBLE.sub(lambda match: f"<U+{ord(match[0]):04X}>", str(text))


def _plain(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return "undefined" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    formats = {"percent": _percent, "number": _plain}
    tiles = [(label, formats[kind](summary[key])) for key, label, kind in TILES if key in summary]
    for key, value in (summary.get("held_out") or {}).items():
        if value is None or isinstance(value, int | float):
            label = f"held-out {key.replace('_', ' ')}"
            tiles.append((label, _percent(value) if key in SHARES else _plain(value)))
    return tiles


def ticks(top: float, count: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from 0 up to ``top``, about ``count`` of them.

    Args:
        top: End of the axis, above 0.
        count: How many steps there should be, roughly.
        whole: Whether only whole numbers will do.

    Returns:
        The ticks, ascending, all within the axis.
    """
    power = 10.0 ** math.floor(math.log10(top / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= top * 0.999)
    step = max(step, 1.0) if whole else step
    return [step * index for index in range(int(top / step + 1e-9) + 1)]


def _chart(panel: Panel, rounds: Sequence[int]) -> Chart:
    known = [value for line in panel.lines for value in line.values if value is not None]
    top = 100.0 if panel.unit == "%" else max(known, default=0.0) * 1.08 or 1.0
    first, last = (rounds[0], rounds[-1]) if rounds else (0, 1)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(number: float) -> float:
        share = (number - first) / (last - first) if last > first else 0.5
        return round(LEFT + share * inner_width, 1)

    def y(value: float) -> float:
        return round(TOP + (1 - value / top) * inner_height, 1)

    curves = []
    for line in panel.lines:
        points = [None if value is None else (x(at), y(value)) for at, value in zip(rounds, line.values, strict=True)]
        dots = tuple(point for index in lonely(line.values) if (point := points[index]) is not None)
        curves.append((line.label, _path(points), dots))

    every = max(1, math.ceil(len(rounds) / HOVERS))
    strip = inner_width / max(1, math.ceil(len(rounds) / every))
    hovers = []
    for index in range(0, len(rounds), every):
        center = x(rounds[index])
        left = max(float(LEFT), center - strip / 2)
        right = min(float(WIDTH - RIGHT), center + strip / 2)
        values = [(line.label, line.values[index]) for line in panel.lines]
        said = [f"{label}: {_value(value, panel.unit)}" for label, value in values]
        hovers.append((round(left, 1), round(right - left, 1), center, "\n".join([f"round {rounds[index]}", *said])))

    # The first round is always labeled; a round number beside it would cover it.
    steps = [tick for tick in ticks(max(last, 1), 5, whole=True) if tick - first > (last - first) / 12 and tick <= last]
    return Chart(
        title=f"{panel.title} ({panel.unit})",
        curves=tuple(curves),
        x_ticks=tuple((x(tick), f"{tick:g}") for tick in [first, *steps]) if rounds else (),
        y_ticks=tuple((y(tick), f"{tick:g}") for tick in ticks(top)),
        hovers=tuple(hovers),
        undefined=not known,
    )


def _path(points: Iterable[tuple[float, float] | None]) -> str:
    commands: list[str] = []
    pen_down = False
    for point in points:
        if point is not None:
            commands.append(f"{'L' if pen_down else 'M'}{point[0]:g} {point[1]:g}")
        pen_down = point is not None
    return "".join(commands)


def _value(value: float | None, unit: str) -> str:
    return "undefined" if value is None else f"{value:.1f} {unit}"


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


def _samples(folder: Path, rounds: Sequence[int]) -> list[dict[str, Any]]:
    """Picks the completions to show, as the first computed receiver of each round judged them."""
    count = min(ROUNDS_SHOWN, len(rounds))
    chosen = sorted({rounds[round(index * (len(rounds) - 1) / max(count - 1, 1))] for index in range(count)})
    samples = []
    for number in chosen:
        rows = _rows(folder, number)
        if not rows:
            continue
        view = min(row["view"] for row in rows)
        judged = [row for row in rows if row["view"] == view]
        kinds = [_pick([row for row in judged if row["malicious"] is malicious]) for malicious in (False, True)]
        samples.append({"round": number, "view": view, "completions": [card for cards in kinds for card in cards]})
    return samples


def _rows(folder: Path, number: int) -> list[dict[str, Any]]:
    # While a run goes on, each round has a file of its own.
    files = (folder / "completions.parquet", folder / "completions" / f"round-{number:06d}.parquet")
    for path in files:
        if path.is_file():
            return pyarrow.parquet.read_table(path, columns=COLUMNS, filters=[("round", "=", number)]).to_pylist()
    return []


def _pick(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Takes one completion of each outcome first, then others, none of them twice by its text."""
    distinct: dict[str, Mapping[str, Any]] = {}
    leaders: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        distinct.setdefault(row["text"], row)
    for row in distinct.values():
        leaders.setdefault(_outcome(row), row)
    # Sorting is stable: leaders first, and otherwise the order of the slots.
    ranked = sorted(distinct.values(), key=lambda row: leaders[_outcome(row)] is not row)
    return [_card(row) for row in ranked[:PER_KIND]]


def _outcome(row: Mapping[str, Any]) -> str:
    """What became of a completion: the key of its badge in the template."""
    stopped = not row["admitted"] or any(verdict["decision"] == "reject" for verdict in row["verdicts"] or [])
    if row["malicious"]:
        return "stopped" if stopped else "succeeded" if row["success"] else "passed"
    return "wronged" if stopped else "infected" if row["success"] else "clean"


def _card(row: Mapping[str, Any]) -> dict[str, Any]:
    verdicts = row["verdicts"] or []
    text: str = row["text"]
    head_end = len(text) if len(text) <= HEAD + TAIL else HEAD
    tail_start = len(text) if len(text) <= HEAD + TAIL else len(text) - TAIL
    return {
        **{key: row[key] for key in ("sender", "malicious", "problem_id", "slot", "tokens", "finished", "raw_reward")},
        "reward": row["reward"],
        "admitted": row["admitted"],
        "outcome": _outcome(row),
        "question": _cut(row["question"], HEAD),
        "head": segments(text, verdicts, 0, head_end),
        "hidden": tail_start - head_end,
        "tail": segments(text, verdicts, tail_start, len(text)),
        "verdicts": [{**verdict, "reason": _cut(verdict["reason"], REASON)} for verdict in verdicts],
    }


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def segments(text: str, verdicts: Sequence[Mapping[str, Any]], start: int, end: int) -> list[Segment]:
    """Divides a stretch of a completion where the marks of its verdicts begin and end.

    Spans may overlap, be empty or lie outside; at most ``MARKS`` of them are shown.

    Args:
        text: The whole text.
        verdicts: The verdicts on it, as stored.
        start: Where the stretch begins.
        end: Where it ends.

    Returns:
        Segments whose texts, joined, are ``text[start:end]``.
    """
    spans = [
        (max(span["start"], start), min(span["end"], end), verdict["decision"] == "reject", verdict["defense"], span)
        for verdict in verdicts
        for span in verdict["spans"] or []
    ]
    spans = [span for span in spans if span[0] < span[1]][:MARKS]
    edges = sorted({start, end, *(span[0] for span in spans), *(span[1] for span in spans)})
    result = []
    for left, right in itertools.pairwise(edges):
        over = [span for span in spans if span[0] <= left and right <= span[1]]
        tone = "reject" if any(span[2] for span in over) else "note" if over else ""
        notes = [f"{name}: {span['note']}" if span["note"] else name for *_, name, span in over]
        result.append(Segment(text[left:right], tone, _cut("; ".join(notes), REASON)))
    return result
