"""The command line: bad input is one sentence and exit status 2, and nothing is half-written."""

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

from hailproof import cli
from hailproof.experiments import demo

SMALL = [
    "--rounds=2", "--set=swarm.prompts=2", "--set=swarm.group_size=4", "--set=sampling.max_new_tokens=24",
    "--set=task.options.size=16", "--set=task.options.test_size=4", "--set=swarm.device=cpu",
]  # fmt: skip


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["hailproof", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--attack=tekst"], r"Unknown attack 'tekst'.*text"),
        (["run", "--defense=logits"], r"Unknown defense 'logits'.*logit"),
        (["run", "--task=gsm9k"], r"Unknown task 'gsm9k'.*gsm8k"),
        (["run", "--task=gsm8k", "--data=missing.jsonl"], r"missing\.jsonl does not exist"),
        (["run", "--task=gsm8k", "--data=broken.jsonl"], r"broken\.jsonl, line 2 is not a GSM8K row"),
        (["run", "--model=no/such-model"], r"Model 'no/such-model' does not load"),
        (["run", "--set=swarm.group_size=3"], r"group_size \(G\) = 3 is smaller than the number of nodes = 4"),
        (["run", "--topology=vertical", "--set=swarm.prompts=3"], r"prompts \(B\) = 3 is smaller"),
        (["run", "--topology=diagonal"], r"swarm\.topology.*horizontal"),
        (["run", "--set=learner.learning_rat=1"], r"learner\.learning_rat' is unknown"),
        (["run", "--set=learner.learning_rate=-1"], r"learner\.learning_rate.*greater than 0"),
        (["run", "--set=rounds"], r"not key=value"),
        (["run", "--set=seed.x=1", "--seed=1"], r"'seed' is not a section"),
        (["run", "--attack=text", "--set=attack.options.frase=x"], r"no option 'frase'; its options are: phrase"),
        (["run", "--attack=text", "--set=attack.options.phrase=5"], r"'phrase' of the attack 'text' is 5; it should"),
        (["run", "--set=defense=[{name='logit', options={tolerance='abc'}}]"], r"'tolerance' of the defense 'logit'"),
        (["run", "--set=defense=[{name='replay', options={mandatory='abc'}}]"], r"'mandatory' of the defense 'replay'"),
        (["run", "--defense=homogenous"], r"Unknown defense 'homogenous' \(did you mean 'homogeneous'"),
        (["run", "--attack=text", "--set=attack.malicious=4"], r"leaves no honest node"),
        (["run", "missing.toml"], r"missing\.toml cannot be read"),
        (["run", "broken.toml"], r"broken\.toml is not valid TOML"),
        (["run", "--out=used"], r"Output folder used is in use"),
        (["run", "--out=broken.toml"], r"broken\.toml is in use"),
        (["resume", "used"], r"used is not a run folder"),
        (["report", "nowhere"], r"nowhere is not a run folder"),
        (["pretrain", "nano-z", "--out=x"], r"Unknown recipe 'nano-z'"),
        (["pretrain", "nano-a", "--out=used"], r"Output folder used is in use"),
        (["pretrain", "nano-a", "--out=x", "--steps=0"], r"--steps 0"),
        (["pretrain", "nano-a", "--out=broken.toml"], r"Output folder broken\.toml is in use"),
        (["pretrain", "nano-a", "--out=broken.toml/x"], r"Output folder broken\.toml/x cannot be made"),
        (["bench", "--only-finished", "--out=broken.toml"], r"Output folder broken\.toml cannot be made"),
        (["reproduce", "fig7", "--out=broken.toml"], r"Output folder broken\.toml cannot be made"),
        (["run", "--set=defense=[{name='logit', options={tolerance=nan}}]"], r"'tolerance' of 'logit' is nan"),
        (["run", "--defense=logit", "--set=defense.judge.options.votes=3"], r"'judge' is not among logit"),
        (["demo", "--out=used"], r"not an earlier demo"),
        (["demo", "--out=mine"], r"not an earlier demo"),
        (["demo", "--out=link"], r"not an earlier demo"),
        (["run", "--set=task.options.size=-1"], r"sizes of 0 or more"),
        (["run", "--set=task.options.two_two_share=-3.0"], r"two_two_share in \[0, 1\]"),
        (["run", "--task=openmath", "--data=broken.jsonl", "--set=task.options.size=-1"], r"size of at least 1"),
        (["bench", "--only-finished", "--out=odd"], r"x\.json is no cell of a bench"),
        (["reproduce", "fig99"], r"Unknown figure or table 'fig99'; choose one of fig3a"),
        (["reproduce", "fig3a", "--scale=tiny"], r"Unknown scale 'tiny'; choose one of nano, paper"),
        (["reproduce", "fig3a", "--seeds=0"], r"--seeds 0 is not a number of seeds"),
        (["reproduce", "fig3a", "--engine=slurm"], r"Unknown engine 'slurm'; choose local or ray"),
        (["reproduce", "fig3a", "--workers=-1"], r"--workers -1 is not a number of runs"),
        (["reproduce", "fig3a", "--set=swarm.nods=3"], r"swarm\.nods' is unknown"),
        (["reproduce", "fig3a", "--set=attack=text"], r"attack"),
        (["reproduce", "fig3a", "--set=defense=logit"], r"--set defense is not for several runs"),
        (["reproduce", "text_horizontal"], r"Unknown figure or table 'text_horizontal'"),
        (["bench", "--attack=text", "--set=seed=7"], r"--set seed is not for several runs at once"),
        (["bench", "--attack=text", "--set=attack.name=length"], r"--set attack\.name is not for several runs"),
        (["bench", "--preset=huge"], r"Unknown preset 'huge'; choose one of quick, full, all"),
        (["bench", "--attack=tekst"], r"Unknown attack 'tekst'; choose among no-attacker, text"),
        (["bench", "--defense=logits"], r"Unknown defense 'logits'; choose among none, logit"),
        (["bench", "--attack=text", "--set=rounds"], r"not key=value"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("irreplaceable")
    (tmp_path / "mine" / "clean").mkdir(parents=True)
    (tmp_path / "mine" / "clean" / "thesis.txt").write_text("irreplaceable")
    (tmp_path / "link").symlink_to(tmp_path / "used")
    (tmp_path / "odd" / "cells").mkdir(parents=True)
    (tmp_path / "odd" / "cells" / "x.json").write_text("{}")
    (tmp_path / "broken.toml").write_text("rounds = = 3")
    (tmp_path / "broken.jsonl").write_text('{"question": "q", "answer": "a\\n#### 1"}\n{"question": 3}\n')
    before = sorted(path.name for path in tmp_path.rglob("*"))
    status, _, error = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert re.search(sentence, error), error
    assert error.startswith("hailproof: ") and error.count("\n") == 1 and error.rstrip().endswith(".")
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_run_from_the_command_line(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, error = call(monkeypatch, capsys, "run", "--attack=text", "--defense=logit", "--seed=5", *SMALL)
    assert status == 0, error
    assert "1/2" in out and "2/2" in out and "attack success" in out
    summary = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2 and summary["seed"] == 5
    for name in ("report.html", "curves.png"):
        assert (tmp_path / "runs" / "run" / name).stat().st_size > 1000
    status, out, _ = call(monkeypatch, capsys, "resume", "runs/run")
    assert status == 0 and "Report" in out


def test_a_bench_without_finished_runs_is_an_empty_page(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, error = call(monkeypatch, capsys, "bench", "--only-finished", "--out=new")
    assert status == 0, error
    assert (tmp_path / "new" / "leaderboard.html").is_file()


def test_brackets_in_names_are_text(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    out, trigger = "runs/[/b]", "attack.trigger='[/b]'"
    status, said, error = call(monkeypatch, capsys, "run", "--attack=text", "--out", out, "--set", trigger, *SMALL)
    assert status == 0, error
    assert "Run folder: runs/[/b]" in said and "trigger '[/b]'" in said


def test_list_names_everything(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "list")
    assert status == 0
    for name in ("text", "sentence", "logit", "word_problems", "gsm8k", "nano-a", "nano-b"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE), out


@pytest.mark.parametrize("name", ["nano-a", "nano-b"])
def test_pretrain_builds_a_model_that_loads(monkeypatch, capsys, tmp_path, name):
    status, out, error = call(monkeypatch, capsys, "pretrain", name, "--out", str(tmp_path / "new"), "--steps=1")
    assert status == 0, error
    assert "loss" in out
    from hailproof.policies.causal_lm import load

    policy = load(str(tmp_path / "new"), device="cpu")
    assert policy.decode(policy.encode("Tom has 12 pens.")) == "Tom has 12 pens."


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
    monkeypatch.setattr(cli, "progress_of" if line.startswith("resume") else "quiet_libraries", interrupt)
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
    command = [sys.executable, "-W", "ignore", "-c", WITH_SIGNALS, *arguments]
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
    folder = tmp_path / "stopped run"
    changes = [*SMALL, "--rounds=8", "--set=threads=1", "--set=evaluation.problems=4"]
    assert interrupted(["run", *changes, f"--out={folder}"], when="round 6/8") == (
        130, f"hailproof: stopped; go on with: hailproof resume '{folder}'\n"
    )  # fmt: skip
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
        children = [Path("/proc", child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        running = [child for child in children if "spawn_main" in (child / "cmdline").read_text()]
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
