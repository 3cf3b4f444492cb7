"""Ctrl-C says how to go on, in one sentence, and leaves what can be gone on with."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import forked, runs_below
from test_cli import SMALL, call

from hailproof import demo
from hailproof.cli import campaigns, models, runs

INTERRUPTED = [
    ("bench", "give the same command again: runs that are finished are kept"),
    ("reproduce fig7", "give the same command again: runs that are finished are kept"),
    ("pretrain nano-a --out=x", "give the same command again: cycles that are finished are kept"),
    ("demo", "the same command begins the demo anew"),
    ("run", "nothing was played; give the same command again"),
    ("run --out=empty", "nothing was played; give the same command again"),
    ("resume begun", "go on with: hailproof resume begun"),
    ("run --out=begun", "go on with: hailproof resume begun"),
    ("run '--out=be gun'", "go on with: hailproof resume 'be gun'"),
]


@pytest.mark.parametrize(("line", "advice"), INTERRUPTED, ids=[line for line, _ in INTERRUPTED])
def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, tmp_path, line, advice):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("begun", "be gun"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.toml").touch()
    command = line.split()[0]
    home = {"bench": campaigns, "reproduce": campaigns, "pretrain": models}.get(command, runs)
    monkeypatch.setattr(home, "progress_of" if command == "resume" else "quiet_libraries", interrupt)
    status, _, said = call(monkeypatch, capsys, *shlex.split(line))
    assert status == 130
    assert said.startswith(f"hailproof: stopped; {advice}") and said.count("\n") == 1


WITH_SIGNALS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from hailproof.cli import main
main()
"""
"""A shell starts programs in the background deaf to Ctrl-C, and they pass that on."""


def interrupted(arguments: list[str], when: str, then: Callable[[int], None] = lambda pid: None) -> tuple[int, str]:
    """Presses Ctrl-C as a command prints something, once ``then`` has returned; exit status and last words."""
    command = [sys.executable, "-c", WITH_SIGNALS, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert any(when in line for line in process.stdout)
            then(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
    return process.returncode, said


def test_a_run_goes_on_after_ctrl_c(monkeypatch, capsys, tmp_path):
    folder, out, err = (tmp_path / name for name in ("stopped run", "out", "err"))
    changes = [*SMALL, "--rounds=8", "--set=threads=1", "--set=evaluation.problems=4"]
    process = forked(tmp_path, ["run", *changes, f"--out={folder}"], out, err)
    assert process.pid is not None
    while not (out.exists() and "round 6/8" in out.read_text()):
        assert process.is_alive(), err.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    said = f"hailproof: stopped; go on with: hailproof resume '{folder}'\n"
    assert (process.exitcode, err.read_text()) == (130, said)
    assert not (folder / "summary.json").exists()
    status, shown, _ = call(monkeypatch, capsys, "resume", str(folder))
    assert status == 0
    assert [int(number) for number in re.findall(r"round (\d)/8", shown)] == [6, 7, 8]  # a checkpoint every 5
    assert len((folder / "rounds.jsonl").read_text().splitlines()) == 8
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 8


def runs_are_deaf(pid: int) -> None:
    """Waits for the processes of two runs, and sees that signal 2, Ctrl-C, is blocked in both."""
    running: list[Path] = []
    while len(running) < 2:
        time.sleep(0.05)
        running = runs_below(pid)
    for child in running:
        (blocked,) = re.findall(r"SigBlk:\s*(\w+)", (child / "status").read_text())
        assert int(blocked, 16) & 1 << signal.SIGINT - 1


def test_ctrl_c_ends_the_runs_of_a_bench_without_a_word_from_them(tmp_path):
    places = [f"--runs={tmp_path / 'cells'}", f"--out={tmp_path / 'board'}", "--attack=text", "--defense=logit"]
    status, said = interrupted(["bench", *places, "--workers=2"], when="runs, ", then=runs_are_deaf)
    assert status == 130
    assert said.startswith("hailproof: stopped; ") and said.count("\n") == 1


def test_ctrl_c_ends_the_runs_of_a_demo(monkeypatch, tmp_path):
    seen = []

    def interrupt(workers: list, *arguments: object) -> None:
        seen.extend(workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_gather", interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.play(tmp_path / "demo", 30, print)
    for worker in seen:
        worker.join(20)
    assert [worker.exitcode for worker in seen] == [-signal.SIGTERM] * 3
