"""Run folders under faults: a death at any write, any damaged file, a full disk. Never silently another result.

The run is a toy, a number that is halved and added to, so that a thousand of them take seconds; what is stored is not.
"""

import errno
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import hailproof
from hailproof.errors import ConfigError, HailproofError, RunError
from hailproof.reports.report import write_report
from hailproof.runs import run as run_module
from hailproof.runs.checkpoint import read_checkpoint
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.files import as_json, from_json, replacing
from hailproof.runs.header import versions_of
from hailproof.runs.run import resume, start
from hailproof.runs.store import RunFolder, read_rounds, read_summary

ROUNDS, EVERY = 5, 2
CONFIG = RunConfig(name="toy", rounds=ROUNDS, seed=3)
SHORT = CONFIG.model_copy(update={"rounds": 3})


@dataclass
class Toy:
    """A node whose only weight is a number; its learner and its chain of defenses."""

    weight: torch.Tensor = field(default_factory=lambda: torch.tensor([1.0], dtype=torch.float64))

    @property
    def learner(self) -> "Toy":
        return self

    @property
    def chain(self) -> SimpleNamespace:
        return SimpleNamespace(state=dict, restore=lambda state: None)

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight = self.weight.clone().copy_(state["weight"])


def toy_experiment(config: RunConfig) -> SimpleNamespace:
    toy = Toy()

    def play(round: int) -> SimpleNamespace:
        toy.weight = toy.weight / 2 + round * (1 + config.seed)
        return SimpleNamespace(round=round, weight=float(toy.weight))

    return SimpleNamespace(config=config, swarm=SimpleNamespace(play=play, honest=[toy]))


def toy_summary(experiment: SimpleNamespace, lines: list[dict[str, Any]], heard: object = None) -> dict[str, Any]:
    weight = float(experiment.swarm.honest[0].weight)
    return {"name": "toy", "rounds": len(lines), "weight": weight, "reward": sum(line["reward"] for line in lines)}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for name, stand_in in {
        "build": toy_experiment,
        "check": lambda experiment: None,
        "round_line": lambda experiment, record: {"round": record.round, "reward": record.weight, "seconds": {}},
        "completion_rows": lambda experiment, record: [{"round": record.round, "text": f"{record.weight}"}],
        "summarize": toy_summary,
        "CHECKPOINT_EVERY": EVERY,
        "time": SimpleNamespace(perf_counter=lambda: 0.0),  # seconds are in the lines
    }.items():
        monkeypatch.setattr(run_module, name, stand_in)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a process that dies loses nothing that it wrote


def outcome(folder: Path) -> tuple[Any, ...]:
    """Everything that a finished run leaves behind."""
    (state,) = (folder / "checkpoint").glob("state-*.pt")
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.toml", "rounds.jsonl", "completions.parquet", "summary.json", "checkpoint",
    }  # fmt: skip
    return (
        (folder / "rounds.jsonl").read_bytes(),
        (folder / "summary.json").read_bytes(),
        pq.read_table(folder / "completions.parquet").to_pylist(),
        float(torch.load(state, weights_only=True)["nodes"][0]["learner"]["weight"]),
    )


def assert_one_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert "\n" not in text and text.endswith(".") and str(path) in text and len(text) < 700, text


@pytest.fixture
def whole(tmp_path) -> Path:
    """A finished run."""
    start(CONFIG, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def halted(tmp_path) -> Path:
    """A run that was interrupted after round 5, whose checkpoint is that of round 4."""

    def interrupt(line: dict[str, Any]) -> None:
        if line["round"] == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *a: None)
        patch.setattr(RunFolder, "save_state", _saving_up_to(4))
        with pytest.raises(KeyboardInterrupt):
            start(CONFIG, tmp_path / "halted", interrupt)
    return tmp_path / "halted"


def _saving_up_to(last: int) -> Callable[..., None]:
    save = RunFolder.save_state
    return lambda folder, round, state: save(folder, round, state) if round <= last else None


def halted_early(tmp_path: Path) -> Path:
    """A run that was interrupted after round 5, whose checkpoint is that of round 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *a: None)
        patch.setattr(RunFolder, "save_state", _saving_up_to(2))
        start(CONFIG, tmp_path / "early")
    return tmp_path / "early"


# What changes files and folders, and where a process may die: before each of these.
EVENTS = {"open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}


def in_child(folder: Path, work: Callable[[], object], death: int, torn: bool) -> tuple[int, int]:
    """Does something in a child process that dies before its n-th change of a file.

    Args:
        folder: The changes in it are counted.
        work: What is done.
        death: Which change; 0: it does not die.
        torn: Whether the file that was written last is half there, as far as it was written by then.

    Returns:
        The exit status, and the number of changes if it did not die.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count, last, dying = 0, None, False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count, last, dying
            if dying or event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
                return
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            count += 1
            if count == death:
                dying = True
                if torn and last and os.path.exists(last[0]):
                    size = os.path.getsize(last[0])
                    os.truncate(last[0], last[1] + (size - last[1]) // 2)
                os._exit(9)
            if event == "open":
                path = str(arguments[0])
                dying = True
                appended = os.path.getsize(path) if arguments[2] & os.O_APPEND and os.path.exists(path) else 0
                last, dying = (path, appended), False

        sys.addaudithook(hook)
        status = 1
        try:
            work()
            status = 0
        finally:
            os.write(writing, str(count).encode())
            os._exit(status)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return os.waitstatus_to_exitcode(status), int(pipe.read() or 0)


def go_on(folder: Path, config: RunConfig = CONFIG) -> None:
    """What one does after a death: the same command if there is no run yet, else resume."""
    if (folder / "config.toml").is_file():
        resume(folder)
    else:
        start(config, folder)


@pytest.mark.parametrize("torn", [False, True], ids=["whole writes", "half a write"])
def test_a_death_before_any_write_changes_nothing_in_the_end(tmp_path, torn):
    start(SHORT, tmp_path / "expected")
    expected, folder = outcome(tmp_path / "expected"), tmp_path / "run"
    status, writes = in_child(folder, lambda: start(SHORT, folder), 0, torn)
    assert status == 0 and writes > 30 and outcome(folder) == expected
    for death in range(1, writes + 1):
        shutil.rmtree(folder)
        status, _ = in_child(folder, lambda: start(SHORT, folder), death, torn)
        assert status == 9
        if folder.exists() and any(folder.iterdir()):
            look(folder)
        go_on(folder, SHORT)
        assert outcome(folder) == expected, death


def test_a_death_while_resuming_changes_nothing_in_the_end(whole, tmp_path, halted):
    expected, folder = outcome(whole), tmp_path / "run"
    shutil.copytree(halted, folder)
    status, writes = in_child(folder, lambda: resume(folder), 0, torn=True)
    assert status == 0 and writes > 8 and outcome(folder) == expected
    for death in range(1, writes + 1):
        shutil.rmtree(folder)
        shutil.copytree(halted, folder)
        assert in_child(folder, lambda: resume(folder), death, torn=True)[0] == 9
        resume(folder)
        assert outcome(folder) == expected, death


def look(folder: Path) -> None:
    """Reads all that a run folder holds: either it can be read, or the error is ours."""
    if not (folder / "config.toml").is_file():
        return
    for read in (
        lambda: hailproof.load(folder).config,
        lambda: hailproof.load(folder).summary,
        lambda: hailproof.load(folder).rounds,
        lambda: hailproof.load(folder).completions,
        lambda: versions_of(folder),
    ):
        try:
            read()
        except HailproofError as error:
            assert_one_sentence(error, folder)


FLIPS, FLIPS_OF_BINARY = 20, 5
"""Of single bits, spread over a file; tables and states are known by a digest, to which each bit is like any other."""


def damages(data: bytes, flips: int) -> Iterator[tuple[str, bytes | None]]:
    """Ways to damage a file."""
    yield "deleted", None
    yield "emptied", b""
    yield "cut to half", data[: len(data) // 2]
    yield "without its last byte", data[:-1]
    yield "something behind it", data + b"\n\xff\xfe{"
    yield "a line behind it", data + b'{"round": 99}\n'
    for number, place in enumerate(range(0, len(data), max(1, len(data) // flips))):
        bit = number % 8
        yield f"bit {bit} of byte {place} flipped", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def without_summary(whole: Path) -> Path:
    (whole / "summary.json").unlink()
    return whole


@pytest.mark.parametrize("stage", ["halted", "early", "finished", "without summary"])
def test_a_damaged_file_is_refused_or_does_not_matter(request, tmp_path, stage):
    """Whatever happens to one file: the same result, or one sentence; never another result, never a traceback."""
    start(CONFIG, tmp_path / "reference")
    expected = outcome(tmp_path / "reference")
    folder = {
        "halted": lambda: request.getfixturevalue("halted"),
        "early": lambda: halted_early(tmp_path),
        "finished": lambda: request.getfixturevalue("whole"),
        "without summary": lambda: without_summary(request.getfixturevalue("whole")),
    }[stage]()
    refused: dict[str, int] = {}
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    assert len(names) >= 5 - (stage == "without summary")
    for name in names:
        flips = FLIPS_OF_BINARY if name.suffix in (".parquet", ".pt") else FLIPS
        for number, (damage, data) in enumerate(damages((folder / name).read_bytes(), flips)):
            copy = tmp_path / f"{stage} {name.name} {number}"
            shutil.copytree(folder, copy)
            if data is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(data)
            if number % 4 == 0:
                look(copy)
            try:
                resume(copy)
            except HailproofError as error:
                assert_one_sentence(error, copy)
                refused[str(name)] = refused.get(str(name), 0) + 1
            else:
                spared = stage == "finished" and damage == "deleted" and name.parent.name == "checkpoint"
                assert spared or outcome(copy) == expected, (name, damage)
            shutil.rmtree(copy)
    parts = {"halted": 4, "early": 2}.get(stage, 0)
    late = {f"completions/round-{round:06d}.parquet" for round in range(parts + 1, ROUNDS + 1)} if parts else set()
    assert set(refused) == {str(name) for name in names} - late


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("completions/round-000001.parquet", r"round-000001\.parquet cannot be read \(No such file or directory\)"),
        ("checkpoint/state-000004.pt", r"state-000004\.pt cannot be read \(No such file or directory\)"),
        ("checkpoint/state.json", r"no checkpoint/state\.json.*another folder"),
        ("rounds.jsonl", r"rounds\.jsonl cannot be read"),
        ("config.toml", r"is not a run folder \(it has no config\.toml\)"),
    ],
)
def test_a_missing_file_is_named(halted, name, sentence):
    (halted / name).unlink()
    with pytest.raises(RunError, match=sentence):
        resume(halted)


@pytest.mark.parametrize("name", ["completions/round-000001.parquet", "checkpoint/state-000004.pt"])
def test_a_flipped_bit_is_named(halted, name):
    data = bytearray((halted / name).read_bytes())
    data[len(data) // 2] ^= 1
    (halted / name).write_bytes(data)
    with pytest.raises(RunError, match=rf"{Path(name).name} is damaged \(its checksum is another"):
        resume(halted)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: "", r"name was 'toy' and is 'run' \(and \d+ more keys\)"),
        (lambda text: text[: text.index("[attack]")], r"was changed since the run began|rounds was"),
        (lambda text: text.replace("seed = 3", "seed = 4"), r"seed was 3 and is 4; put it back"),
        (lambda text: text.replace("defense = []", 'defense = [{ name = "logit" }]'), r"defense was \[\] and is"),
        (lambda text: text.replace("rounds = 5", "rounds = [["), r"is not valid TOML"),
    ],
)
def test_another_configuration_is_refused_and_named(tmp_path, change, sentence):
    config = RunConfig.model_validate({**CONFIG.model_dump(), "attack": {"name": "text"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_state", lambda *a: os.kill(0, 0) or (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            start(config, tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    text = path.read_text()
    path.write_text(change(text))
    with pytest.raises((RunError, ConfigError), match=sentence):
        resume(tmp_path / "run")
    path.write_text("# a comment of mine\n" + text)
    resume(tmp_path / "run")


def test_load_and_resume_agree_on_a_damaged_line(tmp_path, halted):
    expected = outcome_of_new_run(tmp_path)
    early = halted_early(tmp_path)
    for folder, safe in ((halted, 4), (early, 2)):
        lines = (folder / "rounds.jsonl").read_text().splitlines(keepends=True)
        lines[2] = lines[2][:20] + "\n"
        (folder / "rounds.jsonl").write_text("".join(lines))
        with pytest.raises(RunError, match="Line 3 of ") as stop:
            read_rounds(folder)
        if safe < 3:
            assert "resume the run, which plays that round again" in str(stop.value)
            resume(folder)
            assert outcome(folder) == expected
        else:
            assert "play the run again in another folder" in str(stop.value)
            with pytest.raises(RunError, match=r"Line 3 of .* is damaged; play the run again in another folder"):
                resume(folder)


def outcome_of_new_run(tmp_path: Path) -> tuple[Any, ...]:
    start(CONFIG, tmp_path / "expected")
    return outcome(tmp_path / "expected")


def test_a_missing_summary_is_written_anew(whole):
    before = outcome(whole)
    (whole / "summary.json").unlink()
    assert resume(whole) == json.loads((whole / "summary.json").read_text())
    assert outcome(whole) == before


def test_a_damaged_summary_is_written_anew_as_its_error_advises(whole):
    before = outcome(whole)
    (whole / "summary.json").write_text(before[1].decode().replace("5", "6"))
    with pytest.raises(RunError, match="delete it and resume the run, which writes it anew"):
        resume(whole)
    (whole / "summary.json").write_text("{")
    with pytest.raises(RunError, match="delete it and resume the run, which writes it anew"):
        read_summary(whole)
    (whole / "summary.json").unlink()
    resume(whole)
    assert outcome(whole) == before


def test_folders_of_the_first_format_are_read_and_not_resumed(whole, halted):
    """They have no checkpoint/state.json, and no digests in their lines."""
    for folder in (whole, halted):
        shutil.rmtree(folder / "checkpoint")
        lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        for line in lines:
            del line["part"]
        (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert hailproof.load(folder).rounds["round"].to_pylist() == [1, 2, 3, 4, 5]
        assert len(hailproof.load(folder).completions) == 5
    assert resume(whole) == read_summary(whole)
    with pytest.raises(RunError, match=r"older version of hailproof wrote it.*reported on, but not resumed"):
        resume(halted)


def test_a_later_format_says_so(halted):
    path = halted / "checkpoint" / "state.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(RunError, match="run folder format 3, and this version of hailproof reads 2"):
        resume(halted)


def test_a_state_of_another_shape_is_one_sentence(halted, monkeypatch):
    class Wider(Toy):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            torch.nn.Linear(2, 2).load_state_dict(state)

    monkeypatch.setattr(run_module, "build", lambda config: SimpleNamespace(swarm=SimpleNamespace(honest=[Wider()])))
    with pytest.raises(RunError, match=r"The checkpoint does not fit.*RuntimeError.*; play the run again") as stop:
        resume(halted)
    assert "\n" not in str(stop.value)


# A disk that is full.


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    expected, folder = outcome_of_new_run(tmp_path), tmp_path / "deep" / "run"
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    failing, failures = 0, 0
    start(CONFIG, folder)
    writes, calls = calls, 0
    for failing in range(1, writes + 1):
        shutil.rmtree(folder.parent)
        calls = 0
        with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); free some space") as stop:
            start(CONFIG, folder)
        assert_one_sentence(stop.value, folder)
        assert not any(name.endswith(".tmp") for name in files_of(folder))
        rounds = folder / "rounds.jsonl"
        assert not rounds.exists() or rounds.read_bytes() == expected[0][: rounds.stat().st_size]
        assert not rounds.exists() or rounds.read_bytes().endswith(b"\n")
        assert folder.parent.exists() == rounds.exists()  # of a run without a round nothing remains
        failures += not rounds.exists()
        go_on(folder)
        assert outcome(folder) == expected, failing
    assert writes > 20 and failures > 4


@contextmanager
def limited(size: int) -> Iterator[None]:
    """The operating system's own limit on the size of files stands for a disk that is full in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 100, 600, 900, 1100, 1300, 1500, 1700, 2000, 2500, 3000, 4000])
def test_a_write_that_stops_midway_is_one_sentence(tmp_path, limit):
    expected, folder = outcome_of_new_run(tmp_path), tmp_path / "run"
    with limited(limit), pytest.raises(RunError, match=r"cannot be written \(File too large\)") as stop:
        start(CONFIG, folder)
    assert_one_sentence(stop.value, folder)
    assert not any(name.endswith(".tmp") for name in files_of(folder))
    go_on(folder)
    assert outcome(folder) == expected


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("x" * 256, r"(cannot be written \(File name too long\); choose a shorter path)"),
        ("x" * 250 + "/y" * 3000, r"\(File name too long\)"),
        ("file/run", r"(cannot be made|cannot be written) \(Not a directory\)"),
    ],
)
def test_a_path_that_cannot_be_is_one_sentence(tmp_path, out, sentence):
    (tmp_path / "file").write_text("")
    before = files_of(tmp_path)
    with pytest.raises(RunError, match=sentence):
        start(CONFIG, tmp_path / out)
    with pytest.raises(RunError, match=r"cannot be read|not a run folder"):
        resume(tmp_path / out)
    with pytest.raises(RunError, match=r"cannot be read|not a run folder"):
        hailproof.load(tmp_path / out)
    assert files_of(tmp_path) == before


def test_a_read_only_folder_is_one_sentence(whole, tmp_path, monkeypatch):
    def refused(self: Path, mode: str = "r", **options: Any) -> Any:
        if "r" not in mode:
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return open(self, mode, **options)

    monkeypatch.setattr(Path, "open", refused)
    sentence = r"cannot be written \(Read-only file system\); choose a folder that can be written to"
    with pytest.raises(RunError, match=sentence):
        resume(whole)
    with pytest.raises(RunError, match=sentence):
        start(CONFIG, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(RunError, match=sentence), replacing(tmp_path / "board.md") as temporary:
        temporary.open("w")


# What a run that fails leaves behind.


@pytest.mark.parametrize("error", [ConfigError("the first round cannot be played."), RuntimeError("out of memory")])
def test_a_run_whose_first_round_fails_leaves_no_folder(tmp_path, monkeypatch, error):
    def fail(round: int) -> None:
        raise error

    broken = lambda config: SimpleNamespace(config=config, swarm=SimpleNamespace(play=fail, honest=[]))  # noqa: E731
    monkeypatch.setattr(run_module, "build", broken)
    (tmp_path / "mine").mkdir()
    for folder in ("runs/new", "mine"):
        with pytest.raises(type(error), match=str(error)):
            start(CONFIG, tmp_path / folder)
        assert files_of(tmp_path) == ["mine"]
    monkeypatch.setattr(run_module, "build", toy_experiment)
    start(CONFIG, tmp_path / "mine")


def test_a_run_that_fails_later_keeps_its_rounds(tmp_path, monkeypatch):
    expected = outcome_of_new_run(tmp_path)

    def failing(config: RunConfig) -> SimpleNamespace:
        experiment = toy_experiment(config)
        play = experiment.swarm.play
        experiment.swarm.play = lambda round: play(round) if round < 2 else play(1 // 0)
        return experiment

    monkeypatch.setattr(run_module, "build", failing)
    with pytest.raises(ZeroDivisionError):
        start(CONFIG, tmp_path / "run")
    monkeypatch.setattr(run_module, "build", toy_experiment)
    assert resume(tmp_path / "run")["rounds"] == ROUNDS
    assert outcome(tmp_path / "run") == expected


def test_nothing_is_made_before_everything_was_checked(tmp_path, monkeypatch):
    def refuse(experiment: object) -> None:
        raise ConfigError("no.")

    monkeypatch.setattr(run_module, "check", refuse)
    with pytest.raises(ConfigError):
        start(CONFIG, tmp_path / "runs" / "new")
    assert files_of(tmp_path) == []


# Numbers that are none.


def test_what_is_not_finite_is_null_and_never_bare(tmp_path, monkeypatch):
    numbers = {"round": 1, "reward": float("nan"), "update": {"loss": float("inf"), "list": [1.0, float("-inf")]}}
    assert as_json(numbers) == '{"round": 1, "reward": null, "update": {"loss": null, "list": [1.0, null]}}'
    assert from_json(b'{"a": NaN, "b": [Infinity, -Infinity]}') == {"a": None, "b": [None, None]}
    line = {"reward": float("nan"), "seconds": {}}
    monkeypatch.setattr(run_module, "round_line", lambda experiment, record: {"round": record.round, **line})
    monkeypatch.setattr(run_module, "summarize", lambda experiment, lines, heard: {"reward": float("inf")})
    shown: list[Any] = []
    assert start(CONFIG, tmp_path / "run", lambda line: shown.append(line["reward"])) == {"reward": None}
    text = (tmp_path / "run" / "rounds.jsonl").read_text() + (tmp_path / "run" / "summary.json").read_text()
    assert "NaN" not in text and "Infinity" not in text and shown == [None] * ROUNDS


@pytest.mark.parametrize(
    "text",
    [b'{"round": 1, "reward": "much"}', b'{"round": true}', b'{"round": 1, "models": {"a": {"reward": "x"}}}', b"[1]",
     b'{"round": "1"}', b"[" * 100_000, b'{"round": 1' + b"0" * 5000 + b"}", b"\xff\xfe", b'{"reward": 1}'],
)  # fmt: skip
def test_a_line_that_is_no_table_of_numbers_is_damaged(tmp_path, text):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "rounds.jsonl").write_bytes(text + b'\n{"round": 2}\n')
    for read in (read_rounds, write_report, lambda folder: hailproof.load(folder).rounds):
        with pytest.raises(RunError, match=r"Line 1 of .*rounds\.jsonl is damaged; play the run again"):
            read(tmp_path)


def test_a_report_of_a_run_whose_configuration_is_no_text(whole):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hailproof.reports.report.draw_run", lambda *a: None)
        (whole / "config.toml").write_bytes(b"\xff\xfe" + (whole / "config.toml").read_bytes())
        assert "\ufffd\ufffd# hailproof" in write_report(whole).read_text()
    with pytest.raises(RunError, match=r"config\.toml is damaged \(UnicodeDecodeError\)"):
        versions_of(whole)
    with pytest.raises(ConfigError, match="is encoded in UTF-16"):
        load_config(whole / "config.toml")


def test_the_checkpoint_says_what_the_run_is(whole):
    checkpoint = read_checkpoint(whole)
    assert checkpoint is not None and checkpoint.round == ROUNDS and checkpoint.format == 2
    assert RunConfig.model_validate(checkpoint.config) == CONFIG


@pytest.mark.parametrize("stage", ["halted", "whole"])
@pytest.mark.parametrize("round", [0, 3, 4, 5, 6])
def test_a_checkpoint_of_another_round_than_its_lines_is_refused(request, stage, round):
    folder = request.getfixturevalue(stage)
    path = folder / "checkpoint" / "state.json"
    found = json.loads(path.read_text())
    if found["round"] == round:
        resume(folder)
        return
    path.write_text(json.dumps({**found, "round": round}))
    before = files_of(folder)
    with pytest.raises(RunError, match="damaged"):
        resume(folder)
    assert files_of(folder) == before


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    """The third line reaches the limit on the size of files; the parts do not."""
    line = {"reward": 1.0, "update": {f"number {index}": index for index in range(600)}, "seconds": {}}
    monkeypatch.setattr(run_module, "round_line", lambda experiment, record: {"round": record.round, **line})
    expected, folder = outcome_of_new_run(tmp_path), tmp_path / "run"
    first_three = [len(line) + 1 for line in expected[0].splitlines()[:3]]
    limit = sum(first_three) - first_three[2] // 2
    assert limit > 10_000
    with limited(limit), pytest.raises(RunError, match=r"rounds\.jsonl cannot be written \(File too large\)"):
        start(CONFIG, folder)
    assert (folder / "rounds.jsonl").stat().st_size == sum(first_three[:2])
    resume(folder)
    assert outcome(folder) == expected


def test_a_number_that_was_changed_in_a_line_is_noticed_by_every_reader(whole):
    path = whole / "rounds.jsonl"
    path.write_text(path.read_text().replace('"reward": 4.5', '"reward": 9.5', 1))
    for read in (read_rounds, resume, lambda folder: hailproof.load(folder).rounds):
        with pytest.raises(RunError, match=r"rounds\.jsonl does not hold the 5 lines that the checkpoint rests on"):
            read(whole)
