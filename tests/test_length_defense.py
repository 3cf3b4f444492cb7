"""Caps on tokens by hand, and advantages without length."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_defenses import Says, evidence_of
from test_swarm import make

from hailproof.defenses.base import Chain
from hailproof.defenses.length import LengthDefense
from hailproof.errors import ConfigError
from hailproof.learner.advantages import advantages, length_neutral
from hailproof.records import Completion, Prompt, Submission


class Words:
    """A policy whose tokens are words; it trusts ids of its own vocabulary, which has a thousand."""

    def received_ids(self, completion):
        ids = completion.token_ids
        return ids if ids and max(ids) < 1000 else (0,) * (len(completion.text.split()) + 1)


def screen(defense: LengthDefense, tokens: list[int], own: list[int] | None = None):
    """Verdicts on completions of so many tokens; node 0 is the receiver, node 1 sends."""
    sent = [(0, count) for count in own or []] + [(1, count) for count in tokens]
    submissions = [
        Submission(1, sender, "p", slot, Completion("a " * (count - 1), (), True))
        for slot, (sender, count) in enumerate(sent)
    ]
    prompts = [Prompt("p", "", "?")] * len(sent)
    evidence = evidence_of(prompts, submissions, Words(), own=frozenset({0}) if own is not None else frozenset())
    return defense.screen(evidence)[len(own or []) :]


def test_a_fixed_cap_by_hand():
    verdicts = screen(LengthDefense(cap=10), [9, 10, 11])
    assert [verdict.decision for verdict in verdicts] == ["accept", "accept", "reject"]
    assert [verdict.score for verdict in verdicts] == [-1, 0, 1]
    assert verdicts[-1].reason == "11 tokens, over the cap of 10.0"
    assert not LengthDefense(cap=10).uses_own and LengthDefense(quantile=0.9).uses_own


def test_the_ids_that_would_be_trained_on_are_counted():
    """Sound ids count, however odd; a claim that is not sound does not."""
    odd, absurd = (7,) * 30, (10**9,) * 30
    for ids, decision in ((odd, "reject"), (absurd, "accept"), ((), "accept")):
        submission = Submission(1, 1, "p", 0, Completion("two words", ids, True))
        (verdict,) = LengthDefense(cap=10).screen(evidence_of([Prompt("p", "", "?")], [submission], Words()))
        assert verdict.decision == decision


def test_a_cap_from_own_completions_by_hand():
    defense = LengthDefense(quantile=0.5, slack=1.5, calibration=5, growth=0.1, window=2)
    assert [verdict.decision for verdict in screen(defense, [99], own=[10, 20])] == ["abstain"]
    # own counts 10 20 20 30 40: median 20, times 1.5
    assert [verdict.score for verdict in screen(defense, [30, 31], own=[20, 30, 40])] == [0, 1]
    # the first round leaves the window: 20 30 40 100 100 100 has median 70, but the cap rises by a tenth only
    assert screen(defense, [34], own=[100, 100, 100])[0].score == pytest.approx(1)
    assert screen(defense, [34], own=[1, 1, 1, 1, 1, 1, 1])[0].score == pytest.approx(4)  # and falls as slowly


def test_the_smaller_of_two_caps_counts():
    defense = LengthDefense(cap=12, quantile=1.0, slack=1.0, calibration=1, growth=1.0)
    assert screen(defense, [13], own=[10])[0].score == 3
    assert screen(defense, [13], own=[20])[0].score == 1


@given(st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=5), min_size=1, max_size=12), st.floats(0, 0.2))
def test_the_cap_cannot_be_walked_faster_than_growth(rounds, growth):
    defense = LengthDefense(quantile=0.9, slack=1.3, calibration=1, growth=growth)
    caps = [1 - score for own in rounds for score in [screen(defense, [1], own=own)[0].score] if score is not None]
    assert len(caps) == len(rounds)
    for number, cap in enumerate(caps):
        assert caps[0] / (1 + growth) ** number * (1 - 1e-9) <= cap <= caps[0] * (1 + growth) ** number * (1 + 1e-9)


def test_own_completions_are_shown_to_who_uses_them_and_judged_by_nobody():
    users, others = Says("users", {"a", "c"}), Says("others", {"b"})
    users.uses_own = True
    submissions = [Submission(1, sender, "p", sender, Completion(text, (), True)) for sender, text in enumerate("abcd")]
    evidence = evidence_of([Prompt("p", "", "?")] * 4, submissions, None, own=frozenset({0, 1}))
    verdicts = Chain([others, users]).screen(evidence)
    assert others.shown == [["c", "d"]] and users.shown == [["a", "b", "c", "d"]]
    assert [len(spoken) for spoken in verdicts] == [0, 0, 2, 2]
    assert verdicts[2][-1].decision == "reject" and verdicts[3][-1].decision == "accept"


def test_a_restored_defense_goes_on_alike():
    options: dict[str, Any] = {"quantile": 0.8, "calibration": 4, "window": 3}
    first, second = LengthDefense(**options), LengthDefense(**options)
    rounds = [[10, 12, 14], [9, 30, 15], [20, 21], [40, 41, 42]]
    for own in rounds[:2]:
        screen(first, [], own=own)
    second.restore(json.loads(json.dumps(first.state())))
    for own in rounds[2:]:
        assert screen(first, [15, 50], own=own) == screen(second, [15, 50], own=own)


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"cap": 0},
        {"quantile": 0.0},
        {"quantile": 1.5},
        {"cap": 5, "slack": 0.0},
        {"cap": 5, "growth": -0.1},
        {"cap": 5, "window": 0},
        {"cap": 5, "calibration": 0},
        {"cap": 5, "admission": "forgive"},
    ],
)
def test_bad_options_are_one_sentence(option):
    with pytest.raises(ConfigError, match=r"^[A-Z].*\.$"):
        LengthDefense(**option)


def test_swarms_play_with_a_fixed_cap_and_with_one_from_own_completions():
    attack = (("attack.name", "length"), ("attack.options.samples", 4))
    experiment = make(*attack, ("defense", [{"name": "length", "options": {"cap": 30}}]), ("swarm.prompts", 8))
    assert len(experiment.swarm.honest) == 1
    for round in (1, 2):
        (view,) = experiment.swarm.play(round).views
        for member in (member for group in view.groups for member in group.completions if member.verdicts):
            assert member.admitted == (len(member.submission.completion.token_ids) <= 30)
    by_own = {"name": "length", "options": {"quantile": 0.5, "slack": 1.0, "calibration": 1}}
    experiment = make(*attack, ("defense", [by_own, {"name": "logit"}]), ("swarm.prompts", 8))
    assert len(experiment.swarm.honest) == 3  # they decide differently and part
    decided = []
    for round in (1, 2):
        for view in experiment.swarm.play(round).views:
            members = [member for group in view.groups for member in group.completions]
            own_ones = [member for member in members if member.submission.sender == view.node]
            assert all(not member.verdicts and member.admitted for member in own_ones)
            decided += [v.decision for member in members for v in member.verdicts if v.defense == "length"]
    assert set(decided) >= {"accept", "reject"}


def test_length_neutral_advantages_by_hand():
    # lengths 1 2 3 6 have mean 3 and offsets -2 -1 0 3, sum of squares 14; slope (-2 + 1 + 0 + 3 * 1) / 14 = 1 / 7
    assert length_neutral([1, -1, -1, 1], [1, 2, 3, 6]) == pytest.approx([9 / 7, -6 / 7, -1, 4 / 7])
    # the other way round the slope is negative: rambling that does badly may be pushed down
    assert length_neutral([-1, 1, 1, -1], [1, 2, 3, 6]) == [-1, 1, 1, -1]
    assert length_neutral([0.5, -0.5], [7, 7]) == [0.5, -0.5]
    assert length_neutral([], []) == [] and length_neutral([0.0], [5]) == [0.0]


groups = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 300)), min_size=2, max_size=16)


@given(groups)
def test_no_push_toward_longer_answers_remains(group):
    rewards, lengths = zip(*group, strict=True)
    (plain,) = advantages([rewards])
    neutral = length_neutral(plain, lengths)
    mean = math.fsum(lengths) / len(lengths)
    assert math.fsum(neutral) == pytest.approx(0, abs=1e-9)
    push = math.fsum(a * (length - mean) for a, length in zip(neutral, lengths, strict=True))
    before = math.fsum(a * (length - mean) for a, length in zip(plain, lengths, strict=True))
    assert push == pytest.approx(min(0.0, before), abs=1e-6)
    assert math.fsum(a * a for a in neutral) <= math.fsum(a * a for a in plain) * (1 + 1e-9)


def test_half_decoys_and_half_one_long_answer_teach_nothing():
    """The DoS attack in a vertical swarm; so does any group in which right and wrong go with length exactly."""
    (plain,) = advantages([[1.0] * 6 + [0.0] * 6])
    assert length_neutral(plain, [120] * 6 + [6] * 6) == [0.0] * 12


def test_what_remains_of_a_mixed_group():
    """A horizontal group: of three long poisoned answers hardly anything, of right answers of honest length most."""
    rewards = [1.0] * 3 + [1.0] * 4 + [0.0] * 5
    lengths = [90] * 3 + [38, 40, 42, 44] + [36, 38, 40, 42, 44]
    (plain,) = advantages([rewards])
    neutral = length_neutral(plain, lengths)
    assert max(map(abs, neutral[:3])) < 0.05 * plain[0]
    assert min(neutral[3:7]) > 0.8 * plain[0] and max(neutral[7:]) < 0


def test_decoys_of_equal_length_get_round_it():
    """The limit of the idea: where nothing in the group is short, the long answer is learned whole."""
    (plain,) = advantages([[1.0] * 6 + [0.0] * 6])
    assert length_neutral(plain, [120] * 12) == plain
