"""What one node knows and does: order of arrival, late and missing completions, budgets, and the plan it derives."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hailproof.errors import ConfigError
from hailproof.node import HonestNode
from hailproof.protocols import PromptChoice
from hailproof.records import Completion, Problem, Slot, Submission
from hailproof.rewards import SPARE_SECONDS, Rewarder
from hailproof.runs.build import build
from hailproof.runs.config import load_config
from hailproof.tasks.base import BaseTask
from hailproof.topology import Planner, Rules, plan_horizontal, plan_vertical, reassigned

SMALL = [
    ("swarm.prompts", 4),
    ("swarm.group_size", 4),
    ("sampling.max_new_tokens", 40),
    ("task.options.size", 64),
    ("task.options.test_size", 8),
    ("learner.learning_rate", 1e-3),
]
REPLAY = ("defense", [{"name": "replay"}])
CODE = ("task.options.variant", "code")


def node_of(*overrides) -> HonestNode:
    return build(load_config(None, [*SMALL, *overrides])).swarm.honest[0]


def weights(node) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in node.learner.trainable.parameters()])


def test_the_order_of_arrival_decides_nothing():
    """Not for honest work, and not for what a sender sends twice, whether it is the same or not."""
    nodes = [node_of() for _ in range(3)]
    honest = nodes[0].produce(1)
    other = replace(honest[3], completion=replace(honest[7].completion, finished=not honest[7].completion.finished))
    received = [*honest, honest[2], other]
    orders = [received, received[::-1], [*received[5:], *received[:5]]]
    views = [node.consume(1, order) for node, order in zip(nodes, orders, strict=True)]
    assert views[0].groups == views[1].groups == views[2].groups
    assert torch.equal(weights(nodes[0]), weights(nodes[1])) and torch.equal(weights(nodes[0]), weights(nodes[2]))
    assert [view.unread for view in views] == [{"sent twice": 2}] * 3


def test_what_is_late_or_missing_is_counted_and_the_round_goes_on():
    node = node_of()
    honest = node.produce(1)
    late, gone = replace(honest[0], round=0), honest[1]
    view = node.consume(1, [late, *honest[2:], replace(honest[2], slot=99), replace(honest[2], sender=9)])
    assert view.unread == {"of another round": 1, "for no slot of its sender": 2}
    assert sum(view.missing.values()) == 2 and view.missing[gone.sender] >= 1
    assert sum(len(group.completions) for group in view.groups) == len(honest) - 2
    nothing = node.consume(2, [])
    assert sum(nothing.missing.values()) == 16 and nothing.update.trained == 0


@pytest.mark.parametrize(("models", "longest"), [(["nano-a"], 40), (["nano-a", "nano-b"], 60)])
def test_what_is_longer_than_the_limit_is_not_read(models, longest):
    """Beyond the limit there is room only for what tokenizers differ by, in swarms of different tokenizers."""
    node = node_of(("swarm.models", models))
    (slot,) = [slot for slot in node.plan(1).slots if slot.node in node.nodes][:1]
    token = node.policy.codec.encode("a")[0]
    for size, ids in ((40, True), (41, True), (40, False), (longest, False), (longest + 1, False)):
        spelled = (token,) * size
        sent = Completion(node.policy.codec.decode(spelled), spelled if ids else (), False)
        retokenized = len(node.policy.codec.received_ids(sent))
        view = node.consume(1, [Submission(1, slot.node, slot.problem_id, slot.index, sent)])
        comes = retokenized <= (40 if ids else longest)
        assert view.unread == ({} if comes else {"unreadable or too long": 1}), (size, ids)


def endless(node, count: int) -> list[Submission]:
    """Programs that never end, in the first slots of one sender."""
    mine = [slot for slot in node.plan(1).slots if slot.node == 3][:count]
    texts = [f"<code>{'x = 1' + chr(10) * index}\nwhile True: pass</code>" for index in range(count)]
    return [
        Submission(1, 3, slot.problem_id, slot.index, node.policy.codec.as_completion(text))
        for slot, text in zip(mine, texts, strict=True)
    ]


def test_endless_programs_spend_their_senders_budget_and_no_more(monkeypatch):
    node = node_of(CODE)
    ran: list[str] = []
    reward = type(node.task).reward

    def counting(self, problem, text):
        ran.append(text)
        return reward(self, problem, text)

    monkeypatch.setattr(BaseTask, "reward", counting)
    spin = endless(node, 4)
    honest = [each for each in node.produce(1) if each.sender != 3]
    view = node.consume(1, [*spin, *honest])
    assert sum("while True" in text for text in ran) == 1  # its first one takes a second, and half of that is spare
    assert view.unread == {"over its sender's budget": 3} and view.missing == {3: 3}
    kept = [s.submission for group in view.groups for s in group.completions if s.submission.sender != 3]
    assert len(kept) == len(honest) and all(each.raw_reward is not None for g in view.groups for each in g.completions)


def test_what_replay_refuses_is_not_rewarded_where_rewards_cost_time():
    node = node_of(CODE, REPLAY)
    rewarder = node.rewarder
    view = node.consume(1, [*endless(node, 4), *[each for each in node.produce(1) if each.sender != 3]])
    forged = [s for group in view.groups for s in group.completions if s.submission.sender == 3]
    assert len(forged) == 4
    assert all(s.raw_reward is None and not s.admitted and s.verdicts[-1].defense == "replay" for s in forged)
    assert not any("while True" in text for _, text in rewarder._known)
    honest = [s for group in view.groups for s in group.completions if s.submission.sender != 3]
    assert all(s.raw_reward is not None and s.verdicts[-1].decision == "accept" for s in honest)


class Slow(BaseTask):
    """A task whose rewards take a second each, by a clock of its own."""

    now = 0.0

    def reward(self, problem, text):  # pyright: ignore[reportIncompatibleMethodOverride]
        type(self).now += 1.0
        return 1.0


def test_a_purse_by_hand(monkeypatch):
    task = Slow([Problem("p", "", "1")])
    monkeypatch.setattr(Slow, "now", 0.0)
    monkeypatch.setattr("hailproof.rewards.time.perf_counter", lambda: Slow.now)
    rewarder = Rewarder(task, spare_seconds=1.5)
    purse, other = rewarder.purse(1, 8), rewarder.purse(1, 8)
    assert [purse.earn(task.train[0], text) for text in ("a", "b", "c", "a")] == [1.0, 1.0, None, None]
    # a reward that is known costs whoever asks for it what it took, so that all receivers decide alike
    assert [other.earn(task.train[0], text) for text in ("a", "b", "c")] == [1.0, 1.0, None] and Slow.now == 2.0
    rewarder.purse(2, 8)
    assert rewarder.purse(2, 8).earn(task.train[0], "a") == 1.0 and Slow.now == 3.0  # forgotten with its round


def test_a_sender_has_spare_time_and_what_honest_answers_take_in_its_slots(monkeypatch):
    monkeypatch.setattr(Slow, "now", 0.0)
    monkeypatch.setattr(Slow, "reward_seconds", 0.25)
    monkeypatch.setattr("hailproof.rewards.time.perf_counter", lambda: Slow.now)
    task = Slow([Problem("p", "", "1"), Problem("q", "", "2")])
    rewarder = Rewarder(task, spare_seconds=1.5)
    assert [rewarder.purse(1, slots).seconds for slots in (0, 2, 8)] == [1.5, 2.0, 3.5]
    assert Rewarder(task).purse(1, 4).seconds == SPARE_SECONDS + 1.0
    purse = rewarder.purse(1, 2)
    # an answer to one problem is none to another; what is left after two of a second each is nothing
    assert [purse.earn(problem, "a") for problem in (*task.train, task.train[0])] == [1.0, 1.0, None]
    assert purse.seconds == 0.0


def planner_of(nodes: int, prompts: int, size: int, choice: PromptChoice = "free", seed: int = 0) -> Planner:
    problems = [Problem(f"p{index}", "", "1") for index in range(size)]
    return Planner(Rules(nodes, "vertical", prompts, 2, choice, seed), problems)


@settings(max_examples=60, deadline=None)
@given(nodes=st.integers(1, 6), extra=st.integers(0, 5), round=st.integers(1, 99), seed=st.integers(0, 2**40))
def test_every_problem_has_one_owner_and_plans_give_owners_their_own(nodes, extra, round, seed):
    prompts = nodes + extra
    planner = planner_of(nodes, prompts, 4 * prompts, seed=seed)
    plan = planner.plan(round)
    assert len(plan.problems) == prompts and len(plan.slots) == 2 * prompts
    assert all(planner.owner(round, slot.problem_id) == slot.node for slot in plan.slots)
    assert {node: len(planner.picks(round, node, lambda problem: True)) for node in range(nodes)} == {
        node: count // 2 for node, count in plan.owed().items()
    }


@pytest.mark.parametrize("topology", ["horizontal", "vertical"])
def test_a_plan_is_its_topology_over_the_rounds_prompts(topology):
    problems = [Problem(f"p{index}", "", "1") for index in range(40)]
    planner = Planner(Rules(3, topology, 6, 4, "free", 0), problems)
    plan, vertical = planner.plan(5), topology == "vertical"
    names = list(plan.problems)
    assert len(names) == 6 and [plan.problems[name].id for name in names] == names
    owned = [[name for name in names if planner.owner(5, name) == node] for node in range(3)]
    assert plan.slots == (plan_vertical(owned, 4) if vertical else plan_horizontal(3, names, 4))
    dealt = planner.plan(5, {1})
    assert dealt.slots == reassigned(plan.slots, {1}, [0, 2], vertical, offset=5) and dealt.problems == plan.problems
    assert planner.chooses is vertical
    others = [Problem(problem.id, "", "1") for problem in problems]
    assert Planner(planner.rules, others).plan(5) == plan  # no state but the rules' and the problems'
    for another in (planner.plan(6), Planner(replace(planner.rules, seed=1), problems).plan(5)):
        assert set(another.problems) != set(names)
    bring = [Submission(5, 1, problem.id, 0, Completion("", (), True)) for problem in problems]
    assert (planner.adopted(plan, 5, bring) == plan) is not vertical


def test_a_sender_may_choose_among_its_own_prompts_and_among_no_others():
    planner = planner_of(3, 6, 60)
    plan = planner.plan(4)
    own = [name for name in plan.problems if planner.owner(4, name) == 1]
    free = [f"p{i}" for i in range(60) if planner.owner(4, f"p{i}") == 1 and f"p{i}" not in own]
    foreign = next(f"p{i}" for i in range(60) if planner.owner(4, f"p{i}") == 2 and f"p{i}" not in plan.problems)

    def sent(name: str, sender: int = 1, round: int = 4) -> Submission:
        return Submission(round, sender, name, 0, Completion("", (), True))

    def held(*received: Submission) -> set[str]:
        return {slot.problem_id for slot in planner.adopted(plan, 4, received).slots if slot.node == 1}

    assert held() == held(sent(own[0])) == set(own) and len(own) == 2
    assert held(sent(free[0])) == {free[0], own[0]}
    assert held(sent(free[0]), sent(own[1])) == {free[0], own[1]}
    assert held(sent(foreign), sent("nowhere"), sent(free[0], round=3)) == set(own)
    greedy = held(*map(sent, free))
    assert len(greedy) == 2 and greedy == set(sorted(free)[:2])  # more than its share: the first by name
    assert planner.adopted(plan, 4, [sent(name) for name in own]) == plan
    bound = planner_of(3, 6, 60, choice="assigned")
    assert bound.adopted(bound.plan(4), 4, [sent(free[0])]) == bound.plan(4)
    heirs = planner.plan(4, {1})
    assert {slot.node for slot in heirs.slots} == {0, 2}
    assert planner.adopted(heirs, 4, [sent(free[0])]) == heirs


def test_a_sender_chooses_for_itself_and_not_for_whom_it_stands_in():
    planner = planner_of(3, 6, 60)
    plan = planner.plan(4, {1})
    mine = list(dict.fromkeys(slot.problem_id for slot in plan.slots if slot.node == 0))
    own = [name for name in mine if planner.owner(4, name) == 0]
    assert (len(mine), len(own)) == (3, 2)  # one of the absent node's
    brought = [problem.id for problem in planner.picks(4, 0, lambda problem: problem.id not in plan.problems)]
    more = brought + [f"p{i}" for i in range(60) if planner.owner(4, f"p{i}") == 0 and f"p{i}" not in brought]
    adopted = planner.adopted(plan, 4, [Submission(4, 0, name, 0, Completion("", (), True)) for name in more])
    held = list(dict.fromkeys(slot.problem_id for slot in adopted.slots if slot.node == 0))
    assert len(held) == 3 and set(held) == {*sorted(more)[:2], *(set(mine) - set(own))}


def test_a_node_plans_from_what_all_have_seen_alike():
    alike, mixed = node_of(REPLAY), replace(node_of(REPLAY), decides_alike=False)
    for node in (alike, mixed):
        node.chain.restore({"replay": {"offenses": {3: 1}, "suspended_until": {3: 9}, "suspect_until": {3: 9}}})
    assert 3 not in {slot.node for slot in alike.plan(2).slots}
    assert 3 in {slot.node for slot in mixed.plan(2).slots}  # others may have seen other things
    assert alike.plan(10) == node_of().plan(10)


def test_who_is_suspended_by_one_view_of_several_keeps_its_slots():
    """Where nodes decide apart, views differ, so that nobody acts on one; else one says what all say."""
    caught = {"offenses": {3: 1}, "suspended_until": {3: 9}, "suspect_until": {3: 9}}
    mixed = build(load_config(None, [*SMALL, REPLAY, ("swarm.separate", True)])).swarm
    mixed = replace(mixed, honest=tuple(replace(node, decides_alike=False) for node in mixed.honest))
    assert len(mixed.honest) > 1
    mixed.honest[0].chain.restore({"replay": caught})
    assert mixed.honest[0].chain.suspended(2) == {3}
    assert mixed.suspended(2) == frozenset() and 3 in {slot.node for slot in mixed.plan(2).slots}
    mixed.honest[1].chain.restore({"replay": caught})
    assert mixed.suspended(2) == frozenset()
    alike = build(load_config(None, [*SMALL, REPLAY, ("swarm.separate", True)])).swarm
    for node in alike.honest:
        node.chain.restore({"replay": caught})
    assert alike.suspended(2) == {3} and alike.plan(2) == alike.honest[-1].plan(2)
    assert 3 not in {slot.node for slot in alike.plan(2).slots}


def test_an_attacker_picks_what_it_wants_before_what_comes_first():
    planner = planner_of(3, 6, 60)
    first = [problem.id for problem in planner.picks(4, 1, lambda problem: True)]
    own = [problem.id for problem in planner.problems if planner.owner(4, problem.id) == 1]
    assert first == [name for name in planner.plan(4).problems if planner.owner(4, name) == 1]
    liked = set(own) - set(first)
    picked = [problem.id for problem in planner.picks(4, 1, lambda problem: problem.id in liked)]
    assert len(picked) == len(set(picked)) == 2 and set(picked) <= liked
    # what it brings takes the place of all that was planned for it, and of nothing that was planned for others
    sent = [Submission(4, 1, name, 0, Completion("", (), True)) for name in picked]
    adopted = planner.adopted(planner.plan(4), 4, sent)
    assert [slot.problem_id for slot in adopted.slots if slot.node == 1] == [n for n in sorted(picked) for _ in (0, 1)]
    assert [slot for slot in adopted.slots if slot.node != 1] == [s for s in planner.plan(4).slots if s.node != 1]
    assert list(adopted.problems) == list(dict.fromkeys(slot.problem_id for slot in adopted.slots))


def test_a_plan_that_cannot_be_is_one_sentence():
    with pytest.raises(ConfigError, match="the task has 3; lower"):
        planner_of(1, 4, 3)
    with pytest.raises(ConfigError, match="Node 0 picks 2 prompts a round, but its attack can use only 0"):
        planner_of(2, 4, 9).picks(1, 0, lambda problem: False)
    assert Slot(0, "p0", 1) in planner_of(1, 1, 1).plan(1).slots


@pytest.mark.parametrize(
    "change",
    [
        {"slot": True}, {"slot": 0.0}, {"slot": [0]}, {"sender": "0"}, {"round": None}, {"problem_id": ["a"]},
        {"completion": Completion(None, (), True)},  # pyright: ignore[reportArgumentType]
        {"completion": Completion(b"a", (), True)},  # pyright: ignore[reportArgumentType]
        {"completion": Completion("a", (2.0,), True)},  # pyright: ignore[reportArgumentType]
        {"completion": Completion("a", [5], True)},  # pyright: ignore[reportArgumentType]
        {"completion": Completion("a", None, True)},  # pyright: ignore[reportArgumentType]
        {"completion": Completion("a", (5,), 1)},  # pyright: ignore[reportArgumentType]
    ],
    ids=str,
)  # fmt: skip
def test_what_has_fields_of_other_types_is_put_aside_and_the_round_goes_on(change):
    node = node_of(("swarm.topology", "vertical"))
    honest = node.produce(1)
    view = node.consume(1, [replace(honest[0], **change), *honest])
    assert view.unread == {"malformed": 1} and not view.missing.keys() & set(node.nodes)


def test_copies_for_one_slot_are_read_once(monkeypatch):
    """However many a sender sends, and whether they can be read or not."""
    node = node_of()
    honest = node.produce(1)
    read: list[str] = []
    received = type(node.policy.codec).received

    def counting(self, completion):
        read.append(completion.text)
        return received(self, completion)

    monkeypatch.setattr(type(node.policy.codec), "received", counting)
    copies = [replace(honest[0], completion=Completion(f"copy {index}", (), True)) for index in range(200)]
    view = node.consume(1, [*copies, *honest])
    assert len(read) == len(honest) and view.unread == {"sent twice": 200}


@pytest.mark.parametrize("topology", ["horizontal", "vertical"])
def test_seats_are_dealt_to_whoever_sits_on_them_and_empty_ones_to_the_others(topology):
    problems = [Problem(f"p{index}", "", "1") for index in range(60)]
    planner = Planner(Rules(3, topology, 6, 4, "free", 0), problems)
    plan, vertical = planner.plan(5), topology == "vertical"
    assert replace(planner, seats=(0, 1, 2)).plan(5) == plan
    moved = replace(planner, seats=(4, 0, 9))
    names = {0: 4, 1: 0, 2: 9}
    assert moved.plan(5).slots == tuple(Slot(names[slot.node], slot.problem_id, slot.index) for slot in plan.slots)
    owners = {problem.id: planner.owner(5, problem.id) for problem in problems}
    assert all(moved.owner(5, name) == names[owner] for name, owner in owners.items() if owner is not None)
    assert moved.picks(5, 9, lambda problem: True) == planner.picks(5, 2, lambda problem: True)
    short = replace(planner, seats=(4, 0))
    assert short.plan(5).slots == reassigned(
        tuple(Slot(names[slot.node], slot.problem_id, slot.index) for slot in plan.slots), {9}, [4, 0], vertical, 5
    )
    assert {short.owner(5, problem.id) for problem in problems} == {4, 0, -3}
    assert {slot.node for slot in short.plan(5, {4}).slots} == {0}
    for seats in ((), (1, 1), (0, 1, 2, 3), (-1,)):
        with pytest.raises(ConfigError, match="cannot take 3 seats"):
            replace(planner, seats=seats)
    with pytest.raises(ConfigError, match="Node 1 has no seat"):
        moved.picks(5, 1, lambda problem: True)


def test_nobody_is_suspended_where_all_who_have_a_seat_would_be():
    node = node_of(REPLAY)
    node.chain.restore({"replay": {"offenses": {3: 1}, "suspended_until": {3: 9}, "suspect_until": {3: 9}}})
    planner = node.planner
    assert node.suspended(2) == {3}
    assert replace(node, planner=replace(planner, seats=(3,))).suspended(2) == frozenset()
    assert replace(node, planner=replace(planner, seats=(3, 0))).suspended(2) == {3}
