"""What a node says, once for all: signed, kept in its journal, and sent until the store has it."""

from collections import Counter
from collections.abc import Callable
from typing import final

from hailproof.errors import StoreError
from hailproof.exchange.gate import Limits
from hailproof.exchange.stores import Store
from hailproof.identity import Identity
from hailproof.wire import OVERHEAD, Phase, Place, sealed

_MOST_KINDS = 100


@final
class Failures(Counter[str]):
    """How often a store failed, by what it said; bounded, whatever a store says.

    Attributes:
        tell: Called with a sentence that comes for the first time.
    """

    tell: Callable[[str], None] = staticmethod(lambda said: None)

    def note(self, error: StoreError) -> None:
        """Counts a failure."""
        if str(error) not in self:
            self.tell(str(error))
        self[str(error)] += 1
        if len(self) > _MOST_KINDS:
            self.clear()


@final
class Sender:
    """Says one thing in each place, also after ``kill -9``.

    Args:
        store: Where frames lie; it may fail and come back.
        identity: The node's key.
        swarm: The swarm's id.
        journal: Where own frames are kept before they are sent.
        limits: The most bytes of each phase.
        failures: Where failures of the store are counted.
        traffic: Where bytes are counted, as ``sent``.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        swarm: str,
        journal: Store,
        limits: Limits,
        failures: Failures,
        traffic: Counter[str],
    ) -> None:
        self._store, self._identity, self._swarm, self._journal = store, identity, swarm, journal
        self._limits, self._failures, self._traffic = limits, failures, traffic
        self._unsent: dict[str, bytes] = {}

    def has_said(self, round: int, phase: Phase) -> bool:
        """Whether something was said in a place before."""
        return bool(self._journal.names(self._place(round, phase).prefix, 1))

    def say(self, round: int, phase: Phase, payload: bytes) -> None:
        """Signs and sends a payload, once for all: what was said before in this place is said again instead."""
        place = self._place(round, phase)
        before = self._journal.names(place.prefix, 1)
        frame = self._journal.get(before[0], len(payload) + self._limits.of(phase) + OVERHEAD) if before else None
        if frame is None:
            frame = sealed(self._identity, place, payload)
            self._journal.put(place.name(frame), frame)
        self._unsent[place.name(frame)] = frame
        self.send()

    def send(self) -> None:
        """Puts what is not yet there; what fails is tried again at the next look."""
        for name, frame in list(self._unsent.items()):
            try:
                self._store.put(name, frame)
            except StoreError as error:
                self._failures.note(error)
                return
            del self._unsent[name]
            self._traffic["sent"] += len(frame)

    def _place(self, round: int, phase: Phase) -> Place:
        return Place(self._swarm, round, phase, self._identity.key)
