"""Formats by name. Each module tells its own form by the beginning of a file, and reads it as a stream of rows."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hailproof.errors import DataError
from hailproof.screening.rows import Columns, StoredRow
from hailproof.screening.stream import first_bytes, parsed, records

FORMATS: dict[str, str] = {
    "trl": "TRL: completions_*.parquet",
    "traces": "verifiers and prime-rl: traces.jsonl",
    "verl": "verl: STEP.jsonl of trainer.rollout_data_dir",
    "areal": "AReaL: TASK.jsonl",
    "genrl": "genrl: payloads as msgpack",
    "reliquary": "Reliquary: window-N.json.gz",
    "table": "Parquet and JSONL with named columns",
}
"""What each reads, in the order in which they are tried."""

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib")
"""Names of files that may be pickles."""


@dataclass(frozen=True, slots=True)
class Peek:
    """The beginning of a file.

    Attributes:
        path: The file.
        data: Its first bytes, unpacked.
        line: Its first line as a table; ``None`` if that is no JSON, or longer.
        columns: The columns of a Parquet file; empty for others.
        fault: Why its first line, which begins as a table, is none; empty if it is one.
    """

    path: Path
    data: bytes
    line: dict[str, Any] | None
    columns: tuple[str, ...] = ()
    fault: str = ""


class Format(Protocol):
    """A module of this package."""

    brings: frozenset[str]
    """Which of senders and groups the form has."""
    multi_turn: bool
    """Whether completions may hold turns of tools."""

    def matches(self, peek: Peek) -> bool:
        """Whether a file has this form."""
        ...

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the completions of a file."""
        ...


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        DataError: If there is none.
    """
    if name not in FORMATS:
        raise DataError(f"Unknown form {name!r}; choose one of {', '.join(FORMATS)}.")
    module: Any = importlib.import_module(f"hailproof.screening.formats.{name}")
    return module.FORMAT


def detected(path: Path) -> str:
    """The name of the format of a file.

    Raises:
        DataError: If it is a pickle, empty, missing, or of no known form.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file but a folder or a stream, which cannot be read twice; give files.")
    peek = _peek(path)
    refuse_pickle(path, peek.data)
    if not peek.data.strip():
        raise DataError(f"{path} is empty; give a file with completions.")
    found = next((name for name in FORMATS if format_named(name).matches(peek)), None)
    if found is None and peek.fault:
        raise DataError(f"{path} cannot be told by its first line: {peek.fault}; mend that line, or name the --form.")
    if found is None:
        raise DataError(f"{path} has no known form ({', '.join(FORMATS)}); write it as JSONL, a row a line.")
    return found


def refuse_pickle(path: Path, data: bytes) -> None:
    """Refuses what may be a pickle: loading one runs whatever its writer wanted.

    Raises:
        DataError: If it may be one.
    """
    pickled = len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5
    if path.suffix.lower() in PICKLES or pickled or data.startswith(b"PK\x03\x04"):
        raise DataError(
            f"{path} is, or may hold, a pickle, which runs code when it is read; it is never loaded. Write the "
            "completions as JSONL or Parquet."
        )


def _peek(path: Path) -> Peek:
    data = first_bytes(path)
    if data.startswith(b"PAR1"):
        from hailproof.screening.formats.table import parquet_columns

        return Peek(path, data, None, parquet_columns(path))
    line = data.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    found = parsed(line)
    if isinstance(found, str) and line.startswith(b"{"):  # it may be longer than what was peeked at
        found = next((record for _, record in records(path)), found)
    if isinstance(found, dict):
        return Peek(path, data, found)
    return Peek(path, data, None, fault=found if line.startswith(b"{") else "")
