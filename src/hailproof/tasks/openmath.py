r"""``openmath``: problems whose reference solutions are programs, from OpenMathInstruct-1 or a local file.

OpenMathInstruct-1 (Toshniwal et al. 2024, arXiv 2402.10176) has the columns ``question``, ``expected_answer``,
``generated_solution`` with code in ``<llm-code>`` blocks, and ``is_correct``. Rows that are not marked correct or hold
no code are left out, and of several solutions of a question the first that works is kept. A plain file has
``question``, ``program`` and ``answer``. In both, a program whose last statement is an expression or an assignment
is made to print its value; comments are dropped, since the prompt asks for none.

Answers are numbers, also in LaTeX (``\frac{1}{2}``, ``50\%``, ``\$4``), or texts that the program prints letter by
letter. A row whose program does not print its answer in the sandbox is left out; ``left_out`` and ``what_is_left_out``
say how many, and why.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from hailproof.errors import ConfigError, DataError
from hailproof.parsing import exact_number, source_of, syntax_tree
from hailproof.records import Problem
from hailproof.sandbox import Library
from hailproof.tasks.base import BaseTask, CodeForm, form_of, same_printed
from hailproof.tasks.jsonl import Answers, read_rows

HUB_ID = "nvidia/OpenMathInstruct-1"
CODE_BLOCK = re.compile(r"<llm-code>\n?(.*?)</llm-code>", re.DOTALL)
NO_PROGRAM = "no Python program that prints a value"
FAILS = "the program does not run to its end in the sandbox"
OTHER_VALUE = "the program prints another number than the answer"
NO_NUMBER = "the answer is no number, and the program prints another text"


class Row(msgspec.Struct):
    """One row of either kind; other columns are ignored."""

    question: str
    expected_answer: str | float | int | None = None
    generated_solution: str | None = None
    is_correct: bool = True
    program: str | None = None
    answer: str | float | int | None = None

    @property
    def code_column(self) -> str | None:
        """The column that holds the program, or the solution with programs in it."""
        return self.generated_solution if self.program is None else self.program

    @property
    def answer_column(self) -> str | float | int | None:
        """The column that holds the answer."""
        return self.answer if self.expected_answer is None else self.expected_answer

    @property
    def code(self) -> str | None:
        """The program, or the code blocks of the solution, run together."""
        blocks = CODE_BLOCK.findall(self.generated_solution or "")
        return self.program if self.program is not None else "\n".join(blocks) or None

    @property
    def result(self) -> str:
        """The answer as text."""
        answer = self.answer_column
        return f"{answer:.0f}" if isinstance(answer, float) and answer.is_integer() else str(answer)


Numbered = tuple[str, Row]
"""The id of a problem, and its row."""


def printing(program: str) -> str | None:
    """Rewrites a program so that it prints the value of its last statement, and drops comments.

    Args:
        program: The text of a program as models write it, perhaps meant for a notebook.

    Returns:
        The program; ``None`` if it is not valid Python, prints nothing and ends in a statement without a value, or
        cannot be written again.
    """
    tree = syntax_tree(program)
    if tree is None or not tree.body:
        return None
    match last := tree.body[-1]:
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            pass
        case ast.Expr():
            tree.body[-1] = ast.Expr(ast.Call(ast.Name("print"), [last.value], []))
        case (
            ast.Assign(targets=[ast.Name(id=name), *_])
            | ast.AugAssign(target=ast.Name(id=name))
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
        ):
            tree.body.append(ast.Expr(ast.Call(ast.Name("print"), [ast.Name(name)], [])))
        case _ if not _prints(tree):
            return None
    return source_of(tree)


def _prints(tree: ast.Module) -> bool:
    """Whether a program calls ``print`` anywhere."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Name) and function.id == "print" for function in calls)


def read_jsonl(path: Path) -> list[Numbered]:
    """Reads a local file of either kind, JSONL or Parquet.

    Raises:
        DataError: If the file is missing, empty, or has a row of neither kind, or a usable one that answers the
            question of an earlier one otherwise; names the line.
    """
    answers = Answers()

    def read(row: Row, problem_id: str) -> Numbered:
        if None in (row.code_column, row.answer_column):
            raise DataError(
                "it lacks a column: it needs program and answer, or generated_solution and expected_answer"
            )
        if row.is_correct and row.code is not None:
            answers.check(row.question, row.result, problem_id)
        return problem_id, row

    return read_rows(path, Row, read, "a row", "question, program, answer")


def _read_hub(split: str, prefix: str) -> Iterable[Numbered]:
    import datasets

    try:
        rows = cast(Iterable[dict[str, object]], datasets.load_dataset(HUB_ID, split=split, streaming=True))
        for number, row in enumerate(rows, start=1):
            yield f"{prefix}-{number}", msgspec.convert(row, type=Row)
    except Exception as error:  # the library raises many types, all of which mean "not to be had"
        raise DataError(f"{HUB_ID} did not load from the hub ({error}); give --data a local JSONL file.") from error


class OpenMath(BaseTask):
    """Problems that are answered with programs.

    Args:
        data: A local JSONL or Parquet file for the train split; ``None`` streams both splits from the hub.
        test_data: Such a file for the test split.
        size: At most so many train problems (the hub's split has millions of rows).
        test_size: At most so many test problems.
        sandbox: Where programs run: ``monty``, or ``os`` for real CPython with sympy (extra ``sandbox``).
        libraries: Modules that programs may import, given by the experiment.

    Attributes:
        left_out: How many rows that should have been usable were not.
    """

    name = "openmath"
    variants = ("code",)
    completion_tokens = 256

    def __init__(
        self,
        data: str | Path | None = None,
        test_data: str | Path | None = None,
        size: int = 10_000,
        test_size: int = 1_000,
        sandbox: str = "monty",
        libraries: Mapping[str, Library] | None = None,
    ) -> None:
        if size < 1 or test_size < 0:
            raise ConfigError("Task openmath takes a size of at least 1 and a test_size of 0 or more.")
        super().__init__((), (), form_of("code", sandbox, libraries))
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        train = read_jsonl(Path(data)) if data else _read_hub("train", "train")
        self.train: Sequence[Problem] = self._usable(train, size)
        if not self.train:
            source = data or HUB_ID
            reason = self.what_is_left_out or "none is marked correct and holds a program"
            raise DataError(f"{source} has no usable row: {reason}. Give --data another file.")
        test = read_jsonl(Path(test_data)) if test_data else () if data else _read_hub("validation", "test")
        self.test: Sequence[Problem] = self._usable(test, test_size)

    @property
    def left_out(self) -> int:
        """How many rows with a program that should print the answer were left out."""
        return self._reasons.total()

    @property
    def what_is_left_out(self) -> str:
        """How many rows are left out for which reason, and the first of each; empty if none is."""
        return "; ".join(
            f"{reason} ({count} {'row' if count == 1 else 'rows'}, first {self._first[reason]})"
            for reason, count in self._reasons.most_common()
        )

    def _usable(self, rows: Iterable[Numbered], size: int) -> tuple[Problem, ...]:
        """Keeps, per question, the first reference program that earns full reward."""
        problems: dict[str, Problem] = {}
        for problem_id, row in rows:
            if len(problems) == size:
                break
            if row.question in problems or not row.is_correct or row.code is None:
                continue
            program = printing(row.code)
            problem = Problem(problem_id, row.question.strip(), row.result, program or "")
            reason = self._fault(problem)
            if reason:
                self._reasons[reason] += 1
                self._first.setdefault(reason, problem_id)
            else:
                problems[row.question] = problem
        return tuple(problems.values())

    def _fault(self, problem: Problem) -> str:
        """Why the reference program of a problem earns nothing; empty if it earns full reward."""
        assert isinstance(self.form, CodeForm)
        if not problem.solution:
            return NO_PROGRAM
        printed = self.form.printed(self.format(problem.solution, problem.answer))
        if printed is None:
            return FAILS
        if same_printed(printed, problem.answer):
            return ""
        return NO_NUMBER if exact_number(problem.answer) is None else OTHER_VALUE
