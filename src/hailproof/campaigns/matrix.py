"""The matrix of the bench: its rows, columns and presets, and the runs that each cell needs.

Rows, columns and presets are ``experiments/bench.toml``; a registered name that is not in it is a row or column with
default settings. The attack ``clean`` is the control: the same swarm without an attacker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hailproof import registry
from hailproof.attacks import ATTACKS
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
from hailproof.defenses import DEFENSES
from hailproof.defenses.presets import PRESETS
from hailproof.errors import ConfigError, MismatchError
from hailproof.runs.config import read_toml
from hailproof.runs.settle import settle
from hailproof.settings import Section, validated


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

    Returns:
        All but those whose defense has nothing to do in the row's swarm, or on its task.

    Raises:
        ConfigError: If a name is neither in the file nor registered, the changes are none for several runs at once, or
            no defense has anything to do in any row.
    """  # fmt: skip
    matrix, shared, changes = load_matrix(), load_scale(scale), checked_changes(changes)
    chosen = tuple(seeds or shared.seeds)

    def jobs(row: Tree, column: Tree, over: Tree) -> tuple[Job, ...]:
        own = at_scale(row, scale)
        variant, _ = own.pop("variant", "math"), own.pop("control", None)
        tree = merged(
            shared.settings, getattr(shared, variant), own, at_scale(column, scale), changes, over
        )
        tree = evaluated_in_time(tree, changes)
        return tuple(Job({**tree, "seed": seed}, root) for seed in chosen)

    cells: dict[str, Cell] = {}
    mismatch: MismatchError | None = None
    for attack in attacks:
        row = _row(matrix, attack)
        control = _row(matrix, row.get("control", attack))
        clean = jobs(control, {}, {"attack": {"malicious": 0}})
        cells.setdefault(
            f"clean {clean[0].digest}",
            Cell("clean", f"control of {row.get('control', attack)}", "none", scale, clean, clean),
        )
        for defense in defenses:
            try:
                played = jobs(row, _column(matrix, defense), {})
                settle(played[0].config)
            except MismatchError as error:
                mismatch = mismatch or error
                continue
            cells[f"{attack} {defense}"] = Cell(attack, "", defense, scale, played, clean)
    if mismatch is not None and all(cell.attack == "clean" for cell in cells.values()):
        raise mismatch
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
    if name not in (*registry.names("defenses", DEFENSES), *PRESETS):
        raise ConfigError(f"Unknown defense '{name}'; choose among {', '.join(matrix.defenses)}, or a registered one.")
    return {"defense": [{"name": name}]}
