"""Rates and detection counts, by hand; undefined is never zero."""

import math

import pytest

from hailproof.learner.advantages import advantages
from hailproof.metrics.closed_forms import poison_push, poison_push_of_group
from hailproof.metrics.detection import acceptance, decisions
from hailproof.metrics.rates import Rate, mean, rate
from hailproof.records import Completion, Row, ScoredCompletion, Submission, Verdict


def test_rates_by_hand():
    assert rate([True, False, None, True]) == Rate(2, 3)
    assert rate([None, None]).value is None
    assert rate([False]).value == 0.0
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None


def scored(sender: int, *verdicts: Verdict) -> ScoredCompletion:
    sent = Submission(1, sender, "p", 0, Completion("", (), True))
    return ScoredCompletion(sent, Row((), ()), 0.0, 0.0, verdicts=verdicts)


def test_detection_counts_sides_apart_and_only_what_was_screened():
    yes, no = Verdict("logit", "accept", ""), Verdict("logit", "reject", "")
    unsure, broken = Verdict("judge", "abstain", ""), Verdict("judge", "reject", "", error=True)
    completions = [scored(0, yes, unsure), scored(0, no), scored(1), scored(3, no), scored(3, yes, broken)]
    assert acceptance(completions, {3}) == {"honest": Rate(1, 2), "malicious": Rate(0, 2)}
    counts = decisions(completions, {3})
    assert counts["logit"]["honest"] == {"accept": 1, "reject": 1, "abstain": 0, "error": 0}
    assert counts["logit"]["malicious"] == {"accept": 1, "reject": 1, "abstain": 0, "error": 0}
    assert counts["judge"]["honest"]["abstain"] == counts["judge"]["malicious"]["error"] == 1


def test_nothing_screened_is_undefined():
    assert acceptance([scored(0)], set())["honest"].value is None
    assert decisions([scored(0)], set()) == {}


@pytest.mark.parametrize("group_size", [12, 16, 24, 32])
def test_half_decoys_push_hardest_and_the_closed_form_is_what_the_learner_does(group_size):
    """Figure 7 of the paper: share times advantage, honest reward 0."""
    pushes = []
    for poisoned in range(group_size + 1):
        rewards = [1.0] * poisoned + [0.0] * (group_size - poisoned)
        advantage = advantages([rewards])[0][0] if poisoned else 0.0
        pushes.append(poisoned / group_size * advantage)
        assert pushes[-1] == pytest.approx(poison_push_of_group(poisoned, group_size), abs=2e-4)
    assert max(range(group_size + 1), key=pushes.__getitem__) == group_size // 2
    assert poison_push(0.5) == 0.5
    assert poison_push(0.2) == pytest.approx(0.4)  # sqrt(0.2 * 0.8)
    assert poison_push(0.0) == poison_push(1.0) == 0.0


def test_the_push_is_weaker_among_honest_rewards_but_does_not_vanish():
    """Figure 8: honest rewards of mean mu and variance 0.25."""
    by_hand = 0.25 * (1 - 0.55) / math.sqrt(0.25 * 0.75 * 0.36 + 0.75 * 0.25)  # p = 0.25, mu = 0.4
    assert poison_push(0.25, 0.4, 0.25) == pytest.approx(by_hand)
    pushes = [poison_push(0.25, mu, 0.25) for mu in (0.0, 0.2, 0.4)]
    assert pushes == sorted(pushes, reverse=True)
    assert pushes[-1] > 0.2
