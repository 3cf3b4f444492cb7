"""The paper's figures and tables as files: ``experiments/fig3a.toml`` and its like, each in two scales.

A file says which runs an item needs, how they are drawn, what the paper claims, and by which checks the claim is held
against the runs. Settings are laid over each other: the scale's (``scales.toml``), the scale's for the variant of the
task, the item's, the item's for the scale, the run's, the run's for the scale, which may also name fewer seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hailproof.campaigns.scales import (
    Scale,
    Tree,
    at_scale,
    checked_changes,
    evaluated_in_time,
    folder_of_items,
    load_scale,
)
from hailproof.campaigns.sweep import Job, merged
from hailproof.errors import ConfigError
from hailproof.protocols import Variant
from hailproof.runs.config import read_toml
from hailproof.settings import Section, validated


class Check(Section):
    """One statement about runs that can be held against them: against the interval over seeds.

    ``rounds`` are the first and last round that count, from the end if negative. ``versus`` names a run of the same
    seed that the value is compared with. ``measure`` is a path into a line of ``rounds.jsonl``, or, after
    ``summary.``, into ``summary.json``.
    """

    that: str
    run: str
    measure: str = "attack_success"
    rounds: tuple[int, int] = (-5, -1)
    take: Literal["mean", "max", "min"] = "mean"
    versus: str | None = None
    versus_measure: str | None = None
    how: Literal["difference", "ratio"] = "difference"
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "Check":
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the check '{self.that}' needs at_least or at_most")
        return self


class LineSpec(Section):
    """One curve: a measure of a run."""

    run: str
    measure: str = "attack_success"
    label: str | None = None


class PanelSpec(Section):
    """Curves on one pair of axes."""

    title: str
    unit: str = "%"
    lines: Annotated[tuple[LineSpec, ...], Field(min_length=1)]


class Item(Section):
    """A figure or table of the paper.

    ``form`` is ``curves`` over rounds, ``push`` for the closed forms, or ``judges`` for the table of accept rates.
    """

    item: str
    title: str
    claim: str
    form: Literal["curves", "push", "judges"] = "curves"
    variant: Variant = "math"
    settings: Tree = Field(default_factory=dict)
    nano: Tree = Field(default_factory=dict)
    paper: Tree = Field(default_factory=dict)
    runs: dict[str, Tree] = Field(default_factory=dict)
    measures: tuple[str, ...] = ("attack_success", "reward")
    panels: tuple[PanelSpec, ...] = ()
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]
    options: Tree = Field(default_factory=dict)
    not_tested: dict[Scale, str] = Field(default_factory=dict)
    """Why the runs of a scale are not what the paper tested; its verdict is then "not tested"."""
    remark: dict[Scale, str] = Field(default_factory=dict)
    """What to know when reading the result of a scale: stand-ins, and why it differs from the paper."""

    @property
    def heading(self) -> str:
        """What stands above its picture: its number and its title."""
        return f"{self.item[0].upper()}{self.item[1:]}: {self.title}"

    @model_validator(mode="after")
    def _names_its_runs(self) -> "Item":
        if self.form != "curves":
            return self
        named = [(check.that, name) for check in self.checks for name in (check.run, check.versus) if name]
        named += [(panel.title, line.run) for panel in self.panels for line in panel.lines]
        for where, name in named:
            if name not in self.runs:
                raise ValueError(f"'{where}' names the run '{name}', which is not among the runs")
        return self


def item_names() -> list[str]:
    """The names that ``hailproof reproduce`` takes, figures in the paper's order, then the table."""
    names = [path.stem for path in folder_of_items().glob("fig*.toml")]
    tables = sorted(path.stem for path in folder_of_items().glob("table*.toml"))
    return sorted(names, key=lambda name: (int("".join(filter(str.isdigit, name))), name)) + tables


def load_item(name: str, folder: Path | None = None) -> Item:
    """Reads an item.

    Raises:
        ConfigError: If there is none of that name or its file is wrong.
    """
    path = (folder or folder_of_items()) / f"{name}.toml"
    if not path.is_file() or (folder is None and name not in item_names()):
        raise ConfigError(f"Unknown figure or table '{name}'; choose one of {', '.join(item_names())}, or all.")
    try:
        return validated(Item, read_toml(path))
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def jobs_of(
    item: Item, scale: Scale, root: Path, seeds: Sequence[int] | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, list[Job]]:
    """The runs that an item needs, by the name that it gives them, one for each seed.

    Args:
        item: The figure or table.
        scale: Which of its two scales, ``nano`` or ``paper``.
        root: The folder of all runs.
        seeds: Seeds, if not the scale's.
        changes: Settings that are laid over all others; a run without an attacker stays one.

    Raises:
        ConfigError: If the changes are none for several runs at once.
    """
    shared, changes = load_scale(scale), checked_changes(changes)
    base = merged(shared.settings, getattr(shared, item.variant), item.settings, getattr(item, scale))
    found: dict[str, list[Job]] = {}
    for name, run in item.runs.items():
        own = at_scale(run, scale)
        of_run = own.pop("seeds", shared.seeds)
        tree = merged(base, own)
        clean = {"attack": {"malicious": 0}} if tree.get("attack", {}).get("malicious") == 0 else {}
        tree = evaluated_in_time(merged(tree, changes, clean), changes)
        found[name] = [Job({**tree, "seed": seed}, root) for seed in (seeds or of_run)]
    return found
