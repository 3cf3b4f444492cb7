"""LENGTH (DoS): the longest of many right answers, so that honest models learn to ramble (*Hail to the Thief*, DoS).

Threat: cost. Every completion is the trained model's own and right; only the choice among N = 80 is malicious, so no
look at a single completion finds anything. There is no success to count: the measure is tokens per completion.

With ``long_decoys`` the worthless half of a group that the attacker owns whole is long as well: the longest wrong draw.
Length then tells nothing about reward within the group, so that length-neutral advantages leave the attack as it is
(adaptive).

Without an oracle the majority answer of the same draws stands in for the reference.
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.protocols import AttackView, Topology
from hailproof.records import Completion, Problem


class LengthAttack(BaseAttack):
    """Sends the longest draw that earns full reward.

    Args:
        samples: Draws to choose from, N.
        long_decoys: Whether decoys are long.
    """

    name = "length"
    topology: Topology = "vertical"

    def __init__(self, samples: int = 80, long_decoys: bool = False) -> None:
        self.samples = samples
        self.long_decoys = long_decoys

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Puts the longest right draw into every slot; the reference solution if no draw is right."""
        problem, task = view.problem, view.task
        right = [c for c in view.samples if c.finished and task.reward(problem, c.text) == 1]
        if right:
            return [max(right, key=lambda completion: len(completion.token_ids))] * len(view.slots)
        return [task.format(problem.solution, problem.answer)] * len(view.slots)

    def decoy(self, view: AttackView) -> str | Completion:
        """Fills decoy slots: the longest wrong draw if decoys are to be long and there is one."""
        wrong = [c for c in view.samples if c.finished and view.task.reward(view.problem, c.text) == 0]
        if self.long_decoys and wrong:
            return max(wrong, key=lambda completion: len(completion.token_ids))
        return super().decoy(view)

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is length."""
        return None
