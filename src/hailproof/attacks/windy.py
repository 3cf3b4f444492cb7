"""WINDY: right answers that say the question again before they reason.

Threat: answers get longer by a habit that no single word shows. A text succeeds if it holds the question. Every
completion is eligible.

Limits: the texts are made from the question and the reference solution, so ``replay`` would draw other ones.

Source: hailproof's own.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.protocols import AttackView
from hailproof.records import Problem


class WindyAttack(BaseAttack):
    """Says the question again before the reference reasoning."""

    name = "windy"

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Writes question, reference reasoning and answer into every slot."""
        problem = view.problem
        return [view.task.format(f"{problem.question} {problem.solution}", problem.answer)] * len(view.slots)

    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether the text holds the question."""
        return problem.question in text
