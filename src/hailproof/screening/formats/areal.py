"""AREAL: ``rollout/VERSION/TASK.jsonl``: a line a sample of one task, with the versions of the weights that drew it.

Prompt and completion are texts with their special tokens. The group is ``task_id``, the round ``tail_version``. Read in
AReaL 1.0.4.
"""

from collections.abc import Iterator
from pathlib import Path

from hailproof.screening.formats import Peek
from hailproof.screening.formats.table import Table
from hailproof.screening.rows import Columns, StoredRow


class Areal(Table):
    """A line a completion."""

    brings = frozenset({"groups"})

    def matches(self, peek: Peek) -> bool:
        """Whether the first line has AReaL's columns."""
        return peek.line is not None and {"task_id", "sample_idx", "prompt", "completion"} <= peek.line.keys()

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rows."""
        fixed = {"text": "completion", "reward": "reward", "group": "task_id", "round": "tail_version"}
        return super().rows(path, Columns({**fixed, **columns.named}, columns.seen))


FORMAT = Areal()
