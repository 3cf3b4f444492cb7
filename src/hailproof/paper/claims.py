"""Whether runs bear out what a paper says: every check on every seed, and one word for the whole.

The rule is plain on purpose: a check *holds* if it does on every seed, *fails* if it does on none, and is *undecided*
if seeds differ or a value is undefined. An item *agrees* if all checks hold, *differs* if one fails, and is
*undecided* otherwise. With one seed the words are the same, and the seeds stand beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hailproof.campaigns.sweep import Job
from hailproof.paper.published import Check
from hailproof.runs.store import read_rounds

Finding = Literal["holds", "fails", "undecided"]
Word = Literal["agrees", "differs", "undecided"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A check with what was found.

    Attributes:
        that: The statement.
        finding: Whether it holds.
        values: What was compared with the bounds, one value per seed; ``None`` where undefined.
        bound: The bounds in words.
    """

    that: str
    finding: Finding
    values: tuple[float | None, ...]
    bound: str


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
    lines = read_rounds(folder)
    first, last = (bound if bound > 0 else len(lines) + 1 + bound for bound in check.rounds)
    values = [look_up(line, measure) for line in lines if first <= line["round"] <= last]
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    return {"mean": fmean, "max": max, "min": min}[check.take](defined)


def compared(check: Check, jobs: Mapping[str, Sequence[Job]]) -> tuple[float | None, ...]:
    """What a check compares with its bounds, by the seeds that both runs have; an unfinished run is undefined."""
    results: list[float | None] = []
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
    return tuple(results)


def _measured(check: Check, job: Job, measure: str) -> float | None:
    summary = job.summary
    return None if summary is None else value_of(check, job.folder, summary, measure)


def judged(check: Check, values: Sequence[float | None]) -> Checked:
    """Holds values against the bounds of a check."""
    passed = [
        None
        if value is None
        else (check.at_least is None or value >= check.at_least) and (check.at_most is None or value <= check.at_most)
        for value in values
    ]
    finding: Finding = "holds" if all(passed) else "fails" if all(each is False for each in passed) else "undecided"
    bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", check.at_least), ("≤", check.at_most)) if bound is not None]
    return Checked(check.that, finding if values else "undecided", tuple(values), " and ".join(bounds))


def verdict(checked: Sequence[Checked]) -> Word:
    """One word for all checks of an item."""
    findings = [each.finding for each in checked]
    return "differs" if "fails" in findings else "undecided" if "undecided" in findings else "agrees"
