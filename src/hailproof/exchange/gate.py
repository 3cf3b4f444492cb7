"""What is let in: the same checks for a node, a relay, and a zenoh peer, with every refusal counted by its reason."""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import final

from hailproof.errors import PeerError
from hailproof.wire import OVERHEAD, Envelope, Phase, Place, head_of, opened, sender_in

REMEMBERED = 50_000
"""Places whose frames a gate remembers, to know what is repeated; the oldest are forgotten first."""
_ENTRY_BYTES = 128
TRIAL_PHASES: frozenset[Phase] = frozenset({"commit", "reveal", "seal", "want", "join"})
"""Where strangers on trial may speak; inventories, states and checkpoints are the members' alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most bytes of payloads.

    Attributes:
        batch: Of one sender's completions of a round.
        checkpoint: Of weights, optimizer and what defenses remember.
        members: Nodes that are heard in a round, and strangers that inventories may welcome; each has an entry there.
    """

    batch: int = 8 << 20
    checkpoint: int = 1 << 30
    members: int = 1000

    def of(self, phase: Phase) -> int:
        """The most bytes that a payload of a phase has."""
        large = {"reveal": self.batch, "checkpoint": self.checkpoint, "seen": 64 + _ENTRY_BYTES * self.members}
        return large.get(phase, 256)


@final
class Gate:
    """Lets frames in that are sound, once each, and counts what it refuses.

    Args:
        limits: The most bytes of each phase.
        allowed: Keys of those who may send; ``None``: anybody.
        swarm: The swarm's id; ``None``: any.
        strangers: Whether anybody may say that it wants to join (``exchange.admission``).

    Attributes:
        allowed: As above; :meth:`admit` changes it.
        refused: How many frames were refused, by reason.
        refused_of: The same by sender's name; only of senders who are on the list.
        proofs: By sender's name, the heads of two frames that prove that it said two things.
    """

    def __init__(
        self,
        limits: Limits,
        allowed: Collection[bytes] | None = None,
        swarm: str | None = None,
        strangers: bool = False,
    ) -> None:
        self.limits = limits
        self.swarm, self.strangers = swarm, strangers
        self.allowed: frozenset[bytes] | None = None
        self._known: frozenset[bytes] | None = None
        self._names: frozenset[str] = frozenset()
        if allowed is not None:
            self.admit(allowed)
        self.refused: Counter[str] = Counter()
        self.refused_of: Counter[tuple[str, str]] = Counter()
        self.proofs: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()
        self._heads: OrderedDict[Place, list[bytes]] = OrderedDict()
        self._taken: OrderedDict[bytes, Place] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, allowed: Collection[bytes], trials: Collection[bytes] = ()) -> None:
        """Says who may send from now on.

        Args:
            allowed: Keys of members.
            trials: Keys of strangers on trial, who may not say everything.
        """
        members, allowed_before = frozenset(allowed), self.allowed
        self.allowed, self._known = members, members.union(trials)
        if allowed_before != members:
            self._names = frozenset(key.hex() for key in members)

    @property
    def trials(self) -> int:
        """How many strangers are on trial."""
        return len(self._known or ()) - len(self.allowed or ())

    def signers(self, place: Place) -> Collection[bytes] | None:
        """Keys that may have signed what lies in a place; ``None``: anybody's."""
        return None if self._stranger(place) else self._known

    def _stranger(self, place: Place) -> bool:
        """Whether it is a place in which anybody may speak, of somebody who is not known."""
        return self.strangers and place.phase == "join" and self._known is not None and place.sender not in self._known

    def limit(self, name: str) -> int:
        """The most bytes that the frame of a name may have.

        Raises:
            PeerError: If it is no name of a frame that may be let in.
        """
        place, _ = self._place(name)
        return self.limits.of(place.phase) + OVERHEAD

    def refuse(self, error: PeerError, name: str = "") -> PeerError:
        """Counts a refusal, and gives it back to be raised."""
        self.refused[error.reason] += 1
        sender = sender_in(name)
        if sender in self._names:
            self.refused_of[sender, error.reason] += 1
        return error

    def take(self, name: str, data: bytes, again: bool = False) -> Envelope:
        """Checks a frame that was found under a name, and remembers it.

        Args:
            name: The name.
            data: The frame.
            again: Whether a frame may be taken twice in its own place, as by a node that looks there again.

        Raises:
            PeerError: If it is refused. A second frame of a sender in one place is let in, since the two are a proof;
                a third is not.
        """
        try:
            return self._take(name, data, again)
        except PeerError as error:
            raise self.refuse(error, name) from error.__cause__

    def _place(self, name: str) -> tuple[Place, bytes]:
        place, digest = Place.of_name(name)
        if self.swarm is not None and place.swarm != self.swarm:
            raise PeerError("wrong swarm", f"{name:.200} belongs to another swarm than {self.swarm}.")
        if self.allowed is None or place.sender in self.allowed or self._stranger(place):
            return place, digest
        if self._known is None or place.sender not in self._known or place.phase not in TRIAL_PHASES:
            raise PeerError("not on the allow-list", f"{place.sender.hex()} is not on the allow-list.")
        return place, digest

    def _take(self, name: str, data: bytes, again: bool) -> Envelope:
        place, digest = self._place(name)
        limit = self.limits.of(place.phase)
        if len(data) > limit + OVERHEAD:
            raise PeerError("oversized", f"{name:.200} has {len(data)} bytes, where {limit + OVERHEAD} are allowed.")
        found = hashlib.sha256(data).digest()
        earlier = self._taken.get(found)
        if earlier is not None and not (again and earlier == place):
            reason = "duplicated" if earlier == place else "replayed"
            raise PeerError(reason, f"{name:.200} was taken before, as {earlier.phase} of round {earlier.round}.")
        if found != digest:
            raise PeerError("forged", f"The content of {name:.200} is not what its name says.")
        envelope = opened(data, limit, self.signers(place), place)
        if self._stranger(place):
            return envelope  # else strangers could make it forget what members said
        with self._lock:
            heads = self._heads.setdefault(place, [])
            if head_of(data) in heads:
                return envelope
            if len(heads) >= 2:
                raise PeerError("equivocating", f"{place.sender.hex()} said two other things in {place.prefix:.100}.")
            heads.append(head_of(data))
            self._taken[found] = place
            if len(heads) == 2:
                self.refused["equivocating"] += 1
                self.proofs[place.sender.hex()] = (heads[0], heads[1])
            for memory in (self._heads, self._taken):
                while len(memory) > REMEMBERED:
                    memory.popitem(last=False)
            while len(self.proofs) > self.limits.members:
                self.proofs.popitem(last=False)
        return envelope

    def equivocated(self, place: Place) -> bool:
        """Whether a sender said two things in a place."""
        return len(self._heads.get(place, ())) > 1
