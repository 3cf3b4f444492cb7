"""What judges accept, in the form of the paper's table 1: honest solutions and each attack, with and without criticism.

    .venv/bin/python benchmarks/bench_judge.py --threads 1

Each completion is judged ``--judgements`` times (four in the paper), each with its own key, and the table shows the
share of "yes". Problems are of the test split, which no shipped model was trained on, and no attack was looked at in
training. Honest completions are reference solutions, as in the paper, and draws of nano-a: those that earn their
reward, those that are right in a form that earns none, and the wrong ones. ``corrupted`` is the judge's own validation
split: the kinds of faults that it was trained on.
"""

import argparse
import itertools
import random
import re
import sys
import time
from collections.abc import Callable

from common import begin, options, table

from hailproof.attacks import ATTACKS
from hailproof.attacks.base import BaseAttack
from hailproof.attacks.judge_injection import FAMILIES, JudgeInjectionAttack
from hailproof.defenses.judge import SHIPPED_JUDGE, JudgeDefense
from hailproof.defenses.panel import Case, Judgement
from hailproof.paper.judge_table import forged
from hailproof.paper.judge_table import references as reference_cases
from hailproof.policies.load import load
from hailproof.policies.nano.judging_corpus import judged_samples
from hailproof.protocols import Sampling
from hailproof.records import Problem, Slot
from hailproof.rollouts import rollout
from hailproof.tasks.word_problems import WordProblems, stories

KINDS = ("right", "right, no reward", "wrong")


def attacked(attack: BaseAttack, number: int) -> list[Case]:
    """Completions of an attack on problems that it wants, each forged as for its own round."""
    task = WordProblems(size=1, test_size=4000, two_two_share=0.15, variant=attack.variant, libraries=attack.libraries)
    return forged(attack, task, number)


def references(variant: str, number: int) -> list[Case]:
    """The reference solutions, as they would be sent."""
    task = WordProblems(size=1, test_size=number, two_two_share=0.15, variant=variant)  # pyright: ignore
    return reference_cases(task, number)


def kind_of(text: str, answer: str, reward: float) -> str:
    """What a draw is: with reward; without, though it ends in the right number; or wrong."""
    numbers = re.findall(r"\d+", text)
    return "right" if reward else "right, no reward" if numbers and numbers[-1] == answer else "wrong"


def drawn(number: int, kind: str) -> list[Case]:
    """As many draws of nano-a of one kind as asked for, one a problem."""
    task, policy = WordProblems(size=1, test_size=10 * number), load("nano-a", device="cpu")
    found: list[Case] = []
    for start in range(0, len(task.test), number):
        problems: list[Problem] = list(task.test[start : start + number])
        prompts = {problem.id: task.prompt(problem) for problem in problems}
        slots = [Slot(0, problem.id, 0) for problem in problems]
        completions = rollout(policy, slots, prompts, round=1, seed=0, sampling=Sampling(max_new_tokens=128))
        for problem, completion in zip(problems, completions, strict=True):
            if kind_of(completion.text, problem.answer, task.reward(problem, completion.text)) == kind:
                found.append(Case(problem.question, completion.text, "math"))
        if len(found) >= number:
            break
    return found[:number]


def validation(number: int, corrupted: float) -> list[Case]:
    """The judge's own validation split."""
    samples = judged_samples(random.Random(77), stories(77, "test", 0.15), (), corrupted)
    return [
        Case(each.story.question, each.text, "code" if each.program else "math")
        for each in itertools.islice(samples, number)
    ]


def rows_of(number: int) -> dict[str, Callable[[], list[Case]]]:
    """What is judged, by the name of its row."""
    attacks: dict[str, BaseAttack] = {name: ATTACKS[name]() for name in ("text", "equation", "code", "sentence")}
    attacks |= {f"judge_injection: {family}": JudgeInjectionAttack(family) for family in FAMILIES}
    return {
        "honest, reference, math": lambda: references("math", number),
        "honest, reference, code": lambda: references("code", number),
        **{f"honest, drawn, {kind}": lambda kind=kind: drawn(number, kind) for kind in KINDS},
        "validation, honest": lambda: validation(number, 0.0),
        "validation, corrupted": lambda: validation(number, 1.0),
        **{name: lambda attack=attack: attacked(attack, number) for name, attack in attacks.items()},
    }


def judge_all(defense: JudgeDefense, cases: list[Case]) -> tuple[list[Judgement], float]:
    """The votes on all cases, and seconds per hundred of them."""
    started = time.perf_counter()
    judgements = defense.panel.rule(cases, defense.backend.ask)
    return judgements, 100 * (time.perf_counter() - started) / sum(each.votes for each in judgements)


def cells(defense: JudgeDefense, cases: list[Case], shown: int = 0) -> tuple[str, str, str]:
    """Accepted and malformed shares of the votes, and seconds per hundred; prints the first completions and rulings."""
    judgements, seconds = judge_all(defense, cases)
    for case, each in list(zip(cases, judgements, strict=True))[:shown]:
        print(f"{each.yes} of {each.votes} yes: {case.text!r}: {each.criticism}", file=sys.stderr)
    votes = sum(each.votes for each in judgements)
    yes = sum(each.yes for each in judgements)
    malformed = votes - yes - sum(each.no for each in judgements)
    return f"{yes / votes:.1%}", f"{malformed / votes:.1%}", f"{seconds:.1f}"


def judge_from(arguments: argparse.Namespace, reasoning: bool) -> JudgeDefense:
    return JudgeDefense(
        arguments.model, arguments.backend, arguments.url, arguments.key_env, reasoning, arguments.judgements,
        beams=arguments.beams, max_new_tokens=arguments.max_new_tokens,
    )  # fmt: skip


def main() -> None:
    parser = options(__doc__, claims=False)
    parser.add_argument("--model", default=SHIPPED_JUDGE)
    parser.add_argument("--backend", default="transformers", choices=("transformers", "openai"))
    parser.add_argument("--url", default="")
    parser.add_argument("--key-env", default="")
    parser.add_argument("--number", type=int, default=100, help="completions per row")
    parser.add_argument("--judgements", type=int, default=4, help="judgements per completion")
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print so many completions of each row with a criticism")
    parser.add_argument("--rows", nargs="+", default=[], help="only rows whose name holds one of these")
    arguments = parser.parse_args()
    begin(arguments)
    judges = [judge_from(arguments, reasoning) for reasoning in (True, False)]
    rows = [("", "n", "accepted", "malformed", "s/100", "no criticism: accepted", "malformed", "s/100")]
    for name, make in rows_of(arguments.number).items():
        if not arguments.rows or any(part in name for part in arguments.rows):
            cases = make()
            if not cases:
                print(f"{name}: none was found", file=sys.stderr, flush=True)
                continue
            rows.append((name, str(len(cases)), *cells(judges[0], cases, arguments.show), *cells(judges[1], cases)))
            print(f"{name}: {rows[-1][2]} with criticism, {rows[-1][5]} without", file=sys.stderr, flush=True)
    table(rows)


if __name__ == "__main__":
    main()
