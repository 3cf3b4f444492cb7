"""Whether runs bear out what a paper says: an interval for every check, and one word for the whole.

A check on runs is held against the 95 % interval over at least five seeds (``metrics/intervals.py``): it *holds* if the
whole interval lies inside the bounds, *fails* if the whole interval lies outside, and is *undecided* otherwise, also
with fewer seeds or where a value is undefined. Without any finished run it is *not played*. No word is owed to seeds
that happened to fall on one side. Closed forms have no seeds: their check holds or fails.

An item *agrees* if all checks hold, *differs* if one fails, is *not played* if nothing of it was, and *undecided*
otherwise. It is *not tested* where its file says that its runs are not what the paper tested, whatever they show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from hailproof.campaigns.sweep import Job
from hailproof.errors import RunError
from hailproof.metrics.intervals import interval, ratio_interval, share_interval
from hailproof.paper.published import Check
from hailproof.runs.store import read_rounds

LEAST_SEEDS = 5
"""With fewer, no check on runs is decided."""
ROUNDING = 1e-9
"""How far beyond a bound an end of an interval may lie by rounding."""
COUNTS = {
    "attack_success": "eligible", "also": "eligible", "honest_acceptance": "screened.honest",
    "malicious_acceptance": "screened.malicious", "held_out.attack_success": "held_out.eligible",
    "held_out.reward_targeted": "held_out.targets", "held_out": "held_out.problems",
}  # fmt: skip
"""Of how many completions of a round a share is, by how its name begins: the first that fits."""

Finding = Literal["holds", "fails", "undecided", "not played"]
Word = Literal["agrees", "differs", "undecided", "not played", "not tested"]
Ends = tuple[float, float]


class Values(NamedTuple):
    """What a check compares with its bounds.

    Attributes:
        by_seed: One value a seed; ``None`` where undefined.
        trials: How many completions stand behind a share on all seeds together; 0 if nobody knows.
    """

    by_seed: tuple[float | None, ...]
    trials: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """A check with what was found.

    Attributes:
        that: The statement.
        finding: Whether it holds.
        values: What was compared with the bounds, one value per seed; ``None`` where undefined.
        bound: The bounds in words.
        ends: The interval; ``None`` if there is none.
        why: What kept it from being decided, if it was not the interval.
    """

    that: str
    finding: Finding
    values: tuple[float | None, ...]
    bound: str
    ends: Ends | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """The finding, and why it is none."""
        return f"{self.finding} ({self.why})" if self.why else self.finding


def look_up(tree: Mapping[str, Any], path: str) -> float | None:
    """Follows a dotted path; ``None`` if it leads nowhere or to nothing."""
    found: Any = tree
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return None if found is None else float(found)


def value_of(check: Check, folder: Path, summary: Mapping[str, Any], measure: str) -> float | None:
    """The value of a measure in one run, taken over the rounds of the check."""
    if measure.startswith("summary."):
        return look_up(summary, measure.removeprefix("summary."))
    values = [look_up(line, measure) for line in _lines_of(check, folder)]
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    return {"mean": fmean, "max": max, "min": min}[check.take](defined)


def _lines_of(check: Check, folder: Path) -> list[dict[str, Any]]:
    """The lines of the rounds of a check."""
    lines = read_rounds(folder)
    first, last = (bound if bound > 0 else len(lines) + 1 + bound for bound in check.rounds)
    return [line for line in lines if first <= line["round"] <= last]


def compared(check: Check, jobs: Mapping[str, Sequence[Job]]) -> Values:
    """What a check compares with its bounds, by the seeds that both runs have; an unfinished run is undefined."""
    results: list[float | None] = []
    trials = 0
    others = {job.seed: job for job in jobs[check.versus]} if check.versus else {}
    for job in jobs[check.run]:
        if check.versus and job.seed not in others:
            continue
        value, other = _measured(check, job, check.measure), others.get(job.seed)
        if other is not None and value is not None:
            against = _measured(check, other, check.versus_measure or check.measure)
            if against is None or (check.how == "ratio" and against == 0):
                value = None
            else:
                value = value / against if check.how == "ratio" else value - against
        results.append(value)
        trials += _trials(check, job)
    return Values(tuple(results), trials)


def _measured(check: Check, job: Job, measure: str) -> float | None:
    summary = job.summary
    return None if summary is None else value_of(check, job.folder, summary, measure)


def _trials(check: Check, job: Job) -> int:
    """How many completions of a run a share is of; those of one round if it is that of a single one."""
    counted = next((count for name, count in COUNTS.items() if check.measure.startswith(name)), None)
    if counted is None or job.summary is None:
        return 0
    found = [value for line in _lines_of(check, job.folder) if (value := look_up(line, counted)) is not None]
    once = check.take != "mean" or check.measure.startswith("held_out")  # always the same held-out problems
    return int(max(found, default=0) if once else sum(found))


def judged(check: Check, values: Values) -> Checked:
    """Holds the interval over seeds against the bounds of a check.

    Raises:
        RunError: If a measure that should be a share is none.
    """
    by_seed = values.by_seed
    known = [value for value in by_seed if value is not None]
    if not by_seed:
        return Checked(check.that, "not played", (), _bound(check))
    ends = _ends(check, known, values.trials) if len(known) > 1 else None
    why = ""
    if len(known) < len(by_seed):
        why = f"undefined on {len(by_seed) - len(known)} of {len(by_seed)} seeds"
    elif len(known) < LEAST_SEEDS:
        why = f"{len(known)} seed{'s' * (len(known) > 1)}"
    finding: Finding = "undecided" if why or ends is None else _held_against(check, ends)
    return Checked(check.that, finding, by_seed, _bound(check), ends, why)


def judged_by(check: Check, values: Sequence[float], ends: Ends) -> Checked:
    """Holds an interval that does not come from seeds against the bounds of a check."""
    return Checked(check.that, _held_against(check, ends), tuple(values), _bound(check), ends)


def judged_exactly(check: Check, values: Sequence[float]) -> Checked:
    """Holds values that no chance is in against the bounds of a check: it holds if all lie inside, and else fails."""
    inside = all(_inside(check, value) for value in values)
    return Checked(check.that, "holds" if inside else "fails", tuple(values), _bound(check))


def _ends(check: Check, values: Sequence[float], trials: int) -> Ends:
    """The interval that suits what a check compares."""
    if check.versus and check.how == "ratio":
        return ratio_interval(values) if min(values) > 0 else interval(values)
    if check.versus or check.measure.endswith("tokens"):
        return interval(values)
    try:
        return share_interval(values, trials or None)
    except ValueError as error:
        raise RunError(
            f"The check '{check.that}' takes {check.measure} for a share, and it is none ({error}); compare it with "
            "another run, or choose another measure."
        ) from error


def _inside(check: Check, value: float) -> bool:
    return (check.at_least is None or value >= check.at_least - ROUNDING) and (
        check.at_most is None or value <= check.at_most + ROUNDING
    )


def _held_against(check: Check, ends: Ends) -> Finding:
    low, high = ends
    if _inside(check, low) and _inside(check, high):
        return "holds"
    below = check.at_least is not None and high < check.at_least - ROUNDING
    above = check.at_most is not None and low > check.at_most + ROUNDING
    return "fails" if below or above else "undecided"


def _bound(check: Check) -> str:
    bounds = (("≥", check.at_least), ("≤", check.at_most))
    return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


def verdict(checked: Sequence[Checked]) -> Word:
    """One word for all checks of an item."""
    findings = {each.finding for each in checked}
    if "fails" in findings:
        return "differs"
    if findings == {"holds"}:
        return "agrees"
    return "not played" if findings == {"not played"} else "undecided"
