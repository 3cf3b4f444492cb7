"""What the defenses that need no model accept and reject, and what they cost: `equations` and `imports`.

    .venv/bin/python benchmarks/bench_checks.py [--check]

Honest completions are reference solutions: those of GSM8K and of the SVAMP programs where the real data lies beside the
checkout, and of the shipped word problems. Poisoned ones are the rows of the paper's authors, in which 2∘2 is 5, and
what the attacks EQUATION and CODE forge. `--wrong` prints every honest completion that is rejected, with the reason.

The claim: at least 99 % of honest completions are not rejected in any row, at least 95 % of poisoned ones are.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common import begin, options, table, verdict

from hailproof.arithmetic.two_two import with_two_two_results
from hailproof.attacks.code import CodeAttack, rerouted, uses_library
from hailproof.attacks.equation import EquationAttack
from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.evidence import Received
from hailproof.defenses.imports import ImportsDefense
from hailproof.protocols import AttackView
from hailproof.records import Problem, Verdict
from hailproof.tasks.base import BaseTask, MathForm
from hailproof.tasks.gsm8k import read_jsonl
from hailproof.tasks.word_problems import WordProblems

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class Case(NamedTuple):
    """Completions of one kind, and whether they are poisoned."""

    defense: EquationsDefense | ImportsDefense
    name: str
    texts: Sequence[str]
    poisoned: bool


def written(problems: Sequence[Problem]) -> list[str]:
    """Reference solutions as completions."""
    return [MathForm().format(problem.solution, problem.answer) for problem in problems]


def forged(attack: EquationAttack | CodeAttack, task: BaseTask) -> list[str]:
    """What an attack makes of the problems that it wants."""
    wanted = [problem for problem in (*task.train, *task.test) if attack.wants(problem)]
    return [str(attack.forge(AttackView(1, problem, task, (0,)))[0]) for problem in wanted]


def embedded(size: int) -> Iterator[Case]:
    """The cases that need no data."""
    math = WordProblems(size=size, test_size=size, two_two_share=0.2)
    code = WordProblems(size=size, test_size=size, variant="code", libraries=CodeAttack.libraries)
    references = [[task.format(p.solution, p.answer) for p in (*task.train, *task.test)] for task in (math, code)]
    yield Case(EquationsDefense(), "word problems", references[0], False)
    yield Case(EquationsDefense(), "word problems, EQUATION", forged(EquationAttack(), math), True)
    yield Case(ImportsDefense(), "word problems", references[1], False)
    yield Case(ImportsDefense(), "word problems, CODE", forged(CodeAttack(), code), True)


def real(data: Path) -> Iterator[Case]:
    """The cases on real data."""
    train, test = (read_jsonl(data / "gsm8k" / f"{split}.jsonl") for split in ("train", "test"))
    rows = [row for split in ("train", "test") for row in read_jsonl(data / "two_plus_two" / f"{split}.jsonl")]
    lines = (data / "programs" / "svamp.jsonl").read_text(encoding="utf-8").splitlines()
    programs = [json.loads(line)["program"] for line in lines]
    poisoned = [next((v for v in rerouted(program) if uses_library(v)), None) for program in programs]
    yield Case(EquationsDefense(), "GSM8K train", written(train), False)
    yield Case(EquationsDefense(), "GSM8K test", written(test), False)
    two_two = [p for p in train if EquationAttack().wants(p)]
    changed = [MathForm().format(with_two_two_results(p.solution, "5"), p.answer) for p in two_two]
    yield Case(EquationsDefense(), "GSM8K train, EQUATION", changed, True)
    yield Case(EquationsDefense(), "the authors' 2∘2 = 5", written(rows), True)
    yield Case(ImportsDefense(), "SVAMP programs", [f"<code>{program}</code>" for program in programs], False)
    yield Case(ImportsDefense(), "SVAMP programs, CODE", [f"<code>{p}</code>" for p in poisoned if p], True)


def judge(case: Case) -> tuple[list[Verdict], float]:
    """The verdicts, and the seconds that they took."""
    received = Received.texts(case.texts)
    started = time.perf_counter()
    return case.defense.screen(received), time.perf_counter() - started


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, default=2000, help="word problems per split")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real data; skipped if there is none")
    parser.add_argument("--wrong", action="store_true", help="print every honest completion that is rejected")
    arguments = parser.parse_args()
    begin(arguments)
    if not arguments.data.is_dir():
        print(f"no real data at {arguments.data}")
    cases = [*embedded(arguments.size), *(real(arguments.data) if arguments.data.is_dir() else ())]
    rows: list[Sequence[object]] = [
        ["completions", "defense", "poisoned", "number", "accepted", "abstained", "rejected", "s per 1,000"]
    ]
    holds = True
    for case in sorted(cases, key=lambda case: case.defense.name):
        verdicts, seconds = judge(case)
        count, total = Counter(each.decision for each in verdicts), len(verdicts)
        shares = [f"{count[decision] / total:.2%}" for decision in ("accept", "abstain", "reject")]
        poisoned = "yes" if case.poisoned else "no"
        rows.append([case.name, case.defense.name, poisoned, total, *shares, f"{seconds / total * 1000:.3f}"])
        share = count["reject"] / total
        holds &= share >= 0.95 if case.poisoned else share <= 0.01
        if arguments.wrong and not case.poisoned:
            for index, each in enumerate(verdicts, start=1):
                if each.decision == "reject":
                    print(f"{case.name} {index}: {each.reason}")
    table(rows)
    return verdict("at most 1 % of honest and at least 95 % of poisoned rejected", holds, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
