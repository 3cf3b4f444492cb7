"""COPIES: one right draw of the model in all slots of a prompt: work saved, and variety lost.

Threat: free riding. The sender earns full reward for the work of one draw, and the others learn from less variety.

There is no behavior to count: the measure is the reward of honest nodes.

Limits: under ``replay`` the copies are the draw of one slot at most.

Source: hailproof's own.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery, enough_draws, finished_draws
from hailproof.protocols import AttackView
from hailproof.records import Problem


class CopiesAttack(BaseAttack):
    """Sends one draw many times.

    Args:
        samples: Draws among which the first right one is looked for.
    """

    name = "copies"

    def __init__(self, samples: int = 8) -> None:
        self.samples = enough_draws(samples)

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Puts the first right draw into every slot; without a right draw they stay empty."""
        right = finished_draws(view, 1.0)
        return [right[0] if right else None] * len(view.slots)

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: there is no behavior to count."""
        return None
