"""Reads files that a user hands in; each error is one sentence that names the file, what it is, and what to do."""

import codecs
import gzip
import zlib
from pathlib import Path

from hailproof.errors import DataError, HailproofError

MAX_BYTES = 2 * 2**30
"""Of one file, unpacked: it is held in memory."""
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
_FORMATS = (
    (b"PAR1", "a Parquet file"), (b"PK\x03\x04", "a zip archive"), (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"), (b"\xfd7zXZ", "compressed with xz"), (b"\x1f\x8b", "compressed with gzip"),
)  # fmt: skip


def read_text(path: Path, advice: str, error: type[HailproofError] = DataError) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark, which is left out.

    Args:
        path: The file.
        advice: What to do instead, as the end of a sentence: ``"give --data a JSONL file"``.
        error: The class of the error.

    Raises:
        HailproofError: Of the class ``error``, if the file is missing, a folder, too large, not readable, or no text
            in UTF-8.
    """
    data = as_utf8(read_bytes(path, advice, error), path, advice, error)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise error(f"{path}, line {line} is not UTF-8 ({cause.reason}); save it as UTF-8, or {advice}.") from cause


def read_bytes(path: Path, advice: str, error: type[HailproofError] = DataError) -> bytes:
    """Reads a file and unpacks it if gzip packed it; the arguments and errors are those of :func:`read_text`."""
    try:
        if path.is_dir():
            raise error(f"{path} is a folder, not a file; {advice}.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
            if data.startswith(b"\x1f\x8b"):
                file.seek(0)
                data = gzip.GzipFile(fileobj=file).read(MAX_BYTES + 1)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist; {advice}.") from cause
    except (gzip.BadGzipFile, EOFError, zlib.error) as cause:
        raise error(f"{path} is a damaged gzip file ({cause}); {advice}.") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read ({getattr(cause, 'strerror', None) or cause}); {advice}.") from cause
    if len(data) > MAX_BYTES:
        raise error(f"{path} holds more than {MAX_BYTES // 2**30} GiB; split it, and {advice}.")
    return data


def as_utf8(data: bytes, path: Path, advice: str, error: type[HailproofError] = DataError) -> bytes:
    """The content of a text file without its byte order mark.

    Raises:
        HailproofError: Of the class ``error``, if the content is in UTF-16 or UTF-32, or no text.
    """
    for mark, encoding in _ENCODINGS:
        if data.startswith(mark):
            raise error(f"{path} is encoded in {encoding}; save it as UTF-8, or {advice}.")
    for mark, kind in _FORMATS:
        if data.startswith(mark):
            raise error(f"{path} is {kind}, not text; {advice}.")
    if b"\0" in data[:1024]:
        raise error(f"{path} holds null characters, so it is UTF-16 or no text; save it as UTF-8, or {advice}.")
    return data.removeprefix(codecs.BOM_UTF8)
