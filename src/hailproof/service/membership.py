"""A node's place in its swarm: a member from the start, a stranger that asks and pays, or a member since then."""

from collections.abc import Callable
from typing import final

from hailproof.errors import RunError
from hailproof.exchange.admission import Floor
from hailproof.exchange.deciding import Gathered
from hailproof.exchange.rounds import StoreExchange
from hailproof.node import HonestNode
from hailproof.runs.build import Participant
from hailproof.service.config import SwarmFile
from hailproof.service.hooks import Doorkeeper, load_hook
from hailproof.service.records import Log
from hailproof.service.trials import is_honest, trial_batch


def doorkeeper(swarm: SwarmFile, swarm_id: str, log: Log) -> Callable[[bytes], bool]:
    """What says which strangers may begin to pay for a name.

    Raises:
        ConfigError: If the hook of the swarm's file cannot be imported.
    """
    if not swarm.admission.hook:
        return lambda key: True
    genesis = {
        "swarm": swarm_id, "name": swarm.name, "members": [key.hex() for key in swarm.keys], "run": swarm.run,
    }  # fmt: skip
    return Doorkeeper(load_hook(swarm.admission.hook), genesis, lambda said: log("hook_failed", error=said))


@final
class Membership:
    """Where a node stands, and what it does for that.

    Args:
        exchange: The node's exchange.
        swarm: The file that all nodes share.
        log: Where it says what changes.

    Attributes:
        index: The node's index; for a stranger one that no member has.
    """

    def __init__(self, exchange: StoreExchange, swarm: SwarmFile, log: Log) -> None:
        self._exchange, self._log = exchange, log
        self._key = exchange.identity.key
        self._nobody = swarm.most_members
        self.index = swarm.index_of(self._key)

    @property
    def member(self) -> bool:
        """Whether the node is a member: before that, nobody learns from it."""
        return self.index != self._nobody

    @property
    def label(self) -> int | str:
        """What logs and status call the node."""
        return self.index if self.member else "stranger"

    @property
    def on_trial(self) -> bool:
        """Whether the node pays for its name just now."""
        return any(trial.key == self._key for trial in self._exchange.rolls.latest.trials)

    def __str__(self) -> str:
        trials = self._exchange.rolls.latest.trials
        paid = next((trial.paid for trial in trials if trial.key == self._key), None)
        if self.member:
            return f"node {self.index}"
        return "asking to join" if paid is None else f"on trial, {paid} rounds paid"

    def renew(self) -> bool:
        """Takes the own place among the members, once it has one; whether it has."""
        index = self._exchange.index.get(self._key, self._nobody)
        if index != self.index:
            self.index = index
            self._log("seated", index=index, round=self._exchange.rolls.latest.round)
        return self.member

    def enter(self, rounds: int, wait: Callable[[int], None]) -> int:
        """Asks to join until a majority of the members is for it.

        Args:
            rounds: How many rounds the swarm plays.
            wait: Called with the last round that is over, to wait for a while.

        Returns:
            The last round that is over.

        Raises:
            RunError: If the swarm has played its last round.
        """
        asked = 0
        while True:
            latest = self._exchange.latest()
            if self.renew() or self.on_trial:
                self._log("joined", round=latest, member=self.member)
                return latest
            if latest >= rounds:
                raise RunError("The swarm has played its last round; a stranger can join while it plays.")
            if latest > asked:
                self._log("asks", round=latest + 1)
                self._exchange.ask(latest + 1)
                asked = latest
            wait(latest)

    def takes_part(self, floor: Floor) -> bool:
        """Whether the node is heard in a round."""
        return self._key in floor.heard

    def seated(self, participant: Participant, floor: Floor) -> Participant:
        """The node in a round whose slots are dealt to those that are heard in it."""
        if self._exchange.rolls.fixed:
            return participant
        return participant.seated(self.index, tuple(self._exchange.index[key] for key in floor.heard))

    def pay(self, node: HonestNode, round: int, floor: Floor) -> None:
        """Shows the work of a round by which a stranger pays, or asks to be let in."""
        if self._key in floor.trials:
            self._exchange.offer(round, trial_batch(node, round, self._key))
        elif not self.member and not self.on_trial:
            self._exchange.ask(round)

    def judged(self, node: HonestNode, round: int, gathered: Gathered) -> frozenset[bytes]:
        """The strangers whose work of a round was honest, judged with the weights that it was drawn with.

        Whoever is not asked in the next round need not judge.
        """
        if not self.takes_part(self._exchange.floor(round + 1)):
            return frozenset()
        offered = self._exchange.offered(round)
        return frozenset(key for key, batch in offered.items() if is_honest(node, round, key, batch, gathered.beacon))
