"""Figures as people read them on a terminal."""

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

if TYPE_CHECKING:
    from hailproof.runs.config import RunConfig

LAST_ROUNDS = 5
"""Final figures are means over this many last rounds; over all, if there are fewer."""


def percent(value: float | None) -> str:
    """A share as people read it; undefined is a dash, never zero."""
    return "-" if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """A number with one digit; undefined is a dash."""
    return "-" if value is None else f"{value:.1f}"


def plan_text(config: "RunConfig") -> str:
    """What a run is going to do, with what was left to the attack and the task written out."""
    swarm, attack = config.swarm, config.attack
    variant = config.task.options.get("variant")
    task = f"{config.task.name} ({variant})" if variant else config.task.name
    parts = [
        f"{config.rounds} rounds of {task}",
        f"{swarm.topology} swarm of {swarm.nodes}, {config.malicious} malicious",
    ]
    if attack.name != "none":
        extras = [f"trigger '{attack.trigger}'"] if attack.trigger else []
        extras += [] if attack.oracle else ["without oracle"]
        parts.append(", ".join((f"attack {attack.name}", *extras)))
    if config.defense:
        parts.append(f"defense {' + '.join(plugin.name for plugin in config.defense)}")
    return "; ".join(parts)


def round_text(line: dict[str, Any]) -> str:
    """One line of progress."""
    parts = [
        f"reward {percent(line['reward'])}",
        f"attack success {percent(line['attack_success'])}",
        f"tokens {number(line['completion_tokens'])}",
    ]
    if line["honest_acceptance"] is not None:
        parts.append(f"accepted honest {percent(line['honest_acceptance'])}")
    if line["malicious_acceptance"] is not None:
        parts.append(f"malicious {percent(line['malicious_acceptance'])}")
    parts.append(f"{sum(line['seconds'].values()):.1f} s")
    return "  ".join(parts)


def summary_table(summaries: dict[str, dict[str, Any]]) -> Table:
    """The final figures of some runs, one row each."""
    most = max((summary["rounds"] for summary in summaries.values()), default=0)
    title = f"Means over the last {LAST_ROUNDS} rounds"
    if most <= LAST_ROUNDS:
        title = "Figures of the one round" if most == 1 else f"Means over all {most} rounds"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in ("attack success", "reward", "tested", "tokens", "honest kept", "forged kept", "s/round"):
        table.add_column(heading, justify="right")
    for label, summary in summaries.items():
        held_out = summary["held_out"] or {}
        table.add_row(
            label,
            percent(summary["attack_success"]),
            percent(summary["reward"]),
            percent(held_out.get("reward")),
            number(summary["completion_tokens"]),
            percent(summary["honest_acceptance"]),
            percent(summary["malicious_acceptance"]),
            f"{summary['seconds_per_round']:.2f}",
        )
    return table
