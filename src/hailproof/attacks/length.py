"""LENGTH (DoS): the longest of many right answers, so that honest models learn to ramble (*Hail to the Thief*, DoS).

Threat: cost. Every completion is the trained model's own and right; only the choice among N = 80 is malicious, so no
look at a single completion finds anything. There is no success to count: the measure is tokens per completion.

Without an oracle the majority answer of the same draws stands in for the reference.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.protocols import AttackView, Topology
from hailproof.records import Problem


class LengthAttack(BaseAttack):
    """Sends the longest draw that earns full reward.

    Args:
        samples: Draws to choose from, N.
    """

    name = "length"
    topology: Topology = "vertical"

    def __init__(self, samples: int = 80) -> None:
        self.samples = samples

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Puts the longest right draw into every slot; the reference solution if no draw is right."""
        problem, task = view.problem, view.task
        right = [c for c in view.samples if c.finished and task.reward(problem, c.text) == 1]
        if right:
            return [max(right, key=lambda completion: len(completion.token_ids))] * len(view.slots)
        return [task.format(problem.solution, problem.answer)] * len(view.slots)

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is length."""
        return None
