"""Files of a run folder: one boundary for what a disk does, atomic writing, checksums, and JSON without NaN.

Every reader and writer of run folders goes through this module, so that a missing, damaged or unwritable file is one
sentence that names the file, the reason, and what to do.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from hailproof.errors import ConfigError, HailproofError, RunError
from hailproof.settings import Section

_ROOM = "free some space on that disk, then resume the run or give the command again"
_ELSEWHERE = "choose a folder that can be written to"
_REMEDIES = {
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM,
    errno.EACCES: _ELSEWHERE, errno.EPERM: _ELSEWHERE, errno.EROFS: _ELSEWHERE,
    errno.ENAMETOOLONG: "choose a shorter path",
}  # fmt: skip


class Digest(Section):
    """What a file, or its beginning, must hold.

    Attributes:
        sha256: The SHA-256 of the content, in hexadecimal digits.
        size: Its length in bytes.
    """

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        """The digest of some content."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    @classmethod
    def of_file(cls, path: Path) -> "Digest":
        """The digest of a file."""
        with path.open("rb") as file:
            return cls(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=file.tell())


def _reason(error: Exception) -> str:
    """Why an operation failed, in a few words; pyarrow raises some errors of the system without their number."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return type(error).__name__


@contextmanager
def reading(path: Path, advice: str, error: type[HailproofError] = RunError) -> Iterator[None]:
    """Turns whatever a missing, unreadable or damaged file makes a reader raise into one sentence.

    Args:
        path: The file.
        advice: What to do then.
        error: What is raised.

    Raises:
        HailproofError: If the block raises what such a file makes readers raise.
    """
    try:
        yield
    except OSError as reason:
        raise error(f"{path} cannot be read ({_reason(reason)}); {advice}.") from reason
    except (ValueError, LookupError, RecursionError, pa.ArrowException) as reason:
        raise error(f"{path} is damaged ({_reason(reason)}); {advice}.") from reason


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns whatever the system raises while a file or folder is written into one sentence.

    Raises:
        RunError: If the block raises an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the path")
        raise RunError(f"{path} cannot be written ({_reason(error)}); {remedy}.") from error


def make_folder(path: Path) -> None:
    """Makes a folder to write to, with those above it.

    Raises:
        RunError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Output folder {path} cannot be made ({_reason(error)}); choose another with --out.") from error


def sync_folder(folder: Path) -> None:
    """Makes durable which names a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, and moves it into place, durably, if the block succeeds.

    The temporary name is this process's own, so that of two that write the same file the later one wins whole. Nothing
    half-written remains if the block fails.

    Raises:
        RunError: If the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def known(tree: Any) -> Any:
    """The same tree with null where a number is not finite: such a number is unknown, and JSON has none."""
    if isinstance(tree, Mapping):
        return {key: known(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [known(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def as_json(tree: Any, indent: int | None = None) -> str:
    """A tree as JSON, one line if ``indent`` is not given; numbers that are not finite are null."""
    return json.dumps(known(tree), indent=indent, allow_nan=False)


def from_json(data: bytes) -> Any:
    """What JSON holds; ``NaN`` and ``Infinity``, which are not JSON, are null.

    Raises:
        ValueError: If it is not JSON.
        RecursionError: If it is nested too deeply.
    """
    return json.loads(data, parse_constant=lambda name: None)


def read_json(path: Path, advice: str, error: type[HailproofError] = ConfigError) -> Any:
    """What a JSON file of ours holds; ``None`` if there is none.

    Args:
        path: The file.
        advice: What to do if it is damaged.
        error: What is raised then.

    Raises:
        HailproofError: If it is damaged.
    """
    with reading(path, advice, error):
        return from_json(path.read_bytes()) if path.is_file() else None


def check_file(path: Path, expected: object, advice: str) -> None:
    """Makes sure that a file is what was written.

    Args:
        path: The file.
        expected: Its digest, as a table.
        advice: What to do if it is not.

    Raises:
        RunError: If it is not.
    """
    with reading(path, advice):
        found = Digest.of_file(path).model_dump()
    if found != expected:
        raise RunError(f"{path} is damaged (its checksum is another than when it was written); {advice}.")
