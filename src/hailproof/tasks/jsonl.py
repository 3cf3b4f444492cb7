"""Local data files, read in one way by every task: JSONL, plain or packed by gzip, and Parquet.

The content of a file decides its format, not its name. Each error names the file and the line, or the row, and so does
the id of each problem: ``svamp-17`` is line 17 of ``svamp.jsonl`` or row 17 of ``svamp.parquet``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from hailproof.errors import DataError
from hailproof.files import MAX_BYTES, as_utf8, read_bytes
from hailproof.parsing import exact_number, plain

Row = TypeVar("Row", bound=msgspec.Struct)
T = TypeVar("T")
PARQUET = b"PAR1"
BATCH = 1024
"""Rows of a Parquet file that are unpacked at a time."""


def read_rows(path: Path, row: type[Row], read: Callable[[Row, str], T], kind: str, columns: str) -> list[T]:
    """Reads every line that is not blank, or every row.

    Args:
        path: The file.
        row: What the columns are, a ``msgspec.Struct``; other columns are ignored.
        read: Turns a row and the id of its problem into what is returned; raises ``DataError``.
        kind: What a line should be, for the error: ``"a GSM8K row"``.
        columns: What the file should hold, for the error: ``"'question' and 'answer'"``.

    Raises:
        DataError: If the file is missing, empty or of another format, or has a row that does not read; names the row.
    """
    advice = f"give --data a JSONL or Parquet file with {columns}"
    data = read_bytes(path, advice)
    parquet = data.startswith(PARQUET)
    rows = _parquet(data, path, row, advice) if parquet else _lines(as_utf8(data, path, advice), row)
    found: list[T] = []
    for number, decode in rows:
        try:
            found.append(read(decode(), f"{path.name.split('.')[0] or path.name}-{number}"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DataError) as error:
            place = "row" if parquet else "line"
            raise DataError(f"{path}, {place} {number} is not {kind} ({error}); mend or remove it.") from error
    if not found:
        raise DataError(f"Data file {path} has no rows; {advice}.")
    return found


class Answers:
    """What the questions of a file are answered with, so that none is empty or asked twice with two answers."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[str, str]] = {}

    def check(self, question: str, answer: str, problem_id: str) -> None:
        """Takes in a row.

        Args:
            question: Its question.
            answer: Its answer.
            problem_id: The id of its problem, which names the row.

        Raises:
            DataError: If the question is empty, or was answered with something else before.
        """
        asked = plain(question).strip()
        if not asked:
            raise DataError("its question is empty")
        first, where = self._given.setdefault(asked, (answer, problem_id))
        left, right = exact_number(first), exact_number(answer)
        if (first != answer) if left is None or right is None else (left != right):
            raise DataError(
                f"its question is that of {where}, where the answer is {first!r:.40} and not {answer!r:.40}"
            )


def _lines(data: bytes, row: type[Row]) -> Iterator[tuple[int, Callable[[], Row]]]:
    """The number of each line that is not blank, and what decodes it."""
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            yield number, partial(msgspec.json.decode, line, type=row)


def _parquet(data: bytes, path: Path, row: type[Row], advice: str) -> Iterator[tuple[int, Callable[[], Row]]]:
    """The same of the rows of a Parquet file; unpacks no more than a file may hold."""
    import pyarrow
    import pyarrow.parquet

    names = {field.encode_name for field in msgspec.structs.fields(row)}
    number, unpacked = 0, 0
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        for batch in file.iter_batches(BATCH, columns=[name for name in file.schema_arrow.names if name in names]):
            unpacked += batch.nbytes
            if unpacked > MAX_BYTES:
                raise DataError(f"{path} holds more than {MAX_BYTES // 2**30} GiB; split it, and {advice}.")
            for values in batch.to_pylist():
                number += 1
                yield number, partial(msgspec.convert, values, type=row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is a damaged Parquet file ({error}); {advice}.") from error
