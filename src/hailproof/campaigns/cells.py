"""The format of a cell of the bench, one flat JSON file: what it holds, how it is measured, written and read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pyarrow.parquet import ParquetFile

from hailproof.campaigns.matrix import Cell, load_matrix
from hailproof.campaigns.posthoc import success_in
from hailproof.campaigns.sweep import Job
from hailproof.errors import ConfigError
from hailproof.metrics.detection import SIDES
from hailproof.metrics.intervals import METHOD, interval
from hailproof.runs.checkpoint import ANEW
from hailproof.runs.config import load_config
from hailproof.runs.files import as_json, make_folder, read_json, reading, replacing
from hailproof.runs.run import versions_of
from hailproof.runs.settle import settle
from hailproof.runs.store import read_rounds

SETTLED = 0.4
"""Lengths are means over the rounds after this share of a run: they swing, and the last rounds say little."""


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
    without = success_in(control, settle(job.config))
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
    path = folder / "completions.parquet"
    with reading(path, ANEW):
        table = ParquetFile(path, page_checksum_verification=True).read(columns=names)
        rows = table.select([name.partition(".")[0] for name in names]).to_pylist()
    for row in rows:
        if row["raw_reward"] and row["verdicts"]:  # what was refused before it was rewarded is not known to be right
            side = "malicious" if row["malicious"] else "honest"
            muted = len({token for verdict in row["verdicts"] for token in verdict["muted"]})
            heard[side] += max(0, row["tokens"] - muted) * row["weight"] if row["admitted"] else 0.0
            whole[side] += row["tokens"]
    return {side: heard[side] / whole[side] if whole[side] else None for side in SIDES}


def write_cell(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Writes the file of a cell, if any of its seeds is finished, and returns what it holds."""
    record = measured(cell)
    if record is not None:
        make_folder(folder)
        with replacing(folder / cell.file_name) as temporary:
            temporary.write_text(as_json(record, indent=1) + "\n", encoding="utf-8")
    return record


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
    """Whether something that lay in a file names what a cell is of, and has numbers where measures stand."""
    if not isinstance(cell, Mapping) or not isinstance(cell.get("seeds"), list):
        return False
    if not all(isinstance(cell.get(key), str) for key in ("attack", "defense", "topology", "setting")):
        return False
    measures = {key: value for key, value in cell.items() if key.endswith(("_mean", "_low", "_high", "_seeds"))}
    series = {key: value for key, value in measures.items() if key.endswith("_seeds")}
    values = [each for value in measures.values() for each in (value if isinstance(value, list) else [value])]
    tables = [cell.get(key, {}) for key in ("config", "versions")]
    return (
        all(type(seed) is int for seed in cell["seeds"])
        and all(value is None or type(value) in (int, float) for value in (*values, cell.get("rounds")))
        and all(isinstance(value, list) == (key in series) for key, value in measures.items())
        and all(isinstance(table, Mapping) for table in tables)
    )
