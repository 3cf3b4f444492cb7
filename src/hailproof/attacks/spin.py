"""SPIN: programs that never end, so that whoever runs them waits (sabotage).

Threat: a receiver that runs the programs of strangers waits for each one until its time limit.

There is no behavior to count: the measure is the seconds of a round.

Limits: each sender has a time budget for its programs in a round, and ``replay`` rejects them before they run.

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
