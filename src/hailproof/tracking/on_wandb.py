"""Weights & Biases, offline: a run in ``FOLDER/wandb`` that ``wandb sync`` sends when the user wants it sent.

Nothing leaves the machine unless the environment says ``WANDB_MODE=online``. Only the figures are written: no code, no
console output, and nothing about the machine.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from hailproof.errors import ConfigError
from hailproof.tracking.tracker import PROJECT, require, run_id

MODES = ("online", "offline", "disabled", "shared")


@final
class WandB:
    """Writes a run of Weights & Biases.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: If the package ``wandb`` is missing, or ``WANDB_MODE`` is none of its modes.
    """

    def __init__(self, folder: Path) -> None:
        self._mode: Any = os.environ.get("WANDB_MODE") or "offline"
        if self._mode not in MODES:
            raise ConfigError(f"WANDB_MODE is {self._mode!r}; set it to one of {', '.join(MODES)}, or unset it.")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read by wandb when it is imported
        require("wandb", "wandb")
        self._folder = folder
        self._run: Any = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the figures of a round."""
        if self._run is None:
            import wandb

            name = run_id(self._folder)
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT, name=f"{self._folder.resolve().name}-{name}",
                id=name, resume="allow", dir=str(self._folder), mode=self._mode, reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, disable_code=True, save_code=False,
                    disable_job_creation=True, x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
                ),
            )  # fmt: skip
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Ends the run."""
        if self._run is not None:
            self._run.finish()
