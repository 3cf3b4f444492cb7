"""LENGTH (DoS): the longest of many right answers, so that honest models learn to ramble (*Hail to the Thief*, DoS).

Threat: longer answers make every round cost more. Every completion is a right draw of the trained model itself. Only
the choice among N = 80 is malicious, so a single completion shows nothing. There is no success to count: the measure is
tokens per completion.

With ``long_decoys`` the decoys of a group that the attacker fills alone are longer than the poison. Then long answers
do better in no group, so length-neutral advantages do not change the attack (adaptive).

Without an oracle the majority answer of the same draws stands in for the reference.

Limits: ``replay`` leaves no choice among draws. Near the length limit long answers are cut and earn nothing.

Source: *Hail to the Thief* (arXiv 2511.09780), section 4.
"""

import math
from collections.abc import Sequence

from hailproof.attacks.base import FILLER, BaseAttack, Forgery, enough_draws, finished_draws
from hailproof.protocols import AttackView, Topology
from hailproof.records import Completion, Problem

PADDING = 1.2
"""Characters of a long decoy for each of the poison: tokens per character differ between texts."""


class LengthAttack(BaseAttack):
    """Sends the longest draw that earns full reward.

    Args:
        samples: Draws to choose from, N.
        long_decoys: Whether decoys are longer than the poison.
    """

    name = "length"
    lengthens = True
    topology: Topology = "vertical"

    def __init__(self, samples: int = 80, long_decoys: bool = False) -> None:
        self.samples = enough_draws(samples)
        self.long_decoys = long_decoys

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Puts the longest right draw into every slot; the reference solution if no draw is right."""
        problem, task = view.problem, view.task
        longest = _longest(view)
        if longest:
            return [longest] * len(view.slots)
        return [task.format(problem.solution, problem.answer)] * len(view.slots)

    def decoys(self, view: AttackView, count: int) -> Sequence[str | Completion]:
        """Fills decoy slots; if they are to be long, with filler that goes on for longer than the poison."""
        longest = _longest(view) if self.long_decoys else None
        if longest is None:
            return super().decoys(view, count)
        characters = PADDING * len(longest.text)
        return [" ".join([FILLER] * math.ceil(characters / len(FILLER)))] * count

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is length."""
        return None


def _longest(view: AttackView) -> Completion | None:
    """The longest draw that earns full reward; ``None`` if none does."""
    return max(finished_draws(view, 1.0), key=lambda drawn: len(drawn.token_ids), default=None)
