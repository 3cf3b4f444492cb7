"""Rates and detection counts, by hand; undefined is never zero."""

from hailproof.metrics.detection import acceptance, decisions
from hailproof.metrics.rates import Rate, mean, rate
from hailproof.records import Completion, ScoredCompletion, Submission, Verdict


def test_rates_by_hand():
    assert rate([True, False, None, True]) == Rate(2, 3)
    assert rate([None, None]).value is None
    assert rate([False]).value == 0.0
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None


def scored(sender: int, *verdicts: Verdict) -> ScoredCompletion:
    return ScoredCompletion(Submission(1, sender, "p", 0, Completion("", (), True)), 0.0, 0.0, True, verdicts)


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
