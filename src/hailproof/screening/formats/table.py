"""TABLE: JSONL and Parquet with named columns, from any system; columns are told by their names, or by ``--column``."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hailproof.errors import DataError
from hailproof.screening.formats import Peek
from hailproof.screening.rows import Columns, StoredRow, ids_in, label_in, number_in, text_or_messages, whole_in
from hailproof.screening.stream import MAX_VALUES, records

NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("completion", "text", "output", "response", "generation", "answer", "messages"),
    "prompt": ("prompt", "question", "input", "query"),
    "reward": ("reward", "score", "raw_reward"),
    "sender": ("sender", "peer", "peer_id", "node", "miner", "hotkey", "worker"),
    "group": ("group", "group_id", "problem_id", "task_id", "prompt_id", "uid"),
    "ids": ("completion_ids", "token_ids", "response_ids"),
    "round": ("round", "step", "global_step"),
}
"""By part, the names of columns that it is looked for under."""

CONVERSATION = "messages"
"""Name of a column that holds prompt and completion as one conversation."""

MAX_ROW_GROUP = 4 * 2**30
"""Bytes of a row group, unpacked, as the file says."""

ROWS_AT_ONCE = 256
"""Rows of a Parquet file that are read at a time, unless they hold long lists."""


class Table:
    """Any file of rows with names."""

    brings: frozenset[str] = frozenset()
    multi_turn = False

    def matches(self, peek: Peek) -> bool:
        """Whether a file is JSONL or Parquet."""
        return bool(peek.columns) or peek.line is not None

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rows.

        Raises:
            DataError: If no column holds the completions.
        """
        known: Columns | None = None
        for place, record in table(path):
            if isinstance(record, str):
                yield StoredRow(place, fault=record)
                continue
            if known is None:
                known = named(path, record, columns)
            yield row_of(place, record, known)


class LogTable(Table):
    """A log of a trainer, a line a completion: columns whose names it sets, and groups.

    Args:
        marks: Columns by which the log is known.
        fixed: Its columns by what they hold; what the user names comes before.
    """

    brings = frozenset({"groups"})

    def __init__(self, marks: Collection[str], fixed: Mapping[str, str]) -> None:
        self.marks, self.fixed = frozenset(marks), fixed

    def matches(self, peek: Peek) -> bool:
        """Whether the first line has the columns."""
        return peek.line is not None and self.marks <= peek.line.keys()

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rows."""
        return super().rows(path, Columns({**self.fixed, **columns.named}, columns.seen))


def table(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields number and table of each row of a JSONL or Parquet file, or why a row is none."""
    with path.open("rb") as file:
        packed = file.read(4) == b"PAR1"
    return parquet_records(path) if packed else records(path)


def named(path: Path, record: Mapping[str, Any], columns: Columns) -> Columns:
    """Where the parts of a file's rows are, by a user's names first.

    Raises:
        DataError: If no column holds the completions.
    """
    found = {part: next((name for name in names if name in record), None) for part, names in NAMES.items()}
    known = Columns({**{part: name for part, name in found.items() if name}, **columns.named}, columns.seen)
    if "text" not in known.named:
        there = ", ".join(sorted(map(str, record))[:20])
        raise DataError(f"{path} has no column of completions ({there}); name it with --column text=NAME.")
    return known


def row_of(place: int, record: Mapping[str, Any], columns: Columns) -> StoredRow:
    """A row by its columns."""
    parts = {part: columns.value(record, part) for part in NAMES}
    completion, prompt = text_or_messages(parts["text"]), text_or_messages(parts["prompt"])
    if completion is None:
        return StoredRow(place, fault=f"its {columns.named['text']} is no text, and no list of messages")
    if columns.named["text"] == CONVERSATION and isinstance(completion, list):
        asked, completion = told_apart(completion)
        prompt = asked or None if prompt is None else prompt
    return StoredRow(
        place,
        completion,
        prompt,
        number_in(parts, "reward"),
        label_in(parts, "sender"),
        label_in(parts, "group"),
        whole_in(parts, "round"),
        ids_in(parts["ids"]),
    )


def told_apart(messages: list[Any]) -> tuple[list[Any], list[Any]]:
    """What was asked in a conversation, and the rest, from the first message of an assistant on; all without one."""
    first = next((at for at, message in enumerate(messages) if message.get("role") == "assistant"), 0)
    return messages[:first], messages[first:]


def parquet_columns(path: Path) -> tuple[str, ...]:
    """The columns of a Parquet file.

    Raises:
        DataError: If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged Parquet file ({type(error).__name__}); take a whole copy.") from error


def parquet_records(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yields number and table of each row of a Parquet file.

    Raises:
        DataError: If it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            if max((group.total_byte_size for group in groups), default=0) > MAX_ROW_GROUP:
                raise DataError(f"{path} has a row group of over {MAX_ROW_GROUP // 2**30} GiB; write smaller ones.")
            for batch in file.iter_batches(_rows_at_once(file.metadata)):
                whole = sum(map(_values_in, batch.columns)) <= MAX_VALUES
                for row in [batch] if whole else map(batch.slice, range(len(batch)), [1] * len(batch)):
                    large = not whole and sum(map(_values_in, row.columns)) > MAX_VALUES
                    for record in [f"the row holds over {MAX_VALUES} values"] if large else row.to_pylist():
                        place += 1
                        yield place, record
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged Parquet file ({type(error).__name__}); take a whole copy.") from error


def _rows_at_once(metadata: Any) -> int:
    """How many rows may be decoded at once, by how many values a row has in the mean: a run of equal ones is short."""
    longest = 1
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        values = max((group.column(at).num_values for at in range(group.num_columns)), default=0)
        longest = max(longest, values // max(group.num_rows, 1))
    return max(1, min(ROWS_AT_ONCE, 2 * MAX_VALUES // longest))


def _values_in(array: Any) -> int:
    """How many values an array holds, with those in its lists and tables."""
    import pyarrow.types as kinds

    kind = array.type
    if kinds.is_struct(kind):
        return len(array) + sum(map(_values_in, array.flatten()))
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return len(array) + _values_in(array.flatten())
    if kinds.is_map(kind):  # the offsets of a slice are into the whole
        begin, end = (array.offsets[at].as_py() for at in (0, len(array)))
        return len(array) + sum(_values_in(part.slice(begin, end - begin)) for part in (array.keys, array.items))
    return len(array)


FORMAT = Table()
