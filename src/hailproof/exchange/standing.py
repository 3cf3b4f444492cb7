"""Where a swarm stands: which rounds are over, and who belongs to it by now, from what its members signed."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, islice
from typing import final

from hailproof.errors import StoreError
from hailproof.exchange.admission import Rolls
from hailproof.exchange.deciding import beacon_of, decided, decision_of
from hailproof.exchange.gate import Gate
from hailproof.exchange.reading import Box, Reader
from hailproof.exchange.sending import Failures
from hailproof.exchange.stores import Store
from hailproof.wire import Phase, Seen, State

ROUNDS_LOOKED_AT = 64
"""Rounds that are looked at, from the last one down, to find where the swarm stands."""
MOST_READINGS = 128
"""Ways to read the inventories of a round that are tried."""


def _readings(box: Box) -> Iterator[list[Seen]]:
    """Inventories that members may have had when they decided: all; without what came later; before a contradiction."""
    base = box.payloads
    others = [(key, each) for key in sorted(box.withdrawn) for each in box.said.get(key, ())]
    others += [(key, None) for key in sorted(base)]
    for count in range(len(others) + 1):
        for changed in combinations(others, count):
            read = {**base, **dict(changed)}
            yield [each for each in read.values() if each is not None]


@final
class Standing:
    """Reads where the swarm stands; needs no key.

    Where members come and go, each round says who is heard in the next one, so it walks from round to round: a quorum
    of states says what was decided, and the inventories must say the same. A member that sends its inventory late, or
    a second one, changes what is read, so that inventories are also read without it, as members may have done.

    Args:
        store: Where frames lie; it may fail and come back.
        swarm: The swarm's id.
        rolls: Who may speak in which round, as far as it is known; it takes up what is read.
        gate: Lets frames in; it is told who may send.
        reader: Takes up what lies in the store.
        failures: Where failures of the store are counted.
    """

    def __init__(self, store: Store, swarm: str, rolls: Rolls, gate: Gate, reader: Reader, failures: Failures) -> None:
        self._store, self._swarm, self.rolls, self._gate = store, swarm, rolls, gate
        self._reader, self._failures = reader, failures

    def finished(self, round: int) -> bool:
        """Whether a quorum of members says that it closed a round."""
        floor = self.rolls.floor(round)
        return floor is not None and len(self._look(round, "state").payloads) >= floor.quorum

    def states(self, round: int) -> dict[bytes, State]:
        """What members say that they hold after a round, by key."""
        return self._look(round, "state").payloads

    def _look(self, round: int, phase: Phase) -> Box:
        return self._reader.look(round, phase)

    def latest(self) -> int:
        """The last round that a quorum closed, as far as can be seen; 0 if there is none."""
        if self.rolls.fixed:
            try:
                parts = self._store.parts(f"{self._swarm}/", 100_000)
            except StoreError as error:
                self._failures.note(error)
                return 0
            numbers = sorted((int(part) for part in parts if part.isdecimal() and len(part) == 8), reverse=True)
        else:
            while self.follow(self.rolls.latest.round + 1):
                pass
            numbers = range(self.rolls.latest.round, 0, -1)
        return next((number for number in numbers[:ROUNDS_LOOKED_AT] if number and self.finished(number)), 0)

    def follow(self, round: int) -> bool:
        """Takes up who belongs to the swarm after the next round, once a quorum has closed it; whether it could."""
        floor = self.rolls.floor(round)
        if floor is None or not self.finished(round):
            return False
        votes = Counter(state.decision for state in self.states(round).values())
        signed, count = votes.most_common(1)[0]
        if count < floor.quorum:
            return False
        tried = (decided(each, floor.quorum) for each in islice(_readings(self._look(round, "seen")), MOST_READINGS))
        found = next((each for each in tried if decision_of(each) == signed), None)
        if found is None:
            return False
        self.close(round, found)
        self._reader.drop(round)
        return True

    def close(self, round: int, decision: Seen) -> int:
        """Takes up what a round decided; returns its beacon."""
        beacon = beacon_of(self._swarm, round, decision.entries)
        before = None if self.rolls.fixed else self.rolls.after(round - 1)
        if before is not None:
            self.rolls.add(before.after(self.rolls.admission, decision.welcome, beacon))
            self.admit()
        return beacon

    def admit(self) -> None:
        """Tells the gate who may send."""
        roll = self.rolls.latest
        self._gate.admit(roll.members, [trial.key for trial in roll.trials])


def watched(store: Store, swarm: str, rolls: Rolls, gate: Gate) -> Standing:
    """Where a swarm stands, for somebody who is no node of it, such as a relay."""
    failures = Failures()
    return Standing(store, swarm, rolls, gate, Reader(store, rolls, swarm, gate, failures, Counter()), failures)
