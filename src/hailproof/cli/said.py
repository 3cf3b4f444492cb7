"""What the commands share: how they speak, how they end, and options that several of them have."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from hailproof.parsing import printable

console = Console(highlight=False, markup=False)  # names and paths may hold brackets

RUNS = Path("runs")
COMPLAINT = 10_000
"""Characters of a message."""
AGAIN = "give the same command again: runs that are finished are kept, and those that were begun go on."


@contextmanager
def interruptible(advice: str, folder: Path | None = None) -> Iterator[None]:
    """Turns Ctrl-C into a sentence that says how to go on, and exit status 130.

    Args:
        advice: How to go on.
        folder: A run folder; once the run has begun, it is resumed instead.
    """
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None and (folder / "config.toml").is_file():
            advice = f"go on with: hailproof resume {shlex.quote(str(folder))}"
        complain(f"stopped; {advice}")
        raise SystemExit(130) from None


def complain(sentence: str) -> None:
    """Says what is wrong; names from files of strangers may stand in it."""
    Console(stderr=True, highlight=False).print(
        f"hailproof: {printable(sentence, COMPLAINT)}", soft_wrap=True, markup=False
    )


def say(text: str) -> None:
    """Says a line, however long."""
    console.print(text, soft_wrap=True)


def _folder(text: str) -> Path:
    from hailproof.errors import ConfigError

    if not str(text).strip():
        raise ConfigError("--out is empty; give it the name of a folder, or leave it out.")
    return Path(text)


def out_option(about: str) -> Any:
    """An option ``--out`` that is a folder."""
    return typer.Option(parser=_folder, metavar="PATH", help=about)
