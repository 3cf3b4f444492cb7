"""Many nodes in one process; nodes that are bitwise alike are computed once."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hailproof.errors import ConfigError
from hailproof.node import HonestNode, MaliciousNode
from hailproof.protocols import Exchange, PromptChoice, Task, Topology
from hailproof.records import Problem, RoundRecord, Slot, Submission
from hailproof.seeds import derive
from hailproof.topology import plan_horizontal, plan_vertical, reassigned, shares


@dataclass(frozen=True, slots=True)
class Swarm:
    """A swarm and the rules of its rounds.

    Attributes:
        honest: The honest nodes; one entry may stand for several that are alike.
        malicious: The malicious nodes.
        task: Problems and rewards.
        topology: ``horizontal`` or ``vertical``.
        prompts: Prompts per round, B.
        group_size: Completions per prompt, G.
        seed: The run's seed.
        exchange: Moves the submissions.
        wants: Which problems malicious nodes pick in a vertical swarm.
        prompt_choice: Whether they may pick at all.
    """

    honest: tuple[HonestNode, ...]
    malicious: tuple[MaliciousNode, ...]
    task: Task
    topology: Topology
    prompts: int
    group_size: int
    seed: int
    exchange: Exchange
    wants: Callable[[Problem], bool]
    prompt_choice: PromptChoice = "free"

    @property
    def size(self) -> int:
        """Number of nodes."""
        return sum(len(node.nodes) for node in self.honest) + len(self.malicious)

    def plan(
        self, round: int, suspended: frozenset[int] = frozenset()
    ) -> tuple[dict[str, Problem], tuple[Slot, ...]]:
        """Chooses the problems of a round and deals their slots; a pure function of the seed and the arguments.

        What suspended nodes would have had goes to the others, so that the round is the one of a full swarm.
        """
        if self.prompts > len(self.task.train):
            raise ConfigError(
                f"A round takes {self.prompts} prompts, but the task has {len(self.task.train)}; lower swarm.prompts."
            )
        if self.topology == "horizontal":
            rng = random.Random(derive(self.seed, "round", round, "problems"))
            chosen = rng.sample(self.task.train, self.prompts)
            slots = plan_horizontal(self.size, [problem.id for problem in chosen], self.group_size)
        else:
            owned = self._pick(round, suspended)
            slots = plan_vertical([[problem.id for problem in picked] for picked in owned], self.group_size)
            chosen = [problem for picked in owned for problem in picked]
        if suspended:
            present = [node for node in range(self.size) if node not in suspended]
            slots = reassigned(slots, suspended, present, self.topology == "vertical", offset=round)
        return _by_id(chosen), slots

    def suspended(self, round: int) -> frozenset[int]:
        """The nodes that all honest ones want to have no slots; nobody, if that were the whole swarm."""
        wanted = frozenset.intersection(*(node.chain.suspended(round) for node in self.honest))
        return wanted if len(wanted) < self.size else frozenset()

    def _pick(self, round: int, suspended: frozenset[int]) -> list[list[Problem]]:
        """Each node picks its own prompts, or is assigned them; no two nodes take the same one in a round."""
        counts = shares(self.prompts, self.size, offset=round)
        choosers = {node.node for node in self.malicious} if self.prompt_choice == "free" else set()
        pickers = choosers - suspended
        taken: set[str] = set()
        owned: list[list[Problem]] = [[] for _ in range(self.size)]
        for node in sorted(range(self.size), key=lambda index: (index not in pickers, index)):
            rng = random.Random(derive(self.seed, "round", round, "picks of node", node))
            for problem in _shuffled(self.task.train, rng):
                if len(owned[node]) == counts[node]:
                    break
                if problem.id not in taken and (node not in pickers or self.wants(problem)):
                    owned[node].append(problem)
                    taken.add(problem.id)
            if len(owned[node]) < counts[node]:
                raise ConfigError("The task has too few problems that the attack can use; lower swarm.prompts.")
        return owned

    def play(self, round: int) -> RoundRecord:
        """Plays one round and updates every honest node."""
        clock = _Clock()
        problems, slots = self.plan(round, self.suspended(round))
        clock.lap("plan")
        submissions: list[Submission] = []
        for node in self.honest:
            submissions += node.produce(round, slots, problems)
        clock.lap("sample")
        rewards: list[float] = []
        for node in self.malicious:
            sent, forged = node.produce(round, slots, problems, self.group_size)
            submissions += sent
            rewards += [item.reward for item in forged if item.kind == "poison" and item.content is not None]
        clock.lap("forge")
        received, beacon = self.exchange.all_gather(round, submissions), self.exchange.beacon(round)
        clock.lap("exchange")
        views = tuple(node.consume(round, slots, problems, received, beacon) for node in self.honest)
        for stage in ("screen", "update"):
            clock.seconds[stage] = sum(view.seconds[stage] for view in views)
        return RoundRecord(round, views, tuple(rewards), clock.seconds)


def _shuffled(problems: Sequence[Problem], rng: random.Random) -> Iterator[Problem]:
    """Yields all problems in random order, doing only the work for those that are taken (lazy Fisher-Yates)."""
    moved: dict[int, int] = {}
    for place in range(len(problems)):
        other = rng.randrange(place, len(problems))
        yield problems[moved.get(other, other)]
        moved[other] = moved.get(place, place)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now


def _by_id(problems: Sequence[Problem]) -> dict[str, Problem]:
    return {problem.id: problem for problem in problems}
