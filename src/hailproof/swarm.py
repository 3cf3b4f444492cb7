"""The simulation: many nodes in one process; nodes that are bitwise alike are computed once.

What only a simulation knows stays here: who attacks, and everybody's weights.
"""

import time
from dataclasses import dataclass

from hailproof.adversary import MaliciousNode
from hailproof.node import HonestNode
from hailproof.protocols import Exchange, Task
from hailproof.records import RoundRecord, Submission
from hailproof.topology import Plan, Planner


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarm:
    """A simulated swarm.

    Attributes:
        honest: The honest nodes; one entry may stand for several that are alike.
        malicious: The malicious nodes.
        planner: Derives the plan of a round from public state.
        task: Problems and rewards.
        exchange: Moves the submissions.
    """

    honest: tuple[HonestNode, ...]
    malicious: tuple[MaliciousNode, ...]
    planner: Planner
    task: Task
    exchange: Exchange

    def suspended(self, round: int) -> frozenset[int]:
        """The nodes that have no slots in a round: what any honest node says, since all say the same."""
        return self.honest[0].suspended(round)

    def plan(self, round: int) -> Plan:
        """The plan of a round, as honest nodes derive it."""
        return self.planner.plan(round, self.suspended(round))

    def play(self, round: int) -> RoundRecord:
        """Plays one round and updates every honest node."""
        clock = _Clock()
        suspended = self.suspended(round)
        submissions: list[Submission] = []
        for node in self.honest:
            submissions += node.produce(round)
        clock.lap("sample")
        rewards: list[float] = []
        for node in self.malicious:
            suspicion = max(honest.chain.suspicion(node.node) for honest in self.honest)
            sent, forged = node.produce(round, suspended, suspicion)
            submissions += sent
            poison = (item.reward for item in forged if item.kind == "poison" and item.content is not None)
            rewards += [reward for reward in poison if reward is not None]
        clock.lap("forge")
        received, beacon = self.exchange.all_gather(round, submissions), self.exchange.beacon(round)
        clock.lap("exchange")
        views = tuple(node.consume(round, received, beacon) for node in self.honest)
        for stage in ("screen", "update"):
            clock.seconds[stage] = sum(view.seconds[stage] for view in views)
        return RoundRecord(round, views, tuple(rewards), clock.seconds)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
