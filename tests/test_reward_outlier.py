"""Reward outliers by hand, and why dropping them stops no poison."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_defenses import evidence_of
from test_swarm import make

from hailproof.defenses.reward_outlier import RewardOutlierDefense, outlyingness
from hailproof.errors import ConfigError
from hailproof.records import Completion, Prompt, Submission


def decisions(groups: Sequence[Sequence[float]], **options: Any) -> list[str]:
    submissions = [
        Submission(1, slot % 4, f"p{number}", slot, Completion(f"{reward}", (), True))
        for number, rewards_G in enumerate(groups)
        for slot, reward in enumerate(rewards_G)
    ]
    prompts = [Prompt(submission.problem_id, "", "?") for submission in submissions]
    rewards = [reward for rewards_G in groups for reward in rewards_G]
    verdicts = RewardOutlierDefense(**options).screen(evidence_of(prompts, submissions, None, rewards=rewards))
    return [verdict.decision for verdict in verdicts]


def test_distances_by_hand():
    # mean 0.25, unbiased std 0.5
    assert outlyingness([1, 0, 0, 0], "z_score") == [1.5, 0.5, 0.5, 0.5]
    # median 2, absolute deviations 2 1 0 1 8, their median 1
    assert outlyingness([0, 1, 2, 3, 10], "mad") == pytest.approx([d / 1.4826 for d in (2, 1, 0, 1, 8)])
    assert outlyingness([1, 0, 0, 0], "mad") == [math.inf, 0, 0, 0]
    for method in ("z_score", "mad"):
        assert outlyingness([1, 1], method) == [0, 0] and outlyingness([1], method) == [0]
        assert outlyingness([0.1] * 3, method) == [0, 0, 0]  # whose mean is not 0.1


def test_a_lone_right_answer_is_dropped_and_poison_is_not():
    """Twelve completions, three poisoned with full reward: no reward is 2 deviations off unless it stands alone."""
    assert decisions([[1] * 3 + [0] * 9]) == ["accept"] * 12  # z of the poison: 0.75 / 0.4523 = 1.66
    assert decisions([[1] + [0] * 11]) == ["reject"] + ["accept"] * 11  # a lone right answer: 3.18
    assert decisions([[1] * 3 + [1] * 6 + [0] * 3], method="mad") == ["accept"] * 9 + ["reject"] * 3


def test_groups_are_compared_with_themselves_only():
    assert decisions([[1] * 4, [0] * 4]) == ["accept"] * 8
    assert decisions([[1, 0, 0, 0], [0]], threshold=1.4) == ["reject", "accept", "accept", "accept", "accept"]


@given(st.integers(1, 11), st.integers(0, 10))
def test_a_binary_reward_is_at_most_so_far_off(right, wrong):
    size = right + wrong
    assert max(outlyingness([1.0] * right + [0.0] * wrong, "z_score")) <= (size - 1) / math.sqrt(size) + 1e-9


@pytest.mark.parametrize("option", [{"threshold": 0.0}, {"method": "median"}, {"admission": "forgive"}])
def test_bad_options_are_one_sentence(option):
    with pytest.raises(ConfigError, match=r"^[^.]*(\d\.\d)?[^.]*\.$"):
        RewardOutlierDefense(**option)


def test_a_swarm_plays_and_the_poison_passes():
    defense = [{"name": "reward_outlier"}]
    experiment = make(("attack.name", "text"), ("defense", defense), ("sampling.max_new_tokens", 80))
    for round in (1, 2):
        (view,) = experiment.swarm.play(round).views
        assert not view.unread and not view.missing
        poison = [s for group in view.groups for s in group.completions if s.submission.sender == 3]
        assert any(s.verdicts for s in poison) and all(s.admitted for s in poison if s.verdicts)
