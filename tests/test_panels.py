"""Panels: who is drawn, how likely a sample is captured, and rounds of 64 members whose cost is counted."""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest
from loaded import script
from msgspec import Struct
from swarms import Nodes, lines, swarm_files
from test_exchange import PATIENT, SWARM, completions, together

from hailproof.errors import ConfigError
from hailproof.exchange.admission import Roll, Rolls
from hailproof.exchange.deciding import Gathered, beacon_of, decision_of
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.panels import captured, panel, smallest
from hailproof.exchange.rounds import StoreExchange, Unavailable
from hailproof.exchange.stores import FolderStore, MemoryStore, Store
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity
from hailproof.service.config import SwarmFile
from hailproof.settings import validated
from hailproof.wire import Commit, Entry, Phase, Place, Seal, Seen, State, batch_of, decoded, encoded, opened, sealed

KEYS = tuple(bytes([number]) * 32 for number in range(50))


bench = script("benchmarks/bench_scale_swarm.py")


def test_a_panel_is_the_same_for_all_and_another_in_each_round():
    drawn = panel(KEYS, 7, 5, 1)
    assert drawn == panel(list(KEYS), 7, 5, 1) and len(set(drawn)) == 7 and list(drawn) == sorted(drawn)
    assert drawn not in (panel(KEYS, 7, 5, 2), panel(KEYS, 7, 6, 1))


def test_every_member_is_drawn_as_often():
    times = Counter(key for round in range(2000) for key in panel(KEYS, 5, 0, round))
    assert set(times) == set(KEYS)
    assert all(abs(times[key] - 200) < 5 * (2000 * 0.1 * 0.9) ** 0.5 for key in KEYS)


@pytest.mark.parametrize("members", [1, 4, 7])
def test_a_small_swarm_is_its_own_panel(members: int):
    assert panel(KEYS[:members], 7, 5, 1) == KEYS[:members]


def tail(members: int, malicious: int, size: int) -> float:
    """Panels with a malicious majority among all panels, counted exactly."""
    most = sum(comb(malicious, j) * comb(members - malicious, size - j) for j in range(size // 2 + 1, size + 1))
    return float(Fraction(most, comb(members, size)))


@pytest.mark.parametrize(
    ("members", "malicious", "size", "expected"),
    [
        (5, 2, 3, 0.3),  # 2 of 2 with 1 of 3, of 10 panels
        (4, 1, 1, 0.25),
        (100, 10, 21, tail(100, 10, 21)),
        (10_000, 2000, 101, tail(10_000, 2000, 101)),
        (10_000, 0, 101, 0.0),
        (4, 2, 7, 0.0),  # all are asked, and half are no majority
        (4, 3, 7, 1.0),
    ],
)
def test_how_likely_a_panel_is_captured(members: int, malicious: int, size: int, expected: float):
    assert captured(members, malicious, size) == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_the_page_says_what_the_functions_say():
    page = (Path(__file__).resolve().parents[1] / "docs" / "internet-scale.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.partition("| malicious |")[2].splitlines()[2:9]]
    for share, once, pushed, larger, smallest_once, smallest_pushed in rows:
        malicious = round(float(share.removesuffix(" %")) / 100 * 10_000) if share != "33.3 %" else 3333
        said = [float(each) for each in (once, pushed, larger)]
        asked = ((101, False), (101, True), (301, False))
        found = [captured(10_000, malicious, size, biased) for size, biased in asked]
        assert found == pytest.approx(said, rel=0.3)
        for size, biased in ((smallest_once, False), (smallest_pushed, True)):
            k = int(size.replace(",", ""))
            assert captured(10_000, malicious, k, biased) <= 1e-9 < captured(10_000, malicious, k - 2, biased)


def test_withheld_nonces_multiply_the_chances():
    once = captured(10_000, 1000, 101)
    assert captured(10_000, 1000, 101, biased=True) == pytest.approx(once * 2**50, rel=1e-6)
    assert captured(10_000, 3000, 101, biased=True) == 1


@pytest.mark.parametrize(("malicious", "risk", "biased"), [(10, 1e-3, False), (20, 1e-2, False), (5, 1e-3, True)])
def test_the_smallest_panel_is_the_smallest(malicious: int, risk: float, biased: bool):
    size = smallest(100, malicious, risk, biased)
    assert size is not None and size % 2 == 1
    assert captured(100, malicious, size, biased) <= risk < captured(100, malicious, size - 2, biased)


def test_no_panel_of_a_malicious_majority_will_do():
    assert smallest(100, 60, 1e-6) is None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: panel(KEYS, 6, 0, 1), "A panel of 6 members"),
        (lambda: panel(KEYS, -1, 0, 1), "A panel of -1 members"),
        (lambda: panel((), 3, 0, 1), "from no members"),
        (lambda: captured(10, 1, 4), "A panel of 4 members"),
        (lambda: captured(10, 11, 3), "11 of 10 members"),
        (lambda: captured(10, -1, 3), "-1 of 10 members"),
        (lambda: captured(0, 0, 3), "0 of 0 members"),
        (lambda: smallest(10, 1, 0.0), "A risk of 0.0"),
        (lambda: smallest(10, 1, 1.0), "A risk of 1.0"),
    ],
)
def test_numbers_that_fit_nothing_are_refused(call, error: str):
    with pytest.raises(ConfigError, match=error):
        call()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """Completions of 8 tokens, and no time spent on rates."""
    monkeypatch.setattr("synthetic.TOKENS", 8)
    monkeypatch.setattr(bench, "checked", lambda store, phase, members: 1.0)


def test_what_a_round_of_64_members_costs_one_of_them(tmp_path: Path, short: None):
    playing, following, chosen = bench.rounds_of(64, 64, tmp_path, nodes=2)
    first, second = (bench.play(job) for job in playing)
    frames = [path for path in (tmp_path / bench.SWARM / "00000001").rglob("*") if path.is_file()]
    own = [path for path in frames if path.parent.name == playing[0].members[0].hex()]
    assert not following and len(chosen) == 64 == len(own) * 64 / 5
    assert first.figures["envelopes"] == 5 * 64 == len(frames)
    assert first.figures["received"] == sum(path.stat().st_size for path in frames)
    assert first.figures["sent"] == sum(path.stat().st_size for path in own)
    assert first.decision == second.decision == playing[0].decision and first.beacon == second.beacon is not None
    assert first.unknown == second.unknown == ()


def test_what_a_panel_costs_does_not_depend_on_the_swarm(tmp_path: Path, short: None):
    costs = []
    for members in (64, 128):
        playing, following, chosen = bench.rounds_of(members, 9, tmp_path / str(members), nodes=1, followers=1)
        assert len(chosen) == 9 and following[0].seed not in [job.seed for job in playing]
        seated, other = bench.play(playing[0]), bench.play(following[0])
        assert seated.decision == other.decision == playing[0].decision and seated.beacon == other.beacon is not None
        assert seated.unknown == other.unknown == () and other.figures["sent"] == 0 < seated.figures["sent"]
        costs.append([each.figures[what] for each in (seated, other) for what in ("envelopes", "received", "lists")])
    envelopes, received, lists = costs[0][:3]
    assert envelopes == 45 and lists == 6
    assert costs[0][3:] == [envelopes, received, lists]
    assert costs[1][0::3] == [45, 45] and costs[1][1] == pytest.approx(received, rel=0.01)


def test_the_slots_of_a_round_are_all_dealt_however_many_members_there_are():
    for members, most in ((4, 96), (12, 32), (64, 6), (1000, 1)):
        plan = bench.dealt(members, offset=3)
        slots = [(slot.problem_id, slot.index) for owed in plan.values() for slot in owed]
        assert len(slots) == len(set(slots)) == 32 * 12 and max(map(len, plan.values())) == most
        assert all(slot.node == index for index, owed in plan.items() for slot in owed)


def inventory_lies(folder: Path, seeds: list[bytes], victim: bytes) -> None:
    """Has members list all but one of the batches that they saw, instead of what they listed."""
    store = FolderStore(folder)
    for seed in seeds:
        liar = Identity.of_seed(seed)
        place = Place(bench.SWARM, bench.ROUND, "seen", liar.key)
        (name,) = store.names(place.prefix, 4)
        data = store.get(name, 1 << 20)
        assert data is not None
        honest = decoded(Seen, opened(data, 1 << 20).payload)
        lie = sealed(liar, place, encoded(Seen(tuple(entry for entry in honest.entries if entry.sender != victim))))
        (folder / name).unlink()
        store.put(place.name(lie), lie)


@pytest.mark.parametrize(("liars", "leaves_out"), [(4, False), (5, True)])
def test_a_majority_of_the_panel_decides_for_all(tmp_path: Path, short: None, liars: int, leaves_out: bool):
    playing, following, chosen = bench.rounds_of(64, 9, tmp_path, nodes=9, followers=1)
    inventory_lies(tmp_path, [job.seed for job in playing[:liars]], victim=chosen[-1])
    played = bench.play(following[0])
    assert (played.decision != playing[0].decision) == leaves_out


def test_a_forged_envelope_of_one_member_stops_the_measurement(tmp_path: Path, short: None):
    playing, _, chosen = bench.rounds_of(64, 9, tmp_path, nodes=1)
    (path,) = (tmp_path / bench.SWARM / "00000001" / "seal" / chosen[-1].hex()).iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.with_name(hashlib.sha256(data).hexdigest()).write_bytes(data)
    with pytest.raises(SystemExit, match="'forged': 1"):
        bench.play(playing[0])


@pytest.mark.parametrize("phase", ["seal", "seen"])
def test_a_round_in_which_something_is_missing_is_no_measurement(tmp_path: Path, short: None, phase: str):
    playing, following, chosen = bench.rounds_of(64, 9, tmp_path, nodes=1, followers=1)
    for key in chosen[1:6]:
        shutil.rmtree(tmp_path / bench.SWARM / "00000001" / phase / key.hex())
    for job in (playing[0], following[0]):
        with pytest.raises(SystemExit, match="did not end at the first look"):
            bench.play(job)


def test_a_node_that_says_something_else_is_noticed(tmp_path: Path, short: None):
    playing, _, _ = bench.rounds_of(64, 9, tmp_path, nodes=1)
    job = replace(playing[0], submissions=playing[0].submissions[1:])
    with pytest.raises(SystemExit, match="equivocating"):
        bench.play(job)


def test_figures_of_a_part_of_the_inventories_are_multiplied(tmp_path: Path, short: None):
    whole = bench.play(bench.rounds_of(32, 32, tmp_path / "whole", nodes=1)[0][0])
    playing, _, _ = bench.rounds_of(32, 32, tmp_path / "part", nodes=1, entries=8 * 32)
    part = bench.play(playing[0])
    assert playing[0].share == 4 and part.decision is None is part.beacon and not part.unknown
    for figure in ("sent", "received", "envelopes", "lists"):
        assert part.figures[figure] == whole.figures[figure]


def test_a_meter_is_multiplied_while_inventories_are_read():
    assert bench.whole(1.0, 3.0, 5.0, 6.0, share=4) == (3 - 1) + 4 * (5 - 3) + (6 - 5)


def test_the_growth_of_a_square_is_two():
    assert bench.slope([(m, 3 * m**2) for m in (4, 16, 64)]) == pytest.approx(2)


def test_the_figures_are_drawn(tmp_path: Path):
    row = {"kind": "all", "scaled": "no", "panel": 4, **dict.fromkeys(bench.FIGURES, 3.0)}
    bench.draw([{**row, "members": 4}, {**row, "members": 16, "scaled": "yes"}], tmp_path / "scale.png", 101)
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")




# -- a panel in the rounds of nodes

SIX = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(6)]
SIX_KEYS = tuple(identity.key for identity in SIX)


def test_the_rolls_say_who_is_on_the_panel_also_after_a_restart():
    rolls = Rolls(KEYS, seed=7, panel=5)
    roll = rolls.latest
    assert not rolls.fixed and rolls.floor(0).heard == KEYS  # type: ignore
    for round in range(1, 6):
        beacon = 7 if round == 1 else 100 + round - 1
        assert rolls.floor(round).heard == panel(KEYS, 5, beacon, round)  # type: ignore
        roll = roll.after(None, (), 100 + round)
        rolls.add(roll)
    returned = Rolls(KEYS, seed=7, panel=5)
    returned.add(Roll.of_plain(roll.plain()))
    assert [returned.floor(round) for round in (5, 6)] == [rolls.floor(round) for round in (5, 6)]
    assert returned.floor(4) is None
    assert Rolls(KEYS, panel=51).fixed and Rolls(KEYS[:5], panel=5).fixed and Rolls(KEYS).fixed


def exchange_of(who: int, store: Store, folder: Path) -> StoreExchange:
    gate = Gate(Limits(batch=4096, members=6), SIX_KEYS, SWARM)
    rolls = Rolls(SIX_KEYS, seed=7, panel=3)
    return StoreExchange(store, SIX[who], rolls, SWARM, PATIENT, gate, FolderStore(folder / str(who)))


def test_all_follow_the_panel_and_what_others_say_is_not_heard(tmp_path: Path):
    store = MemoryStore()
    nodes = [exchange_of(who, store, tmp_path) for who in range(6)]
    liar = SIX[next(who for who in range(6) if SIX_KEYS[who] not in nodes[0].floor(1).heard)]
    place = Place(SWARM, 1, "seen", liar.key)
    lie = sealed(liar, place, encoded(Seen(())))
    store.put(place.name(lie), lie)

    def one(who: int, round: int) -> Gathered:
        node = nodes[who]
        gathered = node.gather(round, completions(who, round) if SIX_KEYS[who] in node.floor(round).heard else None)
        node.agree(round, State(gathered.decision, bytes(32), bytes(32), int(time.time() * 1000)))
        return gathered

    panels = set()
    for round in range(1, 4):
        heard = {SIX_KEYS.index(key) for key in nodes[0].floor(round).heard}
        panels.add(frozenset(heard))
        found = together([lambda who=who, round=round: one(who, round) for who in range(6)])
        assert {each.decision for each in found} == {found[0].decision} and {each.beacon for each in found}
        assert {submission.sender for submission in found[0].submissions} == heard
        for phase in ("commit", "state"):
            spoken = {name.split("/")[3] for name in store.names(f"{SWARM}/{round:08d}/{phase}/", 99)}
            assert spoken == {SIX_KEYS[who].hex() for who in heard}
    assert len(panels) > 1 and nodes[0].gate.refused == {"not heard": 1}
    late = exchange_of(5, store, tmp_path / "late")
    assert late.latest() == 3 and late.rolls.latest == nodes[0].rolls.latest
    assert late.quorum(3) == 2 and set(late.states(3)) == {SIX_KEYS.index(key) for key in nodes[0].floor(3).heard}


@pytest.mark.parametrize("size", [2, 4, 7, 9])
def test_panels_that_no_swarm_can_have_are_refused(size: int):
    members = [identity.name for identity in SIX]
    with pytest.raises(ConfigError, match="no odd number of at most 6"):
        validated(SwarmFile, {"members": members, "panel": size})


def test_the_file_says_how_large_the_panel_is():
    members = [identity.name for identity in SIX]
    file = validated(SwarmFile, {"members": members, "panel": 3})
    assert file.run_config().swarm.nodes == 3 and file.rolls(7).panel == 3 and file.limits_of().members == 3
    with pytest.raises(ConfigError, match="the panel has 3"):
        validated(SwarmFile, {"members": members, "panel": 3, "run": {"swarm": {"nodes": 6}}}).run_config()
    run = file.run_config()
    assert len({validated(SwarmFile, {"members": members, "panel": size}).id_of(run) for size in (0, 3, 5)}) == 3


@pytest.mark.slow
def test_nodes_learn_from_the_panel_of_each_round_and_stay_equal(tmp_path: Path):
    import tomli_w

    from hailproof.runs.config import read_toml

    paths = swarm_files(tmp_path, 4, run={"rounds": 4, "defense": [{"name": "replay"}]})
    shared = read_toml(tmp_path / "swarm.toml")
    (tmp_path / "swarm.toml").write_text(tomli_w.dumps({**shared, "panel": 3}))
    nodes = Nodes()
    for index, path in enumerate(paths):
        nodes.start(index, path)
    nodes.join(seconds=300)
    said = [lines(tmp_path, index) for index in range(4)]
    assert len({line["weights"] for node in said for line in node if line["round"] == 4}) == 1
    for round in range(4):
        sent = said[0][round]["sent"]
        assert len(sent) == 3 and all(node[round]["sent"] == sent and node[round]["equal"] for node in said)
        assert said[0][round]["missing"] == {} and {int(sender) for sender in said[0][round]["senders"]} <= set(sent)
    assert len({tuple(line["sent"]) for line in said[0]}) > 1


def test_a_swarm_whose_nodes_hold_different_weights_has_no_panel(tmp_path: Path):
    from hailproof.service.config import load_node
    from hailproof.service.node import NodeService

    paths = swarm_files(tmp_path, 4)
    text = "panel = 3\n" + (tmp_path / "swarm.toml").read_text()
    (tmp_path / "swarm.toml").write_text(text.replace("[run.swarm]", '[run.swarm]\nmodels = ["nano-a", "nano-b"]'))
    with pytest.raises(ConfigError, match="panels be drawn"):
        NodeService(load_node(paths[0]))


# -- what a minority of a panel can do to those who read later, or alone


def say(store: Store, who: Identity, phase: Phase, payload: Struct, round: int = 1) -> None:
    place = Place(SWARM, round, phase, who.key)
    frame = sealed(who, place, encoded(payload))
    store.put(place.name(frame), frame)


def bound(who: Identity) -> Entry:
    """What a member's commitment to an empty batch, and its nonce, are listed as."""
    return Entry(who.key, hashlib.sha256(encoded(batch_of([]))).digest(), who.key)


def sent(store: Store, who: Identity) -> None:
    batch = encoded(batch_of([]))
    say(store, who, "commit", Commit(len(batch), bound(who).sha256, hashlib.sha256(who.key).digest()))
    place = Place(SWARM, 1, "reveal", who.key)
    frame = sealed(who, place, batch)
    store.put(place.name(frame), frame)
    say(store, who, "seal", Seal(who.key))


def seen_of(members: Iterable[Identity]) -> Seen:
    return Seen(tuple(sorted((bound(who) for who in members), key=lambda entry: entry.sender)))


def contested(panel_size: int, late: int) -> tuple[MemoryStore, list[Identity], Seen]:
    """A round of a panel in which inventories that came late make the last batch count, which did not in time.

    Returns:
        The store, the panel in the order of its keys, and what was decided in time.
    """
    members = [Identity.of_seed(hashlib.sha256(b"member %d" % number).digest()) for number in range(panel_size + 2)]
    floor = Rolls([who.key for who in members], seed=7, panel=panel_size).floor(1)
    assert floor is not None
    heard = sorted((who for who in members if who.key in floor.heard_set), key=lambda who: who.key)
    store, last = MemoryStore(), heard[-1]
    for who in heard:
        sent(store, who)
    decision = seen_of(heard[:-1])
    for number, who in enumerate(heard):
        lists = number < floor.quorum - 2 or number >= panel_size - late
        say(store, who, "seen", seen_of(heard) if lists else decision)
        if number < panel_size - late:
            say(store, who, "state", State(decision_of(decision), bytes(32), bytes(32), 1))
    assert last.key not in {entry.sender for entry in decision.entries}
    return store, members, decision


def reader_of(store: Store, members: list[Identity], size: int, folder: Path) -> StoreExchange:
    keys = tuple(who.key for who in members)
    gate = Gate(Limits(batch=4096, members=len(keys)), keys, SWARM)
    return StoreExchange(
        store, Identity.of_seed(bytes(32)), Rolls(keys, seed=7, panel=size), SWARM, PATIENT, gate, FolderStore(folder)
    )


@pytest.mark.parametrize(("size", "late"), [(5, 2), (21, 8), (135, 9)])
def test_late_inventories_stop_nobody_who_reads_later(size: int, late: int, tmp_path: Path):
    store, members, decision = contested(size, late)
    reader = reader_of(store, members, size, tmp_path)
    assert reader.latest() == 1 and reader.rolls.latest.beacon == beacon_of(SWARM, 1, decision.entries)


def test_a_round_that_is_over_is_followed_as_it_was_signed(tmp_path: Path):
    store, members, decision = contested(5, 2)
    reader = reader_of(store, members, 5, tmp_path)
    gathered = reader.gather(1, None, followed=True)
    assert gathered.entries == decision.entries and gathered.decision == decision_of(decision)
    assert reader.rolls.latest.beacon == beacon_of(SWARM, 1, decision.entries)


def test_a_round_whose_signed_decision_cannot_be_read_is_not_guessed(tmp_path: Path):
    store, members, _ = contested(5, 0)
    for name in store.names(f"{SWARM}/00000001/state/", 9):
        del store._objects[name]
    for who in members:
        say(store, who, "state", State(bytes(32), bytes(32), bytes(32), 1))
    with pytest.raises(Unavailable, match="the inventories that decided round 1"):
        reader_of(store, members, 5, tmp_path).gather(1, None, followed=True)


def parted(folder: Path) -> tuple[StoreExchange, Seen]:
    """A node that decided a round otherwise than the others, whose states it sees afterwards."""
    store, members, decision = contested(5, 2)
    states = {name: store._objects.pop(name) for name in store.names(f"{SWARM}/00000001/state/", 9)}
    alone = reader_of(store, members, 5, folder)
    assert alone.gather(1, None).entries != decision.entries
    store._objects.update(states)
    return alone, decision


def test_who_decided_otherwise_finds_the_panel_of_the_others_again(tmp_path: Path):
    alone, decision = parted(tmp_path)
    alone.realign(1)
    assert alone.rolls.latest.beacon == beacon_of(SWARM, 1, decision.entries)
    alone.realign(1)
    assert alone.latest() == 1


def test_who_waits_where_nobody_is_heard_looks_for_the_others(tmp_path: Path):
    alone, _ = parted(tmp_path)
    alone.timing = Timing(0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01)
    with pytest.raises(Unavailable, match="round 1 was decided otherwise"):
        alone.gather(2, None)
    alone.restore(alone.rolls.latest)
    assert not alone._closed


def test_other_members_of_the_same_number_have_their_own_places(tmp_path: Path):
    node = exchange_of(0, MemoryStore(), tmp_path)
    first, second = (replace(node.rolls.latest, round=1, members=(*SIX_KEYS[:-1], key)) for key in KEYS[1:3])
    for roll in (first, second):
        node.restore(roll)
        assert node.index[roll.members[-1]] == 5 and len(node.index) == 6
        assert node.gate._names == {key.hex() for key in roll.members}


def test_what_a_member_says_that_is_not_on_the_panel_is_not_even_fetched(tmp_path: Path):
    node = exchange_of(0, store := MemoryStore(), tmp_path)
    floor = node.floor(1)
    outside = next(who for who in SIX if who.key not in floor.heard)
    inside = next(who for who in SIX if who.key in floor.heard)
    phases: tuple[Phase, ...] = ("commit", "reveal", "seal", "seen", "state")
    for phase in phases:
        place = Place(SWARM, 1, phase, outside.key)
        frame = sealed(outside, place, b"\x80")
        store.put(place.name(frame), frame)
        box = node.look(1, phase)
        assert not box.senders and not box.said
    assert node.gate.refused == {"not heard": len(phases)} and not node.bytes["received"]
    say(store, inside, "seal", Seal(bytes(32)), round=1)
    (old,) = (name for name in store.names(f"{SWARM}/", 99) if inside.key.hex() in name)
    store.put(old.replace("/00000001/", "/00000002/"), store.get(old, 999) or b"")
    beacon = next(number for number in range(99) if inside.key in panel(SIX_KEYS, 3, number, 2))
    node.restore(node.rolls.latest.after(None, (), beacon))
    say(store, inside, "commit", Commit(1, bytes(32), hashlib.sha256(bytes(32)).digest()), round=2)
    node.look(2, "commit")
    assert not node.look(2, "seal").payloads and node.gate.refused["wrong round"] == 1
