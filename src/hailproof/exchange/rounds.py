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

``sending`` says what this node says, ``reading`` takes up what others say, ``deciding`` has the rules.

**Clocks.** Deadlines count from the median of the times at which members say that they closed the round before, which
lies among honest clocks while most members are honest. A phase ends early once all who are waited for have sent.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import final

from hailproof.exchange.admission import Floor, Roll, Rolls
from hailproof.exchange.deciding import Gathered, decided, decision_of, settled
from hailproof.exchange.gate import Gate
from hailproof.exchange.reading import Box, Reader
from hailproof.exchange.sending import Failures, Sender
from hailproof.exchange.standing import Standing
from hailproof.exchange.stores import Store
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity
from hailproof.records import Submission
from hailproof.seeds import derive
from hailproof.wire import Batch, Commit, Entry, Join, Phase, Seal, Seen, State, batch_of, encoded, submissions_of


class Stopped(Exception):
    """The node was asked to stop while it waited."""


class Unavailable(Exception):
    """The round was decided, but what was decided on cannot be had, so that it cannot be followed."""


@final
class StoreExchange:
    """One node's exchange over a store; implements ``protocols.Exchange``.

    Args:
        store: Where frames lie; it may fail and come back.
        identity: The node's key.
        members: Public keys of all nodes; a node's index is its place among them. Or the rolls, where strangers may
            become members.
        swarm: The swarm's id.
        timing: Deadlines.
        gate: Lets frames in; its allow-list must be the members.
        journal: Where own frames are kept before they are sent, so that a node that comes back says the same again.
        clock: Seconds since 1970.
        sleep: Waits for some seconds.
        stopping: Whether the node is asked to stop.
        tell: Called with what is being waited for.
        admits: Whether this node is for a stranger that asks to join; it must not take long.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        members: Sequence[bytes] | Rolls,
        swarm: str,
        timing: Timing,
        gate: Gate,
        journal: Store,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        stopping: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda phase: None,
        admits: Callable[[bytes], bool] = lambda key: True,
    ) -> None:
        self.store, self.identity, self.swarm, self.timing, self.gate = store, identity, swarm, timing, gate
        self.rolls = members if isinstance(members, Rolls) else Rolls(members)
        self.failures = Failures()
        self.bytes: Counter[str] = Counter()
        self._sender = Sender(store, identity, swarm, journal, gate.limits, self.failures, self.bytes)
        self._reader = Reader(store, self.rolls, swarm, gate, self.failures, self.bytes)
        self._standing = Standing(store, swarm, self.rolls, gate, self._reader, self.failures)
        self._admits = admits
        self._index: dict[bytes, int] = {}
        self._indexed: tuple[bytes, ...] = ()
        self._clock, self._sleep, self._stopping, self._tell = clock, sleep, stopping, tell
        self._beacons: dict[int, int] = {}
        self._closed: dict[int, bytes] = {}
        self._starts: dict[int, float] = {}

    # -- sending and looking

    def say(self, round: int, phase: Phase, payload: bytes) -> None:
        """Signs and sends a payload, once for all: what was said before in this place is said again instead."""
        self._sender.say(round, phase, payload)

    def look(self, round: int, phase: Phase) -> Box:
        """Takes up what lies in a phase of a round, and sends what is not yet sent."""
        self._sender.send()
        return self._reader.look(round, phase)

    def _gather(
        self,
        round: int,
        phase: Phase,
        deadline: float,
        awaited: Collection[bytes] | None,
        enough: int = 0,
    ) -> tuple[Box, float]:
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
            complete = self._settled(round, box) if awaited is None else box.senders.issuperset(awaited)
            if complete and len(box.payloads) >= enough:
                break
            now = self._clock()
            if now >= deadline:
                if len(box.payloads) < enough:
                    stalled_at = deadline if stalled_at is None else stalled_at
                    self._check_company(round)
                    self._tell(f"{phase}, without quorum")
                elif stalled_at is None or now >= deadline + self.timing.seen:
                    break
                if stalled_at is not None and len(box.payloads) < enough:
                    deadline = now  # once there are enough, the others have the time of a phase to appear as well
            if self._stopping():
                raise Stopped
            self._sleep(min(pause, max(deadline - now, self.timing.poll)))
            pause = min(pause * 1.2, 10 * self.timing.poll)
        return box, 0.0 if stalled_at is None else self._clock() - stalled_at

    # -- the round

    def start_of(self, round: int) -> float:
        """When a round began: the median of the times at which members closed the one before; seconds since 1970."""
        if round not in self._starts:
            times = sorted(state.closed for state in self.look(round - 1, "state").payloads.values())
            now = self._clock()
            known = times[(len(times) - 1) // 2] / 1000 if len(times) >= self.quorum(round - 1) else now
            self._starts = {round: min(known, now)}
        return self._starts[round]

    def lobby(self, state: State) -> dict[int, State]:
        """Says what the node begins with, and waits for the others.

        Returns:
            The first states by index; of all members, or of at least a quorum.
        """
        self.say(0, "state", encoded(state))
        floor = self.floor(0)
        box, _ = self._gather(0, "state", self._clock() + self.timing.lobby, floor.heard, floor.quorum)
        times = sorted(each.closed / 1000 for each in box.payloads.values())
        complete = len(times) == len(floor.heard)
        start = times[-1] if complete else times[floor.quorum - 1] + self.timing.lobby
        self._starts = {1: min(start, self._clock())}
        return self._by_index(box)

    def waited(self) -> bool:
        """Whether this node has waited for the others before, and a quorum was there: then it need not do so again."""
        return self._sender.has_said(0, "state") and len(self.look(0, "state").payloads) >= self.quorum(0)

    def gather(
        self,
        round: int,
        submissions: Sequence[Submission] | None,
        honest: Collection[bytes] = (),
        followed: bool = False,
    ) -> Gathered:
        """Sends the own submissions of a round and returns what all are to learn from.

        Args:
            round: The round.
            submissions: The own ones; ``None`` to follow a round without taking part.
            honest: Strangers on trial whose batch of the round before was honest.
            followed: Whether the round is long over, so that strangers need no time to speak.

        Raises:
            Stopped: If the node is asked to stop meanwhile.
            Unavailable: If a batch that was decided on cannot be had, or it is not known who is heard.
        """
        floor, start, timing = self.floor(round), self.start_of(round), self.timing
        heard = floor.heard_set
        due = {each.name: start + timing.until(each.name) for each in fields(timing)}
        own = self._commit(round, submissions, due["commit"])
        commits, _ = self._gather(round, "commit", due["commit"], heard)
        if floor.trials and not followed:
            now = self._clock()  # strangers have half as long again as the members took, so that they delay little
            self._gather(round, "commit", min(due["commit"], now + max(now - start, 0) / 2), {*heard, *floor.trials})
        if own is not None:
            self.say(round, "reveal", own)
        bound = heard & set(commits.payloads)
        reveals, _ = self._gather(round, "reveal", due["reveal"], bound)
        if own is not None:
            self.say(round, "seal", encoded(Seal(self._nonce(round))))
        seals, _ = self._gather(round, "seal", due["seal"], bound & set(reveals.payloads))
        entries = tuple(
            Entry(key, commits.payloads[key].sha256, seals.payloads[key].nonce)
            for key in sorted(bound & set(reveals.payloads) & set(seals.payloads))
        )
        if submissions is not None:
            self.say(round, "seen", encoded(Seen(entries, self._welcome(round, floor, honest))))
        seen, stalled = self._gather(round, "seen", due["seen"], None, floor.quorum)
        return self._decided(round, seen, stalled, followed)

    def _commit(self, round: int, submissions: Sequence[Submission] | None, deadline: float) -> bytes | None:
        """Commits to the own batch, if there is still time; returns it."""
        if submissions is None:
            return None
        batch = encoded(batch_of(submissions))
        if self._clock() > deadline and not self._sender.has_said(round, "commit"):
            return None
        nonce = hashlib.sha256(self._nonce(round)).digest()
        self.say(round, "commit", encoded(Commit(len(batch), hashlib.sha256(batch).digest(), nonce)))
        return batch

    def _nonce(self, round: int) -> bytes:
        """The own nonce of a round, which only the key's owner can know; the same after a restart."""
        return self.identity.secret("nonce", self.swarm, round)

    def _settled(self, round: int, seen: Box) -> bool:
        """Whether the inventories that are still missing cannot change what is decided."""
        floor = self.floor(round)
        return settled(seen.payloads.values(), len(floor.heard) - len(seen.senders), floor.quorum)

    def _decided(self, round: int, seen: Box, stalled: float, followed: bool) -> Gathered:
        """What the inventories decide, with the batches; of a round that is over, what a quorum signed."""
        decision = decided(seen.payloads.values(), self.quorum(round))
        signed = self._standing.signed(round) if followed else None
        if signed is not None and decision_of(decision) != signed:
            read = self._standing.read(round, signed)
            if read is None and not self.rolls.fixed:
                raise Unavailable(f"the inventories that decided round {round}")
            decision = read or decision
        submissions: list[Submission] = []
        for entry in decision.entries:
            submissions += submissions_of(self._batch(round, entry), round, self.index[entry.sender])
        submissions.sort(key=lambda each: (each.problem_id, each.slot, each.sender))
        self._beacons = {round: self._standing.close(round, decision)}
        name = decision_of(decision)
        self._closed = {round: name}
        return Gathered(round, decision.entries, tuple(submissions), self._beacons[round], name, stalled)

    def _batch(self, round: int, entry: Entry) -> Batch:
        """A batch that was decided on; this node may have seen it late, or not yet."""
        deadline = self._clock() + self.timing.reveal
        while (found := self._reader.batch(round, entry)) is None:
            if self._clock() >= deadline:
                raise Unavailable(f"the batch of {entry.sender.hex()} in round {round}")
            if self._stopping():
                raise Stopped
            self._sleep(self.timing.poll)
        return found

    def agree(self, round: int, state: State, followed: bool = False) -> dict[int, State]:
        """Says what the node holds after a round, and returns what the others say, by index.

        Args:
            round: The round.
            state: What the node holds.
            followed: Whether the round is long over; else the others have some time to speak, however late it is.
        """
        awaited = set(self._reader.box(round, "seen").senders)
        if self.identity.key in self.floor(round).heard_set:
            self.say(round, "state", encoded(state))
            awaited.add(self.identity.key)
        deadline = self.start_of(round) + self.timing.until("state")
        if not followed:
            deadline = max(deadline, self._clock() + self.timing.seen)
        box, _ = self._gather(round, "state", deadline, awaited)
        self._reader.count_late(round)
        self._reader.forget(before=round)
        return self._by_index(box)

    def _by_index(self, box: Box) -> dict[int, State]:
        return {self.index[key]: payload for key, payload in box.payloads.items()}

    # -- strangers

    def ask(self, round: int) -> None:
        """Says in a round that this node wants to be a member."""
        self.say(round, "join", encoded(Join()))

    def offer(self, round: int, submissions: Sequence[Submission]) -> None:
        """Shows the batch by which this node, on trial, pays for a round; nobody learns from it.

        Nobody could gain by copying it, so that all of it is shown at once, the commitment at the end: who sees that
        can have the rest.
        """
        batch, nonce = encoded(batch_of(submissions)), self._nonce(round)
        self.say(round, "reveal", batch)
        self.say(round, "seal", encoded(Seal(nonce)))
        commit = Commit(len(batch), hashlib.sha256(batch).digest(), hashlib.sha256(nonce).digest())
        self.say(round, "commit", encoded(commit))

    def offered(self, round: int) -> dict[bytes, list[Submission]]:
        """What strangers on trial have shown in a round that was gathered, by key; senders are numbered from 0."""
        found = {}
        boxes = [self._reader.box(round, phase) for phase in ("commit", "reveal", "seal")]
        for number, key in enumerate(self.floor(round).trials):
            if all(key in box.payloads for box in boxes):
                found[key] = submissions_of(boxes[1].payloads[key], round, number)
        return found

    def _welcome(self, round: int, floor: Floor, honest: Collection[bytes]) -> tuple[bytes, ...]:
        """The strangers that this node is for in its inventory of a round."""
        admission = self.rolls.admission
        if admission is None:
            return ()
        roll = self.rolls.after(round - 1)
        known = {*floor.heard, *floor.trials, *(roll.members if roll else ())}
        asking = [key for key in self._reader.joins(round) if key not in known and self._admits(key)]
        asking.sort(key=lambda key: derive(roll.beacon if roll else 0, "admission", key.hex()))
        return tuple(sorted({*(set(honest) & set(floor.trials)), *asking[: admission.places]}))

    # -- where the swarm stands, and checkpoints

    def floor(self, round: int) -> Floor:
        """Who may speak in a round.

        Raises:
            Unavailable: If that is not known.
        """
        floor = self.rolls.floor(round)
        if floor is None:
            raise Unavailable(f"who is heard in round {round}")
        return floor

    def quorum(self, round: int) -> int:
        """How many are more than half of those who are heard in a round.

        Raises:
            Unavailable: If who is heard is not known.
        """
        return self.floor(round).quorum

    @property
    def index(self) -> dict[bytes, int]:
        """The index of each member, by key; it keeps it for ever."""
        members = self.rolls.latest.members
        if self._indexed is not members:
            self._indexed, self._index = members, {key: index for index, key in enumerate(members)}
        return self._index

    def finished(self, round: int) -> bool:
        """Whether a quorum of members says that it closed a round."""
        self._sender.send()
        return self._standing.finished(round)

    def states(self, round: int) -> dict[int, State]:
        """What members say that they hold after a round, by index."""
        return self._by_index(self.look(round, "state"))

    def latest(self) -> int:
        """The last round that a quorum closed, as far as can be seen; 0 if there is none."""
        self._sender.send()
        return self._standing.latest()

    def restore(self, roll: Roll) -> None:
        """Takes up who belonged to the swarm after a round, from a checkpoint."""
        self.rolls.add(roll)
        self._closed = {}
        self._standing.admit()

    def realign(self, round: int) -> None:
        """Takes up who is heard after a round as a quorum signed it, where this node has decided otherwise.

        Else it would look for the next round where nobody of those who play it is heard.
        """
        signed = None if self.rolls.fixed else self._standing.signed(round)
        if signed is not None and signed != self._closed.get(round):
            read = self._standing.read(round, signed)
            if read is not None:
                self._standing.close(round, read)
                self._closed = {round: signed}

    def _check_company(self, round: int) -> None:
        """Makes sure that the round before was not decided otherwise, so that others are heard in this one.

        Raises:
            Unavailable: If it was.
        """
        mine = self._closed.get(round - 1)
        if self.rolls.fixed or mine is None:
            return
        signed = self._standing.signed(round - 1)
        if signed is not None and signed != mine:
            raise Unavailable(f"who is heard in round {round}, since round {round - 1} was decided otherwise")

    def wanted(self, round: int) -> bool:
        """Whether a member asks for a checkpoint of a round."""
        return bool(self.look(round, "want").payloads)

    def checkpoint(self, round: int, sha256: bytes, most: int) -> bytes | None:
        """A checkpoint of a round with a hash, if a member serves it that says to hold it; one is held at a time.

        Args:
            round: The round.
            sha256: The hash.
            most: The most bytes that it may have.
        """
        states = self.look(round, "state").payloads
        holders = [key for key, state in states.items() if state.checkpoint == sha256]
        return self._reader.checkpoint(round, sha256, holders, min(most, self.gate.limits.checkpoint))

    # -- protocols.Exchange

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Sends the own submissions of a round and returns everybody's, in the order of problem, slot and sender."""
        return list(self.gather(round, submissions).submissions)

    def beacon(self, round: int) -> int | None:
        """The beacon of the round that was gathered last."""
        return self._beacons.get(round)
