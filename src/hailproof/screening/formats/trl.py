"""TRL: ``output_dir/completions/completions_00001.parquet``, which ``log_completions`` writes.

Columns: ``step``, ``prompt``, ``completion`` (texts up to TRL 1.14, message lists from 1.15), one for each reward
function, what reward functions log besides, ``advantage``. Rewards are the columns whose name holds "reward", or the
only column of numbers. TRL writes no sender, unless a reward function logs one (``log_extra("sender", ...)``).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hailproof.screening.formats import Peek
from hailproof.screening.formats.table import parquet_columns, parquet_records, row_of
from hailproof.screening.rows import Columns, StoredRow, number_in

FIXED = ("step", "prompt", "completion", "advantage")


class Trl:
    """A table of completions."""

    brings = frozenset({"groups"})
    multi_turn = True

    def matches(self, peek: Peek) -> bool:
        """Whether a Parquet file has TRL's columns."""
        return set(FIXED) <= set(peek.columns)

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rows."""
        there = parquet_columns(path)
        fixed = {"text": "completion", "prompt": "prompt", "round": "step"}
        if "sender" in there:
            fixed["sender"] = "sender"
        known = Columns({**fixed, **columns.named}, columns.seen)
        rewards: tuple[str, ...] | None = None
        for place, record in parquet_records(path):
            if isinstance(record, str):
                yield StoredRow(place, fault=record)
                continue
            if rewards is None:
                rewards = _rewards(record)
            if "reward" in known.named:
                yield row_of(place, record, known)
            else:
                with_total = {**record, "": _total(record, rewards)}
                yield row_of(place, with_total, Columns({**known.named, "reward": ""}, columns.seen))


def _rewards(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that hold rewards."""
    others = [name for name, value in record.items() if name not in FIXED and isinstance(value, float | int | None)]
    named = [name for name in others if "reward" in name.lower()]
    return tuple(named or (others if len(others) == 1 else ()))


def _total(record: Mapping[str, Any], rewards: tuple[str, ...]) -> float | None:
    values = [value for name in rewards if (value := number_in(record, name)) is not None]
    return sum(values) if values else None


FORMAT = Trl()
