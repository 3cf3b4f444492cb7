"""What an attack's measure finds in a run that was played with another attack or none."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from hailproof.campaigns.sweep import Job
from hailproof.metrics.rates import Rate, mean, rate
from hailproof.protocols import AttackMeasure
from hailproof.records import Problem
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.settle import Settled, settle
from hailproof.runs.store import read_completions
from hailproof.runs.words import LAST_ROUNDS


class Found(NamedTuple):
    """A share of honest completions: the mean over the last rounds, and how many completions were eligible in them."""

    share: float | None
    eligible: int


def same_measure(job: Job, other: Settled) -> bool:
    """Whether a run was measured with another run's attack, however many nodes mount it."""
    own, attack = settle(job.config).config, other.config.attack
    return own.attack.model_copy(update={"malicious": attack.malicious}) == attack


def own_success(lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Found:
    """What the measure of a run's own attack found in its last rounds."""
    return Found(summary.get("attack_success"), sum(line.get("eligible") or 0 for line in lines[-LAST_ROUNDS:]))


def success_in(job: Job, other: Settled, lines: Sequence[Mapping[str, Any]]) -> Found:
    """What the measure of another run's attack finds in the last rounds of a finished run, on honest completions.

    Args:
        job: The finished run.
        other: The other run's configuration and attack.
        lines: The lines of the finished run.
    """
    if same_measure(job, other):
        return own_success(lines, job.summary or {})
    rounds = settle(job.config).config.rounds
    last = counted_by_round(job.folder, other.measure, rounds - LAST_ROUNDS + 1, rounds)
    return Found(mean(each.value for each in last.values()), sum(each.trials for each in last.values()))


def counted(folder: Path, measure: AttackMeasure | None, first: int, last: int) -> Rate:
    """Successes among the eligible honest completions of some rounds, as the first computed receiver saw them."""
    rounds = counted_by_round(folder, measure, first, last).values()
    return Rate(sum(each.successes for each in rounds), sum(each.trials for each in rounds))


def counted_by_round(folder: Path, measure: AttackMeasure | None, first: int, last: int) -> dict[int, Rate]:
    """The same of each of these rounds; the file is read once."""
    if measure is None:
        return {}
    config = load_config(folder / "config.toml")
    rows = read_completions(
        folder / "completions.parquet",
        columns=["round", "view", "malicious", "problem_id", "text"],
        filters=[("round", ">=", first), ("round", "<=", last), ("malicious", "=", False)],
    ).to_pylist()
    view = min((row["view"] for row in rows), default=0)
    problems = _problems(config)
    found: dict[int, list[bool | None]] = {}
    for row in rows:
        if row["view"] == view:
            success = measure.success(problems[row["problem_id"]], row["text"])
            found.setdefault(row["round"], []).append(success)
    return {round: rate(successes) for round, successes in found.items()}


def _problems(config: RunConfig) -> dict[str, Problem]:
    return _cached(config.model_dump_json(include={"task", "attack"}))


@lru_cache(maxsize=4)
def _cached(parts: str) -> dict[str, Problem]:
    config = RunConfig.model_validate_json(parts)
    return {problem.id: problem for problem in settle(config).task().train}
