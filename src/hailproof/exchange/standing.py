"""Where a swarm stands: which rounds are over, and who belongs to it by now, from what its members signed."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations, islice
from typing import final

from hailproof.errors import StoreError
from hailproof.exchange.admission import Rolls
from hailproof.exchange.deciding import beacon_of, decided, decision_of, listed, support
from hailproof.exchange.gate import Gate
from hailproof.exchange.reading import Box, Reader
from hailproof.exchange.sending import Failures
from hailproof.exchange.stores import Store
from hailproof.wire import Entry, Phase, Seen, State

ROUNDS_LOOKED_AT = 64
"""Rounds that are looked at, from the last one down, to find where the swarm stands."""
MOST_READINGS = 128
"""Ways to read the inventories of a round that are tried."""
IN_DOUBT = 10
"""Batches and strangers nearest to a majority of which all combinations are tried."""


def _readings(box: Box) -> Iterator[list[Seen]]:
    """Inventories that members may have had when they decided: all; without what came later; before a contradiction."""
    base = box.payloads
    others = [(key, each) for key in sorted(box.withdrawn) for each in box.said.get(key, ())]
    others += [(key, None) for key in sorted(base)]
    for count in range(len(others) + 1):
        for changed in combinations(others, count):
            read = {**base, **dict(changed)}
            yield [each for each in read.values() if each is not None]


def _decisions(box: Box, quorum: int) -> Iterator[Seen]:
    """What members may have decided: as all is read now; with what is in doubt turned; as they may have read.

    A single late inventory can be left out by ``_readings``, but several change what counts only together, and a large
    panel has more members than there are readings. What they change is few batches near a majority.
    """
    payloads = list(box.payloads.values())
    yield (base := decided(payloads, quorum))
    counted: set[Entry | bytes] = {*base.entries, *base.welcome}
    told = support([*payloads, *(each for key in sorted(box.withdrawn) for each in box.said.get(key, ()))])
    doubtful = sorted(told, key=lambda each: abs(told[each] - quorum + 0.5))
    for each in doubtful:
        yield listed(counted ^ {each})
    near = doubtful[:IN_DOUBT]
    for number in range(3, 2 ** len(near)):
        yield listed(counted ^ {each for place, each in enumerate(near) if number >> place & 1})
    yield from (decided(each, quorum) for each in islice(_readings(box), MOST_READINGS))


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

    def signed(self, round: int) -> bytes | None:
        """The name of the decision that a quorum of members signed for a round; ``None`` if none did, as yet."""
        floor = self.rolls.floor(round)
        if floor is None:
            return None
        votes = Counter(state.decision for state in self.states(round).values())
        name, count = max(votes.items(), key=lambda each: each[1], default=(b"", 0))
        return name if count >= floor.quorum else None

    def read(self, round: int, name: bytes) -> Seen | None:
        """The decision of a name, if the inventories of a round can be read so."""
        floor = self.rolls.floor(round)
        tried = () if floor is None else _decisions(self._look(round, "seen"), floor.quorum)
        return next((each for each in tried if decision_of(each) == name), None)

    def follow(self, round: int) -> bool:
        """Takes up who belongs to the swarm after a round, once a quorum signed what it decided; whether it could."""
        name = self.signed(round)
        found = None if name is None else self.read(round, name)
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
