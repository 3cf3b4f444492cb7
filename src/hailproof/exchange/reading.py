"""What others said: frames that lie in a store, fetched and checked within bounds, whatever lies there."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, final

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.gate import Gate
from hailproof.exchange.sending import Failures
from hailproof.exchange.stores import Store
from hailproof.wire import (
    OVERHEAD,
    Batch,
    Commit,
    Entry,
    Envelope,
    Phase,
    Place,
    Seal,
    Seen,
    State,
    Want,
    decoded,
)

NAMES_PER_SENDER = 4
"""Names of one sender in one place that are looked at; an honest one has one."""
FETCHED_AT_ONCE = 8
"""Frames that are fetched at the same time."""
_PAYLOADS: dict[Phase, type[Any]] = {
    "commit": Commit, "reveal": Batch, "seal": Seal, "seen": Seen, "state": State, "want": Want,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame to be fetched: its name and place, how large it may be, and what its sender is bound to."""

    name: str
    place: Place
    limit: int
    commit: Commit | None


@dataclass(slots=True)
class Box:
    """What came of one phase of one round.

    Attributes:
        envelopes: By sender.
        payloads: What they say, by sender.
        withdrawn: Senders that said two things, so that neither counts.
        known: Names that were looked at.
    """

    envelopes: dict[bytes, Envelope] = field(default_factory=dict)
    payloads: dict[bytes, Any] = field(default_factory=dict)
    withdrawn: set[bytes] = field(default_factory=set)
    known: set[str] = field(default_factory=set)

    @property
    def senders(self) -> set[bytes]:
        """Who has spoken, those included whose word does not count."""
        return self.withdrawn | set(self.payloads)


@final
class Reader:
    """Takes up what members said.

    Args:
        store: Where frames lie; it may fail and come back.
        members: Public keys of all nodes.
        swarm: The swarm's id.
        gate: Lets frames in; its allow-list must be the members.
        failures: Where failures of the store are counted.
        traffic: Where bytes are counted, as ``received``.
    """

    def __init__(
        self,
        store: Store,
        members: Collection[bytes],
        swarm: str,
        gate: Gate,
        failures: Failures,
        traffic: Counter[str],
    ) -> None:
        self._store, self._members, self._swarm, self._gate = store, members, swarm, gate
        self._failures, self._traffic = failures, traffic
        self._boxes: dict[tuple[int, Phase], Box] = {}

    def box(self, round: int, phase: Phase) -> Box:
        """What came of a phase of a round so far."""
        return self._boxes.setdefault((round, phase), Box())

    def forget(self, before: int) -> None:
        """Lets go of all rounds before one."""
        for key in [key for key in self._boxes if key[0] < before]:
            del self._boxes[key]

    def look(self, round: int, phase: Phase) -> Box:
        """Takes up what lies in a phase of a round; a store that fails is asked again at the next look."""
        box = self.box(round, phase)
        try:
            fresh = [name for name in self._names(round, phase) if name not in box.known]
            wanted = [each for name in fresh if (each := self._wanted(box, name, round, phase)) is not None]
            with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
                for each, fetched in zip(wanted, pool.map(self._fetch, wanted), strict=True):
                    self._file(box, phase, each, fetched)
        except StoreError as error:
            self._failures.note(error)
        return box

    def _names(self, round: int, phase: Phase) -> list[str]:
        """Names in a phase; if somebody floods it, a few of each member."""
        limit = NAMES_PER_SENDER * len(self._members)
        names = self._store.names(Place(self._swarm, round, phase).prefix, limit)
        if len(names) < limit:
            return names
        places = (Place(self._swarm, round, phase, key).prefix for key in self._members)
        return [name for prefix in places for name in self._store.names(prefix, NAMES_PER_SENDER)]

    def _wanted(self, box: Box, name: str, round: int, phase: Phase) -> _Wanted | None:
        """What is to be fetched under a name; ``None`` if nothing is."""
        try:
            place, _ = Place.of_name(name)
            limit = self._gate.limit(name)
        except PeerError as error:
            box.known.add(name)
            self._gate.refuse(error, name)
            return None
        if phase not in ("reveal", "seal"):
            return _Wanted(name, place, limit, None)
        commit = self.box(round, "commit").payloads.get(place.sender)
        if commit is None:
            return None  # nobody is bound to it, so that it is not even fetched
        return _Wanted(name, place, min(limit, commit.size + OVERHEAD) if phase == "reveal" else limit, commit)

    def _fetch(self, wanted: _Wanted) -> bytes | PeerError | None:
        """Fetches a frame; a refusal is counted where the others are."""
        try:
            return self._store.get(wanted.name, wanted.limit)
        except PeerError as error:
            return error

    def _file(self, box: Box, phase: Phase, wanted: _Wanted, data: bytes | PeerError | None) -> None:
        """Checks and files a frame; a refusal is counted by the gate."""
        name, place, commit = wanted.name, wanted.place, wanted.commit
        if data is None:
            return
        box.known.add(name)
        if isinstance(data, PeerError):
            self._gate.refuse(data, name)
            return
        self._traffic["received"] += len(data)
        try:
            envelope = self._gate.take(name, data, again=True)
        except PeerError:
            return
        if self._gate.equivocated(place):
            box.withdrawn.add(place.sender)
            box.payloads.pop(place.sender, None)
            return
        try:
            payload = decoded(_PAYLOADS[phase], envelope.payload)
            self._check(phase, envelope, payload, commit)
        except PeerError as error:
            self._gate.refuse(error, name)
            return
        box.envelopes[place.sender] = envelope
        box.payloads[place.sender] = payload

    def _check(self, phase: Phase, envelope: Envelope, payload: Any, commit: Commit | None) -> None:
        """Makes sure that a batch or a nonce is the committed one, and that an inventory lists nobody twice."""
        header = envelope.header
        if phase == "reveal" and commit and (header.size, header.sha256) != (commit.size, commit.sha256):
            raise PeerError("not as committed", f"The batch of {envelope.sender.hex()} is not the committed one.")
        if phase == "seal" and commit and hashlib.sha256(payload.nonce).digest() != commit.nonce_sha256:
            raise PeerError("not as committed", f"The nonce of {envelope.sender.hex()} is not the committed one.")
        if phase == "seen":
            senders = [entry.sender for entry in payload.entries]
            if senders != sorted(set(senders)) or not set(senders) <= set(self._members):
                raise PeerError("malformed", f"The inventory of {envelope.sender.hex()} is not in order.")

    def count_late(self, round: int) -> None:
        """Counts what came after its phase was over, where somebody was missing."""
        if len(self.box(round, "seal").payloads) == len(self._members):
            return
        phases: tuple[Phase, ...] = ("commit", "reveal", "seal")
        try:
            for phase in phases:
                box = self.box(round, phase)
                for name in self._names(round, phase):
                    if name not in box.known:
                        box.known.add(name)
                        self._gate.refuse(PeerError("late", f"{name} came after its deadline."), name)
        except StoreError as error:
            self._failures.note(error)

    def batch(self, round: int, entry: Entry) -> Batch | None:
        """The batch that an inventory lists, if it lies there; whether it came in time is not asked."""
        box = self.box(round, "reveal")
        envelope = box.envelopes.get(entry.sender)
        if envelope is not None and envelope.header.sha256 == entry.sha256 and entry.sender in box.payloads:
            return box.payloads[entry.sender]
        place = Place(self._swarm, round, "reveal", entry.sender)
        fresh = Gate(self._gate.limits, self._members, self._swarm)
        try:
            for envelope in self._envelopes(place, fresh):
                if envelope.header.sha256 == entry.sha256:
                    return decoded(Batch, envelope.payload)
        except PeerError:
            return None
        except StoreError as error:
            self._failures.note(error)
        return None

    def _envelopes(self, place: Place, gate: Gate) -> Iterable[Envelope]:
        for name in self._store.names(place.prefix, NAMES_PER_SENDER):
            data = self._store.get(name, gate.limit(name))
            try:
                if data is not None:
                    yield gate.take(name, data)
            except PeerError:
                continue

    def checkpoint(self, round: int, sha256: bytes, holders: Iterable[bytes], limit: int) -> bytes | None:
        """A checkpoint of a round with a hash, if one of those who say to hold it serves it.

        One is held at a time, whatever members serve, and none is fetched twice that was another.

        Args:
            round: The round.
            sha256: The hash.
            holders: Their keys.
            limit: The most bytes that it may have.
        """
        box = self.box(round, "checkpoint")
        try:
            for place in (Place(self._swarm, round, "checkpoint", key) for key in holders):
                for name in self._store.names(place.prefix, NAMES_PER_SENDER):
                    if name in box.known:
                        continue
                    try:
                        data = self._store.get(name, limit + OVERHEAD)
                        if data is None:
                            continue
                        self._traffic["received"] += len(data)
                        box.known.add(name)
                        envelope = self._gate.take(name, data, again=True)
                    except PeerError:
                        box.known.add(name)
                        continue
                    if envelope.header.sha256 == sha256:
                        return envelope.payload
        except StoreError as error:
            self._failures.note(error)
        return None
