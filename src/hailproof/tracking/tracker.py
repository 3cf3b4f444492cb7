"""The one interface of all trackers, and how one is opened by its name.

A tracker is anything with ``log`` and ``close``. Those of this package open their files at the first round that they
are given, so that a run that never begins leaves none, and they write to this machine alone unless the user has told
the library otherwise.
"""

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from hailproof import registry
from hailproof.errors import ConfigError
from hailproof.parsing import printable

PROJECT = "hailproof"
"""The project that runs are found under, where a library has projects."""
_RUN_ID = "tracking-id"


class Tracker(Protocol):
    """Takes the figures of each round."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Takes the figures of one round.

        Args:
            step: Number of the round, from 1. A round that is played again is logged again.
            numbers: Figures by name; what is unknown is left out.
        """
        ...

    def close(self) -> None:
        """Writes what is not written yet; nothing is logged afterwards."""
        ...


TRACKERS: Mapping[str, type] = registry.Builtins({
    "tensorboard": "hailproof.tracking.on_tensorboard:TensorBoard",
    "wandb": "hailproof.tracking.on_wandb:WandB",
    "trackio": "hailproof.tracking.on_trackio:Trackio",
})
"""Trackers by name. Another package adds its own through the entry point group ``hailproof.trackers``."""


def open_tracker(name: str, folder: str | Path) -> Tracker:
    """Opens a tracker; its files appear with the first round.

    Args:
        name: ``tensorboard``, ``wandb``, ``trackio``, or what an installed package registers.
        folder: The run's folder. A run that goes on in it goes on in the tracker.

    Raises:
        ConfigError: If there is no such tracker, or its package is missing.
    """
    return registry.lookup("trackers", TRACKERS, name)(Path(folder))


def require(package: str, extra: str) -> None:
    """Makes sure that a package can be imported.

    Raises:
        ConfigError: If not; it names the extra that brings the package.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        why = "" if isinstance(error, ModuleNotFoundError) and error.name == package else f" ({printable(error, 200)})"
        raise ConfigError(
            f"Tracking with {extra} needs the package {package}{why}; install it with pip install 'hailproof[{extra}]'."
        ) from error


def run_id(folder: Path) -> str:
    """What a run is called where names are shared by all runs of a machine: kept in its folder, so that it goes on.

    Raises:
        OSError: If the folder cannot be written.
    """
    path = folder / _RUN_ID
    if path.is_file():
        kept = path.read_text(encoding="utf-8").strip()
        if kept.isalnum() and kept.isascii() and len(kept) <= 64:
            return kept
    folder.mkdir(parents=True, exist_ok=True)
    made = secrets.token_hex(4)
    path.write_text(f"{made}\n", encoding="utf-8")
    return made
