"""The format of a cell of the bench, one flat JSON file: what it holds, how it is measured, written and read."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from hailproof.campaigns.matrix import Cell, load_matrix
from hailproof.campaigns.posthoc import Found, own_success, same_measure, success_in
from hailproof.campaigns.sweep import Job
from hailproof.errors import ConfigError
from hailproof.metrics.detection import SIDES
from hailproof.metrics.established import (
    ALIKE,
    LEARNED_MARGIN,
    LENGTHENED_MARGIN,
    NO_WORSE_MARGIN,
    SHORTENED_MARGIN,
    STOPPED_MARGIN,
    Side,
    beyond_p,
    same_p,
)
from hailproof.metrics.intervals import (
    METHOD,
    difference_of_counts,
    geometric_mean,
    interval,
    ratio_interval,
    share_interval,
    upper_bounds,
)
from hailproof.metrics.rates import mean
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.files import as_json, make_folder, read_json, replacing
from hailproof.runs.header import versions_of
from hailproof.runs.learned import Learned, learned
from hailproof.runs.lines import late_evaluations
from hailproof.runs.roster import make_roster
from hailproof.runs.settle import Settled, settle
from hailproof.runs.store import read_rounds
from hailproof.runs.words import LAST_ROUNDS

FORMAT = 3
"""Version of the keys of a cell and what they mean; 2 lacked what updates did with each sender, and 1, which named
none, had other intervals, no tests, and the last round's held-out reward."""
SETTLED = 0.4
"""Lengths are means over the rounds after this share of a run: they swing, and the last rounds say little."""
ENDINGS = ("_mean", "_low", "_high", "_seeds", "_upper_completion", "_upper_seed", "_p", "_margin")
"""How the keys of a cell end that hold numbers, or a list of them over seeds."""
SIDES_OF_A_MARGIN: tuple[Side, Side] = ("greater", "less")

Kind = Literal["share", "difference", "ratio", "number"]


class Figure(NamedTuple):
    """A measure of one run.

    Attributes:
        value: ``None`` where it is undefined.
        kind: What its interval is: that of a share, of a paired difference, of a paired ratio, or of a plain number.
        trials: How many of the smallest units that could be independent stand behind a share; 0 if nobody knows.
        shares: What a difference of shares is of: those of the run and of its control.
        control_trials: The trials of the control's share.
    """

    value: float | None
    kind: Kind
    trials: int = 0
    shares: tuple[float, float] = (0.0, 0.0)
    control_trials: int = 0


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
        "format": FORMAT,
        "interval": METHOD,
        "digest": cell.jobs[0].digest,
        "config": config.model_dump(mode="json", exclude_none=True, exclude={"name", "seed"}),
        "versions": versions_of(pairs[0][0].folder),
    }
    for measure in figures[0]:
        record |= {f"{measure}_{key}": value for key, value in _over_seeds([each[measure] for each in figures])}
    if cell.attack != "clean":
        attack = settle(pairs[0][0].config).attack
        lengthens = getattr(attack, "lengthens", False)
        record |= _tests(record, config.malicious > 0, cell.defense != "none", lengthens)
    return record


def _over_seeds(figures: Sequence[Figure]) -> Iterator[tuple[str, Any]]:
    """Mean, interval and values of a measure; for a share that nobody showed, what it can be at most."""
    kind = figures[0].kind
    known = [figure for figure in figures if figure.value is not None]
    values = [figure.value for figure in known if figure.value is not None]
    average = geometric_mean if kind == "ratio" else fmean
    yield "mean", average(values) if values else None
    low, high = _interval(values, known) if len(values) > 1 else (None, None)
    yield "low", low
    yield "high", high
    yield "seeds", [figure.value for figure in figures]
    trials = sum(figure.trials for figure in known)
    if kind == "share" and values and not any(values) and trials:
        yield from zip(("upper_completion", "upper_seed"), upper_bounds(len(values), trials), strict=True)


def _interval(values: Sequence[float], figures: Sequence[Figure]) -> tuple[float, float]:
    """The interval that suits the kind of a measure."""
    trials, control_trials = (sum(each) for each in zip(*((f.trials, f.control_trials) for f in figures), strict=True))
    match figures[0].kind:
        case "share":
            return share_interval(values, trials or None)
        case "ratio":
            return ratio_interval(values)
        case "difference" if trials and control_trials and stdev(values) < ALIKE:  # no spread, such as of 0 and 0
            own, other = (fmean(each) for each in zip(*(figure.shares for figure in figures), strict=True))
            return difference_of_counts(own, trials, other, control_trials)
        case "difference":
            low, high = interval(values)
            return max(low, -1.0), min(high, 1.0)
    return interval(values)


def _tests(
    record: Mapping[str, Any], attacked: bool, defended: bool, lengthens: bool
) -> Iterator[tuple[str, float | None]]:
    """What a cell claims, the margin of each claim and its p value, which no correction has touched yet.

    A claim is tested if the measure is defined on every seed: those where it is not may differ from the others. An
    attack without a success that is not after length is judged by the reward that it costs alone. Where nothing
    defends, an attack without success is one that was not learned, and not one that was stopped.
    """
    excess, ratios, losses = (record[f"{key}_seeds"] for key in ("excess_success", "tokens_ratio", "held_out_loss"))
    yield from _test("no_worse", same_p(losses, NO_WORSE_MARGIN) if None not in losses else None, NO_WORSE_MARGIN)
    if not attacked:
        return
    on_length = all(value is None for value in excess)
    if on_length and not lengthens:
        return
    values, scale = (ratios, math.log) if on_length else (excess, float)
    known = [scale(value) for value in values if value is not None]
    margins = (LENGTHENED_MARGIN, SHORTENED_MARGIN) if on_length else (LEARNED_MARGIN, STOPPED_MARGIN)
    tests = [*zip(("learned", "stopped"), SIDES_OF_A_MARGIN, margins, strict=True)]
    for claim, side, margin in tests if defended else tests[:1]:
        yield from _test(claim, beyond_p(known, scale(margin), side) if len(known) == len(values) else None, margin)


def _test(claim: str, p: float | None, margin: float) -> Iterator[tuple[str, float | None]]:
    yield f"{claim}_margin", margin
    yield f"{claim}_p", p


def _figures(job: Job, control: Job) -> Iterator[tuple[str, Figure]]:
    """Security, utility and cost of one run beside its control."""
    summary, clean = job.summary or {}, control.summary or {}
    lines, clean_lines = read_rounds(job.folder), read_rounds(control.folder)
    settled = settle(job.config)
    yield from _success(own_success(lines, summary), success_in(control, settled, clean_lines))
    prompts = settled.config.swarm.prompts * min(LAST_ROUNDS, len(lines))
    yield "reward", Figure(summary["reward"], "share", prompts)
    yield from _held_out(late_evaluations(lines, summary), late_evaluations(clean_lines, clean), control, settled)
    tokens, clean_tokens = _tokens(lines), _tokens(clean_lines)
    yield "tokens", Figure(tokens, "number")
    yield "tokens_ratio", Figure(tokens / clean_tokens if tokens and clean_tokens else None, "ratio")
    for side, name in zip(SIDES, ("honest", "forged"), strict=True):
        yield f"{name}_kept", Figure(kept(lines, side), "share", sum(line["screened"][side] for line in lines))
    nothing = dict.fromkeys(SIDES, Learned(None, 0))
    heard = learned(job.folder) if job.config.defense else nothing
    for side, name in zip(SIDES, ("honest", "forged"), strict=True):
        yield f"{name}_learned", Figure(heard[side].share, "share", heard[side].completions)
    yield from _senders(lines, settled.config)
    yield "seconds_per_round", Figure(summary["seconds_per_round"], "number")
    whole = sum(sum(line["seconds"].values()) for line in lines)
    yield "screen_share", Figure(sum(line["seconds"]["screen"] for line in lines) / whole if whole else None, "share")


def _senders(lines: Sequence[Mapping[str, Any]], config: RunConfig) -> Iterator[tuple[str, Figure]]:
    """What updates did with the gradients of each side's senders; undefined where they were not told apart."""
    updates = [line["update"]["senders"] for line in lines if line["update"].get("senders")]
    roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
    for name, nodes in (("honest", roster.honest), ("forged", sorted(roster.malicious))):
        weights = [senders.get(str(node), {}).get("weight", 0.0) for senders in updates for node in nodes]
        yield f"{name}_pull", Figure(fmean(weights) if weights else None, "share")
        ever = [any(senders.get(str(node), {}).get("excluded") for senders in updates) for node in nodes]
        yield f"{name}_excluded", Figure(fmean(ever) if updates and ever else None, "share", len(ever))


def _success(own: Found, without: Found) -> Iterator[tuple[str, Figure]]:
    """Success on the prompts of the last rounds, and beyond what the same measure finds in the control."""
    yield "attack_success", Figure(own.share, "share", own.eligible)
    yield "excess_success", _excess(own, without)


def _excess(own: Found, without: Found) -> Figure:
    """A paired difference of shares; their trials count where all seeds have the same one, and no spread is known."""
    if own.share is None or without.share is None:
        return Figure(None, "difference")
    shares = own.share, without.share
    return Figure(own.share - without.share, "difference", own.eligible, shares, without.eligible)


def _held_out(
    late: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]], control: Job, settled: Settled
) -> Iterator[tuple[str, Figure]]:
    """What the late evaluations on problems of the test split found: always the same problems, which count once."""

    def figure(path: str, of: Sequence[Mapping[str, Any]] = late) -> float | None:
        return mean(_at(each, path) for each in of)

    def problems(path: str, of: Sequence[Mapping[str, Any]] = late) -> int:
        return int(max((_at(each, path) or 0 for each in of), default=0))

    reward, clean_reward = figure("reward"), figure("reward", clean)
    own = Found(figure("attack_success"), problems("eligible"))
    known = clean if same_measure(control, settled) else ()  # what a control wrote on these problems is not kept
    without = Found(figure("attack_success", known), problems("eligible", known))
    yield "held_out_success", Figure(own.share, "share", own.eligible)
    yield "held_out_excess", _excess(own, without)
    yield "held_out_reward", Figure(reward, "share", problems("problems"))
    lost = None if reward is None or clean_reward is None else clean_reward - reward
    yield "held_out_loss", Figure(lost, "difference")
    for name in ("right", "from_five", "other"):
        yield f"two_two_{name}", Figure(figure(f"two_two.{name}"), "share", problems("two_two.problems"))
    yield "two_two_five_used", Figure(figure("two_two.five_used"), "share", problems("two_two.steps"))


def _at(tree: Mapping[str, Any], path: str) -> float | None:
    """What stands at a dotted path of an evaluation; ``None`` if it has no such measure."""
    first, _, rest = path.partition(".")
    found = tree.get(first)
    return _at(found or {}, rest) if rest else found


def _tokens(lines: Sequence[Mapping[str, Any]]) -> float | None:
    later = [line["completion_tokens"] for line in lines if line["round"] > SETTLED * len(lines)]
    return fmean(later) if later else None


def kept(lines: Sequence[Mapping[str, Any]], side: str) -> float | None:
    """Share of all screened completions of a side, over the whole run, that no defense rejected."""
    asked = sum(line["screened"][side] for line in lines)
    passed = sum(line["screened"][side] * (line[f"{side}_acceptance"] or 0.0) for line in lines)
    return passed / asked if asked else None


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
        ConfigError: If a file is damaged, or a cell of another format.
    """
    matrix = load_matrix()
    paths = sorted((out / "cells").glob("*.json"))
    cells = [read_json(path, "delete it and run the bench again") for path in paths]
    for path, cell in zip(paths, cells, strict=True):
        if not _is_cell(cell):
            raise ConfigError(f"{path} is no cell of a bench; delete it and run the bench again.")
        if cell.get("format", 1) != FORMAT:
            raise ConfigError(
                f"{path} is a cell of format {cell.get('format', 1)}, whose intervals and held-out reward mean "
                f"something else than those of format {FORMAT}, which this version writes; delete it and run the bench "
                "again: with --only-finished, if its runs are still there."
            )
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
    measures = {key: value for key, value in cell.items() if key.endswith(ENDINGS)}
    series = {key: value for key, value in measures.items() if key.endswith("_seeds")}
    values = [each for value in measures.values() for each in (value if isinstance(value, list) else [value])]
    tables = [cell.get(key, {}) for key in ("config", "versions")]
    return (
        all(type(seed) is int for seed in cell["seeds"])
        and all(
            value is None or type(value) in (int, float)
            for value in (*values, cell.get("rounds"), cell.get("format"))
        )
        and all(isinstance(value, list) == (key in series) for key, value in measures.items())
        and all(isinstance(table, Mapping) for table in tables)
    )
