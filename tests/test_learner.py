"""Advantages, objective and update, against values computed by hand and against plain autograd."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hailproof.learner.advantages import advantages, weighted_mean
from hailproof.learner.config import LearnerConfig
from hailproof.learner.gradients import _heard, _share
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.learner.loss import k3_divergence, objective, token_weights
from hailproof.learner.update import Learner
from hailproof.policies.causal_lm import CausalLM
from hailproof.records import Completion, Group, Prompt, Row, ScoredCompletion, Submission

MAX_NEW_TOKENS, ROUNDS = 24, 10


def test_advantages_by_hand():
    # mean 0.25, deviations (0.75, -0.25, -0.25, -0.25), unbiased std = sqrt(0.75 / 3) = 0.5
    (scaled,) = advantages([[1, 0, 0, 0]], "group")
    assert scaled == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3])
    (centered,) = advantages([[1, 0, 0, 0]], "none")
    assert centered == pytest.approx([0.75, -0.25, -0.25, -0.25])
    # the batch (1, 0, 1, 1) has mean 0.75 and unbiased std 0.5; the second group has no variance
    assert advantages([[1, 0], [1, 1]], "batch") == [pytest.approx([0.5 / 0.5001, -0.5 / 0.5001]), [0, 0]]


def test_groups_without_variance_or_members_have_no_advantage():
    assert advantages([[1.0], [], [0.0, 0.0]]) == [[0.0], [], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("grpo", [[1 / (3 * 2 * 3), 1 / (3 * 2 * 5)], [], [1 / (3 * 1 * 2)]]),
        ("dapo", [[1 / 10, 1 / 10], [], [1 / 10]]),
        ("dr_grpo", [[1 / (3 * 2 * 8), 1 / (3 * 2 * 8)], [], [1 / (3 * 1 * 8)]]),
    ],
)
def test_token_weights_by_hand(loss_type, expected):
    # three groups, one of them emptied by a defense: it counts too, as one without variance does
    assert token_weights([[3, 5], [], [2]], loss_type, 8) == [pytest.approx(weights) for weights in expected]


def test_k3_by_hand():
    value = k3_divergence(torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)]))
    assert value.item() == pytest.approx(0.5 - math.log(0.5) - 1)


def test_the_objective_by_hand():
    """Two real tokens, the second of them muted, and padding at which the reference says something else."""
    logprobs = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    mask, heard = torch.tensor([[True, True, False]]), torch.tensor([[True, False, False]])
    reference = torch.tensor([[-1.0, -2.0 - math.log(2), -3.0]])
    pull, kl = torch.tensor([0.5]), torch.tensor([0.25])
    alone = objective(logprobs, mask, heard, pull, kl)
    assert alone.item() == -0.5
    both = objective(logprobs, mask, heard, pull, kl, reference)
    assert both.item() == pytest.approx(-0.5 + 0.25 * (0.5 + math.log(2) - 1))
    both.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [pytest.approx([-0.5, 0.25 * (1 - 0.5), 0.0])]


def scored(policy: CausalLM, slot: int, text: str, reward: float, finished: bool = True, admitted: bool = True):
    whole = policy.codec.as_completion(text)
    completion = whole if finished else Completion(text, whole.token_ids[:-1], False)
    row = Row((), policy.codec.received_ids(completion))
    return ScoredCompletion(Submission(1, slot % 2, "p", slot, completion), row, reward, reward, admitted)


def grouped(policy: CausalLM, prompt: Prompt, members: Sequence[ScoredCompletion]) -> Group:
    """A group whose rows begin with its prompt."""
    ids = policy.codec.render(prompt)
    return Group(prompt, tuple(replace(each, row=Row(ids, each.row.completion)) for each in members))


def groups_for(policy: CausalLM) -> list[Group]:
    """Two groups of uneven size: identical completions, one dropped, one cut off, lengths from 1 token to 20."""
    one = grouped(
        policy,
        Prompt("p", "", "Tom has 3 pens. How many?"),
        (
            scored(policy, 0, "<think>3</think><answer>3</answer>", 1.0),
            scored(policy, 1, "<think>3</think><answer>3</answer>", 1.0),
            scored(policy, 2, "I am not sure what the answer is, so I guess and talk.", 0.0, finished=False),
            scored(policy, 3, "4", 0.0),
            scored(policy, 4, "dropped", 1.0, admitted=False),
        ),
    )
    two = grouped(
        policy,
        Prompt("q", "", "Ann has 2 red pens and 2 blue pens. How many pens does Ann have?"),
        (scored(policy, 0, "2 + 2 = 4.", 1.0), scored(policy, 1, "5", 0.0), scored(policy, 2, "", 0.0)),
    )
    return [one, two]


def long_winded(policy: CausalLM) -> Group:
    """One sender's group in which long answers do better, which is not by chance: sqrt(5) standard deviations."""
    texts = ["It is 3, as I have said at length."] * 3 + ["4"] * 3
    members = (scored(policy, 2 * place, text, float(place < 3)) for place, text in enumerate(texts))
    return grouped(policy, Prompt("r", "", "Ann has 3 pens. How many?"), tuple(members))


def reference_gradient(
    policy: CausalLM, groups: list[Group], beta: float, frozen
) -> tuple[float, list[torch.Tensor]]:
    """The GRPO loss and its gradient the plain way: one completion at a time, no batching, no merging."""
    total = torch.zeros(())
    for group in groups:
        kept = [member for member in group.completions if member.admitted]
        rewards = torch.tensor([member.reward for member in kept])
        values = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for member, advantage in zip(kept, values, strict=True):
            prompt = policy.codec.render(group.prompt)
            ids = member.submission.completion.token_ids
            row, targets = torch.tensor([[*prompt, *ids]]), torch.tensor(ids)[:, None]

            start = len(prompt)

            def logprobs(model, row=row, start=start, targets=targets):
                logits = model(input_ids=row).logits[0, start - 1 : -1]
                return logits.log_softmax(-1).gather(-1, targets).squeeze(-1)

            own = logprobs(policy.model)
            per_token = -advantage * torch.exp(own - own.detach())
            if beta:
                with torch.no_grad():
                    anchor = logprobs(frozen)
                per_token = per_token + beta * (torch.exp(anchor - own) - (anchor - own) - 1)
            total = total + per_token.mean() / len(kept) / len(groups)
    policy.model.zero_grad()
    total.backward()
    gradients = [parameter.grad.clone() for parameter in policy.model.parameters() if parameter.grad is not None]
    return total.detach().item(), gradients


def test_the_divergence_is_a_mean_over_all_completion_tokens(fresh_policy):
    """Also over those of completions that went through the model once for several."""
    learner = Learner(fresh_policy.trainable, LearnerConfig(beta=0.1, learning_rate=1e-12), MAX_NEW_TOKENS, ROUNDS)
    with torch.no_grad():
        for parameter in fresh_policy.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    texts = ("3 + 4 = 7.", "I do not know, and I say so.")
    prompt = Prompt("p", "", "Tom has 3 pens. How many?")
    groups = [
        grouped(fresh_policy, prompt, (scored(fresh_policy, 0, text, 1.0), scored(fresh_policy, 1, "x", 0.0)))
        for text in texts
    ]
    alone, lengths = [], [len(fresh_policy.codec.as_completion(text).token_ids) for text in texts]
    x = len(fresh_policy.codec.as_completion("x").token_ids)
    for group, length in zip(groups, lengths, strict=True):
        both, only = (learner.update([replace(group, completions=part)]).kl
                      for part in (group.completions, group.completions[1:]))  # fmt: skip
        assert both is not None and only is not None
        alone.append((both * (length + x) - only * x) / length)
    members = tuple(scored(fresh_policy, slot, texts[slot == 11], float(slot == 11)) for slot in range(12))
    mean = (11 * lengths[0] * alone[0] + lengths[1] * alone[1]) / (11 * lengths[0] + lengths[1])
    assert learner.update([grouped(fresh_policy, prompt, members)]).kl == pytest.approx(mean, rel=1e-4)
    assert mean > 1e-3


def test_a_gradient_that_is_no_number_makes_no_step(fresh_policy):
    groups = groups_for(fresh_policy)
    first = groups[0].completions[0]
    broken = replace(groups[0], completions=(replace(first, reward=float("nan")), *groups[0].completions[1:]))
    before = [parameter.detach().clone() for parameter in fresh_policy.model.parameters()]
    learner = Learner(fresh_policy.trainable, LearnerConfig(), MAX_NEW_TOKENS, ROUNDS)
    assert math.isnan(learner.update([broken, groups[1]]).grad_norm)
    assert all(torch.equal(*pair) for pair in zip(before, fresh_policy.model.parameters(), strict=True))
    learner.update(groups)  # and the optimizer remembers nothing of it
    assert all(parameter.isfinite().all() for parameter in fresh_policy.model.parameters())


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("token_budget", [1, 64, 16_384])
def test_gradient_is_that_of_the_full_batch(fresh_policy, token_budget, beta):
    """Micro-batches, remainders, shared prompts and merged rows leave the gradient as it is."""
    groups = groups_for(fresh_policy)
    frozen = copy.deepcopy(fresh_policy.model)
    config = LearnerConfig(token_budget=token_budget, beta=beta, max_grad_norm=0, learning_rate=1e-12)
    learner = Learner(fresh_policy.trainable, config, MAX_NEW_TOKENS, ROUNDS)
    with torch.no_grad():  # away from the reference, so that the KL term has a gradient
        for parameter in fresh_policy.model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    loss, expected = reference_gradient(fresh_policy, groups, beta, frozen)
    stats = learner.update(groups)
    assert stats.loss == pytest.approx(loss, abs=1e-6)
    gradients = [parameter.grad for parameter in fresh_policy.model.parameters()]
    scale = max(gradient.abs().max() for gradient in expected)
    assert max((a - b).abs().max() / scale for a, b in zip(gradients, expected, strict=True)) < 1e-5
    assert stats.passes == 6  # seven admitted completions, two of them identical
    assert (stats.kl is not None) == bool(beta)


def after_two_updates(base_policy, config: LearnerConfig) -> torch.Tensor:
    """The weights after two different steps: moments and the KL term can show in the second alone."""
    policy = CausalLM("copy", copy.deepcopy(base_policy.model), base_policy.codec.tokenizer)
    learner = Learner(policy.trainable, config, MAX_NEW_TOKENS, ROUNDS)
    groups = groups_for(policy)
    learner.update([*groups, *[long_winded(policy)] * 2])
    learner.update(groups[::-1][:1])
    return torch.cat([parameter.detach().flatten() for parameter in policy.model.parameters()])


@pytest.fixture(scope="module")
def usual(base_policy) -> torch.Tensor:
    weights = after_two_updates(base_policy, LearnerConfig())
    assert torch.equal(weights, after_two_updates(base_policy, LearnerConfig()))
    return weights


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("learning_rate", 1e-3),
        ("warmup_rounds", 10),
        ("lr_scheduler_type", "linear"),
        ("loss_type", "dapo"),
        ("loss_type", "dr_grpo"),
        ("scale_rewards", "none"),
        ("scale_rewards", "batch"),
        ("length_neutral", True),
        ("beta", 0.5),
        ("max_grad_norm", 1e-6),
        ("adam_beta1", 0.0),
        ("adam_beta2", 0.5),
        ("adam_epsilon", 1e-3),
    ],
)
def test_every_knob_changes_the_weights(base_policy, usual, knob, value):
    assert not torch.equal(usual, after_two_updates(base_policy, LearnerConfig(**{knob: value})))


def test_nothing_to_learn_changes_nothing(fresh_policy):
    same = grouped(
        fresh_policy,
        Prompt("p", "", "Tom has 3 pens. How many?"),
        tuple(scored(fresh_policy, slot, f"try {slot}", 1.0) for slot in range(3)),
    )
    before = [parameter.detach().clone() for parameter in fresh_policy.model.parameters()]
    stats = Learner(fresh_policy.trainable, LearnerConfig(), MAX_NEW_TOKENS, ROUNDS).update([same])
    assert (stats.passes, stats.trained, stats.loss, stats.grad_norm, stats.kl) == (0, 0, 0.0, 0.0, None)
    assert all(torch.equal(a, b) for a, b in zip(before, fresh_policy.model.parameters(), strict=True))


def test_learning_rate_by_hand(base_policy):
    def rates(**options) -> list[float]:
        learner = Learner(base_policy.trainable, LearnerConfig(learning_rate=1.0, **options), MAX_NEW_TOKENS, 10)
        return [learner.learning_rate(step) for step in range(1, 11)]

    assert rates() == [1.0] * 10
    assert rates(warmup_rounds=2) == [0.5] + [1.0] * 9
    assert rates(lr_scheduler_type="linear") == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    falling = rates(warmup_rounds=2, lr_scheduler_type="linear")
    assert falling == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_each_update_is_one_step_of_the_schedule_and_of_the_optimizer(fresh_policy, base_policy):
    groups, settings = groups_for(fresh_policy), {"learning_rate": 1e-3, "warmup_rounds": 4, "beta": 0.1}
    learner = Learner(fresh_policy.trainable, LearnerConfig(**settings), MAX_NEW_TOKENS, ROUNDS)
    assert learner.hears_all is True

    def after(learner: Learner) -> tuple[int, list[float], torch.Tensor]:
        learner.update(groups)
        steps = {int(state["step"]) for state in learner.optimizer.state.values()}
        assert steps == {learner.steps}
        weights = torch.cat([parameter.detach().flatten() for parameter in learner.trainable.parameters()])
        return learner.steps, [each["lr"] for each in learner.optimizer.param_groups], weights

    assert [after(learner)[:2] for _ in range(2)] == [(1, [2.5e-4]), (2, [5e-4])]
    saved = copy.deepcopy(learner.state_dict())
    twin = CausalLM("copy", copy.deepcopy(base_policy.model), base_policy.codec.tokenizer)
    again = Learner(twin.trainable, LearnerConfig(**settings), MAX_NEW_TOKENS, ROUNDS)
    again.load_state_dict(saved)
    one, other = after(learner), after(again)
    assert one[:2] == other[:2] == (3, [7.5e-4]) and torch.equal(one[2], other[2])
    assert Learner(twin.trainable, LearnerConfig(), MAX_NEW_TOKENS, ROUNDS).hears_all is False


def test_what_is_muted_beyond_a_completion_takes_nothing_from_it(base_policy):
    member = scored(base_policy, 0, "3", 1.0)
    muted = frozenset({-1, 0, 2, 4, 99})
    assert _share(replace(member, muted=muted, weight=0.5), 4) == 0.25  # two of four tokens
    assert _share(member, 4) == 1.0 and _share(member, 0) == 0.0
    mask = torch.tensor([[True, True, True, True], [True, True, False, False], [True, True, True, False]])
    heard = _heard(mask, [muted, frozenset({1}), frozenset()])
    assert heard.tolist() == [[False, True, False, True], [True, False, False, False], [True, True, True, False]]
    assert mask.sum() == 9  # left as it was


def gradient(policy: CausalLM, group: Group, **settings) -> torch.Tensor:
    learner = Learner(policy.trainable, LearnerConfig(learning_rate=1e-12, max_grad_norm=0, **settings), 64, 10)
    learner.update([group])
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def with_shares(policy: CausalLM, group: Group, shares: list[float], how: str) -> Group:
    """The group with this much of each completion learned from: by its weight, or by muting the last tokens."""
    members = []
    for scored, share in zip(group.completions, shares, strict=True):
        length = len(policy.codec.received_ids(scored.submission.completion))
        muted = frozenset(range(round(share * length), length))
        members.append(replace(scored, weight=share) if how == "weight" else replace(scored, muted=muted))
    return grouped(policy, group.prompt, tuple(members))


def test_a_restored_learner_remembers_who_pushes(fresh_policy, tmp_path):
    """Two completions a round, by one sender, say nothing in one round and enough in three."""
    texts = [("It is 3, as I have said at length.", 1.0), ("4", 0.0)]
    members = tuple(scored(fresh_policy, 2 * place, *text) for place, text in enumerate(texts))
    group = grouped(fresh_policy, Prompt("r", "", "Ann has 3 pens. How many?"), members)
    first, second = (Learner(fresh_policy.trainable, LearnerConfig(length_neutral=True), 96, 9) for _ in range(2))
    assert [first.update([group]).trained for _ in range(2)] == [2, 2]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.update([group]).trained == 0
    assert Learner(fresh_policy.trainable, LearnerConfig(length_neutral=True), 96, 9).update([group]).trained == 2


@pytest.mark.parametrize("how", ["weight", "muted"])
@pytest.mark.parametrize("neutral", [False, True])
def test_what_is_not_learned_from_has_no_place_in_the_baseline(fresh_policy, how, neutral):
    """A completion of share 0 leaves the gradient of the others as if it had been dropped, but for the group's size."""
    group = long_winded(fresh_policy)

    def joined_by(group: Group, slot: int, text: str) -> Group:
        return grouped(fresh_policy, group.prompt, (*group.completions, scored(fresh_policy, slot, text, 1.0)))

    group = joined_by(group, 12, "3, but not quite so long")
    some = joined_by(group, 5, "four, I think, or five, maybe not")
    silent = with_shares(fresh_policy, some, [1.0] * 7 + [0.0], how)
    settings = {"length_neutral": neutral, "loss_type": "dr_grpo"}
    expected = gradient(fresh_policy, group, **settings)
    # dr_grpo divides by the size of the group, which is one more with the silent one
    torch.testing.assert_close(8 / 7 * gradient(fresh_policy, silent, **settings), expected, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(8 / 7 * gradient(fresh_policy, some, **settings), expected, rtol=1e-2)


def test_weighted_advantages_by_hand():
    # mean (1 + 0.5) / 3.5 = 3/7; squares 1 * 16/49 + 0.5 * 16/49 + 2 * 9/49 = 6/7; freedom 3.5 - 3.25 / 3.5 = 18/7
    (values,) = advantages([[1, 1, 0, 0]], "group", [[1, 0.5, 1, 1]])
    assert values == pytest.approx([x / (math.sqrt(1 / 3) + 1e-4) for x in (4 / 7, 4 / 7, -3 / 7, -3 / 7)])
    assert advantages([[1, 0], [1]], "group", [[0, 0], [0.3]]) == [[0, 0], [0]]


def test_the_divisor_by_hand():
    # two whole completions: unbiased variance 2 * 0.25 / 1
    assert advantages([[1, 0]])[0] == pytest.approx([0.5 / (math.sqrt(0.5) + 1e-4), -0.5 / (math.sqrt(0.5) + 1e-4)])
    # weighted: mean 1 / 2.2 = 5/11; squares (36 + 25 + 0.2 * 25) / 121 = 6/11; freedom 2.2 - 2.02 / 2.2 = 2.82 / 2.2
    (values,) = advantages([[1, 0, 0, 0]], shares=[[1, 1, 0.1, 0.1]])
    divisor = math.sqrt(20 / 47) + 1e-4  # more than the 0.5 of four whole ones
    assert values == pytest.approx([6 / 11 / divisor, *[-5 / 11 / divisor] * 3])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_completion_of_which_nothing_is_learned_counts_as_if_it_were_not_there(scale):
    others = advantages([[1, 0, 0], [1, 0]], scale, [[1, 1, 0.5], [1, 1]])
    joined = advantages([[1, 0, 0, 9], [9, 1, 0]], scale, [[1, 1, 0.5, 0], [0, 1, 1]])
    assert joined == [[*others[0], 0.0], [0.0, *others[1]]]
    assert weighted_mean([9.0, 3.0, 1.0], [0.0, 0.5, 0.5]) == 2.0 and weighted_mean([9.0], [0.0]) == 0.0


@example([(0.0, 1e-200, 1)], "group")  # whose square is 0
@example([(0.0, 1e-162, 1), (1.0, 1e-162, 50)], "group")  # the same, but not of its product with lengths
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0, 1), st.integers(1, 50)), max_size=8),
    st.sampled_from(["group", "batch", "none"]),
)
def test_a_group_pushes_neither_up_nor_down_on_the_whole(members, scale):
    """The property for which shares are in the baseline: ``sum share * A = 0``, length-neutral or not."""
    rewards, shares, lengths = ([member[part] for member in members] for part in range(3))
    (values,) = advantages([rewards], scale, [shares])
    neutral, _ = LengthNeutral()([values] * 2, [lengths] * 2, [shares] * 2, [["one"] * len(shares)] * 2)
    for pushes in (values, neutral):
        size = max([1.0, *map(abs, pushes)])
        assert abs(sum(share * push for share, push in zip(shares, pushes, strict=True))) < 1e-6 * size
        assert not any(push for share, push in zip(shares, pushes, strict=True) if share == 0)


@given(
    shares=st.lists(st.floats(1e-3, 1), min_size=2, max_size=12),
    right=st.integers(1, 11),
    scale=st.sampled_from(["group", "batch"]),
)
def test_what_is_left_of_a_right_answer_pulls_hardly_harder_than_a_whole_one(shares, right, scale):
    rewards = [float(index < right) for index in range(len(shares))]
    whole = advantages([rewards], scale)[0]
    left = advantages([rewards], scale, [shares])[0]
    spread = max(whole) - min(whole)
    assert all(abs(value) <= spread + 1e-9 for value in left)
    assert math.fsum(share * value for share, value in zip(shares, left, strict=True)) == pytest.approx(0, abs=1e-9)


def test_a_nearly_muted_right_answer_by_hand():
    (left,) = advantages([[1.0, 0.0, 0.0]], shares=[[0.01, 1.0, 1.0]])
    mean, deviation = 0.01 / 2.01, math.sqrt(1 / 3)  # the weighted deviation would be 0.1, and the advantage 10
    assert left == pytest.approx([(1 - mean) / (deviation + 1e-4), *[-mean / (deviation + 1e-4)] * 2])
