"""Reads files in pieces of bounded size: lines of text, plain or packed by gzip, and the first bytes of anything."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from hailproof.errors import DataError

MAX_LINE = 64 * 2**20
"""Bytes of a line; a longer one is skipped, as unreadable."""

MAX_VALUES = 2**21
"""Values in a line: a few bytes of JSON become a hundred of memory for each."""

PEEKED = 2**16
"""Bytes at the beginning of a file by which its form is told."""

_GZIP = b"\x1f\x8b"


def first_bytes(path: Path) -> bytes:
    """The beginning of a file, unpacked if gzip packed it.

    Raises:
        DataError: If it cannot be read.
    """
    with opened(path) as file:
        return read(path, file, PEEKED)


def opened(path: Path) -> IO[bytes]:
    """Opens a file for reading, through gzip if it is packed.

    Raises:
        DataError: If it cannot be opened.
    """
    try:
        file = path.open("rb")
        if not file.peek(2).startswith(_GZIP):
            return file
        file.close()
        return cast("IO[bytes]", gzip.open(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def read(path: Path, file: IO[bytes], size: int) -> bytes:
    """Reads up to so many bytes.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        return file.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); take a whole copy.") from error


def lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yields number and content of each line that is not blank; ``None`` for one that is too long.

    Raises:
        DataError: If the file is damaged.
    """
    with opened(path) as file:
        number = 0
        while True:
            number += 1
            line = _line(path, file)
            if not line:
                return
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = _line(path, file)
                yield number, None
            elif line.strip():
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _line(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.readline(MAX_LINE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); take a whole copy.") from error


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields number and table of each line of a JSONL file, or why a line is none."""
    for number, line in lines(path):
        if line is None:
            yield number, f"the line is longer than {MAX_LINE // 2**20} MiB"
            continue
        yield number, parsed(line)


class Twice(ValueError):
    """A table that names something twice: readers differ in which they take, so that one was not screened."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of pairs.

    Raises:
        Twice: If a name is there twice.
    """
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        raise Twice(next(name for at, name in enumerate(names) if name in names[:at]))
    return table


def values_in(data: bytes) -> int:
    """At most so many values are in some JSON; found without decoding any."""
    return 1 + data.count(b",") + data.count(b"[") + data.count(b"{")


def parsed(data: bytes) -> dict[str, Any] | str:
    """The table that some JSON holds, or why it holds none."""
    if values_in(data) > MAX_VALUES:
        return f"the line may hold over {MAX_VALUES} values"
    try:
        record = json.loads(data, object_pairs_hook=once)
    except Twice as error:
        return f"the line names {str(error)[:40]!r} twice"
    except (ValueError, RecursionError):
        return "the line is no JSON"
    return record if isinstance(record, dict) else "the line is no table of names and values"
