"""The circuit breaker: what it holds, what a held step leaves behind, and what people see of it."""

from dataclasses import replace

import pytest
import torch
from test_learner import MAX_NEW_TOKENS, ROUNDS, groups_for

from hailproof.errors import ConfigError
from hailproof.learner.breaker import Breaker
from hailproof.learner.config import BreakerConfig, LearnerConfig
from hailproof.learner.update import Learner
from hailproof.records import Verdict
from hailproof.runs.config import load_config
from hailproof.runs.words import round_text


def reasons(config: BreakerConfig, rounds: list[dict[str, float]]) -> list[str]:
    breaker = Breaker(config)
    return [breaker.out_of_line(measures) for measures in rounds]


def test_out_of_line_is_above_a_multiple_of_the_median_of_the_last_rounds():
    config = BreakerConfig(times=3.0, rounds=4)
    norms = [1.0, 9.0, 1.0, 7.0, 15.1, 15.0]
    # held is nothing in the first two rounds; medians are then 5, 1, 4 (of 1, 9, 1, 7) and 8
    assert reasons(config, [{"norm": norm} for norm in norms]) == ["", "", "", "norm", "norm", ""]


def test_what_lasts_goes_through_in_the_end():
    found = reasons(BreakerConfig(times=2.0, rounds=4), [{"norm": 1.0}] * 4 + [{"norm": 10.0}] * 4)
    assert found == [""] * 4 + ["norm", "norm"] + [""] * 2


def test_shares_below_their_floor_are_in_line_whatever_the_median():
    config = BreakerConfig(rounds=2, moved=0.1, rejected=0.5)
    assert reasons(config, [{"moved": 0.0, "rejected": 0.0}] * 2 + [{"moved": 0.1, "rejected": 0.5}]) == [""] * 3
    assert reasons(config, [{"moved": 0.0}] * 2 + [{"moved": 0.11}]) == ["", "", "moved"]
    assert reasons(config, [{"rejected": 0.0}] * 2 + [{"rejected": 0.51}]) == ["", "", "rejected"]


def test_a_restored_breaker_goes_on_as_it_was():
    one, other = Breaker(BreakerConfig(rounds=4)), Breaker(BreakerConfig(rounds=4))
    for norm in (1.0, 2.0, 1.0):
        one.out_of_line({"norm": norm})
    other.load_state_dict(one.state_dict())
    assert [each.out_of_line({"norm": 5.1}) for each in (one, other)] == ["norm", "norm"]
    assert one.state_dict() == other.state_dict()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("learner.breaker", 4, r"learner.breaker = 4 is no table .* example learner.breaker = \{times"),
        ("learner.lora", 4, r"write for example learner.lora = \{r = 8, alpha = 16\}"),
        ("learner.breaker", {"times": 1.0}, "'learner.breaker.times': input should be greater than 1"),
        ("learner.breaker", {"rounds": 1}, "'learner.breaker.rounds': input should be greater than or equal to 2"),
        ("learner.breaker", {"ratio": 2.0}, "'learner.breaker.ratio' is unknown"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, said):
    with pytest.raises(ConfigError, match=said):
        load_config(None, [(key, value)])


def test_settings_survive_the_file_of_a_run(tmp_path):
    config = load_config(None, [("learner.breaker", {"times": 3.0})])
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config
    assert load_config(None, [("learner.breaker.times", 3.0)]) == config


def learner_of(policy, **settings) -> Learner:
    config = LearnerConfig(learning_rate=1e-3, breaker=BreakerConfig(**settings))
    return Learner(policy.trainable, config, MAX_NEW_TOKENS, ROUNDS)


def weights(policy) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in policy.trainable.parameters()])


def moments(learner: Learner) -> list[torch.Tensor]:
    return [each for state in learner.optimizer.state.values() for each in state.values()]


def louder(groups, weight: float = 50.0):
    return [replace(group, completions=tuple(replace(e, weight=weight) for e in group.completions)) for group in groups]


def rejected(groups):
    no = (Verdict("x", "reject", ""),)
    return [replace(group, completions=tuple(replace(e, verdicts=no) for e in group.completions)) for group in groups]


@pytest.mark.parametrize(
    ("settings", "change", "reason"),
    [
        ({"rounds": 2, "times": 3.0}, louder, "norm"),
        ({"rounds": 2, "times": 3.0, "moved": 1.0}, louder, "norm"),
        ({"rounds": 2}, rejected, "rejected"),
    ],
)
def test_a_held_step_leaves_no_trace_but_the_count_of_steps(fresh_policy, settings, change, reason):
    learner, groups = learner_of(fresh_policy, **settings), groups_for(fresh_policy)
    for _ in range(2):
        assert learner.update(groups).held == ""
    before, old = weights(fresh_policy), [each.clone() for each in moments(learner)]
    stats = learner.update(change(groups))
    assert (stats.held, stats.skipped) == (reason, 1)
    assert torch.equal(before, weights(fresh_policy)) and learner.steps == 3
    assert all(torch.equal(a, b) for a, b in zip(old, moments(learner), strict=True))
    assert learner.update(groups).held == "" and not torch.equal(before, weights(fresh_policy))


def test_a_step_that_moves_many_tokens_is_held(fresh_policy):
    learner, groups = learner_of(fresh_policy, rounds=2, moved=0.05, nats=0.3), groups_for(fresh_policy)
    calm = [1e-6, 1e-6, 0.05]
    learner.learning_rate = lambda step: calm[step - 1]
    assert [learner.update(groups).held for _ in calm] == ["", "", "moved"]


def test_a_breaker_that_holds_nothing_changes_nothing(fresh_policy, base_policy):
    import copy

    from hailproof.policies.causal_lm import CausalLM

    twin = CausalLM("nano-a", copy.deepcopy(base_policy.model), base_policy.codec.tokenizer)
    groups = groups_for(fresh_policy)
    plain = Learner(twin.trainable, LearnerConfig(learning_rate=1e-3), MAX_NEW_TOKENS, ROUNDS)
    guarded = learner_of(fresh_policy)
    for _ in range(3):
        assert plain.update(groups) == guarded.update(groups)
    assert torch.equal(weights(twin), weights(fresh_policy))


def test_what_was_held_is_on_the_console():
    line = {
        "reward": 0.5, "attack_success": None, "completion_tokens": 9.0, "honest_acceptance": None,
        "malicious_acceptance": None, "seconds": {"update": 1.0},
    }  # fmt: skip
    update = {"held": {"norm": 1}, "senders": {"3": {"excluded": 1.0}, "0": {"excluded": 0.0}}}
    assert "step not made (norm out of line)" in round_text({**line, "update": update})
    assert "sender 3 excluded" in round_text({**line, "update": update})
    assert "step" not in round_text({**line, "update": {"held": {}, "senders": {}}})
