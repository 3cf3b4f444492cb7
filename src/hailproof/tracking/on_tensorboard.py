"""TensorBoard: event files in ``FOLDER/tensorboard``, by the writer that comes with torch.

Look at them with ``tensorboard --logdir FOLDER``. The package ``tensorboard`` is needed to look and to write.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from hailproof.tracking.tracker import require


@final
class TensorBoard:
    """Writes event files.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: If the package ``tensorboard`` is missing.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "tensorboard")
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes the figures of a round at once."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a run that was interrupted wrote of this round and later ones is not shown any more.
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
