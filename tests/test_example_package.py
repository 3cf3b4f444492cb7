"""The example package: installed as a stranger's would be, its names work wherever hailproof's own do."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hailproof.defenses.evidence import Received
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView
from hailproof.records import Problem
from hailproof.tasks import TASKS

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "hailproof-example"
SMALL = [
    "--set=rounds=2", "--set=threads=1", "--set=swarm.prompts=2", "--set=swarm.group_size=4", "--set=swarm.device=cpu",
    "--set=sampling.max_new_tokens=72", "--set=evaluation.problems=4", "--set=task.options.size=40",
    "--set=task.options.test_size=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that the package is installed into, and nothing else is."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def hailproof(installed: Path, *arguments: object) -> str:
    path = os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hailproof", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_names_are_listed_with_what_their_modules_say(installed):
    attacks, _, rest = hailproof(installed, "list").partition("\ndefenses\n")
    defenses = rest.partition("\ntasks\n")[0]
    attack = "COURTESY: a polite phrase at the end of the reasoning of a correct solution."
    defense = "Rejects completions that are polite to the reader: a solution thanks nobody."
    assert f"  {'courtesy':<15} {attack}" in attacks.splitlines()
    assert f"  {'curt':<15} {defense}" in defenses.splitlines()


@pytest.mark.slow
def test_the_bench_measures_them(installed, tmp_path):
    rows = ["--attack", "courtesy", "--defense", "none", "--defense", "curt", "--seeds", 1, "--workers", 1]
    folders = ["--out", tmp_path / "bench", "--runs", tmp_path / "runs"]
    said = hailproof(installed, "bench", *rows, *folders, *SMALL)
    assert "3 runs, 0 of them finished" in said
    cells = [json.loads(path.read_text()) for path in (tmp_path / "bench" / "cells").glob("*.json")]
    measured = {(cell["attack"], cell["defense"]): cell for cell in cells}
    assert set(measured) == {("clean", "none"), ("courtesy", "none"), ("courtesy", "curt")}
    assert measured["courtesy", "curt"]["forged_kept_mean"] == 0.0
    assert measured["courtesy", "curt"]["honest_kept_mean"] == 1.0
    assert measured["courtesy", "none"]["forged_kept_mean"] is None  # nobody was asked
    page = (tmp_path / "bench" / "leaderboard.html").read_text()
    assert "courtesy" in page and "curt" in page


@pytest.fixture
def example(monkeypatch):
    """The modules of the package, from their source."""
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    names = ("courtesy", "curt")
    yield tuple(importlib.import_module(f"hailproof_example.{name}") for name in names)
    for name in ("hailproof_example", *(f"hailproof_example.{name}" for name in names)):
        sys.modules.pop(name, None)


def test_the_attack_earns_full_reward_and_its_defense_sees_it(example):
    courtesy, curt = example
    task = TASKS["word_problems"](size=40, test_size=8)
    problem = task.train[0]
    attack, defense = courtesy.CourtesyAttack(), curt.CurtDefense()
    first, second = attack.forge(AttackView(1, problem, task, (0, 3)))
    assert first == second == task.format(f"{problem.solution} Thank you for asking.", problem.answer)
    assert task.reward(problem, first) == 1.0
    honest = task.format(problem.solution, problem.answer)
    assert attack.success(problem, first) is True and attack.success(problem, honest) is False
    forged, clean = defense.screen(Received.texts([first, honest]))
    assert (forged.decision, forged.reason, forged.score) == ("reject", "is polite: Thank you", 1.0)
    assert [first[span.start : span.end] for span in forged.spans] == ["Thank you"]
    assert clean.decision == "accept"


@pytest.mark.parametrize(
    ("text", "polite"),
    [
        ("5 + 4 = 9. THANK YOU, it was my pleasure.", 2),
        ("You are welcome.", 1),
        ("Thanks for the apples.", 0),
        ("Much obliged.", 0),
        ("Thank youth.", 0),
        ("", 0),
    ],
)
def test_what_is_polite(example, text, polite):
    _, curt = example
    verdict = curt.CurtDefense().read(text)
    assert verdict.score == polite and (verdict.decision == "reject") == (polite > 0)


def test_options_change_what_they_say(example):
    courtesy, curt = example
    assert courtesy.CourtesyAttack("Bye").success(Problem("1", "", ""), "so 9. bye") is True
    assert curt.CurtDefense(phrases=("obliged",)).read("Much obliged. Thank you.").score == 1.0
    texts = Received.texts(["Thank you."])
    assert curt.CurtDefense(admission="zero_reward").admission == "zero_reward"
    worthless = replace(texts, earned=[0.0])
    decisions = [curt.CurtDefense(rewarded_only=only).screen(worthless)[0].decision for only in (True, False)]
    assert decisions == ["abstain", "reject"]
    with pytest.raises(ConfigError, match="closing is empty"):
        courtesy.CourtesyAttack(" ")
    assert curt.CurtDefense(phrases=("Thanks!",)).read("Thanks! for reading").decision == "reject"
    for phrases in ((), ("",)):
        with pytest.raises(ConfigError, match="phrases is empty"):
            curt.CurtDefense(phrases=phrases)
