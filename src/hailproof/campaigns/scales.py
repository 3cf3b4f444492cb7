"""The sizes in which runs are played, ``experiments/scales.toml``, and the folder of such files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hailproof.campaigns.sweep import merged
from hailproof.errors import ConfigError
from hailproof.runs.config import read_toml
from hailproof.settings import Section, validated

Scale = Literal["nano", "smollm2", "paper"]
SCALES: tuple[Scale, ...] = ("nano", "smollm2", "paper")
OF_FIGURES: tuple[Scale, ...] = ("nano", "paper")
"""The scales that the files of the paper's figures are written for."""
Tree = dict[str, Any]


class ScaleSettings(Section):
    """What all runs of a scale share."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    seconds: Annotated[float, Field(gt=0)] | None = None
    about: str
    settings: Tree = Field(default_factory=dict)
    math: Tree = Field(default_factory=dict)
    code: Tree = Field(default_factory=dict)


def folder_of_items() -> Path:
    """Where the files lie: in the installed package, else in the repository."""
    here = Path(__file__).resolve()
    installed = here.parent / "files"
    return installed if installed.is_dir() else here.parents[3] / "experiments"


def checked_changes(changes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The settings that a user lays over those of the files, unless they would make a run another than its name says.

    Raises:
        ConfigError: If one of them is the attack, the defense, the seed or the name.
    """
    changes = changes or {}
    attack = changes.get("attack", {})
    named = isinstance(attack, Mapping) and "name" in attack
    own = [*(["attack.name"] if named else []), *(key for key in ("defense", "seed", "name") if key in changes)]
    if own:
        raise ConfigError(f"--set {own[0]} is not for several runs at once, which differ in it; use 'hailproof run'.")
    return changes


def load_scale(scale: Scale) -> ScaleSettings:
    """Reads what all runs of a scale share."""
    return validated(ScaleSettings, read_toml(folder_of_items() / "scales.toml")[scale])


def at_scale(tree: Mapping[str, Any], scale: Scale) -> Tree:
    """Settings with what they say for one scale laid over them, and what they say for the others left out."""
    return merged({key: value for key, value in tree.items() if key not in SCALES}, tree.get(scale, {}))


def evaluated_in_time(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """Settings without the evaluation on the way that a file asks for, if a change leaves it no round or no problem."""
    evaluation, given, rounds = tree.get("evaluation"), changes.get("evaluation", {}), tree.get("rounds")
    if not isinstance(evaluation, Mapping) or not isinstance(given, Mapping) or "every" in given:
        return tree
    late = isinstance(rounds, int) and evaluation.get("every", 0) > rounds
    if not late and evaluation.get("problems") != 0:
        return tree
    return {**tree, "evaluation": {key: value for key, value in evaluation.items() if key != "every"}}
