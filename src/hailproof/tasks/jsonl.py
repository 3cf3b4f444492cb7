"""Local JSONL files, read in one way by every task: each error names the file and the line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from hailproof.errors import DataError

T = TypeVar("T")


def read_lines(path: Path, read: Callable[[bytes, int], T], kind: str, columns: str) -> list[T]:
    """Reads every line that is not blank.

    Args:
        path: The file.
        read: Turns a line and its number, from 1, into a row; raises ``DataError`` or msgspec's errors.
        kind: What a line should be, for the error: ``"a GSM8K row"``.
        columns: What the file should hold, for the error: ``"'question' and 'answer'"``.

    Raises:
        DataError: If the file is missing, empty, or has a line that does not read; names the line.
    """
    if not path.is_file():
        raise DataError(f"Data file {path} does not exist; give --data a JSONL file with {columns}.")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(read(line, number))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DataError) as error:
            raise DataError(f"{path}, line {number} is not {kind} ({error}); mend or remove the line.") from error
    if not rows:
        raise DataError(f"Data file {path} has no rows; give --data a JSONL file with {columns}.")
    return rows
