"""What a round decides: pure functions of the inventories and states that its members signed."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from hailproof.records import Submission
from hailproof.wire import Entry, Seen, State, encoded


@final
@dataclass(frozen=True, slots=True)
class Gathered:
    """What a node takes from a round.

    Attributes:
        round: The round.
        entries: Whose batches count, in the order of their keys.
        submissions: What is in them, in the order of problem, slot and sender.
        beacon: Randomness that nobody knew before all were bound.
        decision: Hash of the entries, and of the strangers that are welcome.
        stalled: Seconds beyond the deadline for which a quorum of inventories was waited for.
    """

    round: int
    entries: tuple[Entry, ...]
    submissions: tuple[Submission, ...]
    beacon: int
    decision: bytes
    stalled: float


def support(inventories: Iterable[Seen]) -> Counter[Entry | bytes]:
    """How many inventories list a batch, or are for a stranger."""
    return Counter(each for inventory in inventories for each in (*inventory.entries, *inventory.welcome))


def settled(inventories: Collection[Seen], missing: int, quorum: int) -> bool:
    """Whether the inventories that are still missing cannot change whose batches count, nor who is welcome.

    Then it is the same for every node, whichever inventories it has seen.

    Args:
        inventories: Those that are there and count.
        missing: Members of whom there is none, nor the proof that they signed two.
        quorum: Members that are more than half of all.
    """
    counts = support(inventories)
    return missing < quorum and all(
        count >= quorum or count + missing < quorum for count in counts.values()
    )


def decided(inventories: Collection[Seen], quorum: int) -> Seen:
    """Whose batches count, and who is welcome: what a quorum lists, in the order of their keys."""
    counts = support(inventories)
    return listed(each for each in counts if counts[each] >= quorum)


def listed(counted: Iterable[Entry | bytes]) -> Seen:
    """A decision: batches that count and strangers that are welcome, in the order of their keys."""
    each_once = set(counted)
    entries = sorted((each for each in each_once if isinstance(each, Entry)), key=lambda each: each.sender)
    return Seen(tuple(entries), tuple(sorted(each for each in each_once if isinstance(each, bytes))))


def decision_of(decision: Seen) -> bytes:
    """The hash that names a decision."""
    return hashlib.sha256(encoded(decision)).digest()


def beacon_of(swarm: str, round: int, entries: Iterable[Entry]) -> int:
    """The randomness of a round: a hash of the nonces that count, below 2^63."""
    nonces = b"".join(entry.nonce for entry in entries)
    digest = hashlib.sha256(f"hailproof beacon {swarm} {round} ".encode() + nonces).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def majority(states: Mapping[int, State], quorum: int) -> bytes | None:
    """The checkpoint that at least a quorum of members holds; ``None`` if there is none."""
    votes = Counter(state.checkpoint for state in states.values())
    best = max(votes, key=lambda each: (votes[each], each), default=None)
    return best if best is not None and votes[best] >= quorum else None
