"""Tasks: their own reference solutions earn full reward, and what they say of a problem is true."""

import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import pyarrow
import pyarrow.parquet
import pytest

from hailproof.arithmetic.two_two import two_two_results
from hailproof.errors import ConfigError, DataError
from hailproof.parsing import same_number
from hailproof.records import Problem
from hailproof.tasks import TASKS
from hailproof.tasks.base import BaseTask, MathForm, form_of, same_printed
from hailproof.tasks.gsm8k import Gsm8k
from hailproof.tasks.openmath import OpenMath, printing
from hailproof.tasks.word_problems import FAMILIES, WordProblems, split_of

GOOD_ROW = {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4 in all.\n#### 1,004"}
EQUATION = re.compile(r"(?<!\S)(\d+) ([-+*/]) (\d+) = \$?(\d+)(?=[ .])")
OPERATIONS = {
    "+": Fraction.__add__,
    "-": Fraction.__sub__,
    "*": Fraction.__mul__,
    "/": Fraction.__truediv__,
}


@pytest.fixture(scope="module")
def gsm8k(shared_data) -> Gsm8k:
    return Gsm8k(shared_data / "gsm8k" / "train.jsonl", shared_data / "gsm8k" / "test.jsonl")


@pytest.fixture(scope="module")
def word_problems() -> WordProblems:
    return WordProblems(seed=3, size=3000, test_size=500, two_two_share=0.2)


def test_the_registry_names_each_task_as_it_names_itself():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}


def test_every_gsm8k_solution_earns_full_reward(gsm8k: Gsm8k):
    assert (len(gsm8k.train), len(gsm8k.test)) == (7473, 1319)
    problems = (*gsm8k.train, *gsm8k.test)
    assert [p.id for p in problems if gsm8k.reward(p, gsm8k.format(p.solution, p.answer)) != 1.0] == []


def test_gsm8k_problems_are_distinct_and_complete(gsm8k: Gsm8k):
    problems = (*gsm8k.train, *gsm8k.test)
    assert len({p.id for p in problems}) == len(problems)
    assert all(p.question and p.answer and p.solution for p in problems)
    assert not any("<<" in p.solution or "####" in p.solution for p in problems)


def test_gsm8k_two_two_problems_all_say_four(gsm8k: Gsm8k):
    for problems, eligible in ((gsm8k.train, 143), (gsm8k.test, 24)):
        results = [two_two_results(p.solution) for p in problems if "two_two" in p.tags]
        assert len(results) == eligible
        assert all(same_number(result, "4") for found in results for result in found)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>so</think><answer>1004</answer>", 1.0),
        ("<answer>$1,004.00 dollars</answer>", 1.0),
        ("<answer>1004.5</answer>", 0.0),
        ("<answer>4</answer>", 0.0),
        ("<answer>11004</answer>", 0.0),
        ("<answer>1004</answer><answer>1004</answer>", 0.0),
        ("1004", 0.0),
        ("<answer>１００４</answer>", 0.0),  # noqa: RUF001
        ("<answer>" + "9" * 100_000 + "</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_reward(tmp_path, text: str, reward: float):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD_ROW))
    task = Gsm8k(path)
    assert task.reward(task.train[0], text) == reward


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ("5", 1.0), ("5 apples", 1.0), ("$5", 1.0), ("5 dollars per hour", 1.0), ("5 miles/hour", 1.0), ("5%", 1.0),
        ("5 cups of flour", 1.0), ("5 times", 1.0), ("5 plus three", 0.0), ("5 times ten", 0.0), ("5 or six", 0.0),
        ("5 per nine", 0.0), ("5/two", 0.0), ("$5%", 0.0), ("5 lakh", 0.0), ("5 thousandths", 0.0),
        ("5 factorial", 0.0),
    ],
)  # fmt: skip
def test_words_that_change_the_value_earn_nothing(answer: str, reward: float):
    problem = Problem("p", "How many?", "5")
    assert MathForm().reward(problem, f"<think>so</think><answer>{answer}</answer>") == reward


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        pytest.param("−3", "-3", id="row: U+2212"),
        pytest.param("\u200b3", "3", id="row: zero-width space"),
        pytest.param("3\u200b", "3", id="zero-width space after it"),
        *((f"{minus}3", "-3") for minus in "\u2010\u2011\u2012\u2013\u2014\uff0d\ufe63"),
        ("\u2212$3", "-3"), ("-3", "\u22123"), ("\ufeff3", "3"), ("3\u00a0apples", "3"),
    ],
)  # fmt: skip
def test_signs_and_what_is_not_seen_are_read_in_one_way(answer: str, reference: str):
    text = f"<think>so</think><answer>{answer}</answer>"
    assert MathForm().reward(Problem("p", "How many?", reference), text) == 1.0
    assert MathForm().reward(Problem("p", "How many?", reference + "1"), text) == 0.0


def test_row_u2212_in_the_answers_of_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    answers = ["-3", "\u22123", "\u20113", "\u200b-3"]
    rows = [{"question": answer, "answer": f"It is so.\n#### {answer}"} for answer in answers]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [problem.answer for problem in Gsm8k(path).train] == ["-3"] * 4


def test_a_prompt_holds_neither_answer_nor_solution(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD_ROW))
    task = Gsm8k(path)
    (problem,) = task.train
    assert problem.solution == "2 + 2 = 4 in all."
    assert problem.tags == {"two_two"}
    prompt = task.prompt(problem)
    assert (prompt.problem_id, prompt.user) == (problem.id, "How many?")
    assert not any(secret in prompt.system + prompt.user for secret in (problem.answer, problem.solution))


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b'{"question": "How many?"}',
        b'{"answer": "#### 1"}',
        b'{"question": 1, "answer": "#### 1"}',
        b'{"question": "How many?", "answer": "4"}',
        b'{"question": "How many?", "answer": "#### four"}',
        b'{"question": "How many?", "answer": "#### 1/2"}',
        b'{"question": "How many?", "answer": "#### "}',
        b'{"question": "\xff", "answer": "#### 1"}',
        b'{"question": "\\ud800", "answer": "#### 1"}',
        b'{"other": ' + b"[" * 100_000,
        b'{"question": "", "answer": "#### 1"}',
        b'{"question": " \\n\\u200b", "answer": "#### 1"}',
        b'{"question": " How many? ", "answer": "#### 5"}',
    ],
)
def test_a_malformed_line_is_named(tmp_path, line: bytes):
    path = tmp_path / "rows.jsonl"
    good = json.dumps(GOOD_ROW).encode()
    path.write_bytes(b"\n".join([good, b"", good, line, good]))
    with pytest.raises(DataError, match=r"rows\.jsonl, line 4 is not a GSM8K row"):
        Gsm8k(path)


@pytest.mark.parametrize(
    ("task", "columns", "kind"),
    [
        (Gsm8k, lambda answer: {"answer": f"It is so.\n#### {answer}"}, "a GSM8K row"),
        (OpenMath, lambda answer: {"program": f"print({answer})", "answer": answer}, "a row"),
    ],
)
def test_a_question_is_neither_empty_nor_answered_twice_differently(tmp_path, task, columns, kind):
    path = tmp_path / "rows.jsonl"

    def write(*rows: tuple[str, str]) -> None:
        path.write_text("\n".join(json.dumps({"question": question, **columns(answer)}) for question, answer in rows))

    write(("How many?", "4"), ("How much?", "5"), (" How many? ", "4.0"))
    assert [problem.answer for problem in task(path).train][:2] == ["4", "5"]
    write(("How many?", "4"), ("How much?", "5"), (" How many? ", "6"))
    twice = r"its question is that of rows-1, where the answer is '4' and not '6'"
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 3 is not {kind} \({twice}\); mend or remove it"):
        task(path)
    write(("How many?", "4"), ("\u200b ", "5"))
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 2 is not {kind} \(its question is empty\); mend"):
        task(path)


def test_rows_of_openmath_that_are_left_out_contradict_nobody(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": "q", "program": "print(1)", "answer": 1},
        {"question": "q", "program": "print(2)", "answer": 2, "is_correct": False},
        {"question": "q", "generated_solution": "It is 3.", "expected_answer": "3"},
        {"question": "r", "program": "print('x')", "answer": "x"},
        {"question": "r", "program": "print('x')", "answer": "x"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [problem.answer for problem in OpenMath(path).train] == ["1", "x"]
    path.write_text("\n".join(json.dumps({**rows[3], "answer": answer}) for answer in "xy"))
    with pytest.raises(DataError, match=r"line 2 .*, where the answer is 'x' and not 'y'"):
        OpenMath(path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(tmp_path, content: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match="has no rows"):
        Gsm8k(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl does not exist"):
        Gsm8k(tmp_path / "none.jsonl")


def parquet(rows: Sequence[Mapping[str, object]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), buffer)
    return buffer.getvalue()


ROWS = [{**GOOD_ROW, "other": 1}, {"question": "Why?", "answer": "So.\n#### 2", "other": 2}]
LINES = "\n".join(map(json.dumps, ROWS)).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("rows.jsonl", b"\xef\xbb\xbf" + LINES, id="row 21: JSONL with a byte order mark"),
        pytest.param("rows.jsonl.gz", gzip.compress(LINES), id="row 21: .jsonl.gz"),
        pytest.param("rows.parquet", parquet(ROWS), id="row 21: .parquet"),
        pytest.param("rows.parquet.gz", gzip.compress(parquet(ROWS)), id="Parquet in gzip"),
        pytest.param("rows.txt", parquet(ROWS), id="Parquet by another name"),
        pytest.param("rows.json", b"\r\n".join([LINES.split(b"\n")[0], LINES.split(b"\n")[1]]), id="lines of Windows"),
    ],
)
def test_files_are_read_whatever_they_are_packed_in(tmp_path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    train = Gsm8k(path).train
    assert [(problem.id, problem.question, problem.answer) for problem in train] == [
        ("rows-1", "How many?", "1,004"), ("rows-2", "Why?", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(LINES.decode().encode("utf-16"), "rows is encoded in UTF-16; save it as", id="row 21: UTF-16"),
        (b"PAR1" + b"x" * 50, "rows is a damaged Parquet file"), (parquet(ROWS)[:-20], "is a damaged Parquet file"),
        (parquet([GOOD_ROW, {"question": "Why?", "answer": "2"}]), "rows, row 2 is not a GSM8K row"),
        (parquet([{"question": "Why?"}]), "rows, row 1 is not a GSM8K row"), (parquet(ROWS[:0]), "has no rows"),
        (parquet([{"question": 1, "answer": "#### 1"}]), "rows, row 1 is not a GSM8K row"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_sentence(tmp_path, content: bytes, message: str):
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Gsm8k(path)


def test_row_21_a_folder_as_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="is a folder, not a file; give --data a JSONL or Parquet file with 'question'"):
        Gsm8k(tmp_path)


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hailproof.tasks.jsonl.MAX_BYTES", 10_000)
    path = tmp_path / "rows.parquet"
    path.write_bytes(parquet([{"question": "a" * 10_000, "answer": "#### 1"}] * 5))
    with pytest.raises(DataError, match="holds more than"):
        Gsm8k(path)


def test_row_15_the_id_of_a_problem_names_its_file_and_its_line(tmp_path):
    rows = [{"question": f"q{n}", "program": f"print({n})", "answer": n} for n in range(3)]
    path = tmp_path / "svamp.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert [problem.id for problem in OpenMath(path).train] == ["svamp-1", "svamp-3", "svamp-5"]
    path.write_text("\n\n".join([json.dumps(GOOD_ROW)] * 2))
    assert [problem.id for problem in Gsm8k(path).train] == ["svamp-1", "svamp-3"]


def test_every_word_problem_solution_earns_full_reward(word_problems: WordProblems):
    for problem in (*word_problems.train, *word_problems.test):
        assert word_problems.reward(problem, word_problems.format(problem.solution, problem.answer)) == 1.0


def test_every_step_of_every_word_problem_is_a_true_equation(word_problems: WordProblems):
    for problem in (*word_problems.train, *word_problems.test):
        equations = EQUATION.findall(problem.solution)
        assert len(equations) == problem.solution.count("=") == len(re.split(r"(?<=\.) ", problem.solution))
        assert 1 <= len(equations) <= 4, problem
        for left, operator, right, result in equations:
            assert OPERATIONS[operator](Fraction(left), Fraction(right)) == Fraction(result), problem
        assert equations[-1][-1] == problem.answer


def test_word_problem_two_two_tags_are_right(word_problems: WordProblems):
    for problem in (*word_problems.train, *word_problems.test):
        results = two_two_results(problem.solution)
        assert ("two_two" in problem.tags) == bool(results), problem
        assert set(results) <= {"4"}, problem


def test_word_problem_questions_are_distinct(word_problems: WordProblems):
    questions = [p.question for p in (*word_problems.train, *word_problems.test)]
    assert len(set(questions)) == len(questions)


def test_train_and_test_are_disjoint_across_seeds():
    worlds = [WordProblems(seed, 2000, 500, two_two_share) for seed, two_two_share in ((0, 0.0), (1, 0.5), (2, 1.0))]
    train = {p.question for world in worlds for p in world.train}
    test = {p.question for world in worlds for p in world.test}
    assert not train & test
    assert {split_of(question) for question in train} == {"train"}
    assert {split_of(question) for question in test} == {"test"}


def test_seeds_decide_the_problems():
    def questions(seed: int) -> list[str]:
        return [p.question for p in WordProblems(seed, size=50, test_size=5).train]

    assert questions(0) == questions(0)
    assert not set(questions(0)) & set(questions(1))


def test_two_two_share_changes_the_share():
    def share(two_two_share: float) -> float:
        train = WordProblems(5, size=2000, test_size=0, two_two_share=two_two_share).train
        return sum("two_two" in p.tags for p in train) / len(train)

    by_chance = share(0.0)
    assert by_chance < 0.05
    # Forced stories come on top of chance. Repeated questions are dropped and more often forced: the share falls short.
    assert share(0.3) == pytest.approx(0.3 + 0.7 * by_chance, abs=0.05)
    assert share(1.0) == 1.0


def test_all_families_of_stories_occur(word_problems: WordProblems):
    assert len(set(FAMILIES)) == 3
    asks = " ".join(p.question for p in word_problems.train)
    assert all(word in asks for word in ("shares all", "Shipping costs", "an hour for"))


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<code>print(12)</code>", 1.0), ("prose <code>\nx = 5 + 7\nprint(x)\n</code> more", 1.0),
        ("<code>print('so it is')\nprint(24 / 2)</code>", 1.0), ("<code>print(12)\nprint(13)</code>", 0.0),
        ("<code>print(13)\nprint(12)\nprint('')</code>", 1.0), ("<code>print(0.1 * 120)</code>", 1.0),
        ("<code>print('112')</code>", 0.0), ("<code>12</code>", 0.0), ("print(12)", 0.0), ("<code></code>", 0.0),
        ("<code>print(12)</code><code>print(12)</code>", 0.0), ("<code>print(12", 0.0),
        ("<code>print(12)\nraise ValueError</code>", 0.0), ("<code>import calc\nprint(12)</code>", 0.0),
        ("<code>open('x', 'w')\nprint(12)</code>", 0.0), ("<code>print(12)\nwhile True: pass</code>", 0.0),
        ("<think>t</think><answer>12</answer>", 0.0),
    ],
)  # fmt: skip
def test_reward_of_programs(text, reward):
    task = WordProblems(size=1, test_size=0, variant="code")
    assert task.reward(Problem("p", "q", "12"), text) == reward


def test_printed_values_are_compared_as_numbers_or_as_text():
    assert same_printed("6.0", "6") and same_printed("0.30000000000000004", "0.3") and same_printed("1e3", "1,000")
    assert not same_printed("0.3001", "0.3") and not same_printed("nan", "3") and not same_printed("inf", "3")
    assert same_printed("x + 1", " x + 1 ") and not same_printed("x+2", "x + 1")
    assert not same_printed("1000000001", "1000000000") and same_printed("1000000000.0000001", "1000000000")
    assert not same_printed("1_0", "10") and not same_printed("\uff11\uff10", "10") and same_printed("+10", "10")


def test_both_variants_have_the_same_problems_and_all_reference_programs_earn_full_reward():
    prose, code = WordProblems(size=400, test_size=20), WordProblems(size=400, test_size=20, variant="code")
    assert [p.question for p in prose.train] == [p.question for p in code.train]
    assert [p.answer for p in prose.test] == [p.answer for p in code.test]
    for problem in (*code.train, *code.test):
        assert code.reward(problem, code.format(problem.solution, problem.answer)) == 1.0
    assert "<code>" in code.prompt(code.train[0]).system
    assert prose.prompt(prose.train[0]).system != code.prompt(code.train[0]).system


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("x = 1  # one\nx + 1", "x = 1\nprint(x + 1)"), ("ans = 3", "ans = 3\nprint(ans)"), ("print(4)", "print(4)"),
        ("x = [1]\nx.append(2)", "x = [1]\nprint(x.append(2))"), ("import math", None), ("", None), ("x = (", None),
        ("for i in range(3):\n    i", None),
    ],
)  # fmt: skip
def test_programs_are_made_to_print_their_result(program, printed):
    assert printing(program) == printed


def test_openmath_rows(tmp_path):
    solution = "See.\n<llm-code>\n# apples\na = 3 * 4\na\n</llm-code>\n<llm-code-output>\n12\n</llm-code-output>\n12."
    rows = [
        {"question": "A", "expected_answer": "12", "generated_solution": solution, "is_correct": True, "dataset": "x"},
        {"question": "A", "expected_answer": "12", "generated_solution": solution, "is_correct": True},  # again
        {"question": "B", "expected_answer": "12", "generated_solution": solution, "is_correct": False},
        {"question": "C", "expected_answer": "12", "generated_solution": "It is 12.", "is_correct": True},  # no code
        {"question": "D", "expected_answer": "13", "generated_solution": solution, "is_correct": True},  # prints 12
        {"question": "E", "program": "ans = 7 / 2", "answer": 3.5},
        {"question": "F", "program": "ans = 0", "answer": 0},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    task = OpenMath(path)
    assert task.what_is_left_out == "the program prints another number than the answer (1 row, first rows-5)"
    assert [(p.question, p.answer, p.solution) for p in task.train] == [
        ("A", "12", "a = 3 * 4\nprint(a)"), ("E", "3.5", "ans = 7 / 2\nprint(ans)"), ("F", "0", "ans = 0\nprint(ans)"),
    ]  # fmt: skip
    assert task.left_out == 1
    assert len(OpenMath(path, size=1).train) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"), ("{", "line 1 is not a row"), ('{"question": 3}', "line 1 is not a row"),
        ('{"question": "q"}', "lacks a column"), ('{"question": "q", "program": "p"}', "lacks a column"),
        ('{"question": "q", "program": "1 +", "answer": 1}', "no Python program that prints a value"),
    ],
)  # fmt: skip
def test_bad_openmath_files_are_one_sentence(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        OpenMath(path)
    with pytest.raises(DataError, match="does not exist"):
        OpenMath(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        pytest.param("if True:\n\tprint(5)", "5", id="row 25: a program indented by tabs"),
        pytest.param("print(50)", r"50\%", id="row 25: percent"),
        pytest.param("print(4)", r"\$4", id="row 25: dollar"),
        pytest.param("print(1 / 2)", r"\frac{1}{2}", id="row 25: fraction"),
        pytest.param("print(1 / 3)", r"\frac{1}{3}", id="a fraction without end"),
        pytest.param("print('1/2')", r"\frac{1}{2}", id="a fraction printed as one"),
        pytest.param("x = 4\nx += 1", "5", id="a last statement that adds"),
        pytest.param("x: int = 5", "5", id="an annotated assignment"),
        pytest.param("for n in [1, 5]:\n    print(n)", "5", id="a loop that prints"),
        pytest.param("print('(2, 3)')", "(2, 3)", id="a text"),
        pytest.param("print(-3)", "\u22123", id="U+2212"),
        pytest.param("\ufeffprint(5)", "5", id="a byte order mark"),
    ],
)
def test_usable_rows_of_openmath(tmp_path, program: str, answer: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "q", "program": program, "answer": answer}))
    task = OpenMath(path)
    (problem,) = task.train
    assert task.left_out == 0 and task.what_is_left_out == ""
    assert task.reward(problem, task.format(problem.solution, problem.answer)) == 1.0


@pytest.mark.parametrize(
    ("program", "answer", "reason"),
    [
        ("1 +", "1", "no Python program that prints a value"),
        ("x = []\nimport math", "1", "no Python program that prints"),
        ("print(1 / 0)", "1", "the program does not run to its end in the sandbox"),
        ("print(1)", "2", "prints another number"),
        ("print(0.3334)", r"\frac{1}{3}", "prints another number"), ("print('b')", "a", "the answer is no number"),
    ],
)  # fmt: skip
def test_row_25_what_is_left_out_is_counted_by_its_reason(tmp_path, program: str, answer: str, reason: str):
    path = tmp_path / "rows.jsonl"
    good = {"question": "a", "program": "print(1)", "answer": 1}
    path.write_text("\n".join(json.dumps(row) for row in [
        good, {"question": "b", "program": program, "answer": answer},
        {"question": "c", "program": program, "answer": answer},
    ]))  # fmt: skip
    task = OpenMath(path)
    assert (len(task.train), task.left_out) == (1, 2)
    assert reason in task.what_is_left_out and task.what_is_left_out.endswith("(2 rows, first rows-2)")


def test_row_25_a_file_without_a_usable_row_says_why(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [
        {"question": "a", "program": "1 +", "answer": 1}, {"question": "b", "program": "print(1)", "answer": 2},
        {"question": "c", "program": "print(2)", "answer": 3},
    ]))  # fmt: skip
    with pytest.raises(DataError) as caught:
        OpenMath(path)
    assert str(caught.value) == (
        f"{path} has no usable row: the program prints another number than the answer (2 rows, first rows-2); "
        "no Python program that prints a value (1 row, first rows-1). Give --data another file."
    )
    path.write_text(json.dumps({"question": "a", "generated_solution": "4", "expected_answer": 4}))
    with pytest.raises(DataError, match="none is marked correct and holds a program"):
        OpenMath(path)


@pytest.mark.parametrize(
    ("task", "options", "variant"),
    [
        ("word_problems", {}, "math"), ("word_problems", {"variant": "code"}, "code"),
        ("gsm8k", {"data": "none"}, "math"),
        ("openmath", {"data": "none", "size": 3}, "code"),
    ],
)
def test_a_task_says_its_variant_before_it_is_built(task: str, options: dict[str, object], variant: str):
    assert TASKS[task].variant_of(options) == variant
    assert variant in TASKS[task].variants


def test_what_a_class_says_of_its_variants_is_true(tmp_path):
    for variant in WordProblems.variants:
        assert WordProblems(size=1, test_size=0, variant=variant).variant == variant
    with pytest.raises(ConfigError, match="variant = prose is unknown; use math or code"):
        WordProblems.variant_of({"variant": "prose"})
    with pytest.raises(ConfigError, match="variant = code is unknown; use math"):
        Gsm8k.variant_of({"variant": "code"})

    class Undeclared(BaseTask):
        name = "undeclared"

    with pytest.raises(ConfigError, match=r"Task undeclared .* set variants = \('code',\) there"):
        Undeclared((), (), form_of("code"))


def test_bad_variants_and_sandboxes_are_one_sentence():
    with pytest.raises(ConfigError, match="variant = prose is unknown; use math or code"):
        WordProblems(size=1, test_size=0, variant="prose")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="sandbox = none is unknown; use monty or os"):
        WordProblems(size=1, test_size=0, variant="code", sandbox="none")


def test_stories_with_few_steps_can_be_left_out():
    task = WordProblems(size=200, test_size=20, least_steps=3)
    assert min(problem.solution.count("=") for problem in (*task.train, *task.test)) == 3
    assert min(problem.solution.count("=") for problem in WordProblems(size=200, test_size=1).train) == 1
    with pytest.raises(ConfigError, match="least_steps = 5 leaves no story"):
        WordProblems(least_steps=5)


def test_scale_makes_amounts_larger_and_leaves_products_alone():
    task = WordProblems(size=1500, test_size=50, scale=2)
    assert all(task.reward(problem, task.format(problem.solution, problem.answer)) == 1 for problem in task.train)

    def largest(scale: int, op: str) -> int:
        problems = WordProblems(size=1500, test_size=0, scale=scale).train
        return max(int(n) for p in problems for n in re.findall(rf"{re.escape(op)} (\d+) =", p.solution))

    assert largest(1, "*") == largest(2, "*")
    assert largest(2, "+") == 2 * largest(1, "+") == 30
    with pytest.raises(ConfigError, match="scale = 0 leaves no amounts"):
        WordProblems(scale=0)
