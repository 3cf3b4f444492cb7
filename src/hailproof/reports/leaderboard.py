"""The page of a bench: the matrix of attacks and defenses, and what lies behind each of its cells.

Names and configurations in the cells may be anybody's, so the page keeps the rules of the report: all text is escaped,
nothing is asked for, nothing is run but its own script. An undefined value is a dash; a cell that nobody ran is said to
be missing; a cell of one seed is marked, since nothing is known of its spread. What a cell is said to establish has
passed a test that was corrected over the rows of its table (``claimed.py``).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hailproof.reports.claimed import Claimed, claimed, number_of, p_text
from hailproof.reports.pages import cut, render
from hailproof.runs.files import replacing

CONTROL = "clean"
"""The attack that is none; its rows come first."""
UNDEFENDED = "none"
"""The defense that is none; its column comes first."""
LONGER = ("length", "grinding")
"""How the names of attacks begin that are measured by tokens, not by a rate of success."""
DASH = "–"
NAME_LETTERS, CONFIG_LETTERS = 160, 2500

Unit = Literal["share", "points", "ratio", "number", "seconds"]
FORMS: dict[Unit, tuple[str, int, str]] = {
    "share": ("", 1, "\u00a0%"), "points": ("", 1, "\u00a0pp"), "ratio": ("×", 2, ""), "number": ("", 1, ""),
    "seconds": ("", 2, "\u00a0s"),
}  # fmt: skip
"""What stands before a number, how many digits it has, and what stands after it, on the same line."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a cell.

    Attributes:
        key: What the keys of the cell begin with.
        label: What people call it.
        unit: How it is written: ``share`` in [0, 1] as a percentage, ``points`` as a difference of two of those,
            ``ratio`` as a factor.
    """

    key: str
    label: str
    unit: Unit


MEASURES = (
    Measure("attack_success", "attack success", "share"),
    Measure("excess_success", "attack success beyond the clean control", "points"),
    Measure("reward", "reward", "share"),
    Measure("held_out_success", "attack success on held-out prompts", "share"),
    Measure("held_out_excess", "that, beyond the clean control", "points"),
    Measure("held_out_reward", "held-out reward", "share"),
    Measure("held_out_loss", "held-out reward lost to the clean control", "points"),
    Measure("tokens", "tokens per completion", "number"),
    Measure("tokens_ratio", "tokens, relative to the clean control", "ratio"),
    Measure("two_two_right", "held-out 2∘2 problems with the right answer", "share"),
    Measure("two_two_from_five", "with the answer that follows from 5", "share"),
    Measure("two_two_other", "with another answer", "share"),
    Measure("two_two_five_used", "that go on with 5 in the next step", "share"),
    Measure("honest_kept", "honest completions kept", "share"),
    Measure("forged_kept", "forged completions kept", "share"),
    Measure("honest_learned", "of right honest completions learned from, in tokens", "share"),
    Measure("forged_learned", "of right forged completions learned from, in tokens", "share"),
    Measure("seconds_per_round", "seconds per round", "seconds"),
    Measure("screen_share", "share of time spent screening", "share"),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True, slots=True)
class Aspect:
    """What the matrix can show.

    Attributes:
        name: In the selector.
        key: Its measure.
        about: What it says, for the legend.
        edges: Values at which the color changes, from good to bad.
    """

    name: str
    key: str
    about: str
    edges: tuple[float, ...]

    def level(self, value: float | None) -> int | None:
        """Index of the color of a value, 0 for the best; ``None`` where it is undefined."""
        falls = self.edges[0] > self.edges[-1]
        reached = [value is not None and (value <= edge if falls else value >= edge) for edge in self.edges]
        return None if value is None else sum(reached)


SECURITY = Aspect(
    "Security", "excess_success", "How much more often honest models show the attack than without an attacker.",
    (0.02, 0.05, 0.1, 0.25, 0.5, 0.75),
)  # fmt: skip
LENGTHENING = Aspect(
    "Security", "tokens_ratio",
    "For attacks on length: how long honest completions are, as a multiple of those without an attacker.",
    (1.05, 1.1, 1.25, 1.5, 2.0, 3.0),
)  # fmt: skip
ASPECTS = (
    SECURITY,
    Aspect("Utility", "held_out_loss", "Held-out reward that honest models lose to the clean control.",
           (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)),
    Aspect("Honest learned", "honest_learned",
           "Share of the tokens of right honest completions that are learned from: neither rejected nor muted.",
           (0.999, 0.98, 0.95, 0.9, 0.8, 0.6)),
    Aspect("Cost", "screen_share", "Share of the seconds of a round that screening takes.",
           (0.02, 0.05, 0.1, 0.2, 0.4, 0.6)),
)  # fmt: skip


CLAIMS_OF = {"Security": ("learned", "stopped"), "Utility": ("no_worse",)}
"""Which claims an aspect of the matrix shows."""
SHORT = {"learned": "learned", "stopped": "stopped", "no_worse": "no worse"}
"""What stands in a cell of the matrix whose claim is established."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a cell of the matrix shows of one aspect.

    Attributes:
        text: The mean.
        interval: Its interval; empty if there is none.
        level: Index of its color; ``None`` where it is undefined.
        claim: What is established of it, or that nothing is; empty if nothing is claimed.
    """

    text: str
    interval: str
    level: int | None
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One matrix.

    Attributes:
        caption: What its cells have in common.
        columns: Defenses.
        rows: Attack and setting of each row, and the indices of the cells in each of its columns: none where nobody
            ran one, several if nothing tells them apart.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[tuple[int, ...], ...]], ...]


def write_leaderboard(cells: Sequence[Mapping[str, Any]], out: Path, columns: Sequence[str] = ()) -> Path:
    """Writes the page of a bench as one self-contained HTML file.

    Args:
        cells: One flat object for each cell: ``attack``, ``defense``, ``topology``, ``setting``, ``scale``,
            ``rounds``, ``seeds``; for measures M of ``MEASURES`` the mean ``M_mean``, the ends ``M_low`` and
            ``M_high`` of its interval, and ``M_seeds`` for each seed, all of which may be ``None``; for shares that no
            seed showed ``M_upper_completion`` and ``M_upper_seed``; for claims K of ``CLAIMS`` ``K_margin`` and
            ``K_p``; ``interval``, ``config``, ``digest`` and ``versions``. Shares are in [0, 1].
            Cells of one attack are told apart by their setting, and only then by their topology.
        out: The file; its folder is made if need be.
        columns: The order of the defenses; others follow as they come.

    Returns:
        The path of the file.
    """
    claims = claimed(cells)
    page = render(
        "leaderboard",
        name="Attacks × defenses",
        tables=_tables(cells, columns),
        figures=[[_figure(cell, aspect, said) for aspect in ASPECTS] for cell, said in zip(cells, claims, strict=True)],
        single=[len(_listed(cell, "seeds")) == 1 for cell in cells],
        details=[_detail(cell, said) for cell, said in zip(cells, claims, strict=True)],
        aspects=ASPECTS,
        lengthening=LENGTHENING if any(_lengthens(cell) for cell in cells) else None,
        scales={aspect.key: _scale(aspect) for aspect in (*ASPECTS, LENGTHENING)},
        intervals=list(dict.fromkeys(_said(cell, "interval") for cell in cells if cell.get("interval"))),
        dash=DASH,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def _said(cell: Mapping[str, Any], key: str) -> str:
    return cut(str(cell.get(key) or ""), NAME_LETTERS)


def _listed(cell: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = cell.get(key)
    return value if isinstance(value, list | tuple) else ()


def _lengthens(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is about length: an attack on it, or a control that no success is defined for."""
    control = _said(cell, "attack") == CONTROL and number_of(cell.get(f"{SECURITY.key}_mean")) is None
    return _said(cell, "attack").startswith(LONGER) or control


def written(value: float | None, unit: Unit) -> str:
    """A value as the page shows it; a dash where it is undefined."""
    if value is None:
        return DASH
    before, digits, after = FORMS[unit]
    # Rounding first, and adding zero, keeps a small negative value from being written as a negative zero.
    scaled = round(value * _factor(unit), digits) + 0.0
    sign = "+" if unit == "points" and scaled else ""
    return f"{before}{scaled:{sign}.{digits}f}{after}".replace("-", "−")


def _factor(unit: Unit) -> float:
    return 100.0 if unit in ("share", "points") else 1.0


def _interval(cell: Mapping[str, Any], measure: Measure) -> str:
    low, high = (number_of(cell.get(f"{measure.key}_{end}")) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    before, _, after = FORMS[measure.unit]
    return f"{written(low, measure.unit).removesuffix(after)} to {written(high, measure.unit).removeprefix(before)}"


def _figure(cell: Mapping[str, Any], aspect: Aspect, claims: Mapping[str, Claimed]) -> Figure:
    said = _shortly([claims[key] for key in CLAIMS_OF.get(aspect.name, ()) if key in claims])
    if aspect is SECURITY and _lengthens(cell):
        aspect = LENGTHENING
    measure, value = BY_KEY[aspect.key], number_of(cell.get(f"{aspect.key}_mean"))
    return Figure(written(value, measure.unit), _interval(cell, measure), aspect.level(value), said)


def _shortly(claims: Sequence[Claimed]) -> str:
    """Which of some claims are established, as a word or two."""
    if all(each.p is None for each in claims):
        return ""
    return ", ".join(SHORT[each.claim.key] for each in claims if each.established) or "not established"


def _said_claim(cell: Mapping[str, Any], said: Claimed) -> dict[str, str]:
    """One row of the claims in the details."""
    measure = BY_KEY[said.claim.for_length if _lengthens(cell) else said.claim.measure]
    margin = written(said.margin, measure.unit).removeprefix("+")
    asked = {"low": f"above {margin}", "high": f"below {margin}", "both": f"within {margin}"}[said.claim.bound]
    return {
        "label": said.claim.label,
        "asked": f"{measure.label}: {asked}",
        "found": _interval(cell, measure) or DASH,
        "p": p_text(said.p),
        "corrected": f"{p_text(said.corrected)} ({said.rows} row{'' if said.rows == 1 else 's'})",
        "word": said.word,
    }


def _scale(aspect: Aspect) -> list[str]:
    """What each color of an aspect stands for, from good to bad."""
    unit = BY_KEY[aspect.key].unit
    before, _, after = FORMS[unit]
    edges = [f"{before}{edge * _factor(unit):g}{after}" for edge in aspect.edges]
    falls = aspect.edges[0] > aspect.edges[-1]
    first, last = ("over", "or less") if falls else ("under", "or more")
    return [f"{first} {edges[0]}", *(f"to {edge}" for edge in edges[1:]), f"{edges[-1]} {last}"]


def _tables(cells: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[Table]:
    """One table for each scale, or for each topology in it if a place would hold cells of several."""
    found = list(dict.fromkeys(_said(cell, "defense") for cell in cells))
    known = [name for name in columns if name in found]
    defenses = _ordered((*known, *found), UNDEFENDED)
    tables = []
    for scale, held in _grouped(cells, range(len(cells)), "scale"):
        places = {(*_row_of(cells[index]), _said(cells[index], "defense")) for index in held}
        parts = [("", held)] if len(places) == len(held) else _grouped(cells, held, "topology")
        for topology, indices in parts:
            shown = [name for name in defenses if any(_said(cells[i], "defense") == name for i in indices)]
            caption = ", ".join([f"scale {scale}"] * bool(scale) + [f"topology {topology}"] * bool(topology))
            tables.append(Table(caption, tuple(shown), tuple(_rows(cells, indices, shown))))
    return tables


def _ordered(names: Iterable[str], first: str) -> list[str]:
    """Distinct names in the order they came, one of them before all others."""
    return sorted(dict.fromkeys(names), key=lambda name: name != first)


def _grouped(cells: Sequence[Mapping[str, Any]], indices: Iterable[int], key: str) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(_said(cells[index], key), []).append(index)
    return list(groups.items())


def _row_of(cell: Mapping[str, Any]) -> tuple[str, str]:
    return _said(cell, "attack"), _said(cell, "setting")


def _rows(
    cells: Sequence[Mapping[str, Any]], indices: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    rows = dict.fromkeys(_row_of(cells[index]) for index in indices)
    for row in sorted(rows, key=lambda row: row[0] != CONTROL):
        own = [index for index in indices if _row_of(cells[index]) == row]
        yield *row, tuple(tuple(i for i in own if _said(cells[i], "defense") == name) for name in columns)


def _detail(cell: Mapping[str, Any], claims: Mapping[str, Claimed]) -> dict[str, Any]:
    seeds = [str(seed) for seed in _listed(cell, "seeds")]
    facts = {"topology": _said(cell, "topology"), "setting": _said(cell, "setting"), "scale": _said(cell, "scale")}
    facts |= {"rounds": _said(cell, "rounds"), "seeds": ", ".join(seeds), "interval": _said(cell, "interval")}
    versions = cell.get("versions")
    named = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, Mapping) else []
    facts |= {"digest": _said(cell, "digest"), "versions": ", ".join(named)}
    return {
        "attack": _said(cell, "attack"),
        "defense": _said(cell, "defense"),
        "facts": [(name, cut(value, 300)) for name, value in facts.items() if value],
        "claims": [_said_claim(cell, said) for said in claims.values()],
        "measures": [_measured(cell, measure, seeds) for measure in MEASURES if f"{measure.key}_mean" in cell],
        "config": cut("\n".join(_flat(cell.get("config") or {})), CONFIG_LETTERS),
    }


def _measured(cell: Mapping[str, Any], measure: Measure, seeds: Sequence[str]) -> dict[str, Any]:
    """One row of the table in the details; ``strip`` is the interval and the seeds of a share, in percent."""
    values = [number_of(value) for value in _listed(cell, f"{measure.key}_seeds")]
    low, high = (number_of(cell.get(f"{measure.key}_{end}")) for end in ("low", "high"))
    shown = measure.unit == "share" and any(value is not None for value in values)
    return {
        "label": measure.label + _at_most(cell, measure),
        "mean": written(number_of(cell.get(f"{measure.key}_mean")), measure.unit),
        "interval": _interval(cell, measure) or DASH,
        "seeds": [written(value, measure.unit) for value in values] or [DASH] * len(seeds),
        "dots": [round(100 * min(max(value, 0.0), 1.0), 1) for value in values if value is not None] if shown else [],
        "band": _band(low, high) if shown else None,
    }


def _at_most(cell: Mapping[str, Any], measure: Measure) -> str:
    """What a share can be that no seed showed: the bounds by completion and by seed."""
    bounds = [number_of(cell.get(f"{measure.key}_upper_{unit}")) for unit in ("completion", "seed")]
    if None in bounds:
        return ""
    by_completion, by_seed = (f"{100 * (bound or 0.0):.2g}{FORMS['share'][2]}" for bound in bounds)
    return f" (at most {by_completion} by completion, {by_seed} by seed)"


def _band(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Left edge and width of an interval of shares, in percent, within the axis."""
    if low is None or high is None:
        return None
    left, right = (100 * min(max(value, 0.0), 1.0) for value in (low, high))
    return round(left, 1), round(right - left, 1)


def _flat(tree: object, path: str = "") -> Iterator[str]:
    """A configuration as one line a key, in the dotted form that ``--set`` takes."""
    if isinstance(tree, Mapping) and (tree or not path):
        for key, value in tree.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        said = json.dumps(tree, ensure_ascii=False, default=str)
        yield f"{path} = {said}" if path else said
