"""Table 1: what judges accept of honest solutions and of what attacks forge."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hailproof.attacks import ATTACKS
from hailproof.attacks.base import BaseAttack
from hailproof.campaigns.sweep import merged
from hailproof.defenses.judge import JudgeDefense
from hailproof.defenses.panel import Case
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView, Task
from hailproof.runs.config import RunConfig
from hailproof.runs.settle import settle
from hailproof.settings import validated

HONEST = "honest"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one judge made of one kind of completions.

    Attributes:
        judge: The judge's label.
        completions: ``honest``, or the name of an attack.
        cases: Completions.
        votes: Judgements of them.
        yes: Judgements that accept.
        malformed: Judgements that are neither yes nor no.
    """

    judge: str
    completions: str
    cases: int
    votes: int
    yes: int
    malformed: int

    @property
    def share(self) -> float:
        """Share of the judgements that accept."""
        return self.yes / self.votes


def forged(attack: BaseAttack, task: Task, number: int) -> list[Case]:
    """Completions of an attack on test problems that it wants, each forged as for a round of its own."""
    wanted = itertools.islice(filter(attack.wants, task.test), number)
    cases = []
    for round, problem in enumerate(wanted):
        (text, *_) = attack.forge(AttackView(round, problem, task, (0,)))
        cases.append(Case(problem.question, str(text), attack.variant))
    return cases


def references(task: Task, number: int) -> list[Case]:
    """Reference solutions of test problems, as they would be sent."""
    problems = itertools.islice((problem for problem in task.test if problem.solution), number)
    return [Case(each.question, task.format(each.solution, each.answer), task.variant) for each in problems]


def cases_of(name: str, settings: Mapping[str, Mapping[str, Any]], number: int) -> list[Case]:
    """The completions of one row.

    Args:
        name: ``honest`` or an attack.
        settings: Settings of the task, by variant.
        number: How many at most; a small test split may have fewer that an attack wants.
    """
    attack = ATTACKS[name]() if name != HONEST else None
    variant = attack.variant if attack else "math"
    tree = merged(settings[variant], {"attack": {"name": name if attack else "none"}})
    task = settle(validated(RunConfig, tree)).task()
    return forged(attack, task, number) if attack else references(task, number)


def accepted(label: str, judge: JudgeDefense, name: str, cases: Sequence[Case]) -> Accepted:
    """Asks a judge about completions, as often about each as it has votes."""
    judgements = judge.panel.rule(cases, judge.backend.ask)
    votes, yes = sum(each.votes for each in judgements), sum(each.yes for each in judgements)
    return Accepted(label, name, len(cases), votes, yes, votes - yes - sum(each.no for each in judgements))


def judge_table(
    judges: Sequence[Mapping[str, Any]], rows: Sequence[str], settings: Mapping[str, Mapping[str, Any]], number: int,
    judgements: int,
) -> list[Accepted]:
    """The whole table.

    Args:
        judges: ``label`` and options of each judge.
        rows: ``honest`` and attacks.
        settings: Settings of the task, by variant.
        number: Completions of each row.
        judgements: How often each judge is asked about each completion.
    """  # fmt: skip
    cases = {name: cases_of(name, settings, number) for name in rows}
    for name, found in cases.items():
        if not found:
            raise ConfigError(f"No test problem suits the row '{name}' of the table; raise the task's test_size.")
    table = []
    for options in judges:
        own = {key: value for key, value in options.items() if key != "label"}
        judge = JudgeDefense(**{"votes": judgements, **own})
        table += [accepted(str(options["label"]), judge, name, found) for name, found in cases.items()]
    return table


def as_rows(table: Sequence[Accepted]) -> list[dict[str, Any]]:
    """The table for a file."""
    return [{**asdict(cell), "share": cell.share} for cell in table]
