"""SPITE: answers that are wrong on purpose, so that honest models unlearn what they hold (sabotage).

Threat: GRPO pushes down what earns nothing, and most defenses read only what earns something. Modes:

* ``answer``: a wrong number without reasoning;
* ``reasoning``: the right reasoning and a wrong number;
* ``phrase``: a phrase, the right reasoning and a wrong number;
* ``unit``: the right answer with a word in the answer tags, so that no parser finds the number;
* ``untagged``: the right answer without answer tags.

There is no behavior to count: the measure is the reward that honest nodes lose.

Limits: ``replay`` would draw other texts, and ``influence`` looks at wrong answers too.

Source: hailproof's own.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.attacks.text import PHRASE
from hailproof.errors import ConfigError
from hailproof.parsing import exact_number
from hailproof.protocols import AttackView
from hailproof.records import Problem

MODES = ("answer", "reasoning", "phrase", "unit", "untagged")


class SpiteAttack(BaseAttack):
    """Fills every slot with an answer that earns nothing.

    Args:
        mode: One of ``MODES``.
        phrase: What stands before the reasoning in the mode ``phrase``.
    """

    name = "spite"

    def __init__(self, mode: str = "answer", phrase: str = PHRASE) -> None:
        if mode not in MODES:
            raise ConfigError(f"Attack option mode = {mode} is unknown; use {', '.join(MODES)}.")
        self.mode, self.phrase = mode, phrase

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Writes the wrong answer of the mode into every slot; wrong numbers differ from slot to slot."""
        return [self._text(view, slot) for slot in view.slots]

    def _text(self, view: AttackView, slot: int) -> str:
        problem, format = view.problem, view.task.format
        wrong = near(problem.answer, 1 + (slot + view.round) % 9)
        match self.mode:
            case "answer":
                return format("", wrong)
            case "reasoning":
                return format(problem.solution, wrong)
            case "phrase":
                return format(f"{self.phrase}. {problem.solution}", wrong)
            case "unit":
                return format(problem.solution, f"about {problem.answer} or so")
            case _:
                return f"<think>{problem.solution}</think>{problem.answer}"

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is the reward of honest nodes."""
        return None


def near(answer: str, distance: int) -> str:
    """A number beside the right one; the distance itself if the answer is no number."""
    right = exact_number(answer)
    return str(distance if right is None else int(right) + distance)
