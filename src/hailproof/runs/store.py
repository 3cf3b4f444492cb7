"""The run folder: what is written, in what order, so that ``kill -9`` at any moment loses nothing that matters.

A round is durable once its line is in ``rounds.jsonl`` and its completions are in ``completions/``; the state to go on
from is ``checkpoint/state.pt``, replaced atomically. Resuming takes the state and cuts everything after its round.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hailproof.errors import ConfigError, HailproofError, RunBusyError, RunError

_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("note", pa.string())])
_VERDICT = pa.struct([
    ("defense", pa.string()), ("decision", pa.string()), ("reason", pa.string()), ("score", pa.float64()),
    ("weight", pa.float32()), ("muted", pa.list_(pa.int32())), ("error", pa.bool_()), ("spans", pa.list_(_SPAN)),
])  # fmt: skip
SCHEMA = pa.schema([
    ("round", pa.int32()), ("view", pa.int32()), ("sender", pa.int32()), ("malicious", pa.bool_()),
    ("problem_id", pa.string()), ("question", pa.string()), ("slot", pa.int32()), ("text", pa.string()),
    ("tokens", pa.int32()), ("token_ids", pa.list_(pa.int32())), ("finished", pa.bool_()),
    ("raw_reward", pa.float32()), ("reward", pa.float32()), ("admitted", pa.bool_()), ("weight", pa.float32()),
    ("success", pa.bool_()),
    ("verdicts", pa.list_(_VERDICT)),
])  # fmt: skip
"""Columns of ``completions.parquet``; ``view`` is the node whose judgement a row holds."""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder to write to, with those above it.

    Raises:
        RunError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
        raise RunError(f"Output folder {path} cannot be made ({reason}); choose another with --out.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, and moves it into place, durably, if the block succeeds.

    The temporary name is this process's own, so that of two that write the same file the later one wins whole.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def read_json(path: Path, advice: str, error: type[HailproofError] = ConfigError) -> Any:
    """What a JSON file of ours holds; ``None`` if there is none.

    Args:
        path: The file.
        advice: What to do if it is damaged.
        error: What is raised then.

    Raises:
        HailproofError: If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as reason:
        raise error(f"{path} is damaged; {advice}.") from reason


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a run; ``None`` until it is finished.

    Raises:
        RunError: If it is damaged.
    """
    return read_json(folder / "summary.json", "delete the run folder and play the run again", RunError)


def is_run_folder(path: Path) -> bool:
    """Whether a path is a run folder, finished or not, or what a run that was killed as it began left of one."""
    if path.is_symlink() or not path.is_dir():
        return False
    return (path / "config.toml").is_file() or RunFolder.barely_begun(path)


def check_run_folder(path: Path) -> None:
    """Makes sure that a path is a run folder, finished or not.

    Raises:
        RunError: If it is not one.
    """
    if not (path / "config.toml").is_file():
        raise RunError(f"{path} is not a run folder (it has no config.toml); give the folder that 'run' wrote.")


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Reads the finished rounds of a run.

    Args:
        folder: The run folder.

    Returns:
        One record per round, in order; empty if no round has finished.

    Raises:
        RunError: If the folder holds no run or a line is damaged.
    """
    path = folder / "rounds.jsonl"
    if not path.is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no rounds.jsonl; name a folder that `hailproof run` wrote."
        )
    records = []
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            # A run that is being written, or was killed while it wrote, ends in half a line.
            if number == len(lines) and not text.endswith("\n"):
                break
            raise RunError(f"Line {number} of {path} is damaged; resume the run or delete that line.") from error
    return sorted(records, key=lambda record: record["round"])


class RunFolder:
    """One run on disk, locked while it is open.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = (path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RunBusyError(
                f"Run folder {path} is in use by another process; wait for it or choose another."
            ) from error

    @classmethod
    def create(cls, path: Path, config: str) -> "RunFolder":
        """Makes a new run folder.

        Raises:
            RunBusyError: If a run is there already, or another process is about to begin one.
            RunError: If something else is there, or the folder cannot be made.
        """
        if path.exists() and not (path.is_dir() and cls.barely_begun(path)):
            raise (RunBusyError if (path / "config.toml").is_file() else RunError)(
                f"Output folder {path} is in use; choose another with --out, or go on with 'hailproof resume {path}'."
            )
        make_folder(path / "completions")
        make_folder(path / "checkpoint")
        folder = cls(path)
        with replacing(path / "config.toml") as temporary:
            temporary.write_text(config)
        return folder

    @staticmethod
    def barely_begun(path: Path) -> bool:
        """Whether a folder is empty but for what a run killed before its first line of configuration leaves."""
        leftovers = (".lock", "config.toml.*.tmp", "completions", "checkpoint")
        return all(any(entry.match(name) for name in leftovers) for entry in path.iterdir()) and not any(
            any(folder.iterdir()) for folder in (path / "completions", path / "checkpoint") if folder.is_dir()
        )

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """Opens an existing run folder.

        Raises:
            RunError: If it is not one.
        """
        check_run_folder(path)
        return cls(path)

    def close(self) -> None:
        """Gives the folder free."""
        self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _lines(self) -> Path:
        return self.path / "rounds.jsonl"

    def _part(self, round: int) -> Path:
        return self.path / "completions" / f"round-{round:06d}.parquet"

    def write_round(self, round: int, line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Makes one round durable."""
        with replacing(self._part(round)) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary, compression="zstd")
        with self._lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replaces the state to go on from."""
        with replacing(self.path / "checkpoint" / "state.pt") as temporary:
            torch.save(dict(state), temporary)

    def load_state(self) -> dict[str, Any] | None:
        """The state to go on from; ``None`` if none was written yet."""
        path = self.path / "checkpoint" / "state.pt"
        if not path.is_file():
            return None
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # whatever a damaged file makes the library raise
            raise RunError(f"Checkpoint {path} is damaged ({type(error).__name__}); start the run anew.") from error

    def rounds(self) -> list[dict[str, Any]]:
        """The lines written so far; a last line that was cut in the middle is left out."""
        lines: list[dict[str, Any]] = []
        if self._lines.is_file():
            for text in self._lines.read_text().splitlines():
                try:
                    lines.append(json.loads(text))
                except json.JSONDecodeError:
                    break
        return lines

    def cut_after(self, round: int) -> None:
        """Removes everything that was written after a round, and half-written files."""
        kept = [line for line in self.rounds() if line["round"] <= round]
        if [line["round"] for line in kept] != list(range(1, round + 1)):
            raise RunError(f"Run folder {self.path} lacks rounds before its checkpoint; start the run anew.")
        with replacing(self._lines) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        for path in (self.path / "completions").glob("round-*"):
            if path.suffix == ".tmp" or int(path.stem.removeprefix("round-")) > round:
                path.unlink()
        for path in (*self.path.glob("*.tmp"), *(self.path / "checkpoint").glob("*.tmp")):
            path.unlink()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Joins the completions of all rounds into one file and writes the summary; safe to repeat."""
        parts = sorted((self.path / "completions").glob("round-*.parquet"))
        if parts and not (self.path / "summary.json").is_file():
            with (
                replacing(self.path / "completions.parquet") as temporary,
                pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
            ):
                for part in parts:
                    writer.write_table(pq.read_table(part, schema=SCHEMA))
            with replacing(self.path / "summary.json") as temporary:
                temporary.write_text(json.dumps(summary, indent=2) + "\n")
        shutil.rmtree(self.path / "completions", ignore_errors=True)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run."""
        return read_summary(self.path)
