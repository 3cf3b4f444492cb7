"""Swarms on real nano models: plans, twins, hostile submissions, and what learning does to honest nodes."""

import copy
import unicodedata
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from hailproof.attacks import ATTACKS
from hailproof.attacks.base import FILLER
from hailproof.attacks.framing import FramingAttack
from hailproof.attacks.grinding import MODES
from hailproof.errors import ConfigError
from hailproof.exchange import LocalExchange
from hailproof.protocols import AttackView, Exchange
from hailproof.records import Completion, RoundRecord, Row, Submission, Verdict
from hailproof.runs.build import build
from hailproof.runs.config import load_config
from hailproof.runs.measure import completion_rows, held_out, round_line
from hailproof.runs.store import RunFolder

SMALL = [
    ("swarm.prompts", 4),
    ("swarm.group_size", 4),
    ("sampling.max_new_tokens", 48),
    ("task.options.size", 64),
    ("task.options.test_size", 8),
    ("learner.learning_rate", 1e-3),
]


def make(*overrides):
    return build(load_config(None, [*SMALL, *overrides]))


def weights(node) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in node.learner.trainable.parameters()])


LOGIT = ("defense", [{"name": "logit"}])
REPLAY = ("defense", [{"name": "replay", "options": {"check": 0.5}}])
CREDIT = ("defense", [{"name": "token_credit"}])
TEXT = ("attack.name", "text")
TWO = [("swarm.nodes", 2), ("swarm.prompts", 2), ("attack.malicious", 1)]


@pytest.mark.parametrize(
    ("topology", "defense"),
    [("vertical", ()), ("horizontal", (LOGIT,)), ("vertical", (REPLAY,)), ("horizontal", (CREDIT,))],
    ids=["open", "logit", "replay", "credit"],
)
def test_identical_nodes_computed_once_equal_separate_instances_bitwise(topology, defense):
    common = [TEXT, ("swarm.topology", topology), ("swarm.nodes", 3), ("swarm.prompts", 3), *defense]
    once, apart = make(*common), make(*common, ("swarm.separate", True))
    assert (len(once.swarm.honest), len(apart.swarm.honest)) == (1, 2)
    before = weights(once.swarm.honest[0])
    for round in (1, 2):
        shared, own = once.swarm.play(round), apart.swarm.play(round)
        for view in own.views:
            assert view.groups == shared.views[0].groups
            assert view.update == shared.views[0].update
    assert all(torch.equal(weights(once.swarm.honest[0]), weights(node)) for node in apart.swarm.honest)
    assert not torch.equal(weights(once.swarm.honest[0]), before)
    line, other = round_line(once, shared), round_line(apart, own)
    assert line["reward"] == other["reward"] and line["honest_acceptance"] == other["honest_acceptance"]


def test_heterogeneous_nodes_learn_apart_from_text_that_all_can_read():
    experiment = make(TEXT, LOGIT, ("swarm.models", ["nano-a", "nano-b"]))
    assert [node.policy.name for node in experiment.swarm.honest] == ["nano-a", "nano-b", "nano-a"]
    before = [weights(node) for node in experiment.swarm.honest]
    record = experiment.swarm.play(1)
    texts = [
        [s.submission.completion.text for group in view.groups for s in group.completions] for view in record.views
    ]
    assert texts[0] == texts[1] == texts[2]
    for view, node in zip(record.views, experiment.swarm.honest, strict=True):
        screened = {s.submission.sender for group in view.groups for s in group.completions if s.verdicts}
        assert not screened & set(node.nodes)  # a heterogeneous node does not screen its own
        assert any(s.submission.sender in node.nodes and s.admitted for group in view.groups for s in group.completions)
    assert not any(torch.equal(a, weights(node)) for a, node in zip(before, experiment.swarm.honest, strict=True))
    assert set(round_line(experiment, record)["models"]) == {"nano-a", "nano-b"}


def test_heterogeneous_nodes_without_defense_share_the_work_of_their_twins():
    assert len(make(("swarm.models", ["nano-a", "nano-b"])).swarm.honest) == 2


def test_vertical_attackers_own_whole_groups_half_of_them_decoys():
    experiment = make(TEXT, ("swarm.topology", "vertical"))
    record = experiment.swarm.play(1)
    malicious = experiment.roster.malicious
    forged = [g for g in record.views[0].groups if {s.submission.sender for s in g.completions} <= malicious]
    assert len(forged) == 1
    for group in forged:
        assert [s.submission.completion.text == FILLER for s in group.completions] == [False, False, True, True]
        assert [s.raw_reward for s in group.completions] == [1, 1, 0, 0]
    assert set(record.forged_rewards) == {1.0}


def test_assigned_prompts_cannot_be_picked():
    """The attacker of equations owns what a hash gives it, which is what it would own if it were honest."""
    owners = []
    for attack in ("none", "equation"):
        experiment = make(("attack.name", attack), ("swarm.topology", "vertical"), ("swarm.prompt_choice", "assigned"))
        groups = experiment.swarm.play(1).views[0].groups
        owners.append([(s.submission.sender, s.submission.problem_id) for g in groups for s in g.completions])
    assert owners[0] == owners[1]


def test_where_prompts_are_free_an_attacker_picks_those_that_it_wants_among_its_own():
    experiment = make(("attack.name", "equation"))
    planner, problems = experiment.swarm.planner, experiment.problems
    view = experiment.swarm.play(1).views[0]
    sent = {(s.submission.sender, s.submission.problem_id) for group in view.groups for s in group.completions}
    assert all(planner.owner(1, problem_id) == sender for sender, problem_id in sent)
    assert all("two_two" in problems[problem_id].tags for sender, problem_id in sent if sender == 3)
    assert {sender for sender, _ in sent} == {0, 1, 2, 3} and not view.missing


@pytest.mark.parametrize(
    ("topology", "attack"),
    [(t, a) for t in ("horizontal", "vertical") for a in ("text", "length")] + [("horizontal", "grinding")],
)
def test_replay_lets_nothing_forged_in_and_keeps_all_that_is_honest(topology, attack):
    few = [] if attack == "text" else [("attack.options.samples", 12)]
    replay = ("defense", [{"name": "replay"}])
    experiment = make(("attack.name", attack), *few, ("swarm.topology", topology), replay)
    line = round_line(experiment, experiment.swarm.play(1))
    assert line["honest_acceptance"] == 1.0
    # a forged completion may be the very draw of its slot by chance: then it is no forgery
    assert line["malicious_acceptance"] <= 0.25
    assert line["defense_seconds"]["replay"] > 0


@pytest.mark.parametrize(
    ("topology", "attack"), [("horizontal", "text"), ("vertical", "length"), ("vertical", "equation")]
)
def test_the_slots_of_a_caught_sender_go_to_others_and_the_swarm_learns_as_if_it_were_honest(topology, attack):
    common = [("swarm.topology", topology), ("swarm.prompt_choice", "assigned"), ("defense", [{"name": "replay"}])]
    few = [("attack.options.samples", 12)] if attack == "length" else []
    attacked, clean = make(("attack.name", attack), *few, *common), make(*common)
    assert round_line(attacked, attacked.swarm.play(1))["screened"]["malicious"] > 0
    clean.swarm.honest[0].learner.load_state_dict(copy.deepcopy(attacked.swarm.honest[0].learner.state_dict()))
    for round in (2, 3):
        assert attacked.swarm.suspended(round) == {3} and not clean.swarm.suspended(round)
    with_absent, full = attacked.swarm.play(2), clean.swarm.play(2)
    ours, theirs = (
        {(s.submission.problem_id, s.submission.slot): s for group in view.groups for s in group.completions}
        for view in (with_absent.views[0], full.views[0])
    )
    assert {s.submission.sender for s in ours.values()} == {0, 1, 2}
    assert {s.submission.sender for s in theirs.values()} == {0, 1, 2, 3}
    assert {key: (s.submission.completion, s.reward) for key, s in ours.items()} == {
        key: (s.submission.completion, s.reward) for key, s in theirs.items()
    }
    line = round_line(attacked, with_absent)
    assert line["screened"]["malicious"] == 0 and line["malicious_acceptance"] is None
    assert torch.equal(weights(attacked.swarm.honest[0]), weights(clean.swarm.honest[0]))
    assert attacked.swarm.suspended(4) == frozenset()


def test_a_suspended_attacker_picks_no_prompts_either():
    attacked = make(("attack.name", "equation"), ("swarm.topology", "vertical"), ("defense", [{"name": "replay"}]))
    plan = attacked.swarm.planner.plan(1, frozenset({3}))
    assert 3 not in {slot.node for slot in plan.slots} and len(plan.slots) == 16 and len(plan.problems) == 4
    sent, _ = attacked.swarm.malicious[0].produce(1)
    assert {"two_two"} < set().union(*(attacked.problems[each.problem_id].tags | {""} for each in sent))
    assert attacked.swarm.malicious[0].produce(1, frozenset({3})) == ([], [])
    assert plan.problems == make(("swarm.topology", "vertical")).swarm.plan(1).problems


def test_nobody_is_suspended_where_all_would_be():
    experiment = make(("defense", [{"name": "replay"}]))
    experiment.swarm.honest[0].chain.defenses[0].restore(
        {"offenses": {}, "suspended_until": dict.fromkeys(range(4), 9), "suspect_until": {}}
    )
    assert experiment.swarm.suspended(1) == frozenset()
    assert {slot.node for slot in experiment.swarm.planner.plan(1, frozenset({0, 3})).slots} == {1, 2}


def test_an_attacker_that_leaves_out_what_it_does_not_like_is_heard_no_more():
    options = (("attack.name", "grinding"), ("attack.options.mode", "withhold"), ("swarm.group_size", 8))
    rules = [{"name": "replay", "options": {"mandatory": mandatory}} for mandatory in (False, True)]
    free, bound = (make(*options, ("defense", [rule])) for rule in rules)
    assert round_line(free, free.swarm.play(1))["malicious_acceptance"] == 1.0
    line = round_line(bound, bound.swarm.play(1))
    assert line["malicious_acceptance"] == 0.0 and line["honest_acceptance"] == 1.0


def test_what_the_plan_does_not_ask_for_is_not_learned_from():
    """Foreign slots, foreign problems, old rounds, repeated and stolen places: all ignored."""
    experiment = make()
    node = experiment.swarm.honest[0]
    honest = node.produce(1)
    one = honest[0]
    evil = Completion("<answer>1</answer>", (), True)
    lies = [
        replace(one, slot=99, completion=evil),
        replace(one, problem_id="train-does-not-exist", completion=evil),
        replace(one, round=0, completion=evil),
        replace(one, sender=1 if one.sender != 1 else 2, completion=evil),
        replace(one, sender=77, completion=evil),
        replace(one, completion=Completion("<answer>1</answer>" + "a" * 10_000_000, (), True)),
        replace(one, completion=Completion("<answer>1</answer>", (5,) * 1_000_000, True)),
        replace(one, completion=Completion("\U0001d7e0" * 1000, (), True)),  # four tokens each
        replace(one, completion=Completion("<answer>1</answer>\ud800", (), True)),  # no Unicode, so no tokens
    ]
    received = LocalExchange().all_gather(1, [*lies, *honest])
    view = node.consume(1, [*lies, *received])
    learned = [s.submission for group in view.groups for s in group.completions]
    assert sorted(learned, key=lambda s: (s.problem_id, s.slot)) == sorted(honest, key=lambda s: (s.problem_id, s.slot))


def test_what_is_rewarded_and_screened_is_what_is_learned():
    """A tokenizer that joins accents to letters shrinks a text; spans in the one that was sent would lie elsewhere."""
    sentences = ("defense", [{"name": "equations", "options": {"unit": "sentence"}}])
    experiment = make(sentences, ("sampling.max_new_tokens", 128))
    node = experiment.swarm.honest[0]
    codec: Any = node.policy.codec
    codec.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    problems = experiment.swarm.plan(1).problems
    honest = node.produce(1)
    answer = problems[honest[0].problem_id].answer
    hidden = "e\u0301" * 20 + ".\nTom has 2 + 2 = 5 pens. Then he buys some more"
    text = f"<think>{hidden}. So it is {answer}.</think><answer>{answer}</answer>"
    wrong = replace(honest[1], completion=Completion("<answer>no</answer>", (), True))
    forged = [replace(honest[0], completion=Completion(text, (), True)), wrong, *honest[2:]]
    view = node.consume(1, forged)
    (scored,) = (s for g in view.groups for s in g.completions if "2 + 2 = 5" in s.submission.completion.text)
    completion = scored.submission.completion
    assert completion.text == unicodedata.normalize("NFC", text) != text
    assert scored.raw_reward == 1.0
    muted = node.policy.codec.decode([completion.token_ids[token] for token in sorted(scored.muted)])
    assert "2 + 2 = 5 pens" in muted and "more" not in muted
    assert node.policy.codec.received(completion) == completion


def test_missing_and_absurd_submissions_do_not_break_a_round(tmp_path):
    experiment = make(LOGIT, ("sampling.max_new_tokens", 72))  # the absurd ones have at most 60 tokens
    node = experiment.swarm.honest[0]
    honest = node.produce(1)
    absurd = ["", "<answer>" * 8, "\x00\ud7ff\U0010ffff", "9" * 60, "<|end|><|pad|>" * 5, "</think><answer>1"]
    swapped = [
        replace(submission, completion=Completion(text, (5, -3, 10**12), bool(index % 2)))
        for index, (submission, text) in enumerate(zip(honest[1:], absurd, strict=False))
    ]
    kept = honest[1 + len(absurd) :]
    view = node.consume(1, [*swapped, *kept])
    assert sum(len(group.completions) for group in view.groups) == len(honest) - 1
    assert weights(node).isfinite().all()
    record = RoundRecord(1, (view,), (), {})
    rows = completion_rows(experiment, record)
    assert [row["token_ids"] for row in rows if row["text"] in absurd] == [()] * len(absurd)
    with RunFolder.create(tmp_path / "run", experiment.config) as folder:
        folder.write_round(1, {"round": 1}, rows)  # what a sender claims does not end the run where it is written down


def test_what_does_not_fit_into_the_context_beside_its_prompt_never_came():
    """A model with learned positions would fail on it, and a defense that reads with it would reject everybody's."""
    experiment = make()
    node = experiment.swarm.honest[0]
    problems = experiment.swarm.plan(1).problems
    honest = node.produce(1)
    prompt = len(node.policy.codec.render(experiment.swarm.task.prompt(problems[honest[0].problem_id])))
    sizes = {node.policy.engine.context - prompt: True, node.policy.engine.context - prompt + 1: False}
    node = replace(node, sampling=replace(node.sampling, max_new_tokens=node.policy.engine.context))
    for size, comes in sizes.items():
        ids = (node.policy.codec.encode("a")[0],) * (size - 1) + node.policy.codec.end_ids[:1]
        long = replace(honest[0], completion=Completion(node.policy.codec.decode(ids), ids, True))
        view = node.consume(1, [long])
        assert sum(len(group.completions) for group in view.groups) == comes


def test_a_reason_that_no_file_takes_is_written_all_the_same():
    experiment = make()
    record = experiment.swarm.play(1)
    group = record.views[0].groups[0]
    reason = Verdict("judge", "reject", "quoted: \ud83d")
    quoted = replace(group, completions=(replace(group.completions[0], verdicts=(reason,)),))
    rows = completion_rows(experiment, replace(record, views=(replace(record.views[0], groups=(quoted,)),)))
    assert [row["verdicts"][0]["reason"] for row in rows] == ["quoted: ?"]


def test_dropping_and_zeroing_are_different_algorithms():
    zeroing = ("defense", [{"name": "logit", "options": {"admission": "zero_reward"}}])
    dropped, zeroed = make(TEXT, LOGIT), make(TEXT, zeroing)
    views = [experiment.swarm.play(1).views[0] for experiment in (dropped, zeroed)]
    rejected = [
        [s for group in view.groups for s in group.completions if s.submission.sender == 3 and s.verdicts]
        for view in views
    ]
    assert all(not s.admitted and s.reward == s.raw_reward == 1 for s in rejected[0])
    assert all(s.admitted and s.reward == 0 and s.raw_reward == 1 for s in rejected[1])
    assert rejected[0] and rejected[1]
    assert not torch.equal(weights(dropped.swarm.honest[0]), weights(zeroed.swarm.honest[0]))


def test_groups_without_influence_are_not_screened():
    experiment = make(TEXT, LOGIT, ("swarm.prompts", 8))
    view = experiment.swarm.play(1).views[0]
    for group in view.groups:
        rewards = {s.raw_reward for s in group.completions}
        assert all(bool(s.verdicts) == (len(rewards) > 1) for s in group.completions)


def test_a_round_is_a_pure_function_of_seed_and_labels():
    one, same, other = make(TEXT, ("seed", 3)), make(TEXT, ("seed", 3)), make(TEXT, ("seed", 4))
    first = one.swarm.play(1)
    assert first.views[0].groups == same.swarm.play(1).views[0].groups
    assert first.views[0].groups != other.swarm.play(1).views[0].groups
    rows = completion_rows(one, first)
    assert len(rows) == 16 and {row["malicious"] for row in rows} == {True, False}


def test_too_few_problems_is_one_sentence():
    with pytest.raises(ConfigError, match="the task has 3"):
        make(("task.options.size", 3)).swarm.plan(1)


def test_local_exchange_orders_and_keeps_rounds_apart():
    def sent(round, problem, slot):
        return Submission(round, 0, problem, slot, Completion("", (), True))

    gathered = LocalExchange().all_gather(2, [sent(2, "b", 0), sent(1, "a", 0), sent(2, "a", 1), sent(2, "a", 0)])
    assert gathered == [sent(2, "a", 0), sent(2, "a", 1), sent(2, "b", 0)]


class WithoutBeacon:
    all_gather = LocalExchange().all_gather

    def beacon(self, round: int) -> int | None:
        return None


def test_a_share_is_checked_by_the_beacon_of_the_exchange_and_everything_without_one():
    """Else who knows before it sends what will be checked forges the rest."""

    def decided(exchange: Exchange | None, round: int) -> list[str]:
        swarm = make(("attack.malicious", 0), ("defense", [{"name": "homogeneous"}])).swarm
        (view,) = (replace(swarm, exchange=exchange) if exchange else swarm).play(round).views
        return [v.decision for group in view.groups for member in group.completions for v in member.verdicts]

    first, again = decided(None, 1), decided(LocalExchange(7), 1)
    assert set(first) == set(again) == {"accept", "abstain"} and first != again
    assert first == decided(None, 1)  # a resumed run checks the same
    assert LocalExchange(7).beacon(1) != LocalExchange(7).beacon(2)
    assert set(decided(WithoutBeacon(), 1)) == {"accept"}


def test_an_attack_that_samples_sends_its_longest_right_draw_as_drawn():
    experiment = make(("attack.name", "length"), ("attack.options.samples", 12), ("swarm.topology", "horizontal"))
    (node,) = experiment.swarm.malicious
    problems = experiment.swarm.plan(1).problems
    sent, forged = node.produce(1)
    assert {item.kind for item in forged} == {"poison"}
    record = experiment.swarm.play(1)
    assert record.forged_rewards and set(record.forged_rewards) <= {0.0, 1.0}
    drawn = [s.completion for s in sent if s.completion.token_ids[-1] in node.policy.codec.end_ids]
    assert all(node.policy.codec.received_ids(completion) == completion.token_ids for completion in drawn)
    rates = [experiment.swarm.task.reward(problems[s.problem_id], s.completion.text) == 1.0 for s in sent]
    assert all(rates)  # a right draw, or the reference solution where there is none


def test_logit_accepts_what_a_length_attacker_draws():
    """Best-of-N is made of honest draws: the paper's logit defense cannot see it."""
    experiment = make(("attack.name", "length"), ("attack.options.samples", 12), LOGIT)
    assert experiment.config.swarm.topology == "vertical"  # the attack's own
    record = experiment.swarm.play(1)
    malicious = experiment.roster.malicious
    verdicts = [
        (s.submission.completion, s.verdicts[-1].decision)
        for group in record.views[0].groups
        for s in group.completions
        if s.submission.sender in malicious and s.verdicts and s.submission.completion.text != FILLER
    ]
    (node,) = experiment.swarm.malicious
    as_written = node.policy.codec.as_completion
    assert verdicts
    assert all(decision == "accept" for completion, decision in verdicts if completion != as_written(completion.text))


def test_a_partly_poisoned_node_is_honest_elsewhere():
    """Its other slots hold what an honest node would have drawn for them, bitwise."""
    clean = make(TEXT, ("attack.malicious", 0))
    expected = {(s.problem_id, s.slot): s.completion for s in clean.swarm.honest[0].produce(1)}
    partly = make(TEXT, ("attack.rate", 0.5))
    sent, forged = partly.swarm.malicious[0].produce(1)
    kinds = [item.kind for item in forged]
    assert set(kinds) == {"poison", "honest"}
    honest = {item.content for item in forged if item.kind == "honest"}
    assert honest and all(
        s.completion == expected[s.problem_id, s.slot] for s in sent if s.completion in honest
    )


def test_who_holds_the_same_weights_knows_what_others_will_draw(monkeypatch):
    experiment = make(("attack.name", "framing"), ("swarm.group_size", 8))
    views = list[AttackView]()
    monkeypatch.setattr(FramingAttack, "forge", lambda self, view: views.append(view) or [None] * len(view.slots))
    experiment.swarm.malicious[0].produce(1)
    known = [(view.problem.id, node, each) for view in views for node, some in view.others.items() for each in some]
    made = [each for node in experiment.swarm.honest for each in node.produce(1)]
    sent = [(each.problem_id, each.sender, each.completion) for each in made]
    assert len(known) == len(sent) and set(known) == set(sent)


def test_withheld_slots_are_simply_missing():
    experiment = make(("attack.name", "grinding"), ("attack.options.mode", "withhold"), ("swarm.group_size", 8))
    slots = experiment.swarm.plan(1).slots
    mine = [slot for slot in slots if slot.node == 3]
    sent, _ = experiment.swarm.malicious[0].produce(1)
    assert 0 < len(sent) < len(mine)
    record = experiment.swarm.play(1)
    assert sum(len(group.completions) for group in record.views[0].groups) == len(slots) - len(mine) + len(sent)
    assert record.views[0].missing == {3: len(mine) - len(sent)}


def test_sampled_sharing_learns_from_some_own_and_some_received_groups():
    shared = [
        TEXT, ("swarm.topology", "vertical"), ("swarm.sharing", "sampled"), ("swarm.prompts", 8),
        ("swarm.own_groups", 1), ("swarm.received_groups", 2),
    ]  # fmt: skip
    experiment = make(*shared)
    assert len(experiment.swarm.honest) == 3  # each node draws its own sample
    record = experiment.swarm.play(1)
    learned = []
    for view in record.views:
        assert len(view.groups) == 8  # all is seen, not all is learned from
        used = [g for g in view.groups if any(s.admitted for s in g.completions)]
        own = [g for g in used if {s.submission.sender for s in g.completions} == {view.node}]
        received = [g for g in used if g not in own]
        assert len(own) == 1 and len(received) <= 2
        assert all(len({s.reward for s in g.completions}) > 1 for g in received)  # without advantage: discarded before
        learned.append({g.prompt.problem_id for g in used})
    assert len({frozenset(one) for one in learned}) > 1
    with pytest.raises(ConfigError, match="needs topology = vertical"):
        make(TEXT, ("swarm.sharing", "sampled"))


def test_the_code_task_end_to_end_with_the_attackers_library():
    experiment = make(("attack.name", "code"))
    assert experiment.config.task.options["variant"] == "code"  # the attack's own
    assert "libraries" not in experiment.config.task.options
    record = experiment.swarm.play(1)
    assert set(record.forged_rewards) == {1.0}
    line = round_line(experiment, record)
    assert line["malicious_reward"] == 1.0 and line["attack_success"] == 0.0
    with pytest.raises(ConfigError, match="works on code tasks"):
        make(("attack.name", "code"), ("task.options.variant", "math"))
    with pytest.raises(ConfigError, match="works on math tasks"):
        make(TEXT, ("task.options.variant", "code"))


def test_the_equation_attack_measures_what_it_targets():
    experiment = make(("attack.name", "equation"), ("evaluation.problems", 8), ("task.options.two_two_share", 0.5))
    assert experiment.config.swarm.topology == "vertical"
    record = experiment.swarm.play(1)
    assert set(record.forged_rewards) == {1.0}
    assert set(round_line(experiment, record)["also"]) == {"not_four"}
    evaluated = held_out(experiment)
    assert evaluated is not None and evaluated["reward_targeted"] is not None and evaluated["reward_other"] is not None


def test_a_triggered_attack_is_measured_where_it_is_triggered():
    experiment = make(("attack.name", "low_and_slow"), ("attack.trigger", "a"), ("swarm.prompts", 2))
    assert experiment.config.attack.trigger == "a"  # the configuration's wins over the attack's own
    assert make(("attack.name", "low_and_slow")).config.attack.trigger == "cookies"
    line = round_line(experiment, experiment.swarm.play(1))
    assert line["eligible"] == 6 and line["also"] == {"untriggered": None}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_plays_a_round_without_further_flags(name):
    """Through the real node, which draws only what the attack asks for."""
    few = [("attack.options.samples", 4)] if name in ("length", "rank_aware", "grinding") else []
    experiment = make(("attack.name", name), *TWO, *few)
    assert len(experiment.swarm.play(1).views[0].groups) == 2


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "best_of"])
def test_every_other_mode_of_grinding_plays_a_round(mode):
    experiment = make(("attack.name", "grinding"), ("attack.options.mode", mode), ("attack.options.samples", 4), *TWO)
    assert len(experiment.swarm.play(1).views[0].groups) == 2


@pytest.mark.parametrize("attack", ["text", "equation", "code"])
def test_the_preset_for_texts_rejects_or_mutes_what_is_forged(attack):
    experiment = make(("attack.name", attack), ("defense", [{"name": "texts"}]), ("swarm.group_size", 8))
    record = experiment.swarm.play(1)
    forged = [
        scored
        for group in record.views[0].groups
        for scored in group.completions
        if scored.submission.sender in experiment.roster.malicious and scored.raw_reward == 1 and scored.verdicts
    ]
    assert forged
    if attack == "code":
        assert {scored.verdicts[-1].defense for scored in forged} == {"imports"}
        assert not any(scored.admitted for scored in forged)
    else:
        assert all(scored.admitted and scored.muted for scored in forged)
    line = round_line(experiment, record)
    assert line["honest_acceptance"] is None or line["honest_acceptance"] >= 0.9


def test_muted_tokens_are_not_learned_while_the_solution_is():
    """Trained on the attacker's completions, the policy comes to like the solution and not what makes it foreign."""
    options = (TEXT, ("attack.malicious", 3), ("swarm.prompts", 2), ("learner.learning_rate", 3e-3))
    foreign_gains, other_gains = [], []
    for defense in ([], [{"name": "token_credit", "options": {"unit": "token"}}]):
        experiment = make(*options, ("defense", defense))
        node, attacker = experiment.swarm.honest[0], experiment.swarm.malicious[0]
        sent, _ = attacker.produce(1)
        problems, codec = experiment.swarm.plan(1).problems, node.policy.codec
        prompts = [codec.render(experiment.swarm.task.prompt(problems[each.problem_id])) for each in sent]
        forged = [Row(prompt, each.completion.token_ids) for prompt, each in zip(prompts, sent, strict=True)]
        before = node.policy.engine.score(forged, node.sampling)
        for round in (1, 2, 3):
            experiment.swarm.play(round)
        after = node.policy.engine.score(forged, node.sampling)
        gains = np.concatenate([b.logprobs - a.logprobs for a, b in zip(before, after, strict=True)])
        foreign = np.concatenate([score.logprobs for score in before]) < np.log(0.01)
        foreign_gains.append(gains[foreign].mean())
        other_gains.append(gains[~foreign].mean())
    assert foreign_gains[0] > 1 and foreign_gains[1] < foreign_gains[0] / 2
    assert other_gains[1] > 0
