"""The bench: every attack against every defense, over seeds, one flat JSON file a cell.

Rows, columns and presets are ``experiments/bench.toml``; a registered name that is not in it is a row or column with
default settings. The attack ``clean`` is the control: the same swarm without an attacker.
"""

import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pyarrow.parquet import ParquetFile

from hailproof import registry
from hailproof.attacks import ATTACKS
from hailproof.defenses import DEFENSES
from hailproof.errors import ConfigError
from hailproof.experiments.build import settled
from hailproof.experiments.config import Section, load_config, validated
from hailproof.experiments.curves import read_rounds
from hailproof.experiments.leaderboard import write_leaderboard
from hailproof.experiments.pages import visible
from hailproof.experiments.posthoc import success_in
from hailproof.experiments.presets import PRESETS
from hailproof.experiments.published import (
    Scale,
    Tree,
    at_scale,
    checked_changes,
    folder_of_items,
    load_scale,
    read_toml,
)
from hailproof.experiments.run import versions_of
from hailproof.experiments.store import make_folder, read_json, replacing
from hailproof.experiments.sweep import Engine, Job, merged, sweep
from hailproof.metrics.detection import SIDES
from hailproof.metrics.intervals import METHOD, interval

SETTLED = 0.4
"""Lengths are means over the rounds after this share of a run: they swing, and the last rounds say little."""


class Preset(Section):
    """A named choice of rows, columns and seeds; all of them where nothing is chosen."""

    attacks: tuple[str, ...] = ()
    defenses: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None


class Matrix(Section):
    """The file of the bench."""

    attacks: dict[str, Tree]
    defenses: dict[str, Tree]
    presets: dict[str, Preset]

    def preset(self, name: str) -> Preset:
        """A preset with its rows and columns.

        Raises:
            ConfigError: If there is none of that name.
        """
        if name not in self.presets:
            raise ConfigError(f"Unknown preset '{name}'; choose one of {', '.join(self.presets)}.")
        chosen = self.presets[name]
        rows, columns = chosen.attacks or tuple(self.attacks), chosen.defenses or tuple(self.defenses)
        return chosen.model_copy(update={"attacks": rows, "defenses": columns})


@dataclass(frozen=True, slots=True)
class Cell:
    """One attack against one defense over seeds, with the controls that it is compared with.

    Attributes:
        attack: The row; ``clean`` for a control.
        setting: What tells cells of one row and column apart: the row that a control belongs to.
        defense: The column.
        scale: Which scale.
        jobs: One run for each seed.
        controls: The run without attacker and without defense for each seed.
    """

    attack: str
    setting: str
    defense: str
    scale: Scale
    jobs: tuple[Job, ...]
    controls: tuple[Job, ...]

    @property
    def runs(self) -> tuple[Job, ...]:
        """All runs that the cell needs."""
        return tuple({job.folder: job for job in (*self.jobs, *self.controls)}.values())

    @property
    def file_name(self) -> str:
        """The name of its file: stable, whatever the seeds."""
        return f"{self.scale}-{self.attack}-{self.defense}-{self.jobs[0].digest}.json"


def load_matrix() -> Matrix:
    """Reads ``bench.toml``."""
    return validated(Matrix, read_toml(folder_of_items() / "bench.toml"))


def cells_of(
    attacks: Sequence[str], defenses: Sequence[str], seeds: Sequence[int] | None, scale: Scale, root: Path,
    changes: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """The cells of a matrix, and the control of every row as a cell of its own.

    Args:
        attacks: Rows.
        defenses: Columns.
        seeds: Seeds, if not the scale's.
        scale: Which scale.
        root: The folder of all runs.
        changes: Settings that are laid over all others; controls stay without an attacker.

    Raises:
        ConfigError: If a name is neither in the file nor registered, or the changes are none for several runs at once.
    """  # fmt: skip
    matrix, shared, changes = load_matrix(), load_scale(scale), checked_changes(changes)
    chosen = tuple(seeds or shared.seeds)

    def jobs(row: Tree, column: Tree, over: Tree) -> tuple[Job, ...]:
        own = at_scale(row, scale)
        variant, _ = own.pop("variant", "math"), own.pop("control", None)
        tree = merged(
            shared.settings, getattr(shared, variant), own, at_scale(column, scale), changes, over
        )
        return tuple(Job({**tree, "seed": seed}, root) for seed in chosen)

    cells: dict[str, Cell] = {}
    for attack in attacks:
        row = _row(matrix, attack)
        control = _row(matrix, row.get("control", attack))
        clean = jobs(control, {}, {"attack": {"malicious": 0}})
        cells.setdefault(
            f"clean {clean[0].digest}",
            Cell("clean", f"control of {row.get('control', attack)}", "none", scale, clean, clean),
        )
        for defense in defenses:
            played = jobs(row, _column(matrix, defense), {})
            cells[f"{attack} {defense}"] = Cell(attack, "", defense, scale, played, clean)
    return list(cells.values())


def _row(matrix: Matrix, name: str) -> Tree:
    if name in matrix.attacks:
        row = matrix.attacks[name]
        return merged({"attack": {"name": name}}, row)
    if name not in registry.names("attacks", ATTACKS):
        raise ConfigError(f"Unknown attack '{name}'; choose among {', '.join(matrix.attacks)}, or a registered one.")
    return {"attack": {"name": name}, "variant": registry.lookup("attacks", ATTACKS, name).variant}


def _column(matrix: Matrix, name: str) -> Tree:
    if name in matrix.defenses:
        return matrix.defenses[name]
    if name not in registry.names("defenses", DEFENSES | PRESETS):
        raise ConfigError(f"Unknown defense '{name}'; choose among {', '.join(matrix.defenses)}, or a registered one.")
    return {"defense": [{"name": name}]}


def measured(cell: Cell) -> dict[str, Any] | None:
    """The flat record of a cell over the seeds whose runs are finished; ``None`` if there are none."""
    pairs = [
        (job, control)
        for job, control in zip(cell.jobs, cell.controls, strict=True)
        if job.summary is not None and control.summary is not None
    ]
    if not pairs:
        return None
    config = load_config(pairs[0][0].folder / "config.toml")
    figures = [dict(_figures(job, control)) for job, control in pairs]
    record: dict[str, Any] = {
        "attack": cell.attack,
        "defense": cell.defense,
        "topology": config.swarm.topology,
        "setting": cell.setting,
        "scale": cell.scale,
        "rounds": config.rounds,
        "seeds": [job.seed for job, _ in pairs],
        "interval": METHOD,
        "digest": cell.jobs[0].digest,
        "config": config.model_dump(mode="json", exclude_none=True, exclude={"name", "seed"}),
        "versions": versions_of(pairs[0][0].folder),
    }
    for measure in figures[0]:
        values = [each[measure] for each in figures]
        defined = [value for value in values if value is not None]
        low, high = interval(defined) if len(defined) > 1 else (None, None)
        record[f"{measure}_mean"] = fmean(defined) if defined else None
        record[f"{measure}_low"], record[f"{measure}_high"] = low, high
        record[f"{measure}_seeds"] = values
    return record


def _figures(job: Job, control: Job) -> Iterator[tuple[str, float | None]]:
    """Security, utility and cost of one run beside its control."""
    summary, clean = job.summary or {}, control.summary or {}
    lines, clean_lines = read_rounds(job.folder), read_rounds(control.folder)
    success = summary["attack_success"]
    without = success_in(control, settled(job.config))
    held, clean_held = summary["held_out"] or {}, clean["held_out"] or {}
    tokens, clean_tokens = _tokens(lines), _tokens(clean_lines)
    yield "attack_success", success
    yield "excess_success", None if success is None or without is None else success - without
    yield "reward", summary["reward"]
    yield "held_out_reward", held.get("reward")
    yield "held_out_loss", clean_held["reward"] - held["reward"] if held and clean_held else None
    yield "tokens", tokens
    yield "tokens_ratio", tokens / clean_tokens if tokens and clean_tokens else None
    yield "honest_kept", kept(lines, "honest")
    yield "forged_kept", kept(lines, "malicious")
    heard = learned(job.folder) if job.config.defense else dict.fromkeys(SIDES)
    yield "honest_learned", heard["honest"]
    yield "forged_learned", heard["malicious"]
    yield "seconds_per_round", summary["seconds_per_round"]
    whole = sum(sum(line["seconds"].values()) for line in lines)
    yield "screen_share", sum(line["seconds"]["screen"] for line in lines) / whole if whole else None


def _tokens(lines: Sequence[Mapping[str, Any]]) -> float | None:
    later = [line["completion_tokens"] for line in lines if line["round"] > SETTLED * len(lines)]
    return fmean(later) if later else None


def kept(lines: Sequence[Mapping[str, Any]], side: str) -> float | None:
    """Share of all screened completions of a side, over the whole run, that no defense rejected."""
    asked = sum(line["screened"][side] for line in lines)
    passed = sum(line["screened"][side] * (line[f"{side}_acceptance"] or 0.0) for line in lines)
    return passed / asked if asked else None


def learned(folder: Path) -> dict[str, float | None]:
    """Share of the tokens of right, screened completions that the update could learn from, by side, over a whole run.

    What was rejected is lost, and so are muted tokens and what a weight takes away. A completion of another tokenizer
    is muted in tokens of the receiver and counted in those of its sender, so the share is approximate there.
    """
    names = ["malicious", "raw_reward", "admitted", "weight", "tokens", "verdicts.list.element.muted"]
    heard, whole = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0)
    for row in ParquetFile(folder / "completions.parquet").read(columns=names).to_pylist():
        if row["raw_reward"] > 0 and row["verdicts"]:
            side = "malicious" if row["malicious"] else "honest"
            muted = len({token for verdict in row["verdicts"] for token in verdict["muted"]})
            heard[side] += max(0, row["tokens"] - muted) * row["weight"] if row["admitted"] else 0.0
            whole[side] += row["tokens"]
    return {side: heard[side] / whole[side] if whole[side] else None for side in SIDES}


def write_cell(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Writes the file of a cell, if any of its seeds is finished, and returns what it holds."""
    record = measured(cell)
    if record is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / cell.file_name) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def bench(
    cells: Sequence[Cell], out: Path, engine: Engine | None, say: Callable[[str], None], seconds: float | None = None
) -> Path:
    """Plays the runs of some cells, writes the file of each as its runs finish, then page and table of all.

    Args:
        cells: What to play; runs that several cells need are played once.
        out: The folder for the files and the page.
        engine: Where runs are played; ``None`` to play nothing and take the seeds whose runs are finished.
        say: Prints one line of progress.
        seconds: What one run takes, for the first estimate.

    Returns:
        The page: every cell that ``out`` holds, those of earlier calls as well.

    Raises:
        HailproofError: If a file in ``out`` is damaged, or runs failed.
    """
    make_folder(out)
    read_cells(out)  # a damaged one is named before anything is played
    for cell in cells:
        write_cell(cell, out / "cells")
    try:
        if engine is not None:
            _play(cells, out, engine, say, seconds)
    finally:  # a run that fails takes no page from the others
        page = _write_page(out)
    return page


def _play(
    cells: Sequence[Cell], out: Path, engine: Engine, say: Callable[[str], None], seconds: float | None
) -> None:
    """Plays the runs of some cells, and writes each cell again as one of its runs finishes."""
    written = {job.folder for cell in cells for job in cell.runs if job.summary is not None}

    def finished(job: Job) -> None:
        for cell in cells:
            if job.folder not in written and any(job.folder == each.folder for each in cell.runs):
                write_cell(cell, out / "cells")

    sweep([job for cell in cells for job in cell.runs], engine, say, seconds, finished)


def _write_page(out: Path) -> Path:
    found = read_cells(out)
    with replacing(out / "leaderboard.md") as temporary:
        temporary.write_text(table_of(found), encoding="utf-8")
    return write_leaderboard(found, out / "leaderboard.html", list(load_matrix().defenses))


def read_cells(out: Path) -> list[dict[str, Any]]:
    """Every cell that lies in a folder of the bench, in the order of the matrix's file.

    Raises:
        ConfigError: If a file is damaged.
    """
    matrix = load_matrix()
    paths = sorted((out / "cells").glob("*.json"))
    cells = [read_json(path, "delete it and run the bench again") for path in paths]
    for path, cell in zip(paths, cells, strict=True):
        if not _is_cell(cell):
            raise ConfigError(f"{path} is no cell of a bench; delete it and run the bench again.")
    rows, columns = ["clean", *matrix.attacks], list(matrix.defenses)

    def place(cell: Mapping[str, Any]) -> tuple[int, int]:
        return (
            rows.index(cell["attack"]) if cell["attack"] in rows else len(rows),
            columns.index(cell["defense"]) if cell["defense"] in columns else len(columns),
        )

    return sorted(cells, key=place)


def _is_cell(cell: object) -> bool:
    """Whether something that lay in a file names what a cell is of."""
    if not isinstance(cell, Mapping) or not isinstance(cell.get("seeds"), list):
        return False
    return all(isinstance(cell.get(key), str) for key in ("attack", "defense", "topology", "setting"))


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
