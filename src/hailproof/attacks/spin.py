"""SPIN: programs that never end, so that whoever runs them waits (sabotage).

Threat: time. A receiver that runs programs of strangers waits for each until its time is up.

There is no behavior to count: the measure is the seconds of a round.

Limits: a sender has a budget of reward seconds in a round, and ``replay`` refuses before a program runs.

Source: hailproof's own.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.protocols import AttackView, Variant
from hailproof.records import Problem


class SpinAttack(BaseAttack):
    """Sends programs without an end; each differs from the others, so that no result can be kept for the next."""

    name = "spin"
    variant: Variant = "code"

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Writes an endless loop into every slot."""
        return [
            view.task.format(f"n = {view.round * 1000 + slot}\nwhile True:\n    n = n + 1", view.problem.answer)
            for slot in view.slots
        ]

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is time."""
        return None
