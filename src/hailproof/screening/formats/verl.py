"""VERL: ``STEP.jsonl`` in ``trainer.rollout_data_dir``: ``input``, ``output``, ``gts``, ``score``, ``step`` and more.

Rows of a group have the same ``input``. Inputs and outputs are texts, without special tokens. Read in verl 0.9.1.
"""

from collections.abc import Iterator
from pathlib import Path

from hailproof.screening.formats import Peek
from hailproof.screening.formats.table import Table
from hailproof.screening.rows import Columns, StoredRow


class Verl(Table):
    """A line a completion."""

    brings = frozenset({"groups"})

    def matches(self, peek: Peek) -> bool:
        """Whether the first line has verl's columns."""
        return peek.line is not None and {"input", "output", "score", "step"} <= peek.line.keys()

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rows."""
        fixed = {"text": "output", "prompt": "input", "reward": "score", "round": "step"}
        return super().rows(path, Columns({**fixed, **columns.named}, columns.seen))


FORMAT = Verl()
