"""The run folder: what is written, in what order, so that ``kill -9`` at any moment loses nothing that matters.

A round is durable once its completions are in ``completions/`` and its line is in ``rounds.jsonl``. The checkpoint is
the state to go on from, ``checkpoint/state-ROUND.pt``, and ``checkpoint/state.json``, which names it and is replaced
last. It holds the configuration of the run and the digest of every other file; of completions, each line holds the
digest of its part. So a folder says itself whether it is what was written. Resuming verifies everything up to the
checkpoint, cuts what comes after, and plays that again.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hailproof.errors import RunBusyError, RunError
from hailproof.parsing import encodable
from hailproof.runs import files
from hailproof.runs.checkpoint import ANEW, Checkpoint, check_config, pointer_of, read_checkpoint
from hailproof.runs.config import RunConfig
from hailproof.runs.files import Digest, as_json, read_json, reading, replacing, writing
from hailproof.runs.lines import check_lines, lines_of

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

_PARQUET: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a run; ``None`` until it is finished.

    Raises:
        RunError: If it is damaged.
    """
    path = folder / "summary.json"
    again = "delete it and resume the run, which writes it anew" if pointer_of(folder).is_file() else ANEW
    found = read_json(path, again, RunError)
    if found is not None and not isinstance(found, dict):
        raise RunError(f"{path} is damaged (it is no table); {again}.")
    return found


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
    with reading(path, "give the folder that 'run' wrote"):
        found = (path / "config.toml").is_file()
    if not found:
        raise RunError(f"{path} is not a run folder (it has no config.toml); give the folder that 'run' wrote.")


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """Reads the finished rounds of a run.

    Args:
        folder: The run folder; it may be written to meanwhile.

    Returns:
        One record per round, in order; empty if no round has finished.

    Raises:
        RunError: If the folder holds no run, a line is damaged, or lines are not what the checkpoint says.
    """
    path = folder / "rounds.jsonl"
    checkpoint = read_checkpoint(folder)  # before the lines, so that those it speaks of are there
    with reading(path, ANEW):
        if not path.is_file():
            raise RunError(
                f"{folder} is not a run folder: it has no rounds.jsonl; name a folder that `hailproof run` wrote."
            )
        data = path.read_bytes()
    records = [record for _, record in lines_of(path, data, checkpoint.round if checkpoint else None)]
    if checkpoint is not None:
        check_lines(path, data, checkpoint)
    return sorted(records, key=lambda record: record["round"])


def read_completions(path: Path, **options: Any) -> pa.Table:
    """Reads completions of a run.

    Args:
        path: The file of a whole run or of one round.
        options: Those of ``pyarrow.parquet.read_table``.

    Raises:
        RunError: If the file is missing, damaged, or has other columns.
    """
    with reading(path, ANEW):
        table = pq.read_table(path, page_checksum_verification=True, **options)
        if "round" not in table.column_names:
            raise ValueError("no completions")
        return table


class RunFolder:
    """One run on disk, locked while it is open.

    Args:
        path: The folder.

    Raises:
        RunBusyError: If another process has it open.
        RunError: If it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []
        with writing(path / ".lock"):
            self._lock = (path / ".lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken = os.fstat(self._lock.fileno()).st_nlink == 0  # the folder was removed by whoever had it
            except BlockingIOError:
                taken = True
        if taken:
            self._lock.close()
            raise RunBusyError(f"Run folder {path} is in use by another process; wait for it or choose another.")

    @classmethod
    def create(cls, path: Path, config: RunConfig, header: str = "") -> "RunFolder":
        """Makes a new run folder.

        Args:
            path: Where; nothing, or an empty folder.
            config: The resolved configuration.
            header: Comments to stand before it.

        Raises:
            RunBusyError: If a run is there already, or another process is about to begin one.
            RunError: If something else is there, or the folder cannot be made; nothing of it remains then.
        """
        cls.require_vacant(path)
        with writing(path):
            made = [each for each in (path, *path.parents) if not each.exists()]
        try:
            files.make_folder(path / "completions")
            files.make_folder(path / "checkpoint")
            folder = cls(path)
        except RunBusyError:
            raise
        except RunError:
            _remove_new(path, made)
            raise
        folder._made = made
        try:
            folder._remove_half_written()
            folder._stand(Checkpoint.of_new_run(config))
            with replacing(path / "config.toml") as temporary:
                temporary.write_text(header + config.to_toml(), encoding="utf-8")
        except Exception:
            folder.discard()
            folder.close()
            raise
        return folder

    @classmethod
    def require_vacant(cls, path: Path) -> None:
        """Makes sure that a new run can be written to a path.

        Raises:
            RunBusyError: If a run is there already.
            RunError: If something else is there, or the path is none that files can name.
        """
        if encodable(str(path)) != str(path):
            raise RunError(f"Output folder {str(path)!r} is not UTF-8 text, which the files of a run need; rename it.")
        with writing(path):
            if not path.exists() or (path.is_dir() and cls.barely_begun(path)):
                return
            if (path / "summary.json").is_file():
                raise RunBusyError(f"Output folder {path} is in use by a finished run; choose another with --out.")
            raise (RunBusyError if (path / "config.toml").is_file() else RunError)(
                f"Output folder {path} is in use; choose another with --out, or go on with 'hailproof resume {path}'."
            )

    @staticmethod
    def barely_begun(path: Path) -> bool:
        """Whether a folder is empty but for what a run killed before its first line of configuration leaves."""
        leftovers = (".lock", "config.toml.*.tmp", "completions", "checkpoint")
        return (
            all(any(entry.match(name) for name in leftovers) for entry in path.iterdir())
            and not any((path / "completions").glob("*"))
            and all(entry.match("state.json*") for entry in (path / "checkpoint").glob("*"))
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

    def discard(self) -> None:
        """Removes the folder that :meth:`create` has just made, unless a round of it is durable."""
        if not (self._rounds.is_file() and self._rounds.stat().st_size):
            _remove_new(self.path, self._made)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    def _part(self, round: int) -> Path:
        return self.path / "completions" / f"round-{round:06d}.parquet"

    def _state(self, round: int) -> Path:
        return self.path / "checkpoint" / f"state-{round:06d}.pt"

    def _stand(self, checkpoint: Checkpoint) -> None:
        """Replaces the file that says where the run stands."""
        with replacing(pointer_of(self.path)) as temporary:
            temporary.write_text(as_json(checkpoint.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        self.checkpoint = checkpoint

    def write_round(self, round: int, line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Makes one round durable.

        Raises:
            RunError: If it cannot be written; nothing half-written remains then.
        """
        with replacing(self._part(round)) as temporary, temporary.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), file, **_PARQUET)
        text = as_json({**line, "part": Digest.of_file(self._part(round)).model_dump()}) + "\n"
        with writing(self._rounds):
            before = self._rounds.stat().st_size if self._rounds.exists() else 0
            try:
                with self._rounds.open("ab") as file:
                    file.write(text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                os.truncate(self._rounds, before)
                raise
            if not before:
                files.sync_folder(self.path)

    def save_state(self, round: int, state: Mapping[str, Any]) -> None:
        """Replaces the state to go on from.

        Raises:
            RunError: If it cannot be written; the state before is kept then.
        """
        import torch

        path = self._state(round)
        with replacing(path) as temporary, temporary.open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:  # torch's own, for a write that failed while it closed the archive
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        digests = {"rounds": Digest.of_file(self._rounds), "state": Digest.of_file(path)}
        self._stand(self.checkpoint.model_copy(update={"round": round, **digests}))
        with writing(path.parent):
            for other in {*path.parent.glob("state-*.pt")} - {path}:
                other.unlink()

    def load_state(self) -> dict[str, Any] | None:
        """The state to go on from; ``None`` if none was written yet."""
        import torch

        if self.checkpoint.state is None:
            return None
        path = self._state(self.checkpoint.round)
        try:
            return torch.load(path, weights_only=True)
        except Exception as error:  # whatever the library of another version makes of the file
            raise RunError(f"Checkpoint {path} cannot be read ({type(error).__name__}); {ANEW}.") from error

    def verify(self, config: RunConfig) -> dict[str, Any] | None:
        """Makes sure that the folder is what was written, and cuts what comes after the checkpoint.

        Args:
            config: What ``config.toml`` says.

        Returns:
            The summary, if the run is finished.

        Raises:
            RunError: If the configuration or a file is another, which it names.
        """
        checkpoint = read_checkpoint(self.path)
        finished = (self.path / "summary.json").is_file()
        if checkpoint is None:
            if finished:
                return read_summary(self.path)
            raise RunError(
                f"{self.path} has no checkpoint/state.json, since an older version of hailproof wrote it, or the file "
                f"was deleted; it can be reported on, but not resumed: {ANEW}."
            )
        check_config(self.path / "config.toml", config, checkpoint)
        self.checkpoint = checkpoint
        lines = self._verified_lines()
        if checkpoint.completions is None:
            for line in lines:
                files.check_file(self._part(line["round"]), line.get("part"), ANEW)
        else:
            files.check_file(self.path / "completions.parquet", checkpoint.completions.model_dump(), ANEW)
        state = self._state(checkpoint.round)
        if checkpoint.state is not None and (state.exists() or not finished):  # a finished run can do without
            files.check_file(state, checkpoint.state.model_dump(), ANEW)
        if finished:
            advice = "delete it and resume the run, which writes it anew"
            summary = checkpoint.summary.model_dump() if checkpoint.summary else None
            files.check_file(self.path / "summary.json", summary, advice)
        self._cut(finished)
        return read_summary(self.path)

    def _verified_lines(self) -> list[dict[str, Any]]:
        """The lines up to the checkpoint."""
        checkpoint = self.checkpoint
        with reading(self._rounds, ANEW):
            data = self._rounds.read_bytes() if checkpoint.round else b""
        covered = data[: checkpoint.rounds.size]
        lines = [line for _, line in lines_of(self._rounds, covered, None)]
        check_lines(self._rounds, data, checkpoint)
        if [line["round"] for line in lines] != list(range(1, checkpoint.round + 1)):
            raise RunError(f"{pointer_of(self.path)} is damaged (it counts other rounds than rounds.jsonl); {ANEW}.")
        return lines

    def _cut(self, finished: bool) -> None:
        """Removes everything that was written after the checkpoint, and half-written files."""
        length, last = self.checkpoint.rounds.size, self.checkpoint.round
        parts, states = self.path / "completions", self.path / "checkpoint"
        with writing(self.path):
            if self._rounds.exists() and self._rounds.stat().st_size != length:
                os.truncate(self._rounds, length)
            kept = {self._state(last), *(self._part(round) for round in range(1, last + 1))}
            late = {*parts.glob("round-*"), *states.glob("state-*.pt")} - kept
            for path in late:
                path.unlink()
            self._remove_half_written()
            if finished:
                shutil.rmtree(parts, ignore_errors=True)
            else:
                parts.mkdir(exist_ok=True)

    def _remove_half_written(self) -> None:
        with writing(self.path):
            for folder in (self.path, self.path / "checkpoint", self.path / "completions"):
                for path in folder.glob("*.tmp"):
                    path.unlink()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Joins the completions of all rounds into one file and writes the summary.

        Raises:
            RunError: If a file cannot be read or written.
        """
        if self.checkpoint.completions is None:
            with (
                replacing(self.path / "completions.parquet") as temporary,
                temporary.open("wb") as file,
                pq.ParquetWriter(file, SCHEMA, **_PARQUET) as writer,
            ):
                for round in range(1, self.checkpoint.round + 1):
                    writer.write_table(read_completions(self._part(round), schema=SCHEMA))
        text = as_json(summary, indent=2) + "\n"
        digests = {
            "completions": Digest.of_file(self.path / "completions.parquet"), "summary": Digest.of(text.encode())
        }  # fmt: skip
        self._stand(self.checkpoint.model_copy(update=digests))
        with replacing(self.path / "summary.json") as temporary:
            temporary.write_text(text, encoding="utf-8")
        shutil.rmtree(self.path / "completions", ignore_errors=True)


def _remove_new(path: Path, made: Sequence[Path]) -> None:
    """Removes what was written into a new run folder, and the folders that were made for it, as far as it can be."""
    for name in ("completions", "checkpoint"):
        shutil.rmtree(path / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        for name in ("rounds.jsonl", "config.toml", ".lock"):
            (path / name).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
