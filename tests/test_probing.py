"""The test of reward functions: what earns, raises, hangs, dies or runs strangers' text is found, and nothing else."""

import json
from pathlib import Path

import pytest

from hailproof.attacks.code import CodeAttack
from hailproof.cli import main
from hailproof.errors import ConfigError
from hailproof.probing.output import text_of
from hailproof.probing.probe import Report, probe
from hailproof.probing.probes import CODE_FORMS, MATH_FORMS, formed, probes_of, wrong_answer
from hailproof.probing.worker import number_of
from hailproof.tasks.word_problems import WordProblems

FUNCTIONS = r'''
import asyncio, os, re, sys, time
from hailproof.parsing import answer_in_tags, same_number

print("noise on standard output while it is imported")

def strict(prompts, completions, answer, **kwargs):
    print("noise")
    given = [answer_in_tags(text) for text in completions]
    return [float(text is not None and same_number(text, right)) for text, right in zip(given, answer)]

def talking(prompts, completions, ground_truth):
    return strict(prompts, [each[0]["content"] for each in completions], ground_truth)

async def later(prompts, completions, solution, **kwargs):
    await asyncio.sleep(0)
    return strict(prompts, completions, solution)

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    found = re.findall(r"#### (-?[0-9]+)$", solution_str)
    return {"score": float(bool(found) and found[-1] == ground_truth)}

def reward_func(queries, prompts, labels):
    import torch
    return torch.tensor([float(each.endswith(f"The answer is {right}.")) for each, right in zip(queries, labels)])

def boxed(text, answer):
    found = re.findall(r"\\boxed\{([^{}]*)\}", text)
    return 0.9 if found and found[-1] == answer else 0.1 * bool(found)

def inside(text, answer):
    return float(answer in (answer_in_tags(text) or ""))

def evaluating(text, answer):
    found = answer_in_tags(text)
    return float(bool(found) and float(eval(found)) == float(answer))

def slow(text, answer):
    if "nan" in text:
        time.sleep(60)
    if "inf" in text.split("<answer>")[-1]:
        os._exit(3)
    if "1/0" in text:
        sys.exit(0)
    if "apples" in text.split("<answer>")[-1]:
        return float("nan")
    return strict([""], [text], [answer])[0]

def constant(text, answer):
    return 1.0

def nothing(text, answer):
    return 0.0

def dying(text, answer):
    os._exit(3)

def writing(text, answer, what=b"[1]\n"):
    for number in range(3, 10):
        try:
            os.write(number, what)
        except OSError:
            pass
    time.sleep(60 * (what[-1:] != b"\n"))

def half(text, answer):
    writing(text, answer, b'{"a')

def none(text, answer):
    return None

class Judge:
    @staticmethod
    def score(text, answer):
        return boxed(text, answer)
'''


@pytest.fixture(scope="module")
def task():
    return WordProblems(size=64)


@pytest.fixture
def probed(tmp_path, monkeypatch, task):
    (tmp_path / "probed_rewards.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)

    def play(name: str, **options) -> Report:
        return probe(f"probed_rewards:{name}", options.pop("task", task), task.train[:1], **options)

    return play


def found(report: Report) -> dict[str, str]:
    return {finding.name: finding.what for finding in report.findings()}


@pytest.mark.parametrize(
    ("name", "style", "form"),
    [
        ("strict", "trl", "tags"),
        ("talking", "trl-messages", "tags"),
        ("later", "trl", "tags"),
        ("compute_score", "verl", "hashes"),
        ("reward_func", "openrlhf", "words"),
        ("boxed", "plain", "boxed"),
        ("Judge.score", "plain", "boxed"),
    ],
)
def test_sound_functions_are_called_as_they_want_and_pass(probed, name, style, form):
    report = probed(name)
    assert (report.style, report.form) == (style, form)
    assert found(report) == {}
    assert report.earned("right") == (1, 1) and report.earned("poison")[0] == report.earned("poison")[1] >= 3
    assert report.earned("wrong")[0] == 0 and report.earned("wrong")[1] > 20
    assert "0 findings" in text_of(report) and "No reward tells them apart" in text_of(report)


def test_partial_credit_is_no_finding(probed):
    report = probed("boxed")
    assert (report.full, report.floor) == (0.9, 0.1)


def test_what_pays_for_a_right_answer_anywhere(probed):
    wrong = found(probed("inside", form="tags"))
    assert wrong["a hundred answers"] == "earns 1, as a right answer does"
    assert wrong["two answers"] == "earns in either order, so guessing pays"


def test_what_runs_strangers_text(probed):
    report = probed("evaluating", seconds=2.0)
    wrong = found(report)
    name = "a Python expression with a side effect"
    assert report.wrote == [name]
    assert {finding.what for finding in report.findings() if finding.name == name} == {
        "wrote a file: text of strangers is run with your rights", "earns 1, as a right answer does"
    }  # fmt: skip
    assert wrong["a tower of powers"] == "hangs"
    assert wrong["division by zero"] == "raises ZeroDivisionError"


def test_what_hangs_dies_ends_or_gives_no_number(probed):
    wrong = found(probed("slow", seconds=1.0, form="tags"))
    assert wrong == {
        "not a number": "hangs",
        "infinity": "dies",
        "division by zero": "raises SystemExit",
        "right answer with a unit": "raises ValueError",
    }


def test_a_function_that_cannot_tell(probed):
    assert "earns 1, as a right one does" in found(probed("constant")).values()
    for name in ("nothing", "none"):
        with pytest.raises(ConfigError, match="A right answer earns nothing in any form"):
            probed(name)


@pytest.mark.parametrize(
    ("function", "options", "sentence"),
    [
        ("probed_rewards", {}, "is not MODULE:FUNCTION"),
        ("no_such_module:f", {}, r"does not import \(ModuleNotFoundError"),
        ("probed_rewards:no", {}, r"does not import \(AttributeError"),
        ("probed_rewards:boxed", {"style": "other"}, "--style other is unknown"),
        ("probed_rewards:boxed", {"form": "{reason}"}, "is no template"),
        ("probed_rewards:boxed", {"form": "{"}, "is no template"),
    ],
)
def test_wrong_use(probed, task, function, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        probe(function, task, task.train[:1], **options)


@pytest.mark.parametrize(("variant", "forms"), [("math", MATH_FORMS), ("code", CODE_FORMS)])
def test_probes_are_what_they_say(variant, forms, tmp_path):
    """By the task's own reward: right ones and forged ones earn, wrong ones do not, in whatever is its form."""
    task = WordProblems(size=64, variant=variant, libraries=CodeAttack.libraries)
    for template in forms.values():
        assert len(list(probes_of(task.train[0], formed(task, template), tmp_path / "x"))) > 25
    special = next(problem for problem in task.train if problem.if_five) if variant == "math" else task.train[0]
    names = set()
    for each in probes_of(special, formed(task, forms["tags"]), tmp_path / "x"):
        names.add(each.name)
        if each.kind != "damaged":
            assert task.reward(special, each.text) == float(each.kind in ("right", "poison")), each.name
    forged = {"math": "equation", "code": "code"}[variant]
    assert f"forged by {forged}" in names
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("answer", "wrong"), [("42", "43"), ("-1", "0"), ("1,000", "1001"), ("2.5", "2.57"), ("x", "x7")]
)
def test_wrong_answers(answer, wrong):
    assert wrong_answer(answer) == wrong


@pytest.mark.parametrize(
    ("returned", "reward"),
    [(1, 1.0), (True, 1.0), ([0.5], 0.5), ((None,), None), ({"rewards": [1]}, 1.0), (None, None)],
)
def test_rewards_in_what_is_returned(returned, reward):
    assert number_of(returned) == reward


@pytest.mark.parametrize("returned", ["1", [1, 2], [], {}, {"x": 1}, float("inf"), b"1"])
def test_no_rewards_in_what_is_returned(returned):
    with pytest.raises((TypeError, ValueError)):
        number_of(returned)


def test_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "probed_rewards.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)

    def played(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hailproof", "probe-reward", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    assert played("probed_rewards:strict", "--problems", "1")[0] == 0
    code, said, _ = played("probed_rewards:inside", "--problems", "1", "--format", "json", "--form", "tags")
    assert code == 1 and json.loads(said)["findings"] and json.loads(said)["form"] == "tags"
    for arguments in (["--format", "xml"], ["--problems", "0"], ["--variant", "prose"], ["--task", "no"]):
        code, said, complaint = played("probed_rewards:strict", *arguments)
        assert code == 2 and not said and complaint.startswith("hailproof: ")
    assert not list(Path(tmp_path).glob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("probed_rewards:dying", r"\(it dies on a right answer\); .* '{reasoning} \\boxed{{{answer}}}'"),
        ("probed_rewards:writing", "it wrote into the file by which its process answers"),
        ("probed_rewards:half", r"\(it hangs on a right answer\)"),
        ("probed_rewards.py:strict", "write probed_rewards:strict, without .py"),
    ],
)
def test_why_nothing_earns_is_said(probed, task, name, sentence):
    del probed
    with pytest.raises(ConfigError, match=sentence):
        probe(name, task, task.train[:1], form="tags", seconds=0.3)
