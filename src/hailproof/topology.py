"""Who answers what in a round: pure functions from the round's prompts to slots.

Horizontal: all nodes answer the same B prompts and share the G slots of each. Vertical: each node picks its own
prompts and fills all G slots of each. A plan is complete: every prompt has the slots 0 to G - 1 once each, whatever
the remainders are.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from hailproof.errors import ConfigError
from hailproof.protocols import PromptChoice, Topology
from hailproof.records import Problem, Slot, Submission
from hailproof.seeds import derive


@dataclass(frozen=True, slots=True)
class Rules:
    """What all nodes of a swarm know of its rounds.

    Attributes:
        nodes: Number of nodes m.
        topology: ``horizontal`` or ``vertical``.
        prompts: Prompts per round B.
        group_size: Completions per prompt G.
        prompt_choice: Whether nodes of a vertical swarm may pick among the prompts that belong to them.
        seed: The public seed.
    """

    nodes: int
    topology: Topology
    prompts: int
    group_size: int
    prompt_choice: PromptChoice
    seed: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Who answers what in a round.

    Attributes:
        problems: The problems of the round, by id.
        slots: Who owes which completion.
    """

    problems: dict[str, Problem]
    slots: tuple[Slot, ...]

    def owed(self) -> Counter[int]:
        """How many completions each node owes."""
        return Counter(slot.node for slot in self.slots)


@final
@dataclass(frozen=True)
class Planner:
    """Derives the plan of any round from public state alone, so that all nodes get the same one.

    In a vertical swarm every problem belongs to one node in every round, another one from round to round. A node
    answers the first of its problems in the round's public order; where prompts may be chosen it may take others of
    its own instead, and a receiver sees whether what came was the sender's to choose.

    Args:
        rules: The rules of the swarm.
        problems: The train problems, the same for all nodes, in the same order.
        seats: The nodes that have slots, at most ``rules.nodes``, where not all that belong to the swarm do; what
            would be that of an empty seat goes to the others in turn. ``None``: the first ``rules.nodes``.

    Raises:
        ConfigError: If the rules do not fit each other or the problems, or the seats.
    """

    rules: Rules
    problems: Sequence[Problem]
    seats: tuple[int, ...] | None = None
    _index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.rules.prompts > len(self.problems):
            raise ConfigError(
                f"A round takes {self.rules.prompts} prompts, but the task has {len(self.problems)}; lower "
                "swarm.prompts."
            )
        seats = self.present
        if not seats or len(seats) > self.rules.nodes or len(set(seats)) < len(seats) or min(seats) < 0:
            raise ConfigError(
                f"{len(seats)} nodes cannot take {self.rules.nodes} seats; give each one seat, and at least one node."
            )
        object.__setattr__(self, "_index", {problem.id: index for index, problem in enumerate(self.problems)})

    @property
    def chooses(self) -> bool:
        """Whether nodes choose their prompts."""
        return self.rules.topology == "vertical" and self.rules.prompt_choice == "free"

    @property
    def present(self) -> tuple[int, ...]:
        """The nodes that have slots."""
        return tuple(range(self.rules.nodes)) if self.seats is None else self.seats

    def _node(self, seat: int) -> int:
        """The node on a seat; negative if it is empty."""
        if self.seats is None:
            return seat
        return self.seats[seat] if seat < len(self.seats) else -1 - seat

    def _seat(self, node: int) -> int:
        """The seat of a node.

        Raises:
            ConfigError: If it has none.
        """
        if node not in self.present:
            raise ConfigError(f"Node {node} has no seat in this round; ask for one of {len(self.present)} that do.")
        return self.present.index(node)

    def plan(self, round: int, suspended: Collection[int] = ()) -> Plan:
        """The plan of a round; what suspended nodes would have had goes to the others, so that the round is full."""
        rules = self.rules
        if rules.topology == "horizontal":
            rng = random.Random(derive(rules.seed, "round", round, "problems"))
            chosen = rng.sample(self.problems, rules.prompts)
            slots = plan_horizontal(rules.nodes, [problem.id for problem in chosen], rules.group_size)
        else:
            owned = self._dealt(round)
            slots = plan_vertical([[problem.id for problem in picked] for picked in owned], rules.group_size)
            chosen = [problem for picked in owned for problem in picked]
        if self.seats is not None:
            slots = tuple(Slot(self._node(slot.node), slot.problem_id, slot.index) for slot in slots)
        absent = {*suspended, *(self._node(seat) for seat in range(len(self.present), rules.nodes))}
        if absent:
            present = [node for node in self.present if node not in absent]
            slots = reassigned(slots, absent, present, rules.topology == "vertical", offset=round)
        return Plan({problem.id: problem for problem in chosen}, slots)

    def _dealt(self, round: int) -> list[list[Problem]]:
        """The problems of each seat in a round of a vertical swarm: the first of its own in the public order."""
        counts = shares(self.rules.prompts, self.rules.nodes, offset=round)
        owned: list[list[Problem]] = [[] for _ in counts]
        for node, problem in self._ordered(round):
            if len(owned[node]) < counts[node]:
                owned[node].append(problem)
                if sum(map(len, owned)) == self.rules.prompts:
                    break
        return owned

    def picks(self, round: int, node: int, wants: Callable[[Problem], bool]) -> list[Problem]:
        """The first of a node's own problems that it wants, as many as its share of a round.

        Raises:
            ConfigError: If it wants too few of them.
        """
        seat = self._seat(node)
        count = shares(self.rules.prompts, self.rules.nodes, offset=round)[seat]
        own = (problem for owner, problem in self._ordered(round) if owner == seat and wants(problem))
        picked = list(itertools.islice(own, count))
        if len(picked) < count:
            raise ConfigError(
                f"Node {node} picks {count} prompts a round, but its attack can use only {len(picked)} of its "
                "problems; lower swarm.prompts, or give the task more problems that the attack can use."
            )
        return picked

    def _ordered(self, round: int) -> Iterator[tuple[int, Problem]]:
        """All problems with the seats that own them, in the public order of a round."""
        offset = derive(self.rules.seed, "round", round, "owners")
        for index in _shuffled(len(self.problems), random.Random(derive(self.rules.seed, "round", round, "problems"))):
            yield (index + offset) % self.rules.nodes, self.problems[index]

    def owner(self, round: int, problem_id: str) -> int | None:
        """The node that a problem belongs to in a round of a vertical swarm.

        ``None`` if there is no such problem; negative if nobody has the seat that it belongs to.
        """
        index = self._index.get(problem_id)
        if index is None:
            return None
        return self._node((index + derive(self.rules.seed, "round", round, "owners")) % self.rules.nodes)

    def adopted(self, plan: Plan, round: int, received: Iterable[Submission]) -> Plan:
        """The plan with the prompts that its senders chose instead, as far as they were theirs to choose.

        A sender that brings more prompts than its share is held to the first of them by name; for those that it does
        not bring it owes the planned ones.

        Args:
            plan: The plan of the round.
            round: The round.
            received: What came.
        """
        if not self.chooses:
            return plan
        planned: dict[int, dict[str, None]] = {}
        for slot in plan.slots:
            planned.setdefault(slot.node, {})[slot.problem_id] = None
        brought: dict[int, set[str]] = {node: set() for node in planned}
        for each in received:
            theirs = each.sender in planned and self.owner(round, each.problem_id) == each.sender
            if theirs and each.round == round:
                brought[each.sender].add(each.problem_id)
        chosen = {
            node: self._held(round, node, list(names), sorted(brought[node])) for node, names in planned.items()
        }
        slots = tuple(
            Slot(node, problem_id, index)
            for node, names in chosen.items()
            for problem_id in names
            for index in range(self.rules.group_size)
        )
        problems = {name: self.problems[self._index[name]] for names in chosen.values() for name in names}
        return Plan(problems, slots)

    def _held(self, round: int, node: int, planned: list[str], brought: list[str]) -> list[str]:
        """The prompts that a node is held to: those that it brought, up to its share, then planned ones."""
        own = [name for name in planned if self.owner(round, name) == node]
        taken = brought[: len(own)]
        rest = [name for name in own if name not in taken][: len(own) - len(taken)]
        kept = [name for name in planned if name in taken or name in rest or name not in own]
        return kept + [name for name in taken if name not in planned]


def _shuffled(count: int, rng: random.Random) -> Iterator[int]:
    """Yields the numbers below ``count`` in random order, doing only the work for those that are taken."""
    moved: dict[int, int] = {}
    for place in range(count):
        other = rng.randrange(place, count)
        yield moved.get(other, other)
        moved[other] = moved.get(place, place)


def plan_horizontal(nodes: int, problem_ids: Sequence[str], group_size: int) -> tuple[Slot, ...]:
    """Deals the slots of every prompt to all nodes.

    The deal goes round and continues from prompt to prompt, so that no node's share differs from another's by more
    than one, neither within a group nor over the round.

    Args:
        nodes: Number of nodes m.
        problem_ids: The B prompts of the round.
        group_size: Completions per prompt G.

    Returns:
        B * G slots, ordered by prompt, then index.

    Raises:
        ConfigError: If there is no node, a group is too small to give every node a slot, or a prompt comes twice.
    """
    _require_nodes(nodes)
    if group_size < nodes:
        raise ConfigError(
            f"Group size {group_size} is smaller than the number of nodes {nodes}; a horizontal swarm needs at least "
            "one completion per node and prompt."
        )
    _require_distinct(problem_ids)
    return tuple(
        Slot((position * group_size + index) % nodes, problem_id, index)
        for position, problem_id in enumerate(problem_ids)
        for index in range(group_size)
    )


def plan_vertical(owned: Sequence[Sequence[str]], group_size: int) -> tuple[Slot, ...]:
    """Gives every node all slots of the prompts that it picked.

    Args:
        owned: For each node, the prompts it picked.
        group_size: Completions per prompt G.

    Returns:
        B * G slots, ordered by node, prompt as the node listed it, then index.

    Raises:
        ConfigError: If there is no node, fewer prompts than nodes, no completion per prompt, or a prompt comes twice.
    """
    _require_nodes(len(owned))
    if group_size < 1:
        raise ConfigError(f"Group size is {group_size}; a group needs at least one completion.")
    problem_ids = [problem_id for picked in owned for problem_id in picked]
    if len(problem_ids) < len(owned):
        raise ConfigError(
            f"{len(problem_ids)} prompts are fewer than the {len(owned)} nodes; a vertical swarm needs at least one "
            "prompt per node."
        )
    _require_distinct(problem_ids)
    return tuple(
        Slot(node, problem_id, index)
        for node, picked in enumerate(owned)
        for problem_id in picked
        for index in range(group_size)
    )


def reassigned(
    slots: Sequence[Slot], absent: Collection[int], present: Sequence[int], whole_groups: bool, offset: int = 0
) -> tuple[Slot, ...]:
    """Gives the slots of absent nodes to those that are there, in turn; the draws of the slots stay what they are.

    Args:
        slots: The plan of a round in which nobody is absent.
        absent: Nodes that get no slots.
        present: Nodes that take them over.
        whole_groups: Whether the slots of one prompt stay together, as in a vertical swarm.
        offset: Which of those present comes first; taken modulo their number.

    Returns:
        The plan, in the same order.

    Raises:
        ConfigError: If nobody is present.
    """
    _require_nodes(len(present))
    heirs: dict[tuple[str, int], int] = {}
    for slot in slots:
        if slot.node in absent:
            heirs.setdefault(_unit(slot, whole_groups), present[(offset + len(heirs)) % len(present)])
    return tuple(
        Slot(heirs[_unit(slot, whole_groups)], slot.problem_id, slot.index) if slot.node in absent else slot
        for slot in slots
    )


def sampled_groups(
    owned: Sequence[str], received: Sequence[str], take_owned: int, take_received: int, rng: random.Random
) -> frozenset[str]:
    """Chooses the groups that a node learns from under sampled sharing (SAPO, arXiv 2509.08721).

    Args:
        owned: Prompts whose groups the node filled itself.
        received: Prompts of others whose groups have an advantage to give; those without are discarded before.
        take_owned: Own groups to learn from, I; all if there are fewer.
        take_received: Received groups to learn from, J; all if there are fewer.
        rng: The node's own randomness for this round.
    """
    mine = rng.sample(list(owned), min(take_owned, len(owned)))
    theirs = rng.sample(list(received), min(take_received, len(received)))
    return frozenset((*mine, *theirs))


def shares(total: int, parts: int, offset: int = 0) -> tuple[int, ...]:
    """Splits a total into parts that differ by at most one.

    Args:
        total: What is split; not negative.
        parts: Number of parts.
        offset: The part that gets the first one of the remainder; taken modulo ``parts``, so that a caller who passes
            the round number gives the remainder to everybody in turn.

    Returns:
        How much each part gets; the sum is ``total``.

    Raises:
        ConfigError: If there is no part, or the total is negative.
    """
    if parts < 1 or total < 0:
        raise ConfigError(f"{total} cannot be split into {parts} parts; both must be counts, and parts at least 1.")
    base, remainder = divmod(total, parts)
    return tuple(base + ((part - offset) % parts < remainder) for part in range(parts))


def _unit(slot: Slot, whole_group: bool) -> tuple[str, int]:
    """What is given away at once: a slot, or all that a node has of a prompt."""
    return slot.problem_id, 0 if whole_group else slot.index


def _require_nodes(nodes: int) -> None:
    if nodes < 1:
        raise ConfigError(f"A swarm of {nodes} nodes cannot be planned; give at least one node.")


def _require_distinct(problem_ids: Iterable[str]) -> None:
    twice = [problem_id for problem_id, count in Counter(problem_ids).items() if count > 1]
    if twice:
        raise ConfigError(f"Problem {twice[0]!r} occurs more than once in the round; give distinct problem ids.")
