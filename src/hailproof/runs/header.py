"""The first line of a run's configuration: the versions that the run was begun with."""

import platform
from importlib.metadata import version
from pathlib import Path

from hailproof.runs.checkpoint import ANEW
from hailproof.runs.files import reading


def header() -> str:
    """The line that names the versions of this process, a comment of TOML."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("hailproof", "torch", "transformers"))
    return f"# {versions}, Python {platform.python_version()}\n"


def versions_of(path: Path) -> dict[str, str]:
    """What a run was begun with: versions by name, as the first line of its configuration says.

    Raises:
        RunError: If the configuration cannot be read.
    """
    with reading(path / "config.toml", ANEW), (path / "config.toml").open(encoding="utf-8") as file:
        first = file.readline()
    named = first.removeprefix("#").split(",") if first.startswith("#") else []
    return dict(part.split(maxsplit=1) for part in map(str.strip, named) if " " in part)
