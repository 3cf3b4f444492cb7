"""A store that lies, by case, and floods: what honest nodes decide, and what it costs them."""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from test_exchange import FAST, KEYS, LIMITS, SWARM, completions, exchange, frame, gate, together

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.deciding import Gathered
from hailproof.exchange.reading import LOOKED_AT_PER_SENDER
from hailproof.exchange.rounds import StoreExchange, Unavailable
from hailproof.exchange.stores import MemoryStore
from hailproof.wire import REASONS, Commit, Phase, Place, Seal, Seen, State, batch_of, decoded, encoded

MEMBERS = 4


class Lying:
    """One node's view of a store that withholds what ``hides`` says, and changes what ``changes`` says.

    Args:
        truth: What was put.
        reader: Whose view it is.
        hides: Whether a name is withheld from the reader.
        changes: What is served in place of an object.
    """

    def __init__(
        self,
        truth: MemoryStore,
        reader: int,
        hides: Callable[[str, int], bool] = lambda name, reader: False,
        changes: Callable[[str, bytes, int], bytes] = lambda name, data, reader: data,
        reverse: bool = False,
    ) -> None:
        self.truth, self.reader, self.hides, self.changes, self.reverse = truth, reader, hides, changes, reverse

    def put(self, name: str, data: bytes) -> bool:
        return self.truth.put(name, data)

    def get(self, name: str, limit: int) -> bytes | None:
        data = None if self.hides(name, self.reader) else self.truth.get(name, limit)
        return None if data is None else self.changes(name, data, self.reader)

    def names(self, prefix: str, limit: int) -> list[str]:
        found = [name for name in self.truth.names(prefix, limit) if not self.hides(name, self.reader)]
        return found[::-1] if self.reverse else found

    def parts(self, prefix: str, limit: int) -> list[str]:
        return self.truth.parts(prefix, limit)

    def close(self) -> None: ...


def play(tmp_path: Path, **lies: object) -> tuple[list[Gathered], list[StoreExchange]]:
    """One round of four honest nodes over a store that lies."""
    truth = MemoryStore()
    nodes = [exchange(who, Lying(truth, who, **lies), tmp_path, MEMBERS) for who in range(MEMBERS)]  # type: ignore
    found = together([lambda n=n, w=w: n.gather(1, completions(w)) for w, n in enumerate(nodes)])
    return found, nodes


def senders(each: Gathered) -> set[int]:
    return {submission.sender for submission in each.submissions}


def of(who: int, phase: str = "") -> Callable[[str], bool]:
    return lambda name: f"/{KEYS[who].hex()}/" in name and (not phase or f"/{phase}/" in name)


@pytest.mark.parametrize("phase", ["commit", "reveal", "seal"])
def test_what_is_withheld_from_all_is_missing_for_all(phase: str, tmp_path: Path):
    found, _ = play(tmp_path, hides=lambda name, reader: of(3, phase)(name) and reader != 3)
    assert [senders(each) for each in found] == [{0, 1, 2}] * MEMBERS
    assert len({(each.decision, each.beacon) for each in found}) == 1


def test_another_order_changes_nothing(tmp_path: Path):
    found, _ = play(tmp_path, reverse=True)
    assert [senders(each) for each in found] == [{0, 1, 2, 3}] * MEMBERS


def test_other_bytes_for_some_nodes_are_as_if_withheld_from_them(tmp_path: Path):
    def changed(name: str, data: bytes, reader: int) -> bytes:
        return data[:-1] + b"\0" if of(3, "commit")(name) and reader == 0 else data

    found, nodes = play(tmp_path, changes=changed)
    assert [senders(each) for each in found] == [{0, 1, 2, 3}] * MEMBERS
    assert 1 <= nodes[0].gate.refused["forged"] <= 9 and not nodes[1].gate.refused


class Damaging(Lying):
    """Damages what it serves so often, and counts how often it is asked for each name."""

    def __init__(self, truth: MemoryStore, times: float) -> None:
        super().__init__(truth, 0)
        self.times, self.asked = times, Counter[str]()

    def get(self, name: str, limit: int) -> bytes | None:
        self.asked[name] += 1
        data = self.truth.get(name, limit)
        return data[:-1] + bytes([data[-1] ^ 1]) if data and self.asked[name] <= self.times else data


@pytest.mark.parametrize(("times", "looks"), [(0, 1), (1, 2), (2, 4), (3, 8)])
def test_what_was_damaged_on_the_way_is_fetched_again(times: int, looks: int, tmp_path: Path):
    truth = MemoryStore()
    truth.put(*frame(1, "commit", encoded(Commit(5, bytes(32), bytes(32)))))
    node = exchange(0, Damaging(truth, times), tmp_path, MEMBERS)
    found = [len(node.look(1, "commit").payloads) for _ in range(looks)]
    assert found == [0] * (looks - 1) + [1]
    node.look(1, "commit")
    assert node.gate.refused["forged"] == times and not node.look(1, "commit").damaged


def test_what_is_always_damaged_is_fetched_ever_more_seldom_and_one_name_of_a_sender_only(tmp_path: Path):
    truth = MemoryStore()
    names = []
    for size in (5, 6):
        name, data = frame(1, "commit", encoded(Commit(size, bytes(32), bytes(32))))
        truth.put(name, data)
        names.append(name)
    store = Damaging(truth, float("inf"))
    node = exchange(0, store, tmp_path, MEMBERS)
    for _ in range(300):
        node.look(1, "commit")
    assert sorted(store.asked[name] for name in names) == [1, 10]  # looks 1, 2, 4, ..., 64, 128, then every 64


def test_a_checkpoint_that_was_damaged_on_the_way_is_fetched_again(tmp_path: Path):
    truth = MemoryStore()
    truth.put(*frame(1, "checkpoint", b"right"))
    store = Damaging(truth, 1)
    node = exchange(0, store, tmp_path, MEMBERS)
    right = hashlib.sha256(b"right").digest()
    assert [node._reader.checkpoint(1, right, [KEYS[1]], 2000) for _ in range(2)] == [None, b"right"]


def test_an_old_envelope_in_place_of_a_new_one_is_refused(tmp_path: Path):
    _, old = frame(3, "commit", encoded(Commit(5, bytes(32), bytes(32))), round=9)
    found, nodes = play(tmp_path, changes=lambda name, data, reader: old if of(3, "commit")(name) else data)
    assert [senders(each) for each in found] == [{0, 1, 2}] * MEMBERS
    assert 1 <= nodes[0].gate.refused["forged"] <= 9


def test_a_batch_that_one_node_is_never_shown_leaves_it_behind_and_parts_nobody(tmp_path: Path):
    truth = MemoryStore()
    nodes = [
        exchange(who, Lying(truth, who, lambda name, reader: of(3, "reveal")(name) and reader == 0), tmp_path, MEMBERS)
        for who in range(MEMBERS)
    ]

    def gathered(who: int) -> object:
        try:
            return nodes[who].gather(1, completions(who))
        except Unavailable as error:
            return str(error)

    behind, *others = together([lambda w=w: gathered(w) for w in range(MEMBERS)])
    assert KEYS[3].hex() in behind
    assert [senders(each) for each in others] == [{0, 1, 2, 3}] * 3


def test_a_partition_stalls_both_sides_and_heals_without_parting_them(tmp_path: Path):
    healed = threading.Event()
    left = {0, 1}

    def hides(name: str, reader: int) -> bool:
        sender = next(who for who in range(MEMBERS) if KEYS[who].hex() in name)
        return not healed.is_set() and (sender in left) != (reader in left)

    threading.Timer(FAST.until("seen") + 0.6, healed.set).start()
    found, _ = play(tmp_path, hides=hides)
    assert all(each.stalled > 0.3 for each in found)
    assert len({(each.decision, each.beacon) for each in found}) == 1


def test_a_store_that_is_away_for_a_while_costs_time_only(tmp_path: Path):
    class Flaky(Lying):
        def names(self, prefix: str, limit: int) -> list[str]:
            if random.random() < 0.5:
                raise StoreError("the store is away")
            return super().names(prefix, limit)

        def put(self, name: str, data: bytes) -> bool:
            if random.random() < 0.5:
                raise StoreError("the store is away")
            return super().put(name, data)

    truth = MemoryStore()
    nodes = [exchange(who, Flaky(truth, who), tmp_path, MEMBERS) for who in range(MEMBERS)]
    found = together([lambda n=n, w=w: n.gather(1, completions(w)) for w, n in enumerate(nodes)])
    assert [senders(each) for each in found] == [{0, 1, 2, 3}] * MEMBERS
    assert all(node.failures for node in nodes)


def test_a_flood_of_names_hides_no_member_and_is_not_read(tmp_path: Path):
    truth = MemoryStore()
    for number in range(2000):
        truth.put(f"{Place(SWARM, 1, 'commit', KEYS[4]).prefix}{number:064x}", b"x")
        truth.put(f"{Place(SWARM, 1, 'commit', b'0' * 32).prefix}{number:064x}", b"x" * 100)
    nodes = [exchange(who, truth, tmp_path, MEMBERS) for who in range(MEMBERS)]
    found = together([lambda n=n, w=w: n.gather(1, completions(w)) for w, n in enumerate(nodes)])
    assert [senders(each) for each in found] == [{0, 1, 2, 3}] * MEMBERS
    assert nodes[0].bytes["received"] < 50_000


PAYLOADS: dict[Phase, tuple[type, bytes]] = {
    "commit": (Commit, encoded(Commit(5, bytes(32), bytes(32)))),
    "reveal": (type(batch_of([])), encoded(batch_of(completions(0)))),
    "seal": (Seal, encoded(Seal(bytes(32)))),
    "seen": (Seen, encoded(Seen(()))),
    "state": (State, encoded(State(bytes(32), bytes(32), bytes(32), 5))),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A frame with a few bytes changed, cut out, doubled or added."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) or 1)
        kind = rng.randrange(4)
        if kind == 0 and changed:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 2:
            changed[place:place] = changed[place : place + rng.randrange(1, 40)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 40))
    return bytes(changed)


@pytest.mark.parametrize("phase", PAYLOADS)
def test_mutated_envelopes_are_refused_and_nothing_else_happens(phase: Phase):
    """``benchmarks/bench_hostile_peers.py`` does the same 100,000 times."""
    kind, payload = PAYLOADS[phase]
    _, sound = frame(0, phase, payload)
    place, rng = Place(SWARM, 1, phase, KEYS[0]), random.Random(phase)
    for _ in range(300):
        data = mutated(sound, rng)
        if data == sound:
            continue
        fence = gate()
        with pytest.raises(PeerError) as caught:
            decoded(kind, fence.take(place.name(data), data).payload)
        assert caught.value.reason in REASONS and sum(fence.refused.values()) == 1


def test_what_a_gate_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch):
    from hailproof.exchange import gate as module

    monkeypatch.setattr(module, "REMEMBERED", 10)
    fence = gate()
    for round in range(1, 50):
        fence.take(*frame(0, "seal", encoded(Seal(hashlib.sha256(bytes([round])).digest())), round))
    assert len(fence._heads) == len(fence._taken) == 10


def test_limits_bind(tmp_path: Path):
    fence = gate()
    with pytest.raises(PeerError, match="are allowed"):
        fence.take(*frame(0, "reveal", bytes(LIMITS.batch + 1000)))
    with pytest.raises(PeerError, match="are allowed"):
        fence.take(*frame(0, "commit", bytes(2000)))
    assert fence.refused == {"oversized": 2}


@pytest.mark.parametrize("sender", [KEYS[3].hex(), "ab" * 32, "none"])
def test_a_store_that_lists_other_names_at_each_look_is_looked_at_so_often(sender: str, tmp_path: Path):
    class Endless(Lying):
        asked = 0

        def names(self, prefix: str, limit: int) -> list[str]:
            self.asked += 1
            made = [f"{prefix}{sender}/{self.asked:032x}{number:032x}" for number in range(limit - 1)]
            return made if prefix.count("/") == 3 else []

        def get(self, name: str, limit: int) -> bytes | None:
            return b"junk"

    node = exchange(0, Endless(MemoryStore(), 0), tmp_path, MEMBERS)
    box = node.look(1, "commit")
    for _ in range(50):
        node.look(1, "commit")
    assert 0 < len(box.known) <= LOOKED_AT_PER_SENDER == sum(node.gate.refused.values())
