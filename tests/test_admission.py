"""Strangers that become members: what they pay, how all decide it alike, and what a thousand free names can do."""

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from test_exchange import PATIENT, SWARM, completions, eventually, together

from hailproof.errors import ConfigError, PeerError, RunError
from hailproof.exchange import admission as module
from hailproof.exchange.admission import Admission, Roll, Rolls, Trial
from hailproof.exchange.deciding import beacon_of, decided, decision_of, settled
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.reading import JOINS_LOOKED_AT
from hailproof.exchange.rounds import StoreExchange
from hailproof.exchange.standing import watched
from hailproof.exchange.stores import FolderStore, MemoryStore, Store
from hailproof.identity import Identity
from hailproof.service.config import AdmissionConfig, SwarmFile
from hailproof.service.hooks import Doorkeeper, load_hook
from hailproof.service.open import open_store
from hailproof.settings import validated
from hailproof.wire import Commit, Entry, Join, Phase, Place, Seal, Seen, State, batch_of, encoded, sealed

A, B, C, X, Y, Z = (bytes([number]) * 32 for number in range(1, 7))
FEE = Admission(members=4, rounds=2, places=2)
START = Roll(0, 7, (A, B), (), 2, 7)


def after(roll: Roll, *welcomes: str, admission: Admission | None = FEE) -> Roll:
    """The roll after rounds in which a majority was for the strangers that a text names."""
    for names in welcomes:
        welcome = {"x": X, "y": Y, "z": Z}
        roll = roll.after(admission, [welcome[name] for name in names], 100 + roll.round)
    return roll


def paid(roll: Roll) -> dict[bytes, int]:
    return {trial.key: trial.paid for trial in roll.trials}


@pytest.mark.parametrize(
    ("welcomes", "members", "trials"),
    [
        (["x"], "", {X: 0}),
        (["x", "x"], "", {X: 0}),  # its first batch is of the second round, and judged in the third
        (["x", "", "x"], "", {X: 1}),
        (["x", "x", "x"], "", {X: 1}),
        (["x", "", "x", "x"], "x", {}),
        (["x", "", "x", "", "x"], "x", {}),  # a round that was not honest costs time and no more
        (["x", "", "x", "", "", ""], "", {X: 1}),
        (["x", "", "x", "", "", "", ""], "", {}),  # its time is over
        (["x", "", "x", "", "", "", "", "x"], "", {X: 0}),  # and it begins anew
        (["x", "", "x", "", "", "", "x"], "x", {}),
        (["x", "", "", ""], "", {X: 0}),
        (["x", "", "", "", "", "y"], "", {Y: 0}),  # it can no longer pay in time, and makes room
        (["x", "", "x", "x", "x"], "x", {}),  # a member is one for good
        (["xy"], "", {X: 0, Y: 0}),
        (["x", "y", "x", "xy", "y"], "xy", {}),
        (["x", "y", "z"], "", {X: 0, Y: 0}),  # both places are taken
        (["x", "y", "x", "xy", "yz", "z", "z"], "xy", {}),  # and so are both seats, afterwards
    ],
)
def test_what_a_stranger_pays_before_it_is_heard(welcomes: list[str], members: str, trials: dict[bytes, int]):
    roll = after(START, *welcomes)
    assert roll.members == (A, B, *({"x": X, "y": Y}[name] for name in members)) and paid(roll) == trials
    assert roll.round == len(welcomes) and Roll.of_plain(roll.plain()) == roll


def test_lots_are_drawn_by_the_beacon_where_more_ask_than_there_are_places():
    strangers = [bytes([number]) * 32 for number in range(50, 90)]
    chosen = [set(paid(START.after(FEE, strangers, beacon))) for beacon in range(20)]
    assert all(len(each) == 2 for each in chosen) and len(set(map(frozenset, chosen))) > 10


def test_without_a_fee_a_majority_is_enough_and_without_admission_nothing_is():
    free = Admission(members=3, rounds=0, places=2)
    assert after(START, "x", admission=free).members == (A, B, X)
    assert len(after(START, "xyz", admission=free).members) == 3
    assert after(START, "x", "x", "x", "x", admission=None) == Roll(4, 103, (A, B), (), 2, 102)


@pytest.mark.parametrize(
    "tree", [[], [1, 2, ["aa"], [], 2, 3], [1, 2, [A.hex()], [["zz", 1, 2]], 2, 3], None, [1, 2, 3, 4, 5, 6]]
)
def test_damaged_rolls_are_refused(tree: object):
    with pytest.raises(RunError, match="list of members"):
        Roll.of_plain(tree)


def test_who_may_speak_in_which_round():
    rolls = Rolls((A, B), FEE, seed=7)
    assert rolls.floor(0) == rolls.floor(1) and rolls.floor(1).heard == (A, B) and rolls.floor(2) is None  # type: ignore
    roll = after(START, "x", "", "x", "x")
    for number in range(1, 5):
        rolls.add(after(START, *["x", "", "x", "x"][:number]))
    assert rolls.floor(2).trials == (X,) and rolls.floor(5).heard == (A, B, X) and rolls.floor(5).quorum == 2  # type: ignore
    returned = Rolls((A, B), FEE, seed=7)
    returned.add(Roll.of_plain(roll.plain()))
    assert returned.floor(4).heard == (A, B) and returned.floor(5).heard == (A, B, X)  # type: ignore
    assert returned.floor(3) is None and returned.latest == roll
    other = after(START, "y")
    rolls.add(other)
    assert rolls.latest == other and rolls.floor(2).trials == (Y,) and rolls.floor(5) is None  # type: ignore


def test_rounds_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT", 5)
    rolls, roll = Rolls((A, B), FEE), Roll(0, 0, (A, B), (), 2, 0)
    for _ in range(20):
        roll = roll.after(FEE, (), 1)
        rolls.add(roll)
        rolls.floor(roll.round)
    assert len(rolls._known) == 5 and rolls.floor(10) is None and rolls.floor(0) is not None and len(rolls._floors) <= 5


def test_a_stranger_is_welcome_if_a_majority_of_the_inventories_says_so():
    entry = Entry(A, bytes(32), bytes(32))
    for count, welcome in ((1, ()), (2, ()), (3, (X,)), (4, (X,))):
        inventories = [Seen((entry,), (X,))] * count + [Seen((entry,))] * (5 - count)
        assert decided(inventories, 3) == Seen((entry,), welcome)
    assert not settled([Seen((), (X,))] * 2 + [Seen(())], 2, 3) and settled([Seen((), (X,))] * 3 + [Seen(())], 1, 3)


def test_an_inventory_without_strangers_is_written_as_before():
    assert encoded(Seen(())) == b"\x81\xa7entries\x90"


# -- exchanges

FOUNDERS = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(3)]
KEYS = tuple(identity.key for identity in FOUNDERS)
NEW = Identity.of_seed(b"n" * 32)
LIMITS = Limits(batch=4096, checkpoint=8192, members=9)


def rolls_of(fee: int = 2, places: int = 2, seats: int = 2) -> Rolls:
    return Rolls(KEYS, Admission(len(KEYS) + seats, fee, places), seed=7)


def node(
    who: Identity, store: Store, folder: Path, admits: Callable[[bytes], bool] = lambda key: True, **rules: int
) -> StoreExchange:
    gate = Gate(LIMITS, KEYS, SWARM, strangers=True)
    journal = FolderStore(folder / who.name[:8])
    return StoreExchange(store, who, rolls_of(**rules), SWARM, PATIENT, gate, journal, admits=admits)


def put(store: Store, who: Identity, phase: Phase, payload: bytes, round: int = 1) -> None:
    place = Place(SWARM, round, phase, who.key)
    frame = sealed(who, place, payload)
    store.put(place.name(frame), frame)


def play(nodes: list[StoreExchange], round: int, honest: tuple[bytes, ...] = ()) -> list[Roll]:
    """The rolls of the founders after a round that they play."""
    def one(exchange: StoreExchange, who: int) -> Roll:
        gathered = exchange.gather(round, completions(who, round), honest)
        exchange.agree(round, State(gathered.decision, bytes(32), bytes(32), int(time.time() * 1000)))
        return exchange.rolls.latest

    return together([lambda n=n, w=w: one(n, w) for w, n in enumerate(nodes)])


@pytest.mark.parametrize(("yes", "let_in"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_hook_that_answers_differently_is_decided_by_the_majority(yes: int, let_in: bool, tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path, lambda key, n=n: n < yes, fee=0) for n, who in enumerate(FOUNDERS)]
    put(store, NEW, "join", encoded(Join()))
    rolls = play(nodes, 1)
    assert all(roll == rolls[0] for roll in rolls)
    assert rolls[0].members == (*KEYS, *([NEW.key] if let_in else []))


def test_a_stranger_pays_is_heard_and_everybody_can_read_that_from_what_was_signed(tmp_path: Path):
    store = MemoryStore()
    nodes, stranger = [node(who, store, tmp_path) for who in FOUNDERS], node(NEW, store, tmp_path)
    stranger.ask(1)
    play(nodes, 1)
    for round in (2, 3, 4):
        assert stranger.latest() == round - 1
        if round < 4:
            stranger.offer(round, completions(3, round))
        rolls = play(nodes, round, (NEW.key,) if round > 2 else ())
        assert [set(n.offered(round)) for n in nodes] == [{NEW.key} if round < 4 else set()] * 3
        assert all(submission.sender < 3 for submission in nodes[0].gather(round, None).submissions)
    assert {roll.members for roll in rolls} == {(*KEYS, NEW.key)} and nodes[0].index[NEW.key] == 3
    assert stranger.latest() == 4 and stranger.rolls.latest == rolls[0]
    with_it = [*nodes, stranger]
    assert all(roll.members == (*KEYS, NEW.key) for roll in play(with_it, 5))
    assert {each.sender for each in nodes[0].gather(5, None).submissions} == {0, 1, 2, 3}
    reader = watched(store, SWARM, rolls_of(), Gate(LIMITS, KEYS, SWARM, strangers=True))
    assert reader.latest() == 5 and reader.rolls.latest == nodes[0].rolls.latest


def test_who_reads_other_inventories_than_the_majority_signed_does_not_follow(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path) for who in FOUNDERS]
    put(store, NEW, "join", encoded(Join()))
    play(nodes, 1)
    for shown, follows in ((Seen(()), 0), (None, 1)):  # what one inventory lists is enough to read what all signed
        partial = MemoryStore()
        for name in store.names(f"{SWARM}/", 999):
            if "/seen/" not in name or (KEYS[0].hex() in name and shown is None):
                partial.put(name, store.get(name, 9999) or b"")
        if shown is not None:
            put(partial, FOUNDERS[0], "seen", encoded(shown))
        reader = watched(partial, SWARM, rolls_of(), Gate(LIMITS, KEYS, SWARM, strangers=True))
        assert reader.latest() == follows == reader.rolls.latest.round
        assert reader.rolls.latest == (nodes[0].rolls.latest if follows else rolls_of().latest)


@pytest.mark.parametrize("contradicts", [True, False])
def test_a_member_that_lists_again_or_late_stops_nobody_who_reads_later(contradicts: bool, tmp_path: Path):
    """One inventory is missing, so that the liar's decided; or the liar's comes when the others have decided."""
    store, entries = MemoryStore(), []
    for who in FOUNDERS:
        nonce, batch = who.key, encoded(batch_of([]))
        digest = hashlib.sha256(batch).digest()
        put(store, who, "commit", encoded(Commit(len(batch), digest, hashlib.sha256(nonce).digest())))
        entries.append(Entry(who.key, digest, nonce))
    entries.sort(key=lambda each: each.sender)
    every, fewer = Seen(tuple(entries)), Seen(tuple(entries[:2]))
    signed = every if contradicts else fewer
    for who in FOUNDERS[:2]:
        put(store, who, "state", encoded(State(decision_of(signed), bytes(32), bytes(32), 1)))
    put(store, FOUNDERS[0], "seen", encoded(every))
    put(store, FOUNDERS[1], "seen", encoded(signed))
    put(store, FOUNDERS[1] if contradicts else FOUNDERS[2], "seen", encoded(Seen(()) if contradicts else every))
    reader = watched(store, SWARM, rolls_of(), Gate(LIMITS, KEYS, SWARM, strangers=True))
    assert reader.latest() == 1 and reader.rolls.latest.beacon == beacon_of(SWARM, 1, signed.entries)


def test_strangers_on_trial_may_not_say_what_members_say(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path) for who in FOUNDERS]
    put(store, NEW, "join", encoded(Join()))
    play(nodes, 1)
    put(store, NEW, "seen", encoded(Seen(())), 2)
    put(store, NEW, "state", encoded(State(bytes(32), bytes(32), bytes(32), 5)), 1)
    put(store, NEW, "checkpoint", b"mine", 1)
    put(store, NEW, "want", b"\x80", 1)
    assert NEW.key not in nodes[0].look(2, "seen").payloads and set(nodes[0].states(1)) == {0, 1, 2}
    assert nodes[0].gate.refused["not on the allow-list"] >= 2 and nodes[0].wanted(1)
    with pytest.raises(PeerError, match="allow-list"):
        nodes[0].gate.limit(Place(SWARM, 1, "checkpoint", NEW.key).prefix + 64 * "0")


def test_a_member_that_is_new_may_not_speak_in_rounds_before(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path, fee=0) for who in FOUNDERS]
    put(store, NEW, "join", encoded(Join()))
    play(nodes, 1)
    put(store, NEW, "seen", encoded(Seen(())), 1)
    nodes[0]._reader.drop(1)
    assert set(nodes[0].look(1, "seen").payloads) == set(KEYS) and nodes[0].gate.refused["not heard"] == 1
    assert NEW.key in nodes[0].floor(2).heard


def test_strangers_that_are_slow_hold_up_a_round_by_half_of_what_members_take(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path) for who in FOUNDERS]
    put(store, NEW, "join", encoded(Join()))
    play(nodes, 1)
    began = time.monotonic()
    play(nodes, 2)
    assert time.monotonic() - began < PATIENT.commit and nodes[0].floor(2).trials == (NEW.key,)


def test_a_thousand_free_names_are_not_heard_and_take_no_memory(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path) for who in FOUNDERS]
    thousand = [Identity.of_seed(hashlib.sha256(bytes([n % 256, n // 256])).digest()) for n in range(1000)]
    for round in (1, 2, 3):
        for each in thousand[::3] if round > 1 else thousand:
            put(store, each, "join", encoded(Join()), round)
            if round == 2:  # and they send as if they were members
                put(store, each, "commit", encoded(Commit(5, bytes(32), bytes(32))), round)
                put(store, each, "seen", encoded(Seen((), (each.key,))), round)
        rolls = play(nodes, round)
        assert all(roll == rolls[0] for roll in rolls) and rolls[0].members == KEYS and len(rolls[0].trials) <= 2
        assert {each.sender for each in nodes[0].gather(round, None).submissions} == {0, 1, 2}
    gate = nodes[0].gate
    assert len(gate._heads) < 100 and len(gate.refused_of) < 20 and not gate.proofs
    assert nodes[0].bytes["received"] < 3 * JOINS_LOOKED_AT * 500 + 100_000


def test_what_strangers_say_when_they_ask_is_checked(tmp_path: Path):
    store = MemoryStore()
    exchange = node(FOUNDERS[0], store, tmp_path)
    place = Place(SWARM, 1, "join", NEW.key)
    frame = sealed(NEW, place, encoded(Join()))
    store.put(Place(SWARM, 1, "join", X).name(frame), frame)  # under another's name
    store.put(place.prefix + 64 * "a", frame)
    other = sealed(NEW, place, b"\xc1")
    store.put(place.name(other), other)
    big = sealed(NEW, place, bytes(5000))
    store.put(place.name(big), big)
    later = sealed(NEW, Place(SWARM, 2, "join"), encoded(Join()))
    store.put(place.name(later), later)
    assert exchange._reader.joins(1) == [] and sum(exchange.gate.refused.values()) == 5
    assert {"forged", "malformed", "oversized", "wrong round"} == set(exchange.gate.refused)
    store.put(place.name(frame), frame)
    assert exchange._reader.joins(1) == [NEW.key] == exchange._reader.joins(1) and not exchange.gate._heads


def test_without_admission_nobody_may_ask_and_no_inventory_may_welcome(tmp_path: Path):
    closed = Gate(LIMITS, KEYS, SWARM)
    with pytest.raises(PeerError, match="allow-list"):
        closed.limit(Place(SWARM, 1, "join", NEW.key).prefix + 64 * "0")
    store = MemoryStore()
    exchange = StoreExchange(store, FOUNDERS[0], KEYS, SWARM, PATIENT, closed, FolderStore(tmp_path))
    put(store, FOUNDERS[1], "seen", encoded(Seen((), (NEW.key,))))
    assert exchange.look(1, "seen").payloads == {} and closed.refused == {"malformed": 1}


@pytest.mark.parametrize("welcome", [(Y, X), (X, X), tuple(bytes([n]) * 32 for n in range(1, 6))])
def test_an_inventory_that_welcomes_in_disorder_or_too_many_does_not_count(welcome: tuple, tmp_path: Path):
    store = MemoryStore()
    exchange = node(FOUNDERS[0], store, tmp_path)
    put(store, FOUNDERS[1], "seen", encoded(Seen((), welcome)))
    assert exchange.look(1, "seen").payloads == {} and exchange.gate.refused == {"malformed": 1}


def test_a_batch_on_trial_must_be_committed_to_and_sealed(tmp_path: Path):
    store = MemoryStore()
    nodes = [node(who, store, tmp_path) for who in FOUNDERS]
    put(store, NEW, "join", encoded(Join()))
    play(nodes, 1)
    batch = encoded(batch_of(completions(3, 2)))
    commit = Commit(len(batch), hashlib.sha256(batch).digest(), hashlib.sha256(b"n" * 32).digest())
    put(store, NEW, "commit", encoded(commit), 2)
    put(store, NEW, "reveal", batch, 2)
    put(store, NEW, "seal", encoded(Seal(b"m" * 32)), 2)
    play(nodes, 2)
    assert nodes[0].offered(2) == {} and nodes[0].gate.refused["not as committed"] == 1


# -- the file, and the hook


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"seats": 3}, "for nothing"),
        ({"rounds": 3}, "has no seats"),
        ({"hook": "a:b"}, "has no seats"),
        ({"seats": 1, "rounds": 1, "places": 0}, "places"),
        ({"seats": 1, "rounds": 1, "places": 1000}, "places"),
        ({"seats": 1, "hook": "os.system"}, "hook"),
        ({"seats": 1, "hook": "a:b:c"}, "hook"),
        ({"seats": 1, "hook": "a/b:c"}, "hook"),
        ({"seats": 1, "roundz": 1}, "unknown"),
    ],
)
def test_ways_to_become_a_member_that_are_refused(tree: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        validated(AdmissionConfig, tree)


def test_the_file_says_how_strangers_become_members():
    members = tuple(identity.name for identity in FOUNDERS)
    file = validated(SwarmFile, {"members": members, "admission": {"seats": 2, "rounds": 5, "places": 3}})
    assert file.run_config().swarm.nodes == 5 and file.limits_of().members == 11
    assert file.rolls(7).admission == Admission(5, 5, 3) and file.rolls(7).latest == Roll(0, 7, KEYS, (), 3, 7)
    with pytest.raises(ConfigError, match="3 members are listed and 2 seats"):
        validated(SwarmFile, {**file.model_dump(), "run": {"swarm": {"nodes": 3}}}).run_config()
    with pytest.raises(ConfigError, match="more than 10000"):
        validated(SwarmFile, {"members": members, "admission": {"seats": 9_999, "rounds": 5}})
    ids = {
        validated(SwarmFile, {"members": members, "admission": tree}).id_of(file.run_config())
        for tree in ({}, {"seats": 2, "rounds": 5}, {"seats": 2, "rounds": 6}, {"seats": 2, "hook": "a:b"})
    }
    assert len(ids) == 4


def test_zenoh_is_refused_where_strangers_may_speak(tmp_path: Path):
    with pytest.raises(ConfigError, match="strangers could fill them"):
        open_store("zenoh", {}, Gate(LIMITS, KEYS, SWARM, strangers=True), tmp_path)


@pytest.mark.parametrize("path", ["no_such_module:f", "os:no_such", "os:name", "raises:f"])
def test_hooks_that_cannot_be_used_are_one_sentence(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "raises.py").write_text("raise KeyError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"admission\.hook"):
        load_hook(path)


def test_a_doorkeeper_lets_in_whom_the_hook_says_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch):
    open_door, asked, failed = threading.Event(), [], []

    def stake(key: bytes, genesis: dict) -> object:
        open_door.wait(10)
        asked.append(key)
        if key == Z:
            raise OSError("the chain is away")
        return {X: genesis["swarm"] == "s", Y: 1, A: False}[key]

    fake = ModuleType("fake_stakes")
    fake.has = stake  # type: ignore
    monkeypatch.setitem(sys.modules, "fake_stakes", fake)
    keeper = Doorkeeper(load_hook("fake_stakes:has"), {"swarm": "s"}, failed.append)
    began = time.monotonic()
    assert [keeper(key) for key in (X, Y, Z, A, X)] == [False] * 5 and time.monotonic() - began < 5
    open_door.set()
    eventually(lambda: len(keeper._answers), 4)
    assert [keeper(key) for key in (X, Y, Z, A)] == [True, False, False, False]
    assert asked == [X, Y, Z, A] and "the chain is away" in failed[0]
    assert keeper(X) and not keeper(A)
    eventually(lambda: len(asked), 5)
    assert asked[-1] == A


def test_a_hook_that_ends_its_thread_is_asked_again():
    asked, failed = [], []

    def ends(key: bytes, genesis: object) -> bool:
        asked.append(key)
        if key == X:
            sys.exit("no chain")
        return True

    keeper = Doorkeeper(ends, {}, failed.append)
    assert not keeper(X)
    eventually(lambda: len(failed), 1)
    assert not keeper(Y)
    eventually(lambda: len(keeper._answers), 2)
    assert keeper(Y) and not keeper(X) and asked == [X, Y] and "no chain" in failed[0]


def test_a_doorkeeper_remembers_and_queues_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch):
    from hailproof.service import hooks

    monkeypatch.setattr(hooks, "REMEMBERED", 5)
    monkeypatch.setattr(hooks, "WAITING", 8)
    stuck = threading.Event()
    keeper = Doorkeeper(lambda key, genesis: stuck.wait(10), {}, lambda said: None)
    for number in range(100):
        keeper(bytes([number]) * 32)
    assert len(keeper._asked) <= 9
    stuck.set()
    eventually(lambda: len(keeper._asked), 0)
    assert len(keeper._answers) == 5


def test_trials_by_hand():
    assert Admission(5, 3, 2).patience == 8 and Admission(5, 3, 2).welcomed == 4
    assert paid(Roll(5, 0, (A,), (Trial(X, 1, 2),), 1, 0).after(Admission(9, 9, 9), [X], 0)) == {X: 3}
