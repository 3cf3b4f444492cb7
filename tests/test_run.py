"""Real runs: what they leave behind, and that ``kill -9`` changes nothing in the end (faults: ``test_folders.py``)."""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from hailproof.campaigns.sweep import fresh_processes
from hailproof.errors import HailproofError, ModelError, RunError
from hailproof.learner.update import Learner
from hailproof.reports.report import write_report
from hailproof.runs import run
from hailproof.runs.build import build
from hailproof.runs.check import check
from hailproof.runs.config import load_config
from hailproof.runs.files import replacing
from hailproof.runs.header import versions_of
from hailproof.runs.measure import round_line
from hailproof.runs.run import resume, start
from hailproof.runs.store import SCHEMA, RunFolder, check_run_folder, read_summary

EVERY = 2
"""Rounds between checkpoints here, so that few rounds have two, and a last one."""
ROUNDS = 2 * EVERY + 1
SETTINGS = [
    ("rounds", ROUNDS),
    ("threads", 1),
    ("swarm.prompts", 2),
    ("swarm.group_size", 4),
    ("swarm.device", "cpu"),
    ("sampling.max_new_tokens", 72),  # what TEXT forges has at most 66
    ("task.options.size", 40),
    ("task.options.test_size", 8),
    ("attack.name", "text"),
    ("defense", [{"name": "logit"}, {"name": "replay", "options": {"check": 0.5}}]),
    ("learner.learning_rate", 1e-3),
]
CONFIG = load_config(None, SETTINGS)

MOMENTS = ["before the first checkpoint", f"after round {EVERY + 1}", "after the last checkpoint"]


@pytest.fixture(scope="module", autouse=True)
def often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHECKPOINT_EVERY", EVERY)
        yield


def killed(folder: Path, moment: str) -> None:
    """Plays a run, as a process of its own, that dies at a moment."""

    def die(*anything: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(line: Mapping[str, object]) -> None:
        if moment == f"after round {line['round']}":
            die()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CHECKPOINT_EVERY", EVERY)
        if moment == "before the first checkpoint":
            patch.setattr(RunFolder, "save_state", die)
        if moment == "after the last checkpoint":
            patch.setattr(RunFolder, "finish", die)
        start(load_config(folder.parent / "config.toml"), folder, progress)


def outcome(folder: Path) -> tuple:
    """Everything that a run leaves behind, but for the seconds."""
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["defense_seconds"]
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds_per_round"]
    return lines, summary, pq.read_table(folder / "completions.parquet").to_pylist()


def tensors(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for part in parts for tensor in tensors(part)]


def final_tensors(folder: Path) -> list[torch.Tensor]:
    return tensors(torch.load(folder / "checkpoint" / f"state-{ROUNDS:06d}.pt", weights_only=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(CONFIG, folder)
    return folder


def test_what_a_run_leaves_behind(whole):
    lines, summary, rows = outcome(whole)
    assert [line["round"] for line in lines] == list(range(1, ROUNDS + 1))
    assert summary["rounds"] == ROUNDS and summary["seed"] == 0
    assert set(summary) >= {
        "attack_success", "reward", "completion_tokens", "honest_acceptance", "malicious_acceptance", "held_out",
    }  # fmt: skip
    assert summary["reward"] == pytest.approx(sum(line["reward"] for line in lines[-5:]) / 5)
    assert summary["held_out"]["problems"] == 8
    table = pq.read_table(whole / "completions.parquet")
    unread = sum(sum(line["unread"].values()) for line in lines)
    assert table.schema.equals(SCHEMA) and len(rows) == ROUNDS * 2 * 4 - unread
    assert 0 < sum(row["malicious"] for row in rows) <= ROUNDS * 2
    assert {path.name for path in whole.iterdir()} == {
        ".lock", "config.toml", "rounds.jsonl", "completions.parquet", "summary.json", "checkpoint",
    }  # fmt: skip
    resolved = load_config(whole / "config.toml")
    assert resolved.attack.malicious == 1
    assert resolved.learner.learning_rate == 1e-3  # given
    assert resolved.learner.lr_scheduler_type == "linear"  # the nano setting
    assert resolved.defense[1].options["check"] == 0.5 and resolved.defense[1].options["memory"] == 10  # its default
    assert resolved.evaluation.problems == 8  # as many as there are
    written = {name: getattr(CONFIG, name) for name in ("attack", "learner", "defense", "task", "evaluation")}
    assert resolved.model_copy(update=written) == CONFIG
    for line in lines:
        counts = [each["malicious"] for each in line["defenses"].values()]
        rejected = sum(count["reject"] + count["error"] for count in counts)
        share = line["malicious_acceptance"]
        assert share is None or share == pytest.approx(1 - rejected / line["screened"]["malicious"])


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_equals_never_killed(whole, tmp_path, moment):
    folder = tmp_path / "run"
    (tmp_path / "config.toml").write_text((whole / "config.toml").read_text())
    child = fresh_processes().Process(target=killed, args=(folder, moment))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    resume(folder)
    assert outcome(folder) == outcome(whole)
    pairs = list(zip(final_tensors(folder), final_tensors(whole), strict=True))
    assert len(pairs) > 100 and all(torch.equal(a, b) for a, b in pairs)
    assert not list(folder.rglob("*.tmp"))


def test_resuming_a_finished_run_changes_nothing(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert resume(whole) == json.loads((whole / "summary.json").read_text())
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_a_folder_in_use_is_left_alone(whole, tmp_path):
    before = (whole / "rounds.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"in use by a finished run; choose another with --out"):
        start(CONFIG, whole)
    assert (whole / "rounds.jsonl").read_bytes() == before
    with RunFolder.create(tmp_path / "new", CONFIG), pytest.raises(RunError, match="in use by another process"):
        RunFolder.reopen(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="in use"):
        RunFolder.create(tmp_path / "file", CONFIG)


def test_two_that_write_the_same_file_leave_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "board.md"
    with replacing(path) as first:
        first.write_text("first")
        monkeypatch.setattr("os.getpid", lambda: 1)
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    with pytest.raises(ZeroDivisionError), replacing(path) as third:
        third.write_text("ha")
        raise ZeroDivisionError
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_run_that_is_played_can_be_reported_on(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    with RunFolder.reopen(folder):
        check_run_folder(folder)
        assert write_report(folder, surprise=False).is_file()


def test_a_damaged_summary_is_one_sentence(whole, tmp_path):
    (tmp_path / "summary.json").write_text("")
    with pytest.raises(RunError, match="is damaged"):
        read_summary(tmp_path)
    assert versions_of(whole).keys() == {"hailproof", "torch", "transformers", "Python"}


def test_a_checkpoint_of_another_version_is_one_sentence(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    take_up = Learner.load_state_dict

    def of_another_version(self, state):
        del state["length_neutral"]
        take_up(self, state)

    monkeypatch.setattr(Learner, "load_state_dict", of_another_version)
    with pytest.raises(RunError, match=r"does not fit, as those of other versions \(KeyError: 'length_neutral'\)"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([("sampling.max_new_tokens", 100_000)], r"with 100000 new ones .* context of nano-a, 1024 tokens; lower"),
        ([("evaluation.problems", 9)], r"evaluation\.problems = 9 is more than the 8 held-out problems of 'word_prob"),
        ([("threads", 100_000)], rf"threads = 100000 is more than the {os.cpu_count()} cores of this machine"),
        ([("swarm.prompts", 41)], "takes 41 prompts, but the task has 40"),
    ],
)
def test_what_cannot_be_played_makes_no_folder(tmp_path, settings, sentence):
    with pytest.raises(HailproofError, match=sentence):
        start(load_config(None, [*SETTINGS, *settings]), tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_that_leaves_no_room_is_named(tmp_path):
    """Also one that a later round would have met, or the held-out evaluation."""
    for split in ("train", "test"):
        experiment = build(CONFIG)
        check(experiment)
        problems = getattr(experiment.swarm.task, split)
        long = replace(problems[7], id="the long one", question="How many pens? " * 300)
        changed = [*problems[:7], long, *problems[8:]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(experiment.swarm.task, split, changed)
            with pytest.raises(ModelError, match=r"problem 'the long one' has \d{3,4} tokens.*; leave the problem out"):
                check(experiment)


def test_a_step_without_a_finite_gradient_is_null_and_counted():
    experiment = build(CONFIG)
    record = experiment.swarm.play(1)
    def line_with(**stats):
        update = replace(record.views[0].update, **stats)
        return round_line(experiment, replace(record, views=(replace(record.views[0], update=update),)))["update"]

    whole = line_with(grad_norm=0.5, loss=0.25)
    assert (whole["grad_norm"], whole["loss"], whole["not_finite"]) == (0.5, 0.25, 0)
    broken = line_with(grad_norm=float("nan"), loss=float("inf"))
    assert broken == {**whole, "grad_norm": None, "loss": None, "not_finite": 1}


def test_evaluation_on_the_way_is_written_down_and_changes_nothing_else(whole, tmp_path):
    start(load_config(None, [*SETTINGS, ("evaluation.every", EVERY)]), tmp_path / "run")
    lines, summary, rows = outcome(tmp_path / "run")
    evaluated = {line["round"]: line.pop("held_out") for line in lines if "held_out" in line}
    assert list(evaluated) == [EVERY, 2 * EVERY] and evaluated[EVERY]["problems"] == 8
    assert (lines, summary, rows) == outcome(whole)


def test_a_run_killed_before_its_configuration_was_written_starts_anew(whole, tmp_path):
    for name in ("completions", "checkpoint"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    start(CONFIG, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole)
    (tmp_path / "other" / "completions").mkdir(parents=True)
    (tmp_path / "other" / "completions" / "round-000001.parquet").touch()
    with pytest.raises(RunError, match="in use"):
        start(CONFIG, tmp_path / "other")
