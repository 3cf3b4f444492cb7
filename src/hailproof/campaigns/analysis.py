"""Runs and cells as tables, for notebooks: ``hailproof.load`` and ``hailproof.load_cells``.

Everything is read without the lock of the run folder, so a run can be looked at while it is played. Unknown is null.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import pyarrow as pa

from hailproof.campaigns.cells import read_cells
from hailproof.errors import RunError
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.store import SCHEMA, check_run_folder, read_completions, read_rounds, read_summary

if TYPE_CHECKING:
    import pandas


@final
@dataclass(frozen=True)
class Run:
    """A run folder, finished or not; what is asked for is read once, then kept.

    Attributes:
        path: The folder.
    """

    path: Path

    @cached_property
    def config(self) -> RunConfig:
        """The resolved configuration.

        Raises:
            ConfigError: If it was written by a version with other keys.
        """
        return load_config(self.path / "config.toml")

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """Means over the last rounds and the held-out evaluation; ``None`` until the run is finished."""
        return read_summary(self.path)

    @cached_property
    def rounds(self) -> pa.Table:
        """One row a round, of scalars; the keys of ``rounds.jsonl`` that lie in each other are joined by underscores.

        So ``seconds_screen`` is the time of screening, ``defenses_logit_malicious_reject`` a count of rejections, and
        ``models_nano-a_reward`` the reward of the nodes with that model. Shares are in [0, 1]. A value that not every
        round has, such as ``held_out_reward``, is null in the others; before the first round there is no row.

        Raises:
            RunError: If a line is damaged.
        """
        lines = read_rounds(self.path) if (self.path / "rounds.jsonl").is_file() else []
        table = _table([dict(_flat({key: line[key] for key in line if key != "part"})) for line in lines])
        return table if lines else pa.table({"round": pa.array([], pa.int64())})

    @cached_property
    def completions(self) -> pa.Table:
        """One row for every completion in every computed view, of exactly the rounds that ``rounds`` holds.

        The columns are those of ``completions.parquet``.

        Raises:
            RunError: If a file is missing or damaged.
        """
        whole = self.path / "completions.parquet"
        if not whole.is_file():
            try:
                return self._parts()
            except RunError:
                if not whole.is_file():
                    raise
                # The run was finished meanwhile: the parts are joined.
        last = self.rounds["round"].to_pylist()[-1:] or [0]
        return read_completions(whole, filters=[("round", "<=", last[0])])

    def _parts(self) -> pa.Table:
        names = [f"round-{round:06d}.parquet" for round in self.rounds["round"].to_pylist()]
        # Its parts first: a folder that a finished run has removed has none to list.
        tables = [read_completions(self.path / "completions" / name) for name in names]
        return pa.concat_tables(tables, promote_options="default") if tables else SCHEMA.empty_table()

    def rounds_frame(self) -> "pandas.DataFrame":
        """``rounds`` for pandas, with the round as the index."""
        return self.rounds.to_pandas().set_index("round")

    def completions_frame(self) -> "pandas.DataFrame":
        """``completions`` for pandas, with what the defenses made of each.

        ``verdict`` is ``reject`` if one rejected it, else ``accept`` if one accepted it, else ``abstain``, and missing
        where no defense was asked; ``rejected_by`` and ``reason`` tell of a rejection. Token ids and the single
        verdicts are left out.
        """
        said = [_outcome(verdicts or ()) for verdicts in self.completions["verdicts"].to_pylist()]
        frame = self.completions.drop_columns(["token_ids", "verdicts"]).to_pandas()
        for place, name in enumerate(("verdict", "rejected_by", "reason")):
            frame[name] = [each[place] for each in said]
        return frame


def load(folder: str | Path) -> Run:
    """Opens a run for analysis.

    Args:
        folder: What ``hailproof run``, ``reproduce``, ``bench`` or ``demo`` wrote for one run.

    Raises:
        RunError: If it is no run folder.
    """
    path = Path(folder)
    check_run_folder(path)
    return Run(path)


def load_cells(folder: str | Path) -> pa.Table:
    """Reads the cells of the bench as one table, in the order of its rows and columns.

    A cell has its names, for every measure the mean, the ends of the interval and the list over seeds
    (``reward_mean``, ``reward_low``, ``reward_high``, ``reward_seeds``), for every claim its margin and uncorrected p
    value (``learned_margin``, ``learned_p``), and its ``config`` as JSON.

    Args:
        folder: What ``hailproof bench`` wrote (its ``--out``).

    Raises:
        RunError: If there are no cells.
        ConfigError: If one is damaged, or of another format.
    """
    cells = read_cells(Path(folder))
    if not cells:
        raise RunError(f"{folder} holds no cells of the bench; give the folder that 'bench' wrote.")
    return _table([dict(_flat({**cell, "config": json.dumps(cell["config"])})) for cell in cells])


def _outcome(verdicts: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None, str | None]:
    """What a chain made of a completion, who rejected it, and why; a rejection ends the chain."""
    if verdicts and verdicts[-1]["decision"] == "reject":
        return "reject", verdicts[-1]["defense"], verdicts[-1]["reason"]
    decisions = {verdict["decision"] for verdict in verdicts}
    return next((decision for decision in ("accept", "abstain") if decision in decisions), None), None, None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}_")
        else:
            yield f"{prefix}{key}", value


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table with every column that any row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column(row.get(name) for row in rows) for name in names})


def _column(values: Iterable[Any]) -> pa.Array:
    """An array of values; where nothing is known it is one of numbers, so that it joins with that of another run."""
    array = pa.array(list(values))
    if pa.types.is_null(array.type):
        return array.cast(pa.float64())
    if pa.types.is_list(array.type) and pa.types.is_null(array.type.value_type):
        return array.cast(pa.list_(pa.float64()))
    return array
