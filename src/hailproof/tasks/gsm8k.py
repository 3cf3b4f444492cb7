"""``gsm8k``: grade-school math problems (Cobbe et al. 2021, arXiv 2110.14168), from the hub or a local file.

Each row has ``question`` and ``answer``; the answer is reasoning with calculator notes ``<<48/2=24>>``, then
``#### result``. The notes are stripped: they are an artifact of annotation, not text that a person would write.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import msgspec

from hailproof.arithmetic.two_two import two_two_results
from hailproof.errors import DataError
from hailproof.parsing import parse_number, plain, without_calculator_notes
from hailproof.records import Problem
from hailproof.tasks.base import BaseTask
from hailproof.tasks.jsonl import Answers, read_rows

HUB_ID = "openai/gsm8k"


class Row(msgspec.Struct):
    """One row of the data set; other columns are ignored."""

    question: str
    answer: str


def read_row(row: Row, problem_id: str) -> Problem:
    """Turns a row into a problem.

    Raises:
        DataError: If the row has no ``#### number``.
    """
    reasoning, mark, result = row.answer.rpartition("####")
    if not mark or parse_number(result) is None:
        raise DataError(f"{problem_id}: the answer does not end in '#### number'.")
    solution = without_calculator_notes(reasoning).strip()
    tags = frozenset({"two_two"}) if two_two_results(solution) else frozenset()
    return Problem(problem_id, row.question.strip(), plain(result).strip(), solution, tags)


def read_jsonl(path: Path) -> tuple[Problem, ...]:
    """Reads a local file, JSONL or Parquet, with ``question`` and ``answer`` in every row.

    Raises:
        DataError: If the file is missing, empty, or has a row that is none, or answers a question of an earlier one
            otherwise; names the line.
    """
    answers = Answers()

    def read(row: Row, problem_id: str) -> Problem:
        problem = read_row(row, problem_id)
        answers.check(problem.question, problem.answer, problem_id)
        return problem

    return tuple(read_rows(path, Row, read, "a GSM8K row", "'question' and 'answer'"))


def _read_hub(split: str) -> tuple[Problem, ...]:
    import datasets

    try:
        rows = cast(Iterable[dict[str, str]], datasets.load_dataset(HUB_ID, "main", split=split))
    except Exception as error:  # the library raises many types, all of which mean "not to be had"
        raise DataError(f"{HUB_ID} did not load from the hub ({error}); give --data a local JSONL file.") from error
    return tuple(
        read_row(Row(row["question"], row["answer"]), f"{split}-{index}") for index, row in enumerate(rows, start=1)
    )


class Gsm8k(BaseTask):
    """GSM8K.

    Args:
        data: A local JSONL or Parquet file for the train split; ``None`` loads both splits from the hub.
        test_data: Such a file for the test split; without it, and with ``data``, the test split is empty.
    """

    name = "gsm8k"

    def __init__(self, data: str | Path | None = None, test_data: str | Path | None = None) -> None:
        train = read_jsonl(Path(data)) if data else _read_hub("train")
        test = read_jsonl(Path(test_data)) if test_data else () if data else _read_hub("test")
        super().__init__(train, test)
