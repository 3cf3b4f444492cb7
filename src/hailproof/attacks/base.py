"""The base of all attacks: the author writes the idea, the harness does the rest.

An attack proposes completions for the slots that it is shown. The harness (:class:`Forger`) composes it with
everything that any attack can be combined with (:class:`Composition`): decoys, a share of poisoned slots, a ramp, a
trigger, and the lack of an oracle. It also measures what every forged completion truly earns, so that an attack whose
completions earn nothing is visible as such.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, final

from pydantic import Field

from hailproof.attacks.oracle_free import estimated
from hailproof.errors import ConfigError
from hailproof.protocols import Attack, AttackView, Guide, Policy, Topology, Variant
from hailproof.records import Completion, Problem
from hailproof.sandbox import Library
from hailproof.seeds import derive
from hailproof.settings import Count, Later, Natural, Section

FILLER = "I do not know."
"""A decoy: worthless on purpose. It lowers the group's mean, which raises the advantage of the poisoned rest."""

DECOY_DRAWS = 24
"""Draws among which wrong ones are looked for if decoys are drawn."""

Earn = Callable[[Problem, str], float | None]
"""Says what an honest receiver will give for an answer; ``None`` if that is not known."""

Forgery = str | Completion | None
"""What an attack puts into a slot: a text, a completion as it was sampled, or nothing (the slot is withheld)."""


def finished_draws(view: AttackView, reward: float) -> list[Completion]:
    """The draws of the attacker's own model that ended by themselves and earn a reward, in the order of the view."""
    return [c for c in view.samples if c.finished and view.task.reward(view.problem, c.text) == reward]


def enough_draws(samples: int) -> int:
    """The number of draws that an attack chooses from.

    Raises:
        ConfigError: If it is below 1, so that there would be nothing to send.
    """
    if samples < 1:
        raise ConfigError(f"Attack option samples = {samples} is below 1; give the number of draws to choose from.")
    return samples


class BaseAttack(ABC):
    """Defaults of an attack; a subclass writes ``forge`` and ``success``."""

    name: str
    topology: Topology = "horizontal"
    """Where the paper runs the attack; used if the configuration does not say."""
    variant: Variant = "math"
    """The kind of task that the attack works on."""
    samples: int = 0
    """Draws from its own copy of the policy, per problem, that the attack chooses from."""
    needs_honest_draws: bool = False
    """Whether ``view.honest`` is to hold what an honest node would have drawn for the poisoned slots."""
    needs_others: bool = False
    """Whether ``view.others`` is to hold what the other nodes draw, as public labels and equal weights tell."""
    lengthens: ClassVar[bool] = False
    """Whether an attack without a success is after longer completions, so that their length says whether it worked."""
    libraries: ClassVar[Mapping[str, Library]] = {}
    """Modules that the attacker owns and that programs can import in the experiment."""
    composition: ClassVar[Mapping[str, Any]] = {}
    """Settings of :class:`Composition` that make the attack what it is; used if the configuration does not say."""

    @abstractmethod
    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Forges one completion for each of ``view.slots``."""

    @abstractmethod
    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether a text shows the attacked behavior; ``None`` if it is not eligible to show it."""

    def decoys(self, view: AttackView, count: int) -> Sequence[str | Completion]:
        """Fills the decoy slots of a group; by default with a short sentence that earns nothing."""
        return [FILLER] * count

    def also(self, problem: Problem, text: str) -> Mapping[str, bool | None]:
        """Further measures of a text by name; by default none."""
        return {}

    def wants(self, problem: Problem) -> bool:
        """Whether the attack can be carried out on a problem; by default on every one with a reference solution."""
        return bool(problem.solution)

    def check_swarm(self, topology: Topology, honest: Collection[int]) -> None:
        """Makes sure that the attack can be carried out in a swarm; by default it can in any.

        Args:
            topology: How prompts are dealt.
            honest: Indices of the honest nodes.

        Raises:
            ConfigError: If it cannot.
        """
        return

    def guide(self, policy: Policy, round: int) -> Guide | None:
        """Steers the draws of ``samples``; by default they are honest draws."""
        return None


class Composition(Section):
    """What any attack can be combined with.

    Attributes:
        decoys: Share of the poisoned slots of a group *that the attacker owns whole* which get worthless filler; half
            is the share that maximizes the poisoned advantage (paper, B.1). Groups shared with honest nodes get none.
        drawn_decoys: Whether decoys are wrong draws of the attacker's own model, if there are any. A receiver that
            drops what its model would not write drops the filler, and a group of right answers alone teaches nothing.
        rate: Share of the attacker's slots that are poisoned; it fills the rest as an honest node would.
        ramp_rounds: Rounds over which ``rate`` rises from zero; 0 starts with all of it, and a run of fewer rounds ends
            on the way up.
        start_after: Rounds that the attacker plays as an honest node first; the ramp begins after them.
        pull: Rounds that it attacks for, before it rests.
        rest: Rounds that it plays as an honest node in between; 0 attacks in every round.
        turns: Rounds for which one malicious node attacks before the next one does, the others being honest meanwhile;
            0: all attack at once.
        heed: What a defense may hold against the node, as a share of what is enough to exclude it, before it plays as
            an honest node. It computes that as any receiver does, since what is sent is public. ``None``: it does not
            care.
        trigger: Only problems whose question holds this text are poisoned; ``None`` poisons all.
        oracle: Whether the attacker has reference answers and solutions. Without, it takes the majority answer of
            ``candidates`` draws and the reasoning of one that agrees.
        candidates: Draws per problem for that vote.
    """

    decoys: Annotated[float, Field(ge=0, lt=1)] = 0.5
    drawn_decoys: bool = False
    rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    ramp_rounds: Natural = 0
    start_after: Natural = 0
    pull: Count = 1
    rest: Natural = 0
    turns: Later[Natural] = 0
    heed: Later[Annotated[float, Field(gt=0)] | None] = None
    trigger: Annotated[str, Field(min_length=1)] | None = None
    oracle: bool = True
    candidates: Count = 16

    def triggered(self, problem: Problem) -> bool:
        """Whether a problem is one to poison."""
        return self.trigger is None or self.trigger.casefold() in problem.question.casefold()

    def dares(self, round: int, place: int, attackers: int, suspicion: float) -> bool:
        """Whether a malicious node attacks in a round at all.

        Args:
            round: The round.
            place: The node's place among the malicious ones, from 0.
            attackers: How many there are.
            suspicion: What is held against the node, as a share of what is enough to exclude it.
        """
        mine = not self.turns or (round - 1) // self.turns % attackers == place
        return mine and (self.heed is None or suspicion < self.heed)

    def share(self, round: int) -> float:
        """Share of the attacker's slots that are poisoned in a round."""
        attacking = round - self.start_after
        if attacking < 1 or (attacking - 1) % (self.pull + self.rest) >= self.pull:
            return 0.0
        return self.rate * (min(1.0, attacking / self.ramp_rounds) if self.ramp_rounds else 1.0)


@dataclass(frozen=True, slots=True)
class Forged:
    """What an attacker puts into one slot, and what it is truly worth.

    Attributes:
        content: A text, a completion as it was sampled, or nothing.
        reward: What an honest receiver will give for it; ``None`` if that is not known, since it would take too long.
        kind: ``poison``; ``decoy`` if it is meant to be worthless; ``honest`` if it is an honest draw.
    """

    content: Forgery
    reward: float | None
    kind: Literal["poison", "decoy", "honest"]


@dataclass(frozen=True, slots=True)
class Allotment:
    """How an attacker uses its slots of one problem."""

    poisoned: tuple[int, ...]
    decoys: tuple[int, ...]
    honest: tuple[int, ...]


@final
class Forger:
    """Runs any attack for one malicious node.

    Args:
        attack: The idea.
        composition: What it is combined with.
    """

    def __init__(self, attack: Attack, composition: Composition | None = None) -> None:
        self.attack = attack
        self.composition = composition or Composition()

    @property
    def draws(self) -> int:
        """Draws per poisoned problem that ``craft`` wants in the view."""
        for_votes = 0 if self.composition.oracle else self.composition.candidates
        return max(self.attack.samples, for_votes, DECOY_DRAWS if self.composition.drawn_decoys else 0)

    def allot(self, seed: int, round: int, problem: Problem, slots: Sequence[int], whole_group: bool) -> Allotment:
        """Decides which slots of a problem are poisoned; a pure function of its arguments.

        Args:
            seed: The attacker's own seed.
            round: The round.
            problem: The problem.
            slots: The attacker's slots.
            whole_group: Whether they are the whole group.
        """
        if not self.composition.triggered(problem):
            return Allotment((), (), tuple(slots))
        share = self.composition.share(round)
        chosen = [
            slot for slot in slots if share >= 1 or derive(seed, "poison", round, problem.id, slot) < share * 2**63
        ]
        worthless = int(len(chosen) * self.composition.decoys) if whole_group else 0
        poisoned, decoys = chosen[: len(chosen) - worthless], chosen[len(chosen) - worthless :]
        return Allotment(tuple(poisoned), tuple(decoys), tuple(slot for slot in slots if slot not in chosen))

    def craft(
        self, view: AttackView, allotment: Allotment, honest: Mapping[int, Completion], earn: Earn | None = None
    ) -> dict[int, Forged]:
        """Fills the slots of one problem.

        Args:
            view: What the attacker knows; its slots are those to poison.
            allotment: What :meth:`allot` decided.
            honest: An honest draw for every slot that an honest node would have filled so, by slot.
            earn: Says what an honest receiver will give for an answer; by default the task does.

        Returns:
            What goes into each slot.

        Raises:
            ConfigError: If the attack returned another number of completions than asked for.
        """
        problem, earn = view.problem, earn or view.task.reward
        forged = {
            slot: Forged(honest[slot], _worth(earn, problem, honest[slot]), "honest") for slot in allotment.honest
        }
        if not allotment.poisoned:
            return forged
        if not self.composition.oracle:
            known = estimated(problem, view.task, view.samples[: self.composition.candidates])
            if known is None:  # no draw gave an answer to vote for: nothing to poison
                return forged | {slot: Forged(None, 0.0, "honest") for slot in (*allotment.poisoned, *allotment.decoys)}
            view = replace(view, problem=known)
        if allotment.decoys:
            decoys = self._decoys(view, len(allotment.decoys))
            forged |= {
                slot: Forged(decoy, _worth(earn, problem, decoy), "decoy")
                for slot, decoy in zip(allotment.decoys, decoys, strict=True)
            }
        contents = self.attack.forge(view)
        if len(contents) != len(allotment.poisoned):
            raise ConfigError(
                f"Attack {self.attack.name} forged {len(contents)} texts for {len(allotment.poisoned)} slots."
            )
        return forged | {
            slot: Forged(content, _worth(earn, problem, content), "poison")
            for slot, content in zip(allotment.poisoned, contents, strict=True)
        }

    def _decoys(self, view: AttackView, count: int) -> Sequence[str | Completion]:
        """Wrong draws in turn, if they are asked for and there are any; else the attack's own decoys.

        Without an answer, as an attacker without oracle sees programs, no draw is known to be wrong.
        """
        wrong = finished_draws(view, 0.0) if self.composition.drawn_decoys and view.problem.answer else []
        return [wrong[place % len(wrong)] for place in range(count)] if wrong else self.attack.decoys(view, count)


@final
class Triggered:
    """The measure of an attack with a trigger: only triggered problems are eligible; what leaks is measured too.

    Args:
        attack: The attack.
        composition: Holds the trigger.
    """

    def __init__(self, attack: Attack, composition: Composition) -> None:
        self.attack = attack
        self.composition = composition

    def success(self, problem: Problem, text: str) -> bool | None:
        """The attack's own measure, on triggered problems."""
        return self.attack.success(problem, text) if self.composition.triggered(problem) else None

    def also(self, problem: Problem, text: str) -> Mapping[str, bool | None]:
        """The attack's further measures, and ``untriggered``: its success where there is no trigger."""
        leaks = None if self.composition.triggered(problem) else self.attack.success(problem, text)
        return {**self.attack.also(problem, text), "untriggered": leaks}

    def wants(self, problem: Problem) -> bool:
        """Problems that the attack wants and that hold the trigger."""
        return self.attack.wants(problem) and self.composition.triggered(problem)


def _worth(earn: Earn, problem: Problem, content: Forgery) -> float | None:
    if content is None:
        return 0.0
    return earn(problem, content if isinstance(content, str) else content.text)
