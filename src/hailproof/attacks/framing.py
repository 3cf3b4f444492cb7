"""FRAMING: makes an honest sender look as if it taught something, so that a defense excludes it.

Threat: in a horizontal swarm all senders answer the same prompts, and the advantages of a group depend on everybody's
rewards. Where all others are right, one wrong answer gives them an advantage, and only right ones leave the group
without effect. Who knows what honest nodes will draw, as where weights are equal and draws public, can wake just those
groups in which the victim's answers are longer than those of the others: round after round it then pulls one way.

There is no behavior to count: the measure is whether the victim is excluded, and the reward of honest nodes.

Limits: with private draws, or if senders are bound before they see each other's draws, nothing can be chosen
(``known = false``). A vertical swarm has no shared groups.

Source: hailproof's own; ``docs/influence-broken.md``, point 6.
"""

import math
from collections.abc import Collection, Sequence
from statistics import mean

from hailproof.attacks.base import BaseAttack, Forgery
from hailproof.attacks.spite import near
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView, Topology
from hailproof.records import Completion, Problem
from hailproof.seeds import derive


class FramingAttack(BaseAttack):
    """Chooses which groups count by what the victim drew there.

    Args:
        victim: Index of the honest node that is to look guilty.
        known: Whether it knows what others will draw; else it wakes every other group.
    """

    name = "framing"
    needs_honest_draws = True

    def __init__(self, victim: int = 0, known: bool = True) -> None:
        if victim < 0:
            raise ConfigError(f"Attack option victim = {victim} is below 0; give the index of an honest node.")
        self.victim, self.known, self.needs_others = victim, known, known

    def check_swarm(self, topology: Topology, honest: Collection[int]) -> None:
        """Groups must be shared, and the victim must be an honest node."""
        if topology != "horizontal":
            raise ConfigError("The attack 'framing' needs groups that all share; set swarm.topology = horizontal.")
        if self.victim not in honest:
            raise ConfigError(
                f"Attack option victim = {self.victim} is no honest node; choose one of {', '.join(map(str, honest))}."
            )

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Sends right answers, but for one in groups that are to count; where others are wrong, what it drew."""
        drawn = [view.honest[slot] for slot in view.slots]
        seen = [each for some in view.others.values() for each in some]
        if self.known and not (self.victim in view.others and all(self._right(view, each) for each in seen)):
            return drawn
        right = view.task.format(view.problem.solution, view.problem.answer)
        sent: list[Forgery] = [each if self._right(view, each) else right for each in drawn]
        if self._wakes(view):
            sent[0] = view.task.format(view.problem.solution, near(view.problem.answer, 1 + view.round % 9))
        return sent

    def _wakes(self, view: AttackView) -> bool:
        if not self.known:
            return bool(derive(view.round, "wake", view.problem.id) % 2)
        lengths = {node: mean(len(each.token_ids) for each in some) for node, some in view.others.items()}
        return lengths.pop(self.victim) > mean(lengths.values() or [math.inf])

    @staticmethod
    def _right(view: AttackView, completion: Completion) -> bool:
        return view.task.reward(view.problem, completion.text) == 1.0

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: there is no behavior to count."""
        return None
