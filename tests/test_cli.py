"""The command line: bad input is one sentence and exit status 2, and nothing is half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import forked

from hailproof import cli
from hailproof.runs.words import summary_table

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
        (["run", "missing.toml"], r"missing\.toml does not exist; check the path"),
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
        (["reproduce", "fig3a", "--scale=smollm2"], r"Unknown scale 'smollm2'; choose one of nano, paper"),
        (["bench", "--scale=tiny"], r"Unknown scale 'tiny'; choose one of nano, smollm2, paper"),
        (["reproduce", "fig3a", "--seeds=0"], r"--seeds 0 is not a number of seeds"),
        (["reproduce", "fig3a", "--engine=slurm"], r"Unknown engine 'slurm'; choose local or ray"),
        (["reproduce", "fig3a", "--workers=-1"], r"--workers -1 is not a number of runs"),
        (["reproduce", "fig3a", "--set=swarm.nods=3"], r"swarm\.nods' is unknown"),
        (["reproduce", "fig3a", "--set=attack=text"], r"attack"),
        (["reproduce", "fig3a", "--set=defense=logit"], r"--set defense is not for several runs"),
        (["reproduce", "text_horizontal"], r"Unknown figure or table 'text_horizontal'"),
        (["bench", "--attack=text", "--set=seed=7"], r"--set seed is not for several runs at once"),
        (["bench", "--attack=text", "--set=attack.name=length"], r"--set attack\.name is not for several runs"),
        (["bench", "--attack=text", "--set=name=x"], r"--set name is not for several runs at once"),
        (["run", "--out="], r"--out is empty"),
        (["bench", "--out= "], r"--out is empty"),
        (["run", "--set=name=../../x"], r"'\.\./\.\./x' cannot be the name of a folder"),
        (["run", "--set=threads=100000"], r"threads = 100000 is more than the \d+ cores of this machine"),
        (["run", "--set=learner.learning_rate=inf"], r"learner\.learning_rate': input should be a finite number"),
        (["run", "--set=swarm.nodes=true"], r"swarm\.nodes': input should be a valid integer"),
        (["run", "--set=attack.malicious=5"], r"attack\.malicious = 5 is set, but there is no attack"),
        (["run", "--set=attack.options.phrase=x"], r"is set, but there is no attack"),
        (["run", "--set=sampling.max_new_tokens=100000"], r"context of nano-a.*; lower sampling\.max_new_tokens to"),
        (["run", f"--out={'x' * 256}"], r"File name too long"),
        (["resume", "x" * 256], r"File name too long"),
        (["report", "x" * 256], r"File name too long"),
        (["run", "x" * 256], r"File name too long"),
        (["run", f"--model={'x' * 256}"], r"Model .*xxx.*does not load"),
        (["bench", "--preset=huge"], r"Unknown preset 'huge'; choose one of quick, headline, full, all"),
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
    assert "1/2" in out and "2/2" in out and "Means over all 2 rounds" in out and "attack success" in out
    summary = json.loads((tmp_path / "runs" / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2 and summary["seed"] == 5
    for name in ("report.html", "curves.png"):
        assert (tmp_path / "runs" / "run" / name).stat().st_size > 1000
    status, out, _ = call(monkeypatch, capsys, "resume", "runs/run")
    assert status == 0 and "Report" in out


UNWRITTEN = r"hailproof: The output cannot be written \(No space .*\); send it elsewhere, .*\.\n"


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["run", "--help"], ["--version"]])
def test_output_that_cannot_be_written_is_one_sentence(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hailproof", *arguments]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2 and re.fullmatch(UNWRITTEN, ended.stderr)


def test_a_run_whose_output_cannot_be_written_leaves_no_folder(tmp_path):
    run = forked(tmp_path, ["run", *SMALL], Path("/dev/full"), tmp_path / "said")
    run.join()
    assert run.exitcode == 2 and re.fullmatch(UNWRITTEN, (tmp_path / "said").read_text())
    assert not list(tmp_path.rglob("config.toml"))


@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_a_pipe_that_is_closed_is_no_error_to_speak_of(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hailproof", *arguments]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("rounds", "title"),
    [([1], "Figures of the one round"), ([3], "Means over all 3 rounds"), ([5, 5], "Means over all 5 rounds"),
     ([6], "Means over the last 5 rounds"), ([2, 50], "Means over the last 5 rounds")],
)  # fmt: skip
def test_the_table_says_over_which_rounds_it_is(rounds, title):
    keys = ("attack_success", "reward", "completion_tokens", "honest_acceptance", "malicious_acceptance", "held_out")
    summary = {**dict.fromkeys(keys), "seconds_per_round": 1.0}
    summaries = {str(place): {**summary, "rounds": number} for place, number in enumerate(rounds)}
    assert summary_table(summaries).title == title


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
    from hailproof.policies.load import load

    policy = load(str(tmp_path / "new"), device="cpu")
    assert policy.codec.decode(policy.codec.encode("Tom has 12 pens.")) == "Tom has 12 pens."
