"""SEESAW: a whole round pulls one way, and a few completions of the next one pull back (adaptive, against influence).

Threat: ``influence`` compares senders per completion, but all completions of a sender move the weights together. This
sender teaches with all its slots in one round. In the next round it pulls back with a few completions and withholds the
rest. That is meant to take back the evidence, but hardly any of the influence.

It teaches TEXT's phrase, TERSE's habit, SPITE's distrust of right reasoning, or long or short answers among the model's
own. To pull back, it sends a phrase or a terse answer that is wrong, right reasoning that is rewarded, or an answer of
the other kind.

Limits: the clip of ``influence`` leaves little of a round. Since few completions count for little in the test, this
sender is found about half as fast as one that teaches in every round. ``spite``, ``long`` and ``short`` have no strong
way to pull back.

Source: written to break ``influence`` by somebody who had not built it (``docs/influence-broken.md``).
"""

from collections.abc import Sequence

from hailproof.attacks.base import BaseAttack, Forgery, enough_draws, finished_draws
from hailproof.attacks.spite import SpiteAttack, near
from hailproof.attacks.terse import TerseAttack
from hailproof.attacks.text import TextAttack
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView
from hailproof.records import Completion, Problem
from hailproof.seeds import derive

DRAWN = ("long", "short")
"""What is chosen among draws."""


class SeesawAttack(BaseAttack):
    """Teaches with all slots in one round, and pulls back with a few in the next.

    Args:
        teach: ``phrase``, ``terse``, ``spite``, ``long`` or ``short``.
        back: Share of the problems that get one completion which pulls back; the other slots stay empty.
        every: A round of that many pulls back.
        draws: Draws that long or short answers are chosen from.
    """

    name = "seesaw"

    def __init__(self, teach: str = "phrase", back: float = 0.4, every: int = 2, draws: int = 16) -> None:
        if teach not in ("phrase", "terse", "spite", *DRAWN):
            raise ConfigError(f"Attack option teach = {teach} is unknown; use phrase, terse, spite, long or short.")
        if not 0 < back <= 1 or every < 2:
            raise ConfigError("Attack seesaw takes a back in (0, 1] and an every of 2 or more; change the option.")
        self.teach, self.back, self.every = teach, back, every
        self.samples = enough_draws(draws) if teach in DRAWN else 0
        self._taught: BaseAttack = {"terse": TerseAttack(), "spite": SpiteAttack("reasoning")}.get(teach, TextAttack())

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Fills all slots, or the first of some problems."""
        if view.round % self.every:
            return self._lesson(view)
        few = derive(0, "seesaw", view.round, view.problem.id) < self.back * 2**63
        rest: list[Forgery] = [None] * (len(view.slots) - 1)
        return [self._opposite(view) if few else None, *rest]

    def _lesson(self, view: AttackView) -> Sequence[Forgery]:
        if self.teach not in DRAWN:
            return self._taught.forge(view)
        found = self._drawn(view)
        return [found[place % len(found)] if found else None for place in range(len(view.slots))]

    def _opposite(self, view: AttackView) -> Forgery:
        if self.teach in DRAWN:
            return next(reversed(self._drawn(view)), None)
        if self.teach == "spite":
            return view.task.format(view.problem.solution, view.problem.answer)
        right = str(self._taught.forge(view)[0])
        answer = view.problem.answer
        return right.replace(f"<answer>{answer}<", f"<answer>{near(answer, 1 + view.round % 9)}<")

    def _drawn(self, view: AttackView) -> list[Completion]:
        """Right draws, those that are taught most first."""
        return sorted(
            finished_draws(view, 1.0), key=lambda drawn: len(drawn.token_ids), reverse=self.teach == "long"
        )

    def success(self, problem: Problem, text: str) -> bool | None:
        """That of TEXT, TERSE or SPITE; of lengths there is none to count."""
        return None if self.teach in DRAWN else self._taught.success(problem, text)
