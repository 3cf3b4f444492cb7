"""One node's side of a round over a store: commit, reveal, seal, inventories, states.

    commit   size and SHA-256 of the batch, hash of a nonce: everybody is bound before anybody's batch is seen
    reveal   the batch, which must be the committed one
    seal     the nonce; the hash of all nonces is the beacon, which nobody knew before all were bound
    seen     a signed inventory of whose commitment, batch and nonce were there in time
    state    hashes of what was decided and of the weights, and when the round was closed

**What is decided.** A node learns from a sender's batch if more than half of all members list it, with the same hash
and the same nonce, in the inventories that the node sees. It goes on as soon as no missing inventory could change
that: then, whichever inventories another node has seen, it cannot have decided otherwise, unless a member signed two.
Only where that is still open at the deadline may nodes differ: an inventory came to one of them in time and to
another too late, and it was the one that mattered. For that, dishonest members must send at the edge of one deadline
and list at the edge of the next, or somebody must delay messages between honest nodes. No consensus protocol is
claimed. Where nodes differ, that is noticed in the same round, from the states, and mended from the majority's
checkpoint.

**Clocks.** Deadlines count from the median of the times at which members say that they closed the round before, which
lies among honest clocks while most members are honest. A phase ends early once all who are waited for have sent.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, final

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.gate import Gate
from hailproof.exchange.stores import Store
from hailproof.identity import Identity
from hailproof.records import Submission
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
    batch_of,
    decoded,
    encoded,
    sealed,
    submissions_of,
)

NAMES_PER_SENDER = 4
"""Names of one sender in one place that are looked at; an honest one has one."""
ROUNDS_LOOKED_AT = 64
"""Rounds that are looked at, from the last one down, to find where the swarm stands."""
FETCHED_AT_ONCE = 8
"""Frames that are fetched at the same time."""
_PAYLOADS: Mapping[str, type[Any]] = {
    "commit": Commit, "reveal": Batch, "seal": Seal, "seen": Seen, "state": State, "want": Want,
}  # fmt: skip


class Stopped(Exception):
    """The node was asked to stop while it waited."""


class Unavailable(Exception):
    """The round was decided, but what was decided on cannot be had, so that it cannot be followed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that each phase has at most, counted from the start of the round.

    Attributes:
        commit: To draw completions and commit to them.
        reveal: To show them.
        seal: To show the nonce.
        seen: To list what was there.
        state: To learn, and to say what came of it.
        lobby: To wait for all members before the first round.
        poll: Between two looks at the store.
    """

    commit: float = 120.0
    reveal: float = 30.0
    seal: float = 15.0
    seen: float = 15.0
    state: float = 120.0
    lobby: float = 300.0
    poll: float = 0.05

    def until(self, phase: str) -> float:
        """Seconds from the start of a round to the deadline of a phase."""
        total = 0.0
        for each in fields(self):
            total += getattr(self, each.name)
            if each.name == phase:
                break
        return total


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a node takes from a round.

    Attributes:
        round: The round.
        entries: Whose batches count, in the order of their keys.
        submissions: What is in them, in the order of problem, slot and sender.
        beacon: Randomness that nobody knew before all were bound.
        decision: Hash of the entries.
        stalled: Seconds beyond the deadline for which a quorum of inventories was waited for.
    """

    round: int
    entries: tuple[Entry, ...]
    submissions: tuple[Submission, ...]
    beacon: int
    decision: bytes
    stalled: float


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A frame to be fetched: its name and place, how large it may be, and what its sender is bound to."""

    name: str
    place: Place
    limit: int
    commit: Commit | None


@dataclass(slots=True)
class _Box:
    """What came of one phase of one round."""

    envelopes: dict[bytes, Envelope] = field(default_factory=dict)
    payloads: dict[bytes, Any] = field(default_factory=dict)
    withdrawn: set[bytes] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    closed: bool = False

    @property
    def senders(self) -> set[bytes]:
        """Who has spoken, those included whose word does not count."""
        return self.withdrawn | set(self.payloads)


@final
class StoreExchange:
    """One node's exchange over a store; implements ``protocols.Exchange``.

    Args:
        store: Where frames lie; it may fail and come back.
        identity: The node's key.
        members: Public keys of all nodes; a node's index is its place among them.
        swarm: The swarm's id.
        timing: Deadlines.
        gate: Lets frames in; its allow-list must be the members.
        journal: Where own frames are kept before they are sent, so that a node that comes back says the same again.
        clock: Seconds since 1970.
        sleep: Waits for some seconds.
        stopping: Whether the node is asked to stop.
        tell: Called with what is being waited for.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        members: Sequence[bytes],
        swarm: str,
        timing: Timing,
        gate: Gate,
        journal: Store,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        stopping: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.store, self.identity, self.swarm, self.timing, self.gate = store, identity, swarm, timing, gate
        self.members = tuple(members)
        self.index = {key: index for index, key in enumerate(self.members)}
        self.quorum = len(self.members) // 2 + 1
        self.journal = journal
        self.failures: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._clock, self._sleep, self._stopping, self._tell = clock, sleep, stopping, tell
        self._boxes: dict[tuple[int, Phase], _Box] = {}
        self._unsent: dict[str, bytes] = {}
        self._beacons: dict[int, int] = {}
        self._starts: dict[int, float] = {}

    # -- sending and looking

    def say(self, round: int, phase: Phase, payload: bytes) -> None:
        """Signs and sends a payload, once for all: what was said before in this place is said again instead."""
        place = Place(self.swarm, round, phase, self.identity.key)
        before = self.journal.names(place.prefix, 1)
        frame = self.journal.get(before[0], len(payload) + self.gate.limits.of(phase) + OVERHEAD) if before else None
        if frame is None:
            frame = sealed(self.identity, place, payload)
            self.journal.put(place.name(frame), frame)
        self._unsent[place.name(frame)] = frame
        self._send()

    def _send(self) -> None:
        """Puts what is not yet there; what fails is tried again at the next look."""
        for name, frame in list(self._unsent.items()):
            try:
                self.store.put(name, frame)
            except StoreError as error:
                self._fail(error)
                return
            del self._unsent[name]
            self.bytes["sent"] += len(frame)

    def _fail(self, error: StoreError) -> None:
        self.failures[str(error)] += 1
        if len(self.failures) > 100:
            self.failures.clear()

    def look(self, round: int, phase: Phase) -> _Box:
        """Takes up what lies in a phase of a round; a store that fails is asked again at the next look."""
        box = self._boxes.setdefault((round, phase), _Box())
        self._send()
        try:
            fresh = [name for name in self._names(round, phase) if name not in box.known]
            wanted = [each for name in fresh if (each := self._wanted(box, name, round, phase)) is not None]
            with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
                for each, fetched in zip(wanted, pool.map(self._fetch, wanted), strict=True):
                    self._file(box, phase, each, fetched)
        except StoreError as error:
            self._fail(error)
        return box

    def _names(self, round: int, phase: Phase) -> list[str]:
        """Names in a phase; if somebody floods it, a few of each member."""
        limit = NAMES_PER_SENDER * len(self.members)
        names = self.store.names(Place(self.swarm, round, phase).prefix, limit)
        if len(names) < limit:
            return names
        places = (Place(self.swarm, round, phase, key).prefix for key in self.members)
        return [name for prefix in places for name in self.store.names(prefix, NAMES_PER_SENDER)]

    def _wanted(self, box: _Box, name: str, round: int, phase: Phase) -> "_Wanted | None":
        """What is to be fetched under a name; ``None`` if nothing is."""
        try:
            place, _ = Place.of_name(name)
            limit = self.gate.limit(name)
        except PeerError as error:
            box.known.add(name)
            self.gate.refuse(error, name)
            return None
        if phase not in ("reveal", "seal"):
            return _Wanted(name, place, limit, None)
        commit = self._box(round, "commit").payloads.get(place.sender)
        if commit is None:
            return None  # nobody is bound to it, so that it is not even fetched
        return _Wanted(name, place, min(limit, commit.size + OVERHEAD) if phase == "reveal" else limit, commit)

    def _fetch(self, wanted: "_Wanted") -> bytes | PeerError | None:
        """Fetches a frame; a refusal is counted where the others are."""
        try:
            return self.store.get(wanted.name, wanted.limit)
        except PeerError as error:
            return error

    def _file(self, box: _Box, phase: Phase, wanted: "_Wanted", data: bytes | PeerError | None) -> None:
        """Checks and files a frame; a refusal is counted by the gate."""
        name, place, commit = wanted.name, wanted.place, wanted.commit
        if data is None:
            return
        box.known.add(name)
        if isinstance(data, PeerError):
            self.gate.refuse(data, name)
            return
        self.bytes["received"] += len(data)
        try:
            envelope = self.gate.take(name, data, again=True)
        except PeerError:
            return
        if self.gate.equivocated(place):
            box.withdrawn.add(place.sender)
            box.payloads.pop(place.sender, None)
            return
        try:
            payload = decoded(_PAYLOADS[phase], envelope.payload)
            self._check(phase, envelope, payload, commit)
        except PeerError as error:
            self.gate.refuse(error, name)
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
            if senders != sorted(set(senders)) or not set(senders) <= self.index.keys():
                raise PeerError("malformed", f"The inventory of {envelope.sender.hex()} is not in order.")

    def _box(self, round: int, phase: Phase) -> _Box:
        return self._boxes.setdefault((round, phase), _Box())

    def _gather(
        self,
        round: int,
        phase: Phase,
        deadline: float,
        awaited: Collection[bytes] | None,
        enough: int = 0,
    ) -> tuple[_Box, float]:
        """Looks until all awaited have spoken, or the deadline is over and enough have.

        Args:
            round: The round.
            phase: The phase.
            deadline: When the phase is over, in seconds since 1970.
            awaited: Keys; ``None``: until no inventory that is still missing could change the decision.
            enough: How many must have spoken, however long that takes.

        Returns:
            What came, and for how many seconds it was waited beyond the deadline.
        """
        self._tell(phase)
        stalled_at: float | None = None
        pause = self.timing.poll
        while True:
            box = self.look(round, phase)
            complete = self._settled(box) if awaited is None else box.senders.issuperset(awaited)
            if complete and len(box.payloads) >= enough:
                break
            now = self._clock()
            if now >= deadline:
                if len(box.payloads) < enough:
                    stalled_at = deadline if stalled_at is None else stalled_at
                    self._tell(f"{phase}, without quorum")
                elif stalled_at is None or now >= deadline + self.timing.seen:
                    break
                if stalled_at is not None and len(box.payloads) < enough:
                    deadline = now  # once there are enough, the others have the time of a phase to appear as well
            if self._stopping():
                raise Stopped
            self._sleep(min(pause, max(deadline - now, self.timing.poll)))
            pause = min(pause * 1.2, 10 * self.timing.poll)
        box.closed = True
        return box, 0.0 if stalled_at is None else self._clock() - stalled_at

    # -- the round

    def start_of(self, round: int) -> float:
        """When a round began: the median of the times at which members closed the one before; seconds since 1970."""
        if round not in self._starts:
            times = sorted(state.closed for state in self.look(round - 1, "state").payloads.values())
            now = self._clock()
            known = times[(len(times) - 1) // 2] / 1000 if len(times) >= self.quorum else now
            self._starts = {round: min(known, now)}
        return self._starts[round]

    def lobby(self, state: State) -> dict[int, State]:
        """Says what the node begins with, and waits for the others.

        Returns:
            The first states by index; of all members, or of at least a quorum.
        """
        self.say(0, "state", encoded(state))
        box, _ = self._gather(0, "state", self._clock() + self.timing.lobby, self.members, self.quorum)
        times = sorted(each.closed / 1000 for each in box.payloads.values())
        complete = len(times) == len(self.members)
        start = times[-1] if complete else times[self.quorum - 1] + self.timing.lobby
        self._starts = {1: min(start, self._clock())}
        return self._by_index(box)

    def waited(self) -> bool:
        """Whether this node has waited for the others before, and a quorum was there: then it need not do so again."""
        before = self.journal.names(Place(self.swarm, 0, "state", self.identity.key).prefix, 1)
        return bool(before) and len(self.look(0, "state").payloads) >= self.quorum

    def gather(self, round: int, submissions: Sequence[Submission] | None) -> Gathered:
        """Sends the own submissions of a round and returns what all are to learn from.

        Args:
            round: The round.
            submissions: The own ones; ``None`` to follow a round without taking part.

        Raises:
            Stopped: If the node is asked to stop meanwhile.
            Unavailable: If a batch that was decided on cannot be had.
        """
        start, timing = self.start_of(round), self.timing
        due = {each.name: start + timing.until(each.name) for each in fields(timing)}
        own = self._commit(round, submissions, due["commit"])
        commits, _ = self._gather(round, "commit", due["commit"], self.members)
        if own is not None:
            self.say(round, "reveal", own)
        bound = set(commits.payloads)
        reveals, _ = self._gather(round, "reveal", due["reveal"], bound)
        if own is not None:
            self.say(round, "seal", encoded(Seal(self._nonce(round))))
        seals, _ = self._gather(round, "seal", due["seal"], bound & set(reveals.payloads))
        entries = tuple(
            Entry(key, commits.payloads[key].sha256, seals.payloads[key].nonce)
            for key in sorted(bound & set(reveals.payloads) & set(seals.payloads))
        )
        if submissions is not None:
            self.say(round, "seen", encoded(Seen(entries)))
        seen, stalled = self._gather(round, "seen", due["seen"], None, self.quorum)
        return self._decided(round, seen, stalled)

    def _commit(self, round: int, submissions: Sequence[Submission] | None, deadline: float) -> bytes | None:
        """Commits to the own batch, if there is still time; returns it."""
        if submissions is None:
            return None
        batch = encoded(batch_of(submissions))
        place = Place(self.swarm, round, "commit", self.identity.key)
        if self._clock() > deadline and not self.journal.names(place.prefix, 1):
            return None
        nonce = hashlib.sha256(self._nonce(round)).digest()
        self.say(round, "commit", encoded(Commit(len(batch), hashlib.sha256(batch).digest(), nonce)))
        return batch

    def _nonce(self, round: int) -> bytes:
        """The own nonce of a round, which only the key's owner can know; the same after a restart."""
        return self.identity.secret("nonce", self.swarm, round)

    def _settled(self, seen: _Box) -> bool:
        """Whether the inventories that are still missing cannot change whose batches count.

        Then it is the same for every node, whichever inventories it has seen.
        """
        missing = len(self.members) - len(seen.senders)
        support = Counter(entry for inventory in seen.payloads.values() for entry in inventory.entries)
        return missing < self.quorum and all(
            count >= self.quorum or count + missing < self.quorum for count in support.values()
        )

    def _decided(self, round: int, seen: _Box, stalled: float) -> Gathered:
        """What the inventories decide, with the batches."""
        support = Counter(entry for inventory in seen.payloads.values() for entry in inventory.entries)
        entries = tuple(sorted((entry for entry in support if support[entry] >= self.quorum), key=lambda e: e.sender))
        submissions: list[Submission] = []
        for entry in entries:
            submissions += submissions_of(self._batch(round, entry), round, self.index[entry.sender])
        nonces = b"".join(entry.nonce for entry in entries)
        digest = hashlib.sha256(f"hailproof beacon {self.swarm} {round} ".encode() + nonces).digest()
        self._beacons = {round: int.from_bytes(digest[:8], "big") >> 1}
        submissions.sort(key=lambda each: (each.problem_id, each.slot, each.sender))
        decision = hashlib.sha256(encoded(Seen(entries))).digest()
        return Gathered(round, entries, tuple(submissions), self._beacons[round], decision, stalled)

    def _batch(self, round: int, entry: Entry) -> Batch:
        """A batch that was decided on; this node may have seen it late, or not yet."""
        box = self._box(round, "reveal")
        envelope = box.envelopes.get(entry.sender)
        if envelope is not None and envelope.header.sha256 == entry.sha256 and entry.sender in box.payloads:
            return box.payloads[entry.sender]
        deadline = self._clock() + self.timing.reveal
        while True:
            found = self._fetched(round, entry)
            if found is not None:
                return found
            if self._clock() >= deadline:
                raise Unavailable(f"the batch of {entry.sender.hex()} in round {round}")
            if self._stopping():
                raise Stopped
            self._sleep(self.timing.poll)

    def _fetched(self, round: int, entry: Entry) -> Batch | None:
        place = Place(self.swarm, round, "reveal", entry.sender)
        fresh = Gate(self.gate.limits, self.members, self.swarm)
        try:
            for name in self.store.names(place.prefix, NAMES_PER_SENDER):
                data = self.store.get(name, self.gate.limit(name))
                try:
                    envelope = fresh.take(name, data) if data is not None else None
                    if envelope is not None and envelope.header.sha256 == entry.sha256:
                        return decoded(Batch, envelope.payload)
                except PeerError:
                    continue
        except PeerError:
            return None
        except StoreError as error:
            self._fail(error)
        return None

    def agree(self, round: int, state: State, followed: bool = False) -> dict[int, State]:
        """Says what the node holds after a round, and returns what the others say, by index.

        Args:
            round: The round.
            state: What the node holds.
            followed: Whether the round is long over; else the others have some time to speak, however late it is.
        """
        self.say(round, "state", encoded(state))
        awaited = self._box(round, "seen").senders | {self.identity.key}
        deadline = self.start_of(round) + self.timing.until("state")
        if not followed:
            deadline = max(deadline, self._clock() + self.timing.seen)
        box, _ = self._gather(round, "state", deadline, awaited)
        self._count_late(round)
        for key in [key for key in self._boxes if key[0] < round]:
            del self._boxes[key]
        return self._by_index(box)

    def _count_late(self, round: int) -> None:
        """Counts what came after its phase was over, where somebody was missing."""
        if len(self._box(round, "seal").payloads) == len(self.members):
            return
        try:
            for phase in ("commit", "reveal", "seal"):
                box = self._box(round, phase)
                for name in self._names(round, phase):
                    if name not in box.known:
                        box.known.add(name)
                        self.gate.refuse(PeerError("late", f"{name} came after its deadline."), name)
        except StoreError as error:
            self._fail(error)

    def _by_index(self, box: _Box) -> dict[int, State]:
        return {self.index[key]: payload for key, payload in box.payloads.items()}

    # -- where the swarm stands, and checkpoints

    def finished(self, round: int) -> bool:
        """Whether a quorum of members says that it closed a round."""
        return len(self.look(round, "state").payloads) >= self.quorum

    def states(self, round: int) -> dict[int, State]:
        """What members say that they hold after a round, by index."""
        return self._by_index(self.look(round, "state"))

    def latest(self) -> int:
        """The last round that a quorum closed, as far as can be seen; 0 if there is none."""
        try:
            parts = self.store.parts(f"{self.swarm}/", 100_000)
        except StoreError as error:
            self._fail(error)
            return 0
        numbers = sorted((int(part) for part in parts if part.isdecimal() and len(part) == 8), reverse=True)
        return next((number for number in numbers[:ROUNDS_LOOKED_AT] if number and self.finished(number)), 0)

    def wanted(self, round: int) -> bool:
        """Whether a member asks for a checkpoint of a round."""
        return bool(self.look(round, "want").payloads)

    def checkpoint(self, round: int, sha256: bytes, most: int) -> bytes | None:
        """A checkpoint of a round with a hash, if a member serves it that says to hold it.

        One is held at a time, whatever members serve, and none is fetched twice that was another.

        Args:
            round: The round.
            sha256: The hash.
            most: The most bytes that it may have.
        """
        box = self._box(round, "checkpoint")
        holders = [key for key, state in self.look(round, "state").payloads.items() if state.checkpoint == sha256]
        limit = min(most, self.gate.limits.checkpoint)
        try:
            for place in (Place(self.swarm, round, "checkpoint", key) for key in holders):
                for name in self.store.names(place.prefix, NAMES_PER_SENDER):
                    if name in box.known:
                        continue
                    try:
                        data = self.store.get(name, limit + OVERHEAD)
                        if data is None:
                            continue
                        self.bytes["received"] += len(data)
                        box.known.add(name)
                        envelope = self.gate.take(name, data, again=True)
                    except PeerError:
                        box.known.add(name)
                        continue
                    if envelope.header.sha256 == sha256:
                        return envelope.payload
        except StoreError as error:
            self._fail(error)
        return None

    # -- protocols.Exchange

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Sends the own submissions of a round and returns everybody's, in the order of problem, slot and sender."""
        return list(self.gather(round, submissions).submissions)

    def beacon(self, round: int) -> int | None:
        """The beacon of the round that was gathered last."""
        return self._beacons.get(round)


def majority(states: Mapping[int, State], quorum: int) -> bytes | None:
    """The checkpoint that at least a quorum of members holds; ``None`` if there is none."""
    votes = Counter(state.checkpoint for state in states.values())
    best = max(votes, key=lambda each: (votes[each], each), default=None)
    return best if best is not None and votes[best] >= quorum else None
