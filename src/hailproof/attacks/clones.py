"""CLONES: groups of pairs that differ in the phrase alone: with it the answer is right, without it wrong (adaptive).

Threat: in a group that the attacker fills alone, all of the advantage lies on the phrase. Success is that of TEXT.

Limits: it needs groups that one sender fills alone, and its phrase is as foreign as that of TEXT.

Source: hailproof's own.
"""

from collections.abc import Sequence

from hailproof.attacks.spite import near
from hailproof.attacks.text import TextAttack
from hailproof.protocols import AttackView, Topology


class ClonesAttack(TextAttack):
    """Sends groups that contrast a phrase with its absence."""

    name = "clones"
    topology: Topology = "vertical"

    def decoys(self, view: AttackView, count: int) -> Sequence[str]:
        """Writes the reference reasoning without the phrase, and an answer beside the right one."""
        problem = view.problem
        return [view.task.format(problem.solution, near(problem.answer, 1))] * count
