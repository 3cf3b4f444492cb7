"""``openmath``: problems whose reference solutions are programs, from OpenMathInstruct-1 or a local JSONL file.

OpenMathInstruct-1 (Toshniwal et al. 2024, arXiv 2402.10176) has the columns ``question``, ``expected_answer``,
``generated_solution`` with code in ``<llm-code>`` blocks, and ``is_correct``. Rows that are not marked correct or hold
no code are left out, and of several solutions of a question the first that works is kept. A plain file has
``question``, ``program`` and ``answer``. In both, a program whose last statement is an expression or an assignment
is made to print its value; comments are dropped, since the prompt asks for none.

A reference program that does not print the answer in the sandbox is left out and counted in ``left_out``: broken
programs, and those that need what the sandbox lacks (sympy).
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from hailproof.errors import ConfigError, DataError
from hailproof.parsing import source_of, syntax_tree
from hailproof.records import Problem
from hailproof.sandbox import Library
from hailproof.tasks.base import BaseTask, form_of
from hailproof.tasks.jsonl import read_lines

HUB_ID = "nvidia/OpenMathInstruct-1"
CODE_BLOCK = re.compile(r"<llm-code>\n?(.*?)</llm-code>", re.DOTALL)


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


def printing(program: str) -> str | None:
    """Rewrites a program so that it prints the value of its last statement, and drops comments.

    Args:
        program: The text of a program as models write it, perhaps meant for a notebook.

    Returns:
        The program; ``None`` if it is not valid Python, ends in a statement without a value,
        or cannot be written again.
    """
    tree = syntax_tree(program)
    if tree is None or not tree.body:
        return None
    match last := tree.body[-1]:
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            pass
        case ast.Expr():
            tree.body[-1] = ast.Expr(ast.Call(ast.Name("print"), [last.value], []))
        case ast.Assign(targets=[ast.Name(id=name), *_]):
            tree.body.append(ast.Expr(ast.Call(ast.Name("print"), [ast.Name(name)], [])))
        case _:
            return None
    return source_of(tree)


def read_jsonl(path: Path) -> list[Row]:
    """Reads a local file of either kind.

    Raises:
        DataError: If the file is missing, empty, or has a line that is not such a row; names the line.
    """

    def read(line: bytes, number: int) -> Row:
        row = msgspec.json.decode(line, type=Row)
        if None in (row.code_column, row.answer_column):
            raise DataError(
                "it lacks a column: it needs program and answer, or generated_solution and expected_answer"
            )
        return row

    return read_lines(path, read, "a row", "question, program, answer")


def _read_hub(split: str) -> Iterable[Row]:
    import datasets

    try:
        rows = cast(Iterable[dict[str, object]], datasets.load_dataset(HUB_ID, split=split, streaming=True))
        for row in rows:
            yield msgspec.convert(row, type=Row)
    except Exception as error:  # the library raises many types, all of which mean "not to be had"
        raise DataError(f"{HUB_ID} did not load from the hub ({error}); give --data a local JSONL file.") from error


class OpenMath(BaseTask):
    """Problems that are answered with programs.

    Args:
        data: A local JSONL file for the train split; ``None`` streams both splits from the hub.
        test_data: A local JSONL file for the test split.
        size: At most so many train problems (the hub's split has millions of rows).
        test_size: At most so many test problems.
        sandbox: Where programs run: ``monty``, or ``os`` for real CPython with sympy (extra ``sandbox``).
        libraries: Modules that programs may import, given by the experiment.
    """

    name = "openmath"
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
        self.left_out = 0
        train = read_jsonl(Path(data)) if data else _read_hub("train")
        self.train: Sequence[Problem] = self._usable(train, "train", size)
        test = read_jsonl(Path(test_data)) if test_data else () if data else _read_hub("validation")
        self.test: Sequence[Problem] = self._usable(test, "test", test_size)
        if not self.train:
            raise DataError("No reference program prints its answer in the sandbox; give --data another file.")

    def _usable(self, rows: Iterable[Row], split: str, size: int) -> tuple[Problem, ...]:
        """Keeps, per question, the first reference program that earns full reward."""
        problems: dict[str, Problem] = {}
        for number, row in enumerate(rows, start=1):
            if len(problems) == size:
                break
            if row.question in problems or not row.is_correct or row.code is None:
                continue
            program = printing(row.code)
            problem = Problem(f"{split}-{number}", row.question.strip(), row.result, program or "")
            if program and self.reward(problem, self.format(program, row.result)):
                problems[row.question] = problem
            else:
                self.left_out += 1
        return tuple(problems.values())
