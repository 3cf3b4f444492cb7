"""Caps on tokens by hand, and advantages without length."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from test_defenses import Says, evidence_of
from test_swarm import make

from hailproof.defenses.chain import Chain
from hailproof.defenses.length import LengthDefense
from hailproof.errors import ConfigError
from hailproof.learner.advantages import advantages
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.records import Completion, Prompt, Submission


class Words:
    """A policy whose tokens are words; it trusts ids of its own vocabulary, which has a thousand."""

    def __init__(self):
        self.codec = self

    def render(self, prompt):
        return (0,)

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
    assert "own" not in LengthDefense(cap=10).needs and "own" in LengthDefense(quantile=0.9).needs


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
    users.needs = frozenset({"own"})
    submissions = [Submission(1, sender, "p", sender, Completion(text, (), True)) for sender, text in enumerate("abcd")]
    evidence = evidence_of([Prompt("p", "", "?")] * 4, submissions, None, own=frozenset({0, 1}))
    verdicts = Chain([others, users]).screen(evidence).verdicts
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
    common = [
        ("attack.name", "length"), ("attack.options.samples", 4), ("swarm.nodes", 3), ("swarm.prompts", 6),
        ("sampling.max_new_tokens", 48),
    ]  # fmt: skip
    experiment = make(*common, ("defense", [{"name": "length", "options": {"cap": 30}}]))
    assert len(experiment.swarm.honest) == 1
    for round in (1, 2):
        (view,) = experiment.swarm.play(round).views
        for member in (member for group in view.groups for member in group.completions if member.verdicts):
            assert member.admitted == (len(member.submission.completion.token_ids) <= 30)
    by_own = {"name": "length", "options": {"quantile": 0.5, "slack": 1.0, "calibration": 1}}
    experiment = make(*common, ("defense", [by_own, {"name": "logit"}]))
    assert len(experiment.swarm.honest) == 2  # they decide differently and part
    decided = []
    for round in (1, 2):
        for view in experiment.swarm.play(round).views:
            members = [member for group in view.groups for member in group.completions]
            own_ones = [member for member in members if member.submission.sender == view.node]
            assert all(not member.verdicts and member.admitted for member in own_ones)
            decided += [v.decision for member in members for v in member.verdicts if v.defense == "length"]
    assert set(decided) >= {"accept", "reject"}


def neutral_of(groups, senders=None) -> list[list[float]]:
    """Length-neutral advantages of groups, given as advantages and lengths, each of one sender."""
    values, lengths = zip(*groups, strict=True)
    shares = [[1.0] * len(each) for each in lengths]
    each = senders or ["one"] * len(values)
    return LengthNeutral()(values, lengths, shares, [[name] * len(L) for name, L in zip(each, lengths, strict=True)])


def test_length_neutral_advantages_by_hand():
    # lengths 1 2 3 6 have mean 3 and offsets -2 -1 0 3, sum of squares 14; push 2 + 1 + 0 + 3, slope 6 / 14 = 3 / 7;
    # deviation sqrt(4 * 14 / 3): the push is 1.39 of them, and two alike together 1.96, beyond 1.64
    long, corrected = ([-1, -1, 1, 1], [1, 2, 3, 6]), pytest.approx([-1 / 7, -4 / 7, 1, -2 / 7])
    assert neutral_of([long]) == [long[0]]
    assert neutral_of([long, long]) == [corrected, corrected]
    assert neutral_of([long, long], ["one", "other"]) == [long[0], long[0]]
    # -1.39 is among them: together 0.80; rambling that does badly may be pushed down, whatever else is caught
    short = ([1, 1, -1, -1], [1, 2, 3, 6])
    assert neutral_of([long, long, short]) == [long[0], long[0], short[0]]
    assert neutral_of([long] * 4 + [short]) == [corrected] * 4 + [short[0]]
    # three completions are never beyond chance, sqrt(2) = 1.41, unless there are two such groups (docs/defenses.md)
    few = ([2.0, -1.0, -1.0], [100, 1, 1])
    assert neutral_of([few]) == [few[0]] and neutral_of([few, few]) == [[0.0] * 3] * 2
    # a group without variance says nothing, for or against
    same = ([0.5, -0.5], [7, 7])
    assert neutral_of([long, same, long]) == [corrected, same[0], corrected]
    assert neutral_of([([], []), ([0.0], [5])]) == [[], [0.0]]


groups = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(1, 300)), min_size=2, max_size=16)


@given(st.lists(groups, min_size=1, max_size=5))
def test_a_source_that_pushes_toward_longer_answers_beyond_chance_pushes_no_more(rounds):
    plain = advantages([[reward for reward, _ in group] for group in rounds])
    lengths = [[length for _, length in group] for group in rounds]
    neutral = neutral_of(list(zip(plain, lengths, strict=True)))
    # each push in standard deviations, from the coefficient of correlation
    varied = [pair for pair in zip(plain, lengths, strict=True) if len(set(pair[0])) > 1 and len(set(pair[1])) > 1]
    sizes = [math.sqrt(len(a) - 1) * float(np.corrcoef(a, each)[0, 1]) for a, each in varied]
    together = sum(sizes) / math.sqrt(len(sizes)) if sizes else 0.0
    assume(abs(together - 1.6449) > 1e-3)
    for before, after, group in zip(plain, neutral, lengths, strict=True):
        offsets = [length - math.fsum(group) / len(group) for length in group]
        push, left = (math.fsum(a * o for a, o in zip(each, offsets, strict=True)) for each in (before, after))
        assert left == pytest.approx(min(0.0, push) if together > 1.6449 else push, abs=1e-6)
        assert math.fsum(after) == pytest.approx(0, abs=1e-9)
        assert math.fsum(a * a for a in after) <= math.fsum(a * a for a in before) * (1 + 1e-9)


def test_one_honest_source_in_twenty_is_corrected():
    """The stated false alarm: rewards that have nothing to do with lengths, four groups of twelve a source."""
    rng, caught, trials = np.random.default_rng(0), 0, 3000
    for _ in range(trials):
        rewards = [list(map(float, rng.permutation([1] * 5 + [0] * 7))) for _ in range(4)]
        plain = advantages(rewards)
        lengths = rng.integers(20, 120, (4, 12)).tolist()
        caught += neutral_of(list(zip(plain, lengths, strict=True))) != plain
    assert 0.035 < caught / trials < 0.065


def test_half_decoys_and_half_one_long_answer_teach_nothing():
    """The DoS attack in a vertical swarm; so does any group in which right and wrong go with length exactly."""
    (plain,) = advantages([[1.0] * 6 + [0.0] * 6])
    assert neutral_of([(plain, [120] * 6 + [6] * 6)]) == [[0.0] * 12]


def test_what_the_median_sender_shows_is_granted_to_all():
    """Where senders have prompts of their own: if long answers do better everywhere, nobody pushes."""
    pays = ([-1.0] * 6 + [1.0] * 6, [20, 30] * 3 + [30, 40] * 3)  # 0.71 correlated, 2.35 standard deviations
    worthless = ([-1.0] * 6 + [1.0] * 6, [6] * 6 + [120] * 6)  # 3.32 standard deviations
    same = ([0.0] * 12, [20, 30] * 6)
    assert neutral_of([pays] * 4, "abcd") == [pays[0]] * 4
    assert neutral_of([pays], "a")[0] != pays[0]  # with nobody to compare with
    # two groups of each: 3.32 and 4.69
    corrected = neutral_of([pays, pays, pays, worthless] * 2, "abcd" * 2)
    assert corrected == [pays[0]] * 3 + [worthless[0]] + [pays[0]] * 3 + [worthless[0]]  # within chance of the others
    corrected = neutral_of([pays, pays, pays, worthless] * 4, "abcd" * 4)
    assert corrected == ([pays[0]] * 3 + [[0.0] * 12]) * 4
    # half of the senders do not move what is granted, and those who say nothing count
    for other in (([1.0, -1.0] * 6, [20] * 6 + [30] * 6), same):
        assert neutral_of([other, other, worthless, worthless], "abcd") == [other[0]] * 2 + [[0.0] * 12] * 2


NODES = [sender for sender in "abcd" for _ in range(3)]


def dealt(groups, senders=NODES) -> list[list[float]]:
    """Length-neutral advantages of groups of several senders, given as rewards and lengths."""
    plain = advantages([rewards for rewards, _ in groups])
    lengths = [each for _, each in groups]
    return LengthNeutral()(plain, lengths, [[1.0] * len(each) for each in lengths], [senders] * len(groups))


def test_senders_of_a_group_are_compared_by_hand():
    # right answers of 8, 9, 4, 5 and 4 tokens, mean 6, squares 22: of the first sender +5, in standard deviations
    # 5 / sqrt(22 * 2 * 3 / (5 * 4)) = 1.946; one of two senders may be beyond 1.960, so two such groups are needed
    rewards, lengths, senders = [1.0, 1, 1, 1, 1, 0], [8, 9, 4, 5, 4, 4], list("aabbbb")
    (plain,) = advantages([rewards])
    assert dealt([(rewards, lengths)], senders) == [plain]
    offsets = np.array(lengths) - np.mean(lengths)
    expected = plain - offsets * (plain @ offsets) / (offsets @ offsets)
    assert dealt([(rewards, lengths)] * 2, senders) == [pytest.approx(expected)] * 2
    # the other sender's right answers are as much shorter: what it pushes is not taken out
    short = [*lengths[2:4], *lengths[2:4], 9, 9]
    assert dealt([(rewards, short)] * 2, senders)[0] == pytest.approx(advantages([rewards])[0])


def test_a_sender_caught_with_some_groups_is_corrected_in_those_where_it_alone_is_right():
    shown = [1.0] * 3 + [1.0] * 4 + [0.0] * 5, [90] * 3 + [38, 40, 42, 44] + [36, 38, 40, 42, 44]
    alone = [1.0] * 3 + [0.0] * 9, [90] * 3 + [30] * 9
    assert dealt([alone] * 8) == advantages([alone[0]] * 8)  # nobody's right answers can be compared with its
    *_, last = dealt([shown, shown, alone])
    assert last == [0.0] * 12


def test_an_honest_sender_that_stood_out_once_does_not_stand_out_for_good():
    """In swarms that have come to agree right answers are equally long; wrong ones leave out steps (measured)."""
    out = [1.0] * 3 + [1.0] * 4 + [0.0] * 5, [31] * 3 + [24] * 4 + [24] * 5
    agreed = [1.0] * 11 + [0.0], [31] * 11 + [24]
    correct, corrected = LengthNeutral(), []
    for rewards, lengths in [out] * 2 + [agreed] * 10:
        plain = advantages([rewards])
        corrected.append(correct(plain, [lengths], [[1.0] * 12], [NODES]) != plain)
    assert corrected[1] and not any(corrected[3:])  # what is right and whole is learned again after a round


def test_steps_that_are_left_out_are_learned_to_be_wrong():
    """Long answers are right here, of whomever: nobody is caught, though the group as a whole pushes beyond chance."""
    rewards = [1.0, 1.0, 0.0] * 4
    group = rewards, [30, 30, 18] * 4
    (plain,) = advantages([rewards])
    assert neutral_of([(plain, group[1])] * 4) == [[0.0] * 12] * 4  # of one sender it would be taken out
    assert dealt([group] * 16) == [plain] * 16


@example([1.0] * 11 + [0.0], [8] * 12, [1.0] * 12, 24)  # whose weighted mean is not quite 24
@given(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=12, max_size=12),
    st.lists(st.integers(1, 300), min_size=12, max_size=12),
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0]), min_size=12, max_size=12),
    st.integers(1, 300),
)
def test_no_sender_is_compared_where_right_answers_are_equally_long(rewards, lengths, shares, same):
    equal = [same if reward else length for reward, length in zip(rewards, lengths, strict=True)]
    (plain,) = advantages([rewards], "group", [shares])
    assume(len({sender for sender, share in zip(NODES, shares, strict=True) if share}) > 1)
    assert LengthNeutral()([plain] * 8, [equal] * 8, [shares] * 8, [NODES] * 8) == [plain] * 8


def test_of_honest_senders_of_the_same_prompts_one_round_in_twenty_is_corrected():
    """The stated false alarm: whatever rewards have to do with lengths, if senders are alike."""
    rng, caught, trials = np.random.default_rng(0), 0, 2000
    for _ in range(trials):
        groups = []
        for _ in range(8):
            lengths = rng.integers(20, 120, 12)
            rewards = (lengths + rng.integers(0, 60, 12) > 90).astype(float)
            groups.append((rewards.tolist(), lengths.tolist()))
        caught += dealt(groups) != advantages([rewards for rewards, _ in groups])
    assert 0.03 < caught / trials < 0.065


ONE = [["one"] * 4]
LONG = [[-1.0, -1.0, 1.0, 1.0]], [[1, 2, 3, 6]], [[1.0] * 4], ONE  # a push of 1.39 standard deviations
SHORT = [[1.0, 1.0, -1.0, -1.0]], [[1, 2, 3, 6]], [[1.0] * 4], ONE


def test_a_push_within_chance_adds_up_over_rounds_by_hand():
    push = 3 * math.sqrt(3 / 14)  # 6 / sqrt(4 * 14 / 3)
    correct = LengthNeutral()
    assert correct(*LONG) == LONG[0]
    assert push * 1.9 / math.sqrt(1.81) > 1.645  # 0.9 of the first round, and the second
    assert correct(*LONG) == [pytest.approx([-1 / 7, -4 / 7, 1, -2 / 7])]
    # nobody else is held to account
    advantages_BG, lengths_BG, shares_BG, _ = LONG
    assert correct(advantages_BG, lengths_BG, shares_BG, [["other"] * 4]) == LONG[0]
    # pushes that go up and down never add up
    correct = LengthNeutral()
    for _ in range(50):
        assert correct(*LONG) == LONG[0] and correct(*SHORT) == SHORT[0]


def test_a_source_of_one_small_group_a_round_is_caught_in_time():
    few = [[2.0, -1.0, -1.0]], [[100, 1, 1]], [[1.0] * 3], [["one"] * 3]
    correct = LengthNeutral()
    assert [correct(*few)[0] == few[0][0] for _ in range(4)] == [True, False, False, False]


def test_what_is_long_past_is_forgotten():
    correct = LengthNeutral()
    for _ in range(10):
        correct(*LONG)
    nothing = [[0.0, 0.0]], [[5, 5]], [[1.0] * 2], [["other"] * 2]
    for _ in range(10):
        correct(*nothing)
    assert correct.state_dict()["seen"].keys() == {"one"}
    assert correct(*LONG) != LONG[0]  # ten rounds of silence change nothing
    for _ in range(60):
        correct(*nothing)
    assert not correct.state_dict()["seen"]
    assert correct(*LONG) == LONG[0]


@given(st.lists(st.tuples(st.sampled_from([LONG, SHORT]), st.sampled_from("ab")), max_size=12), st.integers(0, 12))
def test_it_goes_on_from_a_saved_state(rounds, cut):
    def played(correct: LengthNeutral, part) -> list[list[list[float]]]:
        return [correct(values, lengths, shares, [[sender] * 4]) for (values, lengths, shares, _), sender in part]

    before, after = LengthNeutral(), LengthNeutral()
    found = played(before, rounds[:cut])
    after.load_state_dict(before.state_dict())
    assert found + played(after, rounds[cut:]) == played(LengthNeutral(), rounds)


def test_honest_senders_are_corrected_in_one_of_twenty_rounds_with_memory_too():
    rng, caught, rounds = np.random.default_rng(0), 0, 4000
    correct = LengthNeutral()
    for _ in range(rounds):
        rewards = [list(map(float, rng.permutation([1] * 5 + [0] * 7))) for _ in range(4)]
        plain, lengths = advantages(rewards), rng.integers(20, 120, (4, 12)).tolist()
        caught += correct(plain, lengths, [[1.0] * 12] * 4, [["one"] * 12] * 4) != plain
    assert 0.03 < caught / rounds < 0.07


def test_what_remains_of_a_mixed_group():
    """Horizontal groups: of three long poisoned answers hardly anything, of right answers of honest length most."""
    rewards = [1.0] * 3 + [1.0] * 4 + [0.0] * 5
    lengths = [90] * 3 + [38, 40, 42, 44] + [36, 38, 40, 42, 44]
    (plain,) = advantages([rewards])
    for neutral in dealt([(rewards, lengths)] * 2):
        assert max(map(abs, neutral[:3])) < 0.05 * plain[0]
        assert min(neutral[3:7]) > 0.8 * plain[0] and max(neutral[7:]) < 0
    assert dealt([(rewards, lengths)]) != [plain]  # 2.44 standard deviations already, of 2.24


def test_decoys_of_equal_length_get_round_it():
    """The limit of the idea: where nothing in the group is short, the long answer is learned whole."""
    (plain,) = advantages([[1.0] * 6 + [0.0] * 6])
    assert neutral_of([(plain, [120] * 12)]) == [plain]
