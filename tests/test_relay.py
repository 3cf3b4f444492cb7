"""Which swarms a relay serves, on whose account it keeps what, what strangers may do there, and how it keeps up."""

import json
import socket
import time
from pathlib import Path

import pytest
from stores import served
from swarms import IDENTITIES, swarm_files
from test_admission import FOUNDERS, KEYS, LIMITS, NEW, node, play, rolls_of
from test_exchange import SWARM, eventually
from test_swarm_commands import called

from hailproof.errors import ConfigError, RunError, StoreError
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.relay import RelayStore
from hailproof.exchange.standing import watched
from hailproof.exchange.stores import FolderStore, MemoryStore
from hailproof.identity import Identity, is_placeholder
from hailproof.runs.build import shared
from hailproof.service.config import SwarmFile, load_node, load_swarm
from hailproof.service.relay import Quotas, Relay, keeping_up, load_roll, save_roll
from hailproof.service.relay_swarms import gates_of, ids_of, standings_of
from hailproof.settings import validated
from hailproof.wire import Commit, Join, Phase, Place, Seal, encoded, sealed

OTHER = "barn-0123456789abcdef"
A, B = FOUNDERS[:2]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "swarm"


def frame(who: Identity, phase: Phase, payload: bytes, round: int = 1, swarm: str = SWARM) -> tuple[str, bytes]:
    place = Place(swarm, round, phase, who.key)
    data = sealed(who, place, payload)
    return place.name(data), data


def seal(who: Identity, swarm: str = SWARM, round: int = 1) -> tuple[str, bytes]:
    return frame(who, "seal", encoded(Seal(bytes(32))), round, swarm)


def join(who: Identity, round: int = 1) -> tuple[str, bytes]:
    return frame(who, "join", encoded(Join()), round)


def open_gate() -> Gate:
    return Gate(LIMITS, KEYS, SWARM, strangers=True)


def stranger(number: int) -> Identity:
    return Identity.of_seed(bytes([100 + number]) * 32)


def test_a_relay_serves_the_swarms_that_it_was_started_for_and_their_own_members():
    relay = Relay(MemoryStore(), Gate(LIMITS, [A.key], SWARM), Gate(LIMITS, [B.key], OTHER))
    with served(relay.app) as url:
        store = RelayStore(url)
        assert store.put(*seal(A)) and store.put(*seal(B, OTHER))
        for name, data, said in (
            (*seal(A, "farm-ffffffffffffffff"), "403, wrong swarm"),
            (*seal(A, "farm"), "403, wrong swarm"),
            (*seal(A, OTHER), "403, not on the allow-list"),
            (*seal(B), "403, not on the allow-list"),
        ):
            with pytest.raises(StoreError, match=said):
                store.put(name, data)
        assert relay.kept["objects"] == 2 and relay.refused == {"wrong swarm": 2}
        asked = store._client.get("/health").json()
        assert asked["refused"] == {"wrong swarm": 2, "not on the allow-list": 2}
        store.close()


def sent(url: str, name: str, data: bytes) -> str:
    """The answer to a body, whatever it is."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"PUT /objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection.recv(4000).decode().partition("\r\n")[0]


def test_what_others_send_is_not_on_a_member_s_account():
    """Heads of members are public, and so are their names: neither costs them anything."""
    name, data = frame(A, "reveal", bytes(3000))
    relay = Relay(MemoryStore(), Gate(LIMITS, KEYS, SWARM), quotas=Quotas(bytes_per_hour=2 * 32 << 10))
    with served(relay.app) as url:
        for number in range(4):
            assert "403" in sent(url, f"{name[:-1]}{number}", data[:60])  # cut off in its head
            assert "403" in sent(url, f"{name[:-1]}{number}", data[:-5] + bytes([number]) * 5)  # with another payload
        store = RelayStore(url)
        assert store.put(name, data) and store.put(*seal(A))
        with pytest.raises(StoreError, match="over the quota"):
            store.put(*seal(A, round=2))
        store.close()


def test_strangers_may_ask_to_join_and_no_more():
    relay = Relay(MemoryStore(), open_gate())
    with served(relay.app) as url:
        store = RelayStore(url)
        assert store.put(*join(NEW)) and not store.put(*join(NEW))
        said: list[tuple[Phase, bytes]] = [("seal", encoded(Seal(bytes(32)))), ("want", b"\x80"), ("checkpoint", b"x")]
        for phase, payload in said:
            with pytest.raises(StoreError, match="not on the allow-list"):
                store.put(*frame(NEW, phase, payload))
        with pytest.raises(StoreError, match="oversized"):
            store.put(*frame(NEW, "join", bytes(3000)))
        relay.gates[0].admit(KEYS, [NEW.key])
        assert store.put(*seal(NEW))
        with pytest.raises(StoreError, match="not on the allow-list"):
            store.put(*frame(NEW, "seen", b"\x80"))
        store.close()


@pytest.mark.parametrize(
    ("quotas", "kept"),
    [(Quotas(joins_per_hour=3), 3), (Quotas(joins_of_address=2), 2), (Quotas(bytes_per_hour=1), 9)],
)
def test_all_strangers_together_may_ask_so_often(quotas: Quotas, kept: int):
    relay = Relay(MemoryStore(), open_gate(), quotas=quotas)
    with served(relay.app) as url:
        store = RelayStore(url)
        for number in range(9):
            if number < kept:
                assert store.put(*join(stranger(number)))
            else:
                with pytest.raises(StoreError, match="over the quota"):
                    store.put(*join(stranger(number)))
        store.close()


def test_all_strangers_on_trial_have_one_quota_in_equal_shares():
    gate = open_gate()
    gate.admit(KEYS, [stranger(number).key for number in range(4)])
    relay = Relay(MemoryStore(), gate, quotas=Quotas(bytes_per_hour=4 * 32 << 10))
    with served(relay.app) as url:
        store = RelayStore(url)
        assert store.put(*seal(stranger(0)))
        with pytest.raises(StoreError, match="over the quota"):
            store.put(*seal(stranger(0), round=2))
        assert all(store.put(*seal(stranger(number))) for number in (1, 2, 3))
        gate.admit(KEYS, [stranger(4).key])
        with pytest.raises(StoreError, match="over the quota"):
            store.put(*seal(stranger(4)))
        assert store.put(*seal(A)) and store.put(*seal(B))
        store.close()


def unfinished(url: str, name: str, data: bytes) -> socket.socket:
    """A body whose last bytes never come."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"PUT /objects/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data[:-10])
    return connection


def test_bodies_of_strangers_on_trial_that_never_come_take_the_places_of_one_member():
    quotas = Quotas(uploads=3, uploads_of_key=2, seconds=30.0)
    gate = open_gate()
    gate.admit(KEYS, [stranger(number).key for number in range(4)])
    relay = Relay(MemoryStore(), gate, quotas=quotas)
    with served(relay.app) as url:
        held = [unfinished(url, *frame(stranger(number), "reveal", bytes(3000))) for number in range(4)]
        eventually(lambda: sum(relay._uploads_of.values()), 2)
        assert relay._uploads_of[b"strangers"] == 2
        for connection in held:
            connection.close()


def test_a_small_envelope_does_not_wait_for_slow_bodies_of_others():
    relay = Relay(MemoryStore(), open_gate(), quotas=Quotas(uploads=1, seconds=30.0))
    with served(relay.app) as url:
        held = unfinished(url, *frame(A, "reveal", bytes(3000)))
        eventually(lambda: relay._uploads_of[A.key], 1)
        store = RelayStore(url)
        began = time.monotonic()
        assert store.put(*seal(B)) and time.monotonic() - began < 10
        store.close()
        held.close()


def test_bodies_of_strangers_that_never_come_take_few_places():
    quotas = Quotas(uploads=3, uploads_of_key=2, seconds=1.0, bytes_per_second=1e9)
    relay = Relay(MemoryStore(), open_gate(), quotas=quotas)
    with served(relay.app) as url:
        held = []
        for number in range(6):
            held.append(unfinished(url, *frame(stranger(number), "join", bytes(200))))
        eventually(lambda: relay._uploads_of[b"strangers"], 2)
        store = RelayStore(url)
        assert store.put(*frame(A, "reveal", bytes(3000)))
        store.close()
        for connection in held:
            connection.close()


def test_a_relay_reads_who_is_a_member_by_now_and_remembers_it(tmp_path: Path):
    store, path = FolderStore(tmp_path / "kept"), tmp_path / "kept.members" / f"{SWARM}.json"
    gate = open_gate()
    standing = watched(store, SWARM, rolls_of(fee=0), gate)
    with served(Relay(store, gate).app) as url, keeping_up({path: standing}, every=0.01):
        client = RelayStore(url)
        nodes = [node(who, client, tmp_path, fee=0) for who in FOUNDERS]
        client.put(*join(NEW))
        with pytest.raises(StoreError, match="allow-list"):
            client.put(*seal(NEW))
        play(nodes, 1)
        eventually(lambda: standing.rolls.latest.members[3:], (NEW.key,))
        assert client.put(*seal(NEW))
        eventually(path.is_file, True)
        client.close()
    assert load_roll(path, KEYS) == standing.rolls.latest and load_roll(tmp_path / "none.json", KEYS) is None
    with pytest.raises(RunError, match="other members"):
        load_roll(path, KEYS[::-1])
    for damage in ("{", "[1]", "[" * 10**5):
        path.write_text(damage)
        with pytest.raises(RunError, match="is damaged"):
            load_roll(path, KEYS)


def test_a_relay_goes_on_if_it_cannot_write_down_who_is_a_member(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    save_roll(tmp_path / "file" / "x.json", rolls_of().latest)


# -- the command


def file_of(**tree: object) -> SwarmFile:
    members = [identity.name for identity in IDENTITIES[:3]]
    run = {"task": {"options": {"size": 40, "test_size": 8}}}
    return validated(SwarmFile, {"members": members, "name": "farm", "run": run, **tree})


def test_a_relay_works_out_the_id_that_its_nodes_have():
    files = [file_of(), file_of(admission={"seats": 1, "rounds": 2})]
    ids = ids_of(files, [])
    assert ids == [file.id_of(shared(file.run_config())) for file in files]
    gates = gates_of(files, ids)
    assert [gate.swarm for gate in gates] == ids and [gate.strangers for gate in gates] == [False, True]
    assert all(gate.allowed == {each.key for each in IDENTITIES[:3]} for gate in gates)
    assert gates[1].limits == Limits(members=12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["farm-0123456789abcdef"], "1 times --swarm-id for 2 files"),
        (["farm-0123456789abcdef", "barn-0123456789abcdef"], "no id of the swarm 'farm'"),
        (["farm-0123456789abcdef", "farm-../../x"], "no id of the swarm 'farm'"),
        (["farm-0123456789abcdef"] * 2, "give each once"),
    ],
)
def test_ids_that_fit_no_file_are_refused(given: list[str], said: str):
    assert ids_of([file_of()], ["farm-0123456789abcdef"]) == ["farm-0123456789abcdef"]
    with pytest.raises(ConfigError, match=said):
        ids_of([file_of(), file_of(timing={"commit": 3.0})], given)


def test_a_relay_that_starts_again_knows_who_became_a_member(tmp_path: Path):
    file, name = file_of(admission={"seats": 1, "rounds": 2}), "farm-0123456789abcdef"
    store, folder = MemoryStore(), tmp_path / "relay"
    gates = gates_of([file], [name])
    ((path, standing),) = standings_of(store, folder, [file], [name], gates).items()
    roll = standing.rolls.latest.after(standing.rolls.admission, [NEW.key], 5)
    save_roll(path, roll)
    assert not path.is_relative_to(folder)
    gates = gates_of([file], [name])
    (standing,) = standings_of(store, folder, [file], [name], gates).values()
    assert standing.rolls.latest == roll and gates[0].limit(seal(NEW, name)[0])
    assert standings_of(store, folder, [file_of()], [name], gates) == {}


def test_placeholders_are_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("the relay starts"))
    for key in (bytes(31) + b"\1", b"\xaa" * 32, b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        assert is_placeholder(key)
    assert not any(is_placeholder(Identity.new().key) for _ in range(50))
    with pytest.raises(ConfigError, match=r"placeholder.*keygen"):
        called("relay", str(EXAMPLES / "swarm.toml"))
    path = swarm_files(tmp_path, 2)[0]
    text = (tmp_path / "swarm.toml").read_text()
    (tmp_path / "swarm.toml").write_text(text.replace(IDENTITIES[1].name, 63 * "0" + "2"))
    from hailproof.service.node import NodeService

    assert load_swarm(tmp_path / "swarm.toml")
    with pytest.raises(ConfigError, match="placeholder"):
        NodeService(load_node(path))


def test_a_commitment_of_a_stranger_is_no_request_to_join():
    with pytest.raises(Exception, match="allow-list"):
        open_gate().limit(frame(NEW, "commit", encoded(Commit(1, bytes(32), bytes(32))))[0])


def test_a_roll_in_a_file_is_plain(tmp_path: Path):
    save_roll(tmp_path / "a" / "roll.json", rolls_of().latest)
    assert json.loads((tmp_path / "a" / "roll.json").read_text()) == [0, 7, [key.hex() for key in KEYS], [], 3, 7]
