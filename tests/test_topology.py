"""Plans of a round, against plans written by hand, and their fairness for any m, B and G."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailproof.errors import ConfigError
from hailproof.records import Slot
from hailproof.topology import plan_horizontal, plan_vertical, reassigned, sampled_groups, shares


def test_horizontal_by_hand():
    # 2 prompts x 4 slots over 3 nodes: the deal goes 0 1 2 0 | 1 2 0 1
    assert plan_horizontal(3, ["a", "b"], 4) == (
        Slot(0, "a", 0), Slot(1, "a", 1), Slot(2, "a", 2), Slot(0, "a", 3),
        Slot(1, "b", 0), Slot(2, "b", 1), Slot(0, "b", 2), Slot(1, "b", 3),
    )  # fmt: skip


def test_vertical_by_hand():
    assert plan_vertical([["a"], ["c", "b"]], 2) == (
        Slot(0, "a", 0), Slot(0, "a", 1),
        Slot(1, "c", 0), Slot(1, "c", 1), Slot(1, "b", 0), Slot(1, "b", 1),
    )  # fmt: skip


def test_horizontal_without_prompts_is_empty():
    assert plan_horizontal(3, [], 4) == ()


@pytest.mark.parametrize(
    ("total", "parts", "offset", "expected"),
    [
        (32, 4, 0, (8, 8, 8, 8)),
        (7, 3, 0, (3, 2, 2)),
        (7, 3, 1, (2, 3, 2)),
        (7, 3, 5, (2, 2, 3)),
        (8, 3, 2, (3, 2, 3)),
        (2, 3, 0, (1, 1, 0)),
        (0, 2, 1, (0, 0)),
    ],
)
def test_shares(total: int, parts: int, offset: int, expected: tuple[int, ...]):
    assert shares(total, parts, offset) == expected
    assert offset or shares(total, parts) == expected


@given(total=st.integers(0, 500), parts=st.integers(1, 40), offset=st.integers(-100, 100))
def test_shares_are_complete_and_fair(total: int, parts: int, offset: int):
    split = shares(total, parts, offset)
    assert len(split) == parts
    assert sum(split) == total
    assert max(split) - min(split) <= 1
    cycle = [shares(total, parts, offset + turn) for turn in range(parts)]
    assert [sum(column) for column in zip(*cycle, strict=True)] == [total] * parts


@given(nodes=st.integers(1, 12), prompts=st.integers(0, 12), surplus=st.integers(0, 20))
def test_horizontal_drops_nothing_and_is_fair(nodes: int, prompts: int, surplus: int):
    group_size = nodes + surplus
    problem_ids = [f"p{position}" for position in range(prompts)]
    slots = plan_horizontal(nodes, problem_ids, group_size)
    assert [(slot.problem_id, slot.index) for slot in slots] == [
        (problem_id, index) for problem_id in problem_ids for index in range(group_size)
    ]
    floor, remainder = divmod(group_size, nodes)
    for problem_id in problem_ids:
        counts = Counter(slot.node for slot in slots if slot.problem_id == problem_id)
        assert set(counts) == set(range(nodes))
        assert sorted(counts.values()) == [floor] * (nodes - remainder) + [floor + 1] * remainder
    totals = Counter(slot.node for slot in slots)
    assert max(totals[node] for node in range(nodes)) - min(totals[node] for node in range(nodes)) <= 1


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=8), group_size=st.integers(1, 8))
def test_vertical_drops_nothing_and_gives_whole_groups(counts: list[int], group_size: int):
    owned = [[f"{node}-{k}" for k in range(count)] for node, count in enumerate(counts)]
    slots = plan_vertical(owned, group_size)
    assert [(slot.node, slot.problem_id, slot.index) for slot in slots] == [
        (node, problem_id, index)
        for node, picked in enumerate(owned)
        for problem_id in picked
        for index in range(group_size)
    ]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (lambda: plan_horizontal(0, ["a"], 4), "at least one node"),
        (lambda: plan_horizontal(3, ["a"], 2), "Group size 2 is smaller than the number of nodes 3"),
        (lambda: plan_horizontal(2, ["a", "b", "a"], 2), "'a' occurs more than once"),
        (lambda: plan_vertical([], 4), "at least one node"),
        (lambda: plan_vertical([["a"], []], 4), "1 prompts are fewer than the 2 nodes"),
        (lambda: plan_vertical([["a"], ["a"]], 4), "'a' occurs more than once"),
        (lambda: plan_vertical([["a"]], 0), "at least one completion"),
        (lambda: shares(3, 0), "parts at least 1"),
        (lambda: shares(-1, 2), "-1 cannot be split"),
    ],
)
def test_impossible_plans_are_refused(plan, message: str):
    with pytest.raises(ConfigError, match=message):
        plan()


def test_slots_of_the_absent_go_round_by_hand():
    plan = plan_horizontal(3, ["a", "b"], 4)
    assert reassigned(plan, {1}, [0, 2], whole_groups=False, offset=1) == (
        Slot(0, "a", 0), Slot(2, "a", 1), Slot(2, "a", 2), Slot(0, "a", 3),
        Slot(0, "b", 0), Slot(2, "b", 1), Slot(0, "b", 2), Slot(2, "b", 3),
    )  # fmt: skip
    plan = plan_vertical([["a"], ["b", "c"], ["d"]], 2)
    assert reassigned(plan, {1}, [0, 2], whole_groups=True) == (
        Slot(0, "a", 0), Slot(0, "a", 1), Slot(0, "b", 0), Slot(0, "b", 1),
        Slot(2, "c", 0), Slot(2, "c", 1), Slot(2, "d", 0), Slot(2, "d", 1),
    )  # fmt: skip
    plan = plan_vertical([["a", "b", "c", "d"], ["e"], ["f"], ["g"]], 1)
    dealt = reassigned(plan, {0}, [1, 2, 3], whole_groups=True, offset=2)
    assert [slot.node for slot in dealt] == [3, 1, 2, 3, 1, 2, 3]  # in turn, from the third of those present
    assert [slot.node for slot in reassigned(plan, {0}, [1, 2, 3], whole_groups=True)] == [1, 2, 3, 1, 1, 2, 3]
    with pytest.raises(ConfigError, match="0 nodes"):
        reassigned(plan, {0, 1, 2}, [], whole_groups=True)


@given(
    nodes=st.integers(2, 8), prompts=st.integers(1, 8), surplus=st.integers(0, 9), whole=st.booleans(),
    absent=st.sets(st.integers(0, 7), max_size=7), offset=st.integers(0, 20),
)  # fmt: skip
def test_the_present_share_what_the_absent_had_and_keep_their_own(nodes, prompts, surplus, whole, absent, offset):
    present = [node for node in range(nodes) if node not in absent]
    if not present:
        return
    names = [f"p{number}" for number in range(nodes * prompts)]
    owned = [names[node::nodes] for node in range(nodes)]
    plan = plan_vertical(owned, nodes + surplus) if whole else plan_horizontal(nodes, names, nodes + surplus)
    dealt = reassigned(plan, absent, present, whole, offset)
    assert [(slot.problem_id, slot.index) for slot in dealt] == [(slot.problem_id, slot.index) for slot in plan]
    assert all(new == old for new, old in zip(dealt, plan, strict=True) if old.node in present)
    inherited = [new for new, old in zip(dealt, plan, strict=True) if old.node in absent]
    units = Counter({(slot.node, slot.problem_id, 0 if whole else slot.index): 1 for slot in inherited})
    loads = [sum(count for (node, *_), count in units.items() if node == each) for each in present]
    assert max(loads) - min(loads) <= 1
    if whole:
        assert all(len({s.node for s in dealt if s.problem_id == name}) == 1 for name in names)


@pytest.mark.parametrize(
    ("own", "received", "sizes"), [(0, 0, (0, 0)), (1, 2, (1, 2)), (2, 3, (2, 3)), (9, 1, (2, 1)), (1, 9, (1, 3))]
)
def test_sampled_groups_are_as_many_as_asked_for_or_all_there_are(own, received, sizes):
    owned, others = ["a", "b"], ["x", "y", "z"]
    chosen = [sampled_groups(owned, others, own, received, random.Random(seed)) for seed in range(40)]
    assert {(len(each & set(owned)), len(each & set(others))) for each in chosen} == {sizes}
    assert set().union(*chosen) == {*(owned if own else ()), *(others if received else ())}  # each has its chance
    assert chosen[0] == sampled_groups(owned, others, own, received, random.Random(0))
