"""One contract for every store, and rounds over them: who counts, who is refused and why, and what a relay can do."""

import hashlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from stores import KINDS, opened_stores, served

from hailproof.errors import PeerError, StoreError
from hailproof.exchange import LocalExchange
from hailproof.exchange.deciding import Gathered, majority
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.relay import RelayStore
from hailproof.exchange.rounds import StoreExchange, Unavailable
from hailproof.exchange.stores import FolderStore, MemoryStore, Store
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity
from hailproof.records import Completion, Submission
from hailproof.service.relay import Buckets, Quotas, Relay
from hailproof.wire import Commit, Entry, Phase, Place, Seal, Seen, State, batch_of, encoded, equivocates, sealed

IDENTITIES = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(5)]
KEYS = [identity.key for identity in IDENTITIES]
STRANGER = Identity.of_seed(b"s" * 32)
SWARM = "farm-0123456789abcdef"
LIMITS = Limits(batch=4096, checkpoint=8192, members=5)
PATIENT = Timing(20, 20, 20, 20, 20, 20, 0.01)
"""For rounds in which all speak, so that none of it passes, however busy the machine is."""
FAST = Timing(commit=0.6, reveal=0.3, seal=0.3, seen=0.4, state=0.4, lobby=2.0, poll=0.01)


def gate(members: int = 5) -> Gate:
    return Gate(LIMITS, KEYS[:members], SWARM)


def frame(who: int, phase: Phase, payload: bytes, round: int = 1) -> tuple[str, bytes]:
    data = sealed(IDENTITIES[who], Place(SWARM, round, phase), payload)
    return Place(SWARM, round, phase, KEYS[who]).name(data), data


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    with opened_stores(request.param, tmp_path / "store", gate) as found:
        yield found


def eventually(found: Callable[[], object], expected: object) -> None:
    """What arrives by itself among peers takes a moment."""
    until = time.monotonic() + 5
    while (last := found()) != expected:
        assert time.monotonic() < until, last
        time.sleep(0.02)


def test_the_contract_of_stores(opened: Callable[[], Store]):
    one, other = opened(), opened()
    name, data = frame(0, "seal", encoded(Seal(bytes(32))))
    second, more = frame(1, "seal", encoded(Seal(bytes(32))))
    later, most = frame(0, "commit", encoded(Commit(1, bytes(32), bytes(32))), round=2)
    assert one.get(name, 1000) is None and one.names(f"{SWARM}/", 10) == [] == one.parts(f"{SWARM}/", 10)
    assert [one.put(name, data), one.put(name, data), one.put(second, more), one.put(later, most)] == [
        True, False, True, True
    ]  # fmt: skip
    eventually(lambda: other.names(f"{SWARM}/", 10), sorted([name, second, later]))
    assert other.get(name, len(data)) == data and other.get(later, 1000) == most
    assert other.names(f"{SWARM}/00000001/seal/", 10) == sorted([name, second])
    assert other.names(Place(SWARM, 1, "seal", KEYS[1]).prefix, 10) == [second]
    assert len(other.names(f"{SWARM}/", 2)) == 2
    assert other.parts(f"{SWARM}/", 10) == ["00000001", "00000002"] and other.parts(f"{SWARM}/", 1) == ["00000002"]
    with pytest.raises(PeerError, match="more than the"):
        other.get(name, len(data) - 1)


def test_names_that_no_store_takes(opened: Callable[[], Store]):
    store = opened()
    for name in ("", "/", "../up", "a/../../b", "a//b", "a/.hidden", "a\0b", "a/" + "x" * 300):
        for ask in (store.put, store.get, store.names, store.parts):
            with pytest.raises(StoreError, match="no name of an object"):
                ask(name if ask in (store.put, store.get) else f"{name}/", b"" if ask == store.put else 9)  # type: ignore


def test_a_folder_store_follows_no_links_and_waits_for_no_pipe(tmp_path: Path):
    store, secret = FolderStore(tmp_path / "store"), tmp_path / "secret"
    secret.write_bytes(b"secret")
    (store.root / "a").mkdir()
    (store.root / "a" / "link").symlink_to(secret)
    os.mkfifo(store.root / "a" / "pipe")
    assert store.get("a/link", 99) is None and store.get("a/pipe", 99) is None and store.names("a/", 9) == []


def test_a_put_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = FolderStore(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("a/b", b"data")
    monkeypatch.undo()
    assert store.get("a/b", 9) is None and list((tmp_path / ".new").iterdir()) == []


# -- rounds


def completions(who: int, round: int = 1) -> list[Submission]:
    return [Submission(round, who, f"p{slot}", who, Completion(f"text {who}", (1, 2, 3), True)) for slot in range(2)]


def exchange(who: int, store: Store, journal: Path, members: int = 3, timing: Timing = FAST) -> StoreExchange:
    folder = FolderStore(journal / str(who))
    return StoreExchange(store, IDENTITIES[who], KEYS[:members], SWARM, timing, gate(members), folder)


def together(tasks: list[Callable[[], object]]) -> list:
    """The results of functions that run at the same time."""
    results: list = [None] * len(tasks)

    def call(place: int) -> None:
        results[place] = tasks[place]()

    threads = [threading.Thread(target=call, args=(place,), daemon=True) for place in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def test_a_round_over_every_store_gathers_what_the_local_exchange_does(opened: Callable[[], Store], tmp_path: Path):
    nodes = [exchange(who, opened(), tmp_path, timing=PATIENT) for who in range(3)]
    everything = [each for who in range(3) for each in completions(who)]
    gathered: list[Gathered] = together([lambda n=n, w=w: n.gather(1, completions(w)) for w, n in enumerate(nodes)])
    for each in gathered:
        assert list(each.submissions) == LocalExchange().all_gather(1, everything)
        assert (each.beacon, each.decision) == (gathered[0].beacon, gathered[0].decision)
    assert {node.beacon(1) for node in nodes} == {gathered[0].beacon} and nodes[0].beacon(2) is None
    states = [State(each.decision, bytes(32), bytes(32), 1000 + who) for who, each in enumerate(gathered)]
    agreed = together([lambda n=n, s=s: n.agree(1, s) for n, s in zip(nodes, states, strict=True)])
    for who, found in enumerate(agreed):  # of whoever was done before all inventories came, nobody needs to wait for it
        assert found.items() <= dict(enumerate(states)).items() and who in found and len(found) >= nodes[who].quorum(1)
    assert nodes[0].finished(1) and nodes[0].latest() == 1 and not nodes[0].finished(2)
    assert sum(sum(node.gate.refused.values()) for node in nodes) == 0


class Script:
    """What one dishonest member of a swarm puts into the store, before the others play the round."""

    def __init__(self, tmp_path: Path, members: int = 3) -> None:
        self.store = MemoryStore()
        self.honest = [exchange(who, self.store, tmp_path, members) for who in range(members - 1)]
        self.who = members - 1
        self.batch = encoded(batch_of(completions(self.who)))
        self.commit = Commit(len(self.batch), hashlib.sha256(self.batch).digest(), hashlib.sha256(b"n" * 32).digest())

    def put(self, phase: Phase, payload: bytes, round: int = 1) -> None:
        self.store.put(*frame(self.who, phase, payload, round))

    def play(self) -> tuple[list[Gathered], Counter[str]]:
        """What the honest nodes take, and the refusals that the first of them counts."""
        found = together([lambda n=n, w=w: n.gather(1, completions(w)) for w, n in enumerate(self.honest)])
        for node, each in zip(self.honest, found, strict=True):
            node._reader.count_late(1)
            assert each.decision == found[0].decision and each.beacon == found[0].beacon
        return found, self.honest[0].gate.refused

    def senders(self) -> set[int]:
        found, _ = self.play()
        return {each.sender for each in found[0].submissions}


def honest_member(script: Script) -> None:
    script.put("commit", encoded(script.commit))
    script.put("reveal", script.batch)
    script.put("seal", encoded(Seal(b"n" * 32)))


def test_who_commits_reveals_and_seals_counts(tmp_path: Path):
    script = Script(tmp_path)
    honest_member(script)
    assert script.senders() == {0, 1, 2}


def without_reveal(script: Script) -> None:
    script.put("commit", encoded(script.commit))


def without_seal(script: Script) -> None:
    script.put("commit", encoded(script.commit))
    script.put("reveal", script.batch)


def without_commit(script: Script) -> None:
    script.put("reveal", script.batch)
    script.put("seal", encoded(Seal(b"n" * 32)))


def another_batch(script: Script) -> None:
    script.put("commit", encoded(script.commit))
    script.put("reveal", encoded(batch_of(completions(script.who)[:1])))
    script.put("seal", encoded(Seal(b"n" * 32)))


def another_nonce(script: Script) -> None:
    script.put("commit", encoded(script.commit))
    script.put("reveal", script.batch)
    script.put("seal", encoded(Seal(b"m" * 32)))


def two_commitments(script: Script) -> None:
    honest_member(script)
    script.put("commit", encoded(Commit(9, bytes(32), bytes(32))))


def garbage_as_committed(script: Script) -> None:
    junk = b"\xc1" * 50
    commit = Commit(50, hashlib.sha256(junk).digest(), script.commit.nonce_sha256)
    script.put("commit", encoded(commit))
    script.put("reveal", junk)
    script.put("seal", encoded(Seal(b"n" * 32)))


def too_much(script: Script) -> None:
    junk = b"\xc1" * (LIMITS.batch + 2000)
    script.put("commit", encoded(Commit(10, hashlib.sha256(junk).digest(), script.commit.nonce_sha256)))
    script.put("reveal", junk)
    script.put("seal", encoded(Seal(b"n" * 32)))


def of_another_round(script: Script) -> None:
    _, data = frame(script.who, "commit", encoded(script.commit), round=2)
    script.store.put(Place(SWARM, 1, "commit", KEYS[script.who]).name(data), data)


def under_another_s_name(script: Script) -> None:
    _, data = frame(script.who, "commit", encoded(Commit(9, bytes(32), bytes(32))))
    script.store.put(Place(SWARM, 1, "commit", KEYS[0]).name(data), data)


def of_a_stranger(script: Script) -> None:
    data = sealed(STRANGER, Place(SWARM, 1, "commit"), encoded(script.commit))
    script.store.put(Place(SWARM, 1, "commit", STRANGER.key).name(data), data)


def other_content(script: Script) -> None:
    name, data = frame(script.who, "commit", encoded(script.commit))
    script.store.put(name, data[:-1] + b"x")


def under_another_hash(script: Script) -> None:
    name, data = frame(script.who, "commit", encoded(script.commit))
    script.store.put(f"{name[:-64]}{bytes(32).hex()}", data)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (without_reveal, None), (without_seal, None), (without_commit, "late"), (another_batch, "not as committed"),
        (another_nonce, "not as committed"), (two_commitments, "equivocating"), (garbage_as_committed, "malformed"),
        (too_much, "oversized"), (of_another_round, "wrong round"), (under_another_s_name, "forged"),
        (of_a_stranger, "not on the allow-list"), (other_content, "forged"),
        (under_another_hash, "forged"),
    ],
)  # fmt: skip
def test_what_does_not_count_and_why(act: Callable[[Script], None], reason: str | None, tmp_path: Path):
    script = Script(tmp_path)
    act(script)
    found, refused = script.play()
    assert {each.sender for each in found[0].submissions} == {0, 1}
    assert refused[reason] >= 1 if reason else sum(refused.values()) == 0


def test_equivocation_leaves_a_proof_that_others_can_check(tmp_path: Path):
    script = Script(tmp_path)
    two_commitments(script)
    script.play()
    for node in script.honest:
        assert equivocates(*node.gate.proofs[KEYS[script.who].hex()]) == KEYS[script.who]


def test_a_frame_of_an_earlier_round_is_a_replay(tmp_path: Path):
    fence = gate()
    name, data = frame(2, "seal", encoded(Seal(b"n" * 32)))
    fence.take(name, data)
    for round, reason in ((2, "replayed"), (1, "duplicated")):
        place = Place(SWARM, round, "seal", KEYS[2])
        with pytest.raises(PeerError) as caught:
            fence.take(place.name(data), data)
        assert caught.value.reason == reason
    assert fence.take(name, data, again=True) and fence.refused == {"replayed": 1, "duplicated": 1}
    assert fence.refused_of == {(KEYS[2].hex(), "replayed"): 1, (KEYS[2].hex(), "duplicated"): 1}


def test_a_third_word_in_one_place_is_not_kept(tmp_path: Path):
    fence = gate()
    for number in range(2):
        fence.take(*frame(0, "seal", encoded(Seal(bytes([number]) * 32))))
    with pytest.raises(PeerError, match="two other things"):
        fence.take(*frame(0, "seal", encoded(Seal(b"3" * 32))))


def test_inventories_that_list_strangers_or_disorder_do_not_count(tmp_path: Path):
    script = Script(tmp_path)
    honest_member(script)
    entries = [[KEYS[1], bytes(32), bytes(32)], [KEYS[0], bytes(32), bytes(32)]]
    import msgspec

    script.put("seen", msgspec.msgpack.encode({"entries": entries if KEYS[1] > KEYS[0] else entries[::-1]}))
    _, refused = script.play()
    assert refused["malformed"] == 1


def test_one_lying_inventory_takes_nothing_out_and_puts_nothing_in(tmp_path: Path):
    script = Script(tmp_path, members=5)
    honest_member(script)
    script.put("seen", encoded(Seen(())))
    assert script.senders() == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("lists", "settled"),
    [
        ([], False),
        (["a", "a"], False),
        (["a", "a", "a"], True),
        (["ab", "ab", "ab", "a"], True),
        (["ab", "ab", "a"], False),
        (["ab", "ab", "a", "a"], False),
        (["ab", "a", "a", "a"], True),
        (["ab", "a", "a"], False),
        (["ab", "ab", "a", "a", "a"], True),
        (["", "", ""], True),
    ],
)
def test_inventories_end_early_only_if_none_that_is_missing_could_change_anything(
    lists: list[str], settled: bool, tmp_path: Path
):
    """Of five members, whose quorum is three; each text is an inventory, each letter a sender."""
    node = exchange(0, MemoryStore(), tmp_path, members=5)
    for who, listed in enumerate(lists):
        entries = [Entry(KEYS["ab".index(letter)], bytes(32), bytes(32)) for letter in listed]
        node.store.put(*frame(who, "seen", encoded(Seen(tuple(sorted(entries, key=lambda entry: entry.sender))))))
    assert node._settled(1, node.look(1, "seen")) == settled


def test_a_node_that_comes_back_says_what_it_said_before(tmp_path: Path):
    store = MemoryStore()
    first, again = exchange(0, store, tmp_path), exchange(0, store, tmp_path)
    first.say(1, "seal", encoded(Seal(b"1" * 32)))
    again.say(1, "seal", encoded(Seal(b"2" * 32)))
    assert len(store.names(f"{SWARM}/", 9)) == 1
    assert first._nonce(1) == again._nonce(1) != first._nonce(2)


def test_without_a_quorum_a_round_waits_and_goes_on_when_it_is_there(tmp_path: Path):
    store = MemoryStore()
    nodes = [exchange(who, store, tmp_path) for who in range(2)]
    results: list[Gathered] = []
    early = threading.Thread(target=lambda: results.append(nodes[0].gather(1, completions(0))), daemon=True)
    early.start()
    time.sleep(FAST.until("seen") + 0.5)
    assert early.is_alive() and not results
    late = nodes[1].gather(1, completions(1))
    early.join(10)
    assert results[0].stalled > 0.3 and results[0].decision == late.decision
    assert {each.sender for each in late.submissions} == {0}


def test_a_node_can_follow_a_round_that_it_missed(tmp_path: Path):
    script = Script(tmp_path)
    honest_member(script)
    found, _ = script.play()
    late = exchange(2, script.store, tmp_path)
    late._starts = {1: time.time() - 100}
    followed = late.gather(1, None)
    assert followed == found[0] and script.store.names(Place(SWARM, 1, "seen", KEYS[2]).prefix, 9) == []


def test_what_was_decided_and_cannot_be_had_is_said(tmp_path: Path):
    script = Script(tmp_path)
    honest_member(script)
    script.play()
    gone = MemoryStore()
    for name in script.store.names(f"{SWARM}/", 99):
        if f"reveal/{KEYS[2].hex()}" not in name:
            gone.put(name, script.store.get(name, 9999) or b"")
    late = exchange(2, gone, tmp_path)
    late._starts = {1: time.time() - 100}
    with pytest.raises(Unavailable, match=KEYS[2].hex()):
        late.gather(1, None)


def test_who_has_waited_for_the_others_once_need_not_do_so_again(tmp_path: Path):
    store = MemoryStore()
    nodes = [exchange(who, store, tmp_path) for who in range(2)]
    state = State(bytes(32), bytes(32), bytes(32), int(time.time() * 1000))
    assert not nodes[0].waited()
    together([lambda n=n: n.lobby(state) for n in nodes])
    assert exchange(0, store, tmp_path).waited() and not exchange(2, store, tmp_path).waited()


def test_the_start_of_a_round_is_the_median_of_what_a_quorum_says(tmp_path: Path):
    store = MemoryStore()
    node = exchange(0, store, tmp_path, members=5)
    past = time.time() - 1000
    for who, seconds in enumerate([past + 5, past + 1, past + 9000]):
        store.put(*frame(who, "state", encoded(State(bytes(32), bytes(32), bytes(32), int(seconds * 1000)))))
    assert node.start_of(2) == pytest.approx(past + 5, abs=0.01)
    lonely = exchange(0, MemoryStore(), tmp_path, members=5)
    assert lonely.start_of(2) == pytest.approx(time.time(), abs=1)


def test_only_the_checkpoint_that_a_holder_serves_under_its_hash_is_taken_and_nothing_is_fetched_twice(tmp_path: Path):
    class Counting:
        def __init__(self, store: Store) -> None:
            self.store, self.fetched = store, Counter[str]()

        def get(self, name: str, limit: int) -> bytes | None:
            self.fetched[name.split("/")[2] + name.split("/")[3][:4]] += 1
            return self.store.get(name, limit)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    store = MemoryStore()
    right = hashlib.sha256(b"right").digest()
    for who, checkpoint in enumerate([right, right, bytes(32)]):
        store.put(*frame(who, "state", encoded(State(bytes(32), bytes(32), checkpoint, 0))))
    store.put(*frame(0, "checkpoint", bytes(3000)))
    store.put(*frame(2, "checkpoint", b"another"))
    counting = Counting(store)
    node = exchange(3, counting, tmp_path, members=5)  # type: ignore
    assert [node.checkpoint(1, right, 2000) for _ in range(2)] == [None, None]
    assert counting.fetched["checkpoint" + KEYS[0].hex()[:4]] == 1
    assert counting.fetched["checkpoint" + KEYS[2].hex()[:4]] == 0
    store.put(*frame(1, "checkpoint", b"right"))
    assert node.checkpoint(1, right, 2000) == b"right"


def test_the_majority_needs_a_quorum():
    def state(name: bytes) -> State:
        return State(bytes(32), bytes(32), name * 32, 0)

    assert majority({0: state(b"a"), 1: state(b"a"), 2: state(b"b")}, 2) == b"a" * 32
    assert majority({0: state(b"a"), 1: state(b"b")}, 2) is None and majority({}, 1) is None


# -- the relay


def test_a_relay_keeps_only_what_its_owner_signed_for_that_place(tmp_path: Path):
    relay = Relay(MemoryStore(), gate())
    with served(relay.app) as url:
        store = RelayStore(url)
        name, data = frame(0, "seal", encoded(Seal(bytes(32))))
        batch, reveal = frame(0, "reveal", b"short")
        stranger = sealed(STRANGER, Place(SWARM, 1, "seal"), encoded(Seal(bytes(32))))
        for wrong, content, said in [
            (Place(SWARM, 1, "seal", KEYS[1]).name(data), data, "403, forged"),
            (Place(SWARM, 2, "seal", KEYS[0]).name(data), data, "403, wrong round"),
            (Place(SWARM, 1, "seal", STRANGER.key).name(stranger), stranger, "403, not on the allow-list"),
            (name, data + b"x", "403, forged"),
            (name, data + bytes(9000), "413, oversized"),
            (batch, reveal + bytes(2000), "413, oversized"),
            (f"{SWARM}/1", data, "403, malformed"),
            ("farm/1", data, "403, wrong swarm"),
        ]:
            with pytest.raises(StoreError, match=said):
                store.put(wrong, content)
        assert relay.store.names(f"{SWARM}/", 9) == []
        assert store.put(name, data) and not store.put(name, data)
        assert relay.kept == {"objects": 1, "bytes": len(data)}
        store.close()


def test_a_relay_keeps_no_more_than_the_quotas(tmp_path: Path):
    name, data = frame(0, "seal", encoded(Seal(bytes(32))))
    second, more = frame(0, "commit", encoded(Commit(1, bytes(32), bytes(32))))
    little = Quotas(bytes_per_hour=len(data) + 10, bytes_of_object=0)
    with served(Relay(MemoryStore(), gate(), quotas=little).app) as url:
        store = RelayStore(url)
        assert store.put(name, data) and not store.put(name, data)
        with pytest.raises(StoreError, match="429, over the quota"):
            store.put(second, more)
        store.close()
    with served(Relay(MemoryStore(), gate(), quotas=Quotas(requests_per_second=0.01, burst=2)).app) as url:
        store = RelayStore(url)
        assert store.get(name, 9) is None and store.names(f"{SWARM}/", 9) == []
        with pytest.raises(StoreError, match="429"):
            store.get(name, 9)
        store.close()


def test_a_relay_reads_no_body_whose_head_is_not_signed_and_not_too_many_at_once():
    name, data = frame(0, "reveal", bytes(4000))
    unsigned = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    relay = Relay(MemoryStore(), gate(), quotas=Quotas(bytes_at_once=5000))

    def sent(content: bytes, rest: int) -> str:
        """What the relay answers when the last bytes of a body are never sent."""
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            head = f"PUT /objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[: len(content) - rest])
            return connection.recv(4000).decode()

    with served(relay.app) as url:
        assert "403" in sent(unsigned, 3000).split("\r\n")[0] and relay.gates[0].refused == {"forged": 1}
        assert "201" in sent(data, 0).split("\r\n")[0]
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as held:
            head = f"PUT /objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            held.sendall(head.encode() + data[:1000])
            eventually(lambda: relay._reading, 4000)
            assert "503" in sent(data, 0).split("\r\n")[0]
        eventually(lambda: relay._reading, 0)


def upload(url: str, name: str, data: bytes, sent: int) -> socket.socket:
    """A connection on which so many bytes of a frame were put, and the rest was not."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"PUT /objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data[:sent])
    return connection


def test_bodies_that_never_come_keep_nobody_out():
    """Names are public: whoever begins many uploads without a key takes no slot of those who have one."""
    name, data = frame(0, "reveal", bytes(4000))
    mine, small = frame(1, "seal", encoded(Seal(bytes(32))))
    slow = Quotas(uploads=2, uploads_of_key=1, seconds=0.5, bytes_per_second=1e9)
    relay = Relay(MemoryStore(), gate(), quotas=slow)
    with served(relay.app) as url:
        held = [upload(url, name, data, 0) for _ in range(8)]
        store = RelayStore(url)
        assert store.put(mine, small)
        assert all(b"408" in each.recv(1000) for each in held)
        with upload(url, name, data, 1000) as begun:  # with a key: one at once, and not for ever
            eventually(lambda: relay._reading, 4000)
            with pytest.raises(StoreError, match="busy"):
                store.put(name, data)
            assert b"408" in begun.recv(1000) and relay._reading == 0
        assert store.put(name, data)
        store.close()


def test_small_objects_take_of_the_quota_what_they_take_of_a_disk():
    relay = Relay(MemoryStore(), gate(), quotas=Quotas(bytes_per_hour=3 * 32 << 10))
    with served(relay.app) as url:
        store = RelayStore(url)
        for number in (1, 2, 3, 4):
            name, data = frame(0, "want", b"\x80", round=number)
            if number < 4:
                assert store.put(name, data)
            else:
                with pytest.raises(StoreError, match="over the quota"):
                    store.put(name, data)
        store.close()


def test_a_relay_never_holds_a_whole_object_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, (name, data) = FolderStore(tmp_path), frame(0, "reveal", bytes(4000))
    store.put(name, data)
    with served(Relay(store, gate()).app) as url:
        client = RelayStore(url)
        monkeypatch.setattr(FolderStore, "get", lambda *_: pytest.fail("it is read whole"))
        assert client.get(name, len(data)) == data and client.get(name[:-1] + "z", 9) is None
        monkeypatch.undo()
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to("/etc/passwd")
        assert client.get(name, 10**6) is None
        client.close()


def test_connections_that_ask_nothing_or_read_nothing_end(monkeypatch: pytest.MonkeyPatch):
    from hailproof.service import patience

    for limit, value in (("HEAD_SECONDS", 0.5), ("STALL_SECONDS", 0.5), ("LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(patience, limit, value)

    async def app(scope: dict, receive: object, send: Callable) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(300 if scope["path"] == "/large" else 1):
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    with served(app, http=patience.Patient, timeout_keep_alive=30) as url:
        host, port = url.removeprefix("http://").split(":")

        def ends(first: bytes, dripped: bytes, large: bool = False) -> bool:
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(first)
                began = time.monotonic()
                while time.monotonic() - began < 5:
                    try:
                        if large:
                            if not patience.Patient._of_address:
                                return True
                        else:
                            connection.sendall(dripped)
                            connection.setblocking(False)
                            with suppress(BlockingIOError):
                                while connection.recv(1 << 20):
                                    continue
                                return True
                            connection.setblocking(True)
                    except OSError:
                        return True
                    time.sleep(0.05)
            return False

        asked = b"GET /small HTTP/1.1\r\nHost: x\r\n"
        assert ends(b"", b"")
        assert ends(asked, b"x")
        assert ends(asked + b"\r\n" + b"GET", b"x")
        assert ends(asked + b"Content-Length: 9999\r\n\r\n", b"x")
        eventually(lambda: len(patience.Patient._of_address), 0)
        assert ends(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", b"", large=True)


def test_an_address_has_its_share_of_connections(monkeypatch: pytest.MonkeyPatch):
    from hailproof.service import patience

    monkeypatch.setattr(patience, "MOST_OF_ADDRESS", 5)
    with served(Relay(MemoryStore(), gate()).app, http=patience.Patient) as url:
        host, port = url.removeprefix("http://").split(":")
        many = [socket.create_connection((host, int(port)), timeout=10) for _ in range(8)]
        eventually(lambda: patience.Patient._of_address["127.0.0.1"], 5)
        for each in many:
            each.close()
        eventually(lambda: len(patience.Patient._of_address), 0)


def test_a_relay_that_answers_a_byte_at_a_time_is_given_up():
    import asyncio

    async def app(scope: dict, receive: object, send: Callable) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(60):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.05)
            await send({"type": "http.response.body", "body": b""})

    with served(app) as url:
        store = RelayStore(url, timeout=0.3)
        with pytest.raises(StoreError, match="answers too slowly"):
            store.get("a/b", 1000)
        store.close()


def test_folders_that_were_made_are_not_remembered_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from hailproof.exchange import stores

    monkeypatch.setattr(stores, "_REMEMBERED", 5)
    store = FolderStore(tmp_path)
    for number in range(20):
        store.put(f"a/{number}/b", b"x")
    assert len(store._made) <= 5


def self_signed(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_a_relay_over_tls_is_used_only_with_a_certificate_that_is_trusted(tmp_path: Path):
    certificate, key = self_signed(tmp_path)
    name, data = frame(0, "seal", encoded(Seal(bytes(32))))
    with served(Relay(MemoryStore(), gate()).app, ssl_certfile=certificate, ssl_keyfile=key) as url:
        trusting, strict = RelayStore(url, ca=certificate), RelayStore(url)
        assert trusting.put(name, data) and trusting.get(name, 1000) == data
        with pytest.raises(StoreError, match="cannot be reached"):
            strict.get(name, 1000)
        trusting.close()
        strict.close()


def test_buckets_fill_again():
    now = [0.0]
    buckets = Buckets(rate=1, size=2, clock=lambda: now[0])
    assert [buckets.take("a"), buckets.take("a"), buckets.take("a"), buckets.take("b")] == [True, True, False, True]
    now[0] = 1.0
    assert [buckets.take("a"), buckets.take("a")] == [True, False]


def test_a_relay_that_is_away_is_an_error_in_one_sentence():
    store = RelayStore("http://127.0.0.1:9", timeout=1)
    with pytest.raises(StoreError, match="cannot be reached"):
        store.get("a/b", 9)


def test_a_lying_relay_cannot_send_more_than_asked_for():
    async def app(scope: dict, receive: object, send: Callable) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    with served(app) as url:
        store = RelayStore(url)
        with pytest.raises(PeerError, match="more than"):
            store.get("a/b", 1000)
        with pytest.raises(PeerError, match="more than"):
            store.names("a/", 10)
        store.close()
