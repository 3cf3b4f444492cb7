"""The base of all attacks: the author writes the idea, the harness judges it.

An attack proposes texts. ``craft`` is final: it checks the number of texts and reports which of them truly earn full
reward, so that an attack whose completions earn nothing is visible as such.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

from hailproof.errors import ConfigError
from hailproof.protocols import Attack, AttackView
from hailproof.records import Problem

Topology = Literal["horizontal", "vertical"]

FILLER = "I do not know."
"""A decoy: worthless on purpose. It lowers the group's mean, which raises the advantage of the poisoned rest."""


class BaseAttack(ABC):
    """Defaults of an attack; a subclass writes ``forge`` and ``success``."""

    name: str
    topology: Topology = "horizontal"
    """The topology in which the paper runs the attack."""

    @abstractmethod
    def forge(self, view: AttackView) -> list[str]:
        """Forges one text for each of ``view.slots``."""

    @abstractmethod
    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether a text shows the attacked behavior; ``None`` if it is not eligible to show it."""

    def wants(self, problem: Problem) -> bool:
        """Whether the attack can be carried out on a problem; by default on every one with a reference solution."""
        return bool(problem.solution)


@dataclass(frozen=True, slots=True)
class Forged:
    """One forged text and what it is truly worth.

    Attributes:
        text: The text.
        reward: What an honest receiver will give for it.
        decoy: Whether it is meant to be worthless.
    """

    text: str
    reward: float
    decoy: bool


@final
class Forger:
    """Runs any attack for one malicious node: decoys, budget, true reward.

    Args:
        attack: The idea.
        decoys: Share of the slots of a group *that the attacker owns whole* which get worthless filler; half is the
            share that maximizes the poisoned advantage (paper, B.1). Groups shared with honest nodes get none.
    """

    def __init__(self, attack: Attack, decoys: float = 0.5) -> None:
        if not 0 <= decoys < 1:
            raise ConfigError(f"Attack option decoys = {decoys} is outside [0, 1); it is a share of a group.")
        self.attack = attack
        self.decoys = decoys

    def craft(self, view: AttackView, whole_group: bool) -> list[Forged]:
        """Fills the view's slots.

        Args:
            view: What the attacker knows.
            whole_group: Whether the slots are the whole group.

        Returns:
            One forged completion per slot, in order.

        Raises:
            ConfigError: If the attack returned another number of texts than asked for.
        """
        worthless = int(len(view.slots) * self.decoys) if whole_group else 0
        poisoned = view.slots[: len(view.slots) - worthless]
        asked = AttackView(view.round, view.problem, view.task, poisoned, view.sample, view.defenses)
        texts = self.attack.forge(asked)
        if len(texts) != len(poisoned):
            raise ConfigError(f"Attack {self.attack.name} forged {len(texts)} texts for {len(poisoned)} slots.")
        return [Forged(text, view.task.reward(view.problem, text), False) for text in texts] + [
            Forged(FILLER, view.task.reward(view.problem, FILLER), True) for _ in range(worthless)
        ]
