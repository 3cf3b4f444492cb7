"""Trackio: a local database that ``trackio show --project hailproof`` shows; no network.

Where the environment names a Space or a server (``TRACKIO_SPACE_ID``, ``TRACKIO_SERVER_URL``), trackio sends the
figures there instead. ``TRACKIO_DIR`` says where the database is.
"""

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from unittest.mock import patch

from hailproof.errors import ConfigError
from hailproof.tracking.tracker import PROJECT, require, run_id


@final
class Trackio:
    """Logs a run of trackio.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: If the package ``trackio`` is missing.
    """

    def __init__(self, folder: Path) -> None:
        require("trackio", "trackio")
        self._folder = folder
        self._run: Any = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Logs the figures of a round.

        Raises:
            ConfigError: If this program logs to trackio already, as trainers do: it has one run at a time.
        """
        if self._run is None:
            self._run = self._begun()
        self._run.log(dict(numbers), step=step)

    def _begun(self) -> Any:
        import trackio
        from huggingface_hub import constants
        from trackio import context_vars

        if context_vars.current_run.get() is not None:
            raise ConfigError(
                "This program already logs another run to trackio, and a new one would end it; leave it to the "
                "trainer, or choose another tracker."
            )
        # It asks the hub for the user's name, if there is a token: not where the figures stay on this machine.
        leaves = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        offline = contextlib.nullcontext() if leaves else patch.object(constants, "HF_HUB_OFFLINE", True)
        with offline, contextlib.redirect_stdout(io.StringIO()):
            return trackio.init(
                project=PROJECT, name=f"{self._folder.resolve().name}-{run_id(self._folder)}", resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def close(self) -> None:
        """Writes what is not written yet, and ends the run."""
        if self._run is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._run.finish()
            from trackio import context_vars

            if context_vars.current_run.get() is self._run:
                context_vars.current_run.set(None)
