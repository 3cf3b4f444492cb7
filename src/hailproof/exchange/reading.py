"""What others said: frames that lie in a store, fetched and checked within bounds, whatever lies there."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, final

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.admission import Rolls
from hailproof.exchange.gate import TRIAL_PHASES, Gate
from hailproof.exchange.sending import Failures
from hailproof.exchange.stores import Store
from hailproof.wire import (
    OVERHEAD,
    Batch,
    Commit,
    Entry,
    Envelope,
    Join,
    Phase,
    Place,
    Seal,
    Seen,
    State,
    Want,
    decoded,
    sender_in,
)

NAMES_PER_SENDER = 4
"""Names of one sender in one place that are looked at; an honest one has one."""
LOOKED_AT_PER_SENDER = 16
"""Names of one sender in one place that are looked at over time, should a store list others at each look."""
LONGEST_PAUSE = 64
"""Looks after which bytes that were damaged on the way are fetched again, at the latest."""
JOINS_LOOKED_AT = 64
"""Names of strangers that ask to join in a round that are looked at; if there are more, it is open which."""
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
        said: All inventories by sender, those included that do not count; two at the most.
        known: Names that were looked at.
        looks: How often it was looked at.
        damaged: By sender the name whose bytes were others than it says: how often so, and the look from which on it is
            fetched again. Only a store or a network does that to an honest sender, and it may pass.
    """

    envelopes: dict[bytes, Envelope] = field(default_factory=dict)
    payloads: dict[bytes, Any] = field(default_factory=dict)
    withdrawn: set[bytes] = field(default_factory=set)
    said: dict[bytes, list[Seen]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    looks: int = 0
    damaged: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def due(self, name: str) -> bool:
        """Whether a name is to be fetched again; its sender has no other such name, since honest ones have only one."""
        found, _, look = self.damaged.get(_prefix(name), ("", 0, 0))
        return found == name and look <= self.looks

    def note(self, name: str, whole: bool) -> None:
        """Remembers whether the bytes of a name were those that it says."""
        found, times, _ = self.damaged.get(prefix := _prefix(name), (name, 0, 0))
        if found != name:
            return
        self.damaged.pop(prefix, None)
        if not whole:
            self.damaged[prefix] = (name, times + 1, self.looks + min(2**times, LONGEST_PAUSE))

    @property
    def senders(self) -> set[bytes]:
        """Who has spoken, those included whose word does not count."""
        return self.withdrawn | set(self.payloads)


def _prefix(name: str) -> str:
    """What the names of one sender in one place have in common."""
    return name[: name.rfind("/") + 1]


def _fresh(box: Box, names: Iterable[str], speakers: frozenset[bytes]) -> list[str]:
    """Names that were not looked at; no more of one sender, or of all strangers together, than a box remembers."""
    unknown = [name for name in names if name not in box.known]
    if not unknown:
        return []
    heard = {key.hex() for key in speakers}

    def heard_of(name: str) -> str:
        return sender if (sender := sender_in(name)) in heard else ""

    looked_at = Counter(map(heard_of, box.known))
    fresh = []
    for name in unknown:
        sender = heard_of(name)
        most = LOOKED_AT_PER_SENDER if sender else NAMES_PER_SENDER * len(heard)
        if looked_at[sender] < most:
            looked_at[sender] += 1
            fresh.append(name)
    return fresh


@final
class Reader:
    """Takes up what those said who may speak.

    Args:
        store: Where frames lie; it may fail and come back.
        rolls: Who may speak in which round.
        swarm: The swarm's id.
        gate: Lets frames in; its allow-list must be that of the rolls.
        failures: Where failures of the store are counted.
        traffic: Where bytes are counted, as ``received``.
    """

    def __init__(
        self,
        store: Store,
        rolls: Rolls,
        swarm: str,
        gate: Gate,
        failures: Failures,
        traffic: Counter[str],
    ) -> None:
        self._store, self._rolls, self._swarm, self._gate = store, rolls, swarm, gate
        self._failures, self._traffic = failures, traffic
        self._boxes: dict[tuple[int, Phase], Box] = {}

    def box(self, round: int, phase: Phase) -> Box:
        """What came of a phase of a round so far."""
        return self._boxes.setdefault((round, phase), Box())

    def forget(self, before: int) -> None:
        """Lets go of all rounds before one."""
        for key in [key for key in self._boxes if key[0] < before]:
            del self._boxes[key]

    def drop(self, round: int) -> None:
        """Lets go of one round."""
        for key in [key for key in self._boxes if key[0] == round]:
            del self._boxes[key]

    def speakers(self, round: int, phase: Phase) -> frozenset[bytes]:
        """Who may speak in a phase of a round, as far as it is known."""
        if phase == "want":
            roll = self._rolls.latest
            return frozenset((*roll.members, *(trial.key for trial in roll.trials)))
        floor = self._rolls.floor(round)
        if floor is None:
            return frozenset()
        trials = floor.trials if phase in TRIAL_PHASES else ()
        return frozenset((*floor.heard, *trials))

    def look(self, round: int, phase: Phase) -> Box:
        """Takes up what lies in a phase of a round; a store that fails is asked again at the next look."""
        box, speakers = self.box(round, phase), self.speakers(round, phase)
        box.looks += 1
        try:
            names = self._names(round, phase, speakers)
            fresh = [*_fresh(box, names, speakers), *filter(box.due, names)]
            wanted = [each for name in fresh if (each := self._wanted(box, name, round, phase, speakers)) is not None]
            with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
                for each, fetched in zip(wanted, pool.map(self._fetch, wanted), strict=True):
                    self._file(box, phase, each, fetched)
        except StoreError as error:
            self._failures.note(error)
        return box

    def _names(self, round: int, phase: Phase, speakers: frozenset[bytes]) -> list[str]:
        """Names in a phase; if somebody floods it, a few of each who may speak there."""
        limit = NAMES_PER_SENDER * len(speakers)
        names = self._store.names(Place(self._swarm, round, phase).prefix, limit) if speakers else []
        if len(names) < limit:
            return names
        places = (Place(self._swarm, round, phase, key).prefix for key in sorted(speakers))
        return [name for prefix in places for name in self._store.names(prefix, NAMES_PER_SENDER)]

    def _wanted(
        self, box: Box, name: str, round: int, phase: Phase, speakers: frozenset[bytes]
    ) -> _Wanted | None:
        """What is to be fetched under a name; ``None`` if nothing is."""
        try:
            place, _ = Place.of_name(name)
            limit = self._gate.limit(name)
            if place.sender not in speakers:
                raise PeerError("not heard", f"{place.sender.hex()} may not speak in {phase} of round {round}.")
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
        try:
            envelope = self._let_in(box, name, data)
        except PeerError:
            return
        if self._gate.equivocated(place):
            box.withdrawn.add(place.sender)
            box.payloads.pop(place.sender, None)
            if phase != "seen":
                return
        try:
            payload = decoded(_PAYLOADS[phase], envelope.payload)
            self._check(phase, envelope, payload, commit)
        except PeerError as error:
            self._gate.refuse(error, name)
            return
        if phase == "seen":
            box.said.setdefault(place.sender, []).append(payload)
        if place.sender not in box.withdrawn:
            box.envelopes[place.sender] = envelope
            box.payloads[place.sender] = payload

    def _let_in(self, box: Box, name: str, data: bytes) -> Envelope:
        """Lets a frame in; one whose bytes are others than its name says is due again later.

        Raises:
            PeerError: If it is refused, which the gate counts.
        """
        self._traffic["received"] += len(data)
        try:
            envelope = self._gate.take(name, data, again=True)
        except PeerError:
            box.note(name, whole=hashlib.sha256(data).hexdigest() == name.rpartition("/")[2])
            raise
        box.note(name, whole=True)
        return envelope

    def _check(self, phase: Phase, envelope: Envelope, payload: Any, commit: Commit | None) -> None:
        """Makes sure that a batch or a nonce is the committed one, and that an inventory lists nobody twice."""
        header = envelope.header
        if phase == "reveal" and commit and (header.size, header.sha256) != (commit.size, commit.sha256):
            raise PeerError("not as committed", f"The batch of {envelope.sender.hex()} is not the committed one.")
        if phase == "seal" and commit and hashlib.sha256(payload.nonce).digest() != commit.nonce_sha256:
            raise PeerError("not as committed", f"The nonce of {envelope.sender.hex()} is not the committed one.")
        if phase == "seen":
            senders, admission = [entry.sender for entry in payload.entries], self._rolls.admission
            most = admission.welcomed if admission else 0
            ordered = all(list(keys) == sorted(set(keys)) for keys in (senders, payload.welcome))
            floor = self._rolls.floor(header.round)
            if not ordered or len(payload.welcome) > most or floor is None or not floor.heard_set.issuperset(senders):
                raise PeerError("malformed", f"The inventory of {envelope.sender.hex()} is not in order.")

    def count_late(self, round: int) -> None:
        """Counts what came after its phase was over, where somebody was missing."""
        floor = self._rolls.floor(round)
        if floor is None or self.box(round, "seal").payloads.keys() >= floor.heard_set:
            return
        phases: tuple[Phase, ...] = ("commit", "reveal", "seal")
        try:
            for phase in phases:
                box = self.box(round, phase)
                for name in self._names(round, phase, self.speakers(round, phase)):
                    if name not in box.known:
                        box.known.add(name)
                        self._gate.refuse(PeerError("late", f"{name} came after its deadline."), name)
        except StoreError as error:
            self._failures.note(error)

    def joins(self, round: int) -> list[bytes]:
        """Keys of some who ask in a round to become members, in order; nothing of it is remembered."""
        try:
            names = self._store.names(Place(self._swarm, round, "join").prefix, JOINS_LOOKED_AT)
            found = {key for name in names[:JOINS_LOOKED_AT] if (key := self._joining(name)) is not None}
        except StoreError as error:
            self._failures.note(error)
            return []
        return sorted(found)

    def _joining(self, name: str) -> bytes | None:
        """Who asks to join under a name; ``None`` if it is refused."""
        try:
            data = self._store.get(name, self._gate.limit(name))
        except PeerError as error:
            self._gate.refuse(error, name)
            return None
        if data is None:
            return None
        self._traffic["received"] += len(data)
        try:
            envelope = self._gate.take(name, data, again=True)
        except PeerError:
            return None
        try:
            decoded(Join, envelope.payload)
        except PeerError as error:
            self._gate.refuse(error, name)
            return None
        return envelope.sender

    def batch(self, round: int, entry: Entry) -> Batch | None:
        """The batch that an inventory lists, if it lies there; whether it came in time is not asked."""
        box = self.box(round, "reveal")
        envelope = box.envelopes.get(entry.sender)
        if envelope is not None and envelope.header.sha256 == entry.sha256 and entry.sender in box.payloads:
            return box.payloads[entry.sender]
        place = Place(self._swarm, round, "reveal", entry.sender)
        fresh = Gate(self._gate.limits, {entry.sender}, self._swarm)
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

        One is held at a time, whatever members serve, and none is fetched twice that was another, unless its bytes were
        damaged on the way.

        Args:
            round: The round.
            sha256: The hash.
            holders: Their keys.
            limit: The most bytes that it may have.
        """
        box = self.box(round, "checkpoint")
        box.looks += 1
        try:
            for place in (Place(self._swarm, round, "checkpoint", key) for key in holders):
                for name in self._store.names(place.prefix, NAMES_PER_SENDER):
                    if name in box.known and not box.due(name):
                        continue
                    try:
                        data = self._store.get(name, limit + OVERHEAD)
                        if data is None:
                            continue
                        box.known.add(name)
                        envelope = self._let_in(box, name, data)
                    except PeerError:
                        box.known.add(name)
                        continue
                    if envelope.header.sha256 == sha256:
                        return envelope.payload
        except StoreError as error:
            self._failures.note(error)
        return None
