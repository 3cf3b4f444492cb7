"""Files of users: what is read whatever it is packed in, and what is refused in one sentence."""

import gzip
import re
from pathlib import Path

import pytest

from hailproof import files
from hailproof.errors import ConfigError, DataError
from hailproof.files import read_text

TEXT = "name = 'Zoë'\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TEXT.encode(), id="plain"),
        pytest.param(TEXT.encode("utf-8-sig"), id="row 21: byte order mark"),
        pytest.param(gzip.compress(TEXT.encode()), id="row 21: gzip"),
        pytest.param(gzip.compress(TEXT.encode("utf-8-sig")), id="gzip with a byte order mark"),
    ],
)
def test_texts(tmp_path: Path, content: bytes):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_text(path, "give another") == TEXT


REFUSED = [
    ("row 21: UTF-16", TEXT.encode("utf-16"), "is encoded in UTF-16; save it as UTF-8, or give another."),
    ("UTF-32", TEXT.encode("utf-32"), "is encoded in UTF-32"),
    ("row 21: UTF-16 without a mark", TEXT.encode("utf-16-le"), "holds null characters, so it is UTF-16 or no text"),
    ("Latin-1", b"a\nb\n" + TEXT.encode("latin-1"), ", line 3 is not UTF-8"),
    ("zip", b"PK\x03\x04rest", "is a zip archive, not text; give another."),
    ("Parquet", b"PAR1rest", "is a Parquet file, not text"),
    ("zstd", b"\x28\xb5\x2f\xfdrest", "is compressed with zstd"),
    ("packed twice", gzip.compress(gzip.compress(b"a")), "is compressed with gzip"),
    ("damaged gzip", gzip.compress(b"a" * 99)[:-9], "is a damaged gzip file"),
    ("gzip with a bad body", gzip.compress(b"a" * 99)[:10] + b"\xff" * 20, "is a damaged gzip file"),
]


@pytest.mark.parametrize(("content", "message"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}.*{re.escape(message)}") as caught:
        read_text(path, "give another")
    assert str(caught.value).endswith("give another.") and "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"is a folder, not a file; give another\."):
        read_text(tmp_path, "give another")
    with pytest.raises(ConfigError, match=r"none does not exist; give another\."):
        read_text(tmp_path / "none", "give another", ConfigError)
    for path in (tmp_path / ("x" * 300), tmp_path / "nu\0ll", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match=r"cannot be read \(.+\); give another\."):
            read_text(path, "give another")


def test_what_unpacks_to_too_much_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    path = tmp_path / "file"
    for content in (b"a" * 1001, gzip.compress(b"a" * 10**6)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="holds more than"):
            read_text(path, "give another")
    path.write_bytes(b"a" * 1000)
    assert len(read_text(path, "give another")) == 1000
