"""Figures as people read them on a terminal."""

from collections.abc import Callable
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
        parts.append(", ".join((f"attack {attack.name}", *_extras(config))))
    if config.defense:
        parts.append(f"defense {' + '.join(plugin.name for plugin in config.defense)}")
    return "; ".join(parts)


def _extras(config: "RunConfig") -> list[str]:
    """What an attack is combined with, as far as it is not the default."""
    attack = config.attack
    usual = type(attack)()
    said = {
        key: value
        for key in type(attack).model_fields
        if key not in ("name", "options", "malicious", "candidates")
        and (value := getattr(attack, key)) != getattr(usual, key)
    }
    special = {"trigger": f"trigger '{attack.trigger}'", "oracle": "without oracle", "heed": f"heed {_heed(config)}"}
    return [special.get(key, f"{key.replace('_', ' ')} {value}") for key, value in said.items()]


def _heed(config: "RunConfig") -> str:
    """The share of suspicion at which an attacker stops, and whether any defense of the run can suspect it."""
    from hailproof import registry
    from hailproof.defenses import DEFENSES
    from hailproof.defenses.base import BaseDefense

    classes = [registry.lookup("defenses", DEFENSES, plugin.name) for plugin in config.defense]
    suspecting = any(getattr(each, "suspicion", BaseDefense.suspicion) is not BaseDefense.suspicion for each in classes)
    return f"{config.attack.heed}" + ("" if suspecting else " (no defense here suspects a sender, so it never stops)")


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
    update = line.get("update", {})
    if update.get("held"):
        parts.append(f"step not made ({', '.join(update['held'])} out of line)")
    if out := [sender for sender, what in update.get("senders", {}).items() if what["excluded"]]:
        parts.append(f"sender {', '.join(out)} excluded")
    parts.append(f"{sum(line['seconds'].values()):.1f} s")
    return "  ".join(parts)


ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str | None], bool], ...] = (
    ("attack success", lambda summary: percent(summary["attack_success"]), True),
    ("attack success, held-out", lambda summary: _share(summary["held_out"], "attack_success"), False),
    ("2∘2 answers from 5, held-out", lambda summary: _two_two(summary, "from_five"), False),
    ("2∘2 answers right, held-out", lambda summary: _two_two(summary, "right"), False),
    ("reward", lambda summary: percent(summary["reward"]), True),
    ("reward, held-out", lambda summary: _share(summary["held_out"], "reward"), True),
    ("tokens", lambda summary: number(summary["completion_tokens"]), True),
    ("honest kept", lambda summary: _share(summary, "honest_acceptance"), False),
    ("honest learned, whole run", lambda summary: _share(summary, "honest_learned"), False),
    ("forged kept", lambda summary: _share(summary, "malicious_acceptance"), False),
    ("forged learned, whole run", lambda summary: _share(summary, "forged_learned"), False),
    ("seconds a round", lambda summary: f"{summary['seconds_per_round']:.2f}", True),
)
"""Name of each figure, how it is read from a summary, and whether it is shown where no run has it.

What is kept and learned of honest and of forged completions is known where a defense screens them: a defense that mutes
keeps much of which little is learned. How problems with a 2 + 2 or 2 * 2 step are answered is shown where the attack is
measured by such equations.
"""


def _share(figures: dict[str, Any] | None, key: str) -> str | None:
    return None if not figures or figures.get(key) is None else percent(figures[key])


def _two_two(summary: dict[str, Any], key: str) -> str | None:
    return _share((summary["held_out"] or {}).get("two_two"), key) if "not_four" in summary.get("also", {}) else None


def summary_table(summaries: dict[str, dict[str, Any]]) -> Table:
    """The final figures of some runs, one column each; a dash where a figure that others have is unknown."""
    most = max((summary["rounds"] for summary in summaries.values()), default=0)
    title = f"Means over the last {LAST_ROUNDS} rounds"
    if most <= LAST_ROUNDS:
        title = "Figures of the one round" if most == 1 else f"Means over all {most} rounds"
    table = Table("", title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for label in summaries:
        table.add_column(label, justify="right")
    for name, read, always in ROWS:
        figures = [read(summary) for summary in summaries.values()]
        if always or any(figures):
            table.add_row(name, *(figure or "-" for figure in figures))
    return table
