"""Sweeps: a run is known by what it depends on, is played once, and one that fails takes no other with it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from processes import below, runs_below

from hailproof.campaigns.engines import engine_named
from hailproof.campaigns.sweep import Job, LocalEngine, fresh_processes, merged, play_job, sweep
from hailproof.errors import ConfigError, RunBusyError, RunError
from hailproof.runs.settle import settle
from hailproof.runs.store import RunFolder

TINY = {
    "rounds": 1,
    "threads": 1,
    "swarm": {"prompts": 2, "group_size": 4},
    "sampling": {"max_new_tokens": 16},
    "task": {"options": {"size": 40, "test_size": 8}},
    "evaluation": {"problems": 2},
    "attack": {"name": "text"},
}


def job(tmp_path, **changes) -> Job:
    return Job(merged(TINY, changes), tmp_path)


def test_trees_are_laid_over_each_other():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}


def test_configurations_that_mean_the_same_share_a_folder(tmp_path):
    spelled_out = job(tmp_path, swarm={"topology": "horizontal", "nodes": 4}, attack={"malicious": 1})
    assert spelled_out.folder == job(tmp_path).folder
    assert job(tmp_path, name="other").folder == job(tmp_path).folder
    default = {"name": "logit", "options": {"max_outside": 0}}
    assert job(tmp_path, defense=[default]).folder == job(tmp_path, defense=[{"name": "logit"}]).folder
    said = settle(job(tmp_path, defense=[{"name": "texts"}]).config).config
    assert said.defense[2].options["rule"] == "either"  # so that a run stays itself when a default changes later


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 2},
        {"seed": 1},
        {"attack": {"malicious": 0}},
        {"attack": {"options": {"phrase": "Hello"}}},
        {"swarm": {"topology": "vertical", "prompts": 4}},
        {"defense": [{"name": "logit"}]},
        {"defense": [{"name": "logit", "options": {"max_outside": 3}}]},
        {"evaluation": {"every": 1}},
    ],
)
def test_configurations_that_differ_do_not(tmp_path, changes):
    assert job(tmp_path, **changes).folder != job(tmp_path).folder


def test_folders_say_what_they_hold(tmp_path):
    assert job(tmp_path, defense=[{"name": "logit"}]).folder.name.startswith("text-logit-")
    assert job(tmp_path, attack={"malicious": 0}).folder.name.startswith("clean-none-")


class Recorder:
    """An engine that plays in this process and notes what it was asked for."""

    workers = 1

    def __init__(self):
        self.played = []

    def play(self, jobs, done):
        for each in jobs:
            self.played.append(each.folder)
            play_job(each)
            done(each, "")


def test_what_several_ask_for_is_played_once_and_what_is_finished_never_again(tmp_path):
    first, second, said, finished = job(tmp_path), job(tmp_path, seed=1), [], []
    engine = Recorder()
    sweep([first, second, job(tmp_path)], engine, said.append, 60, lambda each: finished.append(each.folder))
    assert engine.played == [first.folder, second.folder] == finished
    assert said[0] == "2 runs, 0 of them finished; about 2 min, 1 at a time"
    again = Recorder()
    sweep([first, second], again, said.append, 60, lambda each: finished.append(each.folder))
    assert again.played == [] and finished == [first.folder, second.folder] * 2


def test_a_wrong_configuration_stops_the_sweep_before_anything_is_played(tmp_path):
    engine = Recorder()
    with pytest.raises(ConfigError, match="unknown"):
        sweep([job(tmp_path), job(tmp_path, sampling={"no_such_key": 1})], engine, print)
    assert not engine.played


@pytest.mark.slow
def test_a_run_that_fails_takes_no_other_with_it(tmp_path):
    good, bad = job(tmp_path), job(tmp_path, swarm={"models": [str(tmp_path / "no-model")]})
    said = []
    with pytest.raises(RunError, match=r"1 of 2 runs failed.*no-model"):
        sweep([bad, good], LocalEngine(2), said.append)
    assert good.summary is not None and bad.summary is None
    assert sum("failed (" in line for line in said) == 1


def test_a_run_that_another_process_begins_meanwhile_is_waited_for(tmp_path, monkeypatch):
    """Between the look at the folder and its making, seconds pass in which models load."""
    waited = job(tmp_path)

    def begun_meanwhile(config, folder):
        RunFolder.create(folder, config).close()
        raise RunBusyError("in use")

    monkeypatch.setattr("hailproof.runs.run.start", begun_meanwhile)
    monkeypatch.setattr("hailproof.runs.run.resume", lambda folder: {"resumed": folder})
    monkeypatch.setattr("hailproof.campaigns.sweep.BUSY_WAIT", 0.0)
    assert play_job(waited) == {"resumed": waited.folder}
    with pytest.raises(RunBusyError):
        RunFolder.create(waited.folder, waited.config)


def test_a_reason_as_long_as_a_book_ends_the_run_and_not_the_sweep(tmp_path):
    failures = []
    LocalEngine(1).play([Job({"rounds": "x" * 200_000}, tmp_path)], lambda each, failure: failures.append(failure))
    assert len(failures) == 1 and "rounds" in failures[0] and len(failures[0]) <= 2000


@pytest.mark.parametrize(("accelerator", "way"), [(True, "spawn"), (False, "forkserver")])
def test_a_process_that_may_use_an_accelerator_is_not_forked(monkeypatch, accelerator, way):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: accelerator)
    assert fresh_processes().get_start_method() == way


@pytest.mark.slow
def test_local_processes_play_what_this_one_plays(tmp_path):
    sweep([job(tmp_path / "a")], LocalEngine(1), lambda line: None)
    play_job(job(tmp_path / "b"))

    def rounds(root):
        lines = (job(root).folder / "rounds.jsonl").read_text().splitlines()
        return [{key: value for key, value in json.loads(line).items() if "seconds" not in key} for line in lines]

    assert rounds(tmp_path / "a") == rounds(tmp_path / "b")


KILLED = """
import json, sys
from pathlib import Path
from hailproof.campaigns.sweep import Job, LocalEngine

if __name__ == "__main__":
    LocalEngine(1).play([Job(json.loads(sys.argv[1]), Path(sys.argv[2]))], lambda job, failure: None)
"""


def test_a_killed_sweep_leaves_no_process_behind(tmp_path):
    """Else what it had begun would take cores from the sweep that goes on where it was."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    settings = json.dumps(merged(TINY, {"rounds": 500}))
    with subprocess.Popen([sys.executable, script, settings, tmp_path]) as sweeping:
        rounds = Job(json.loads(settings), tmp_path).folder / "rounds.jsonl"
        _until(lambda: rounds.exists() and rounds.read_text())
        started = below(sweeping.pid)
        assert runs_below(sweeping.pid)
        sweeping.kill()
    _until(lambda: not any(child.exists() for child in started))


def _until(true: Callable[[], object], seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_engines_have_names():
    assert engine_named("local", 3).workers == 3
    with pytest.raises(ConfigError, match="choose local or ray"):
        engine_named("slurm")
    with pytest.raises(ConfigError, match="--workers -1"):
        engine_named("local", -1)
