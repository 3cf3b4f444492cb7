"""The shield in the seams of other trainers, on objects of their documented form."""

import asyncio
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hailproof.defenses.base import BaseDefense
from hailproof.errors import ConfigError, RunError
from hailproof.integrations import genrl, openrlhf, prime_rl, slime, verifiers, verl
from hailproof.integrations.seams import recentered
from hailproof.protocols import Effect
from hailproof.records import Verdict
from hailproof.shield import Shield

RIGHT, WRONG = "so 2 + 2 = 4", "so 2 + 2 = 5"


class Told(BaseDefense):
    """Does to a completion what its text says: ``weight=0.25``, ``mute=0`` (a token), or ``reject``."""

    name = "told"
    gives: frozenset[Effect] = frozenset({"weights", "masks"})

    def screen(self, evidence):
        """One verdict a completion."""
        return [self._told(submission.completion.text.strip()) for submission in evidence.submissions]

    def _told(self, text: str) -> Verdict:
        if "reject" in text:
            return Verdict(self.name, "reject", "told to")
        said = dict(each.split("=") for each in text.split() if "=" in each)
        muted = tuple(int(each) for each in said.get("mute", "").split(",") if each)
        return Verdict(self.name, "accept", "told to", weight=float(said.get("weight", "1")), muted=muted)


class Quiet(Told):
    """Does not say what it gives."""

    name = "quiet"
    gives: frozenset[Effect] = frozenset()


def payload(actions: Any, question: str = "2 + 2?") -> Any:
    """As ``genrl.communication.communication.Payload``."""
    state = SimpleNamespace(environment_states={"question": question, "test": "assert True"})
    return SimpleNamespace(world_state=state, actions=actions, metadata=None)


def test_genrl_drops_whole_payloads():
    states = {
        "QmA": {1: [payload([RIGHT, RIGHT])], 2: [payload([RIGHT, WRONG])]},
        "QmB": {1: [payload([RIGHT, 7]), payload(WRONG), payload(RIGHT)]},
        "QmC": "no batches",
        "QmD": {1: "no list", 2: [None, payload([]), payload(None), {"actions": [RIGHT]}]},
    }
    left = genrl.kept(Shield("equations"), states)
    assert left == {"QmA": {1: [states["QmA"][1][0]]}, "QmB": {1: [states["QmB"][1][2]]}}
    assert genrl.kept(Shield("equations"), {}) == {}


def test_openrlhf_gives_left_out_rows_the_mean_of_their_prompt():
    def inner(queries, prompts, labels):
        return {"rewards": torch.tensor([1.0, 1.0, 0.0, 1.0]), "extra_logs": {"mine": torch.zeros(4)}}

    function = openrlhf.shielded(Shield("equations"), inner, instead=-1.0)
    prompts = ["a", "a", "a", "b"]
    found = function(["a" + WRONG, "a" + RIGHT, "a" + WRONG, "b" + WRONG], prompts, [""] * 4)
    assert found["rewards"].tolist() == [0.5, 1.0, 0.0, -1.0]  # what earned nothing is not looked at
    assert found["extra_logs"]["hailproof_left_out"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert "mine" in found["extra_logs"] and torch.equal(found["scores"], found["rewards"])
    plain = openrlhf.shielded(Shield("equations"), lambda queries, prompts, labels: [1.0])
    assert plain([RIGHT], [""], [""])["rewards"].tolist() == [1.0]


def test_verl_scores_one_at_a_time():
    def inner(data_source, solution_str, ground_truth, extra_info=None):
        return {"score": 1.0, "acc": True}

    score = verl.shielded(Shield("equations"), inner, instead=-0.5)
    said = score(data_source="d", solution_str=WRONG, ground_truth="4", extra_info={})
    assert said == {"score": -0.5, "acc": True, "hailproof_left_out": 1.0,
                    "hailproof": "equations: 2 + 2 = 5 should be 4"}  # fmt: skip
    assert score("d", RIGHT, "4")["score"] == 1.0 and score.__name__ == "inner"

    async def later(data_source, solution_str, ground_truth, extra_info=None):
        return float("nan") if "nan" in solution_str else 0.25

    delayed = verl.shielded(Shield("equations"), later)
    assert asyncio.run(delayed(data_source="d", solution_str=RIGHT, ground_truth="4"))["score"] == 0.25
    assert asyncio.run(delayed(data_source="d", solution_str="nan", ground_truth="4"))["score"] == 0.0
    for needy in (Shield("reward_outlier", brings=["groups"]), Shield(("length", {"cap": 9}), brings=["ids"])):
        with pytest.raises(ConfigError, match="verl scores one answer at a time, without"):
            verl.shielded(needy, inner)


class Manager:
    """As ``verl.experimental.reward_loop.reward_manager.NaiveRewardManager``."""

    def __init__(self, tokenizer: Any, score: Any = 1.0) -> None:
        self.tokenizer, self.score = tokenizer, score

    async def run_single(self, data: Any) -> dict[str, Any]:
        return {"reward_score": self.score, "reward_extra_info": {"acc": self.score}}


class DataProto(list[Any]):
    """As ``verl.DataProto``: items with tensors, prompts padded on the left and answers on the right."""

    def __init__(self, *answers: list[int], longest: int = 60) -> None:
        for ids in answers:
            padding = [0] * (longest - len(ids))
            mask = torch.tensor([0, 1, 1] + [1] * len(ids) + padding)
            batch = {"responses": torch.tensor(ids + padding), "attention_mask": mask}
            self.append(SimpleNamespace(batch=batch, non_tensor_batch={}))


def test_verl_reward_manager_reads_the_sampled_ids(base_policy):
    tokenizer = base_policy.codec.tokenizer
    right, wrong = (tokenizer.encode(text) for text in (RIGHT, WRONG))
    manager = verl.reward_manager(Manager, Shield("equations", tokenizer=tokenizer), instead=-0.5)(tokenizer)
    assert type(manager).__name__ == "ShieldedManager" and isinstance(manager, Manager)

    def said(*answers: list[int]) -> dict[str, Any]:
        return asyncio.run(manager.run_single(DataProto(*answers)))

    assert said(right) == {"reward_score": 1.0,
                           "reward_extra_info": {"acc": 1.0, "hailproof_left_out": 0.0, "hailproof": ""}}  # fmt: skip
    rejected = said(right, wrong)  # of several outputs of a session the last one is scored
    assert rejected["reward_score"] == -0.5 and rejected["reward_extra_info"]["hailproof_left_out"] == 1.0
    assert rejected["reward_extra_info"]["hailproof"] == "equations: 2 + 2 = 5 should be 4"
    manager.score = None
    assert said(right)["reward_extra_info"]["hailproof"] == "no reward"

    capped = verl.reward_manager(Manager, Shield(("length", {"cap": len(right)}), brings=["ids"]))(tokenizer)
    assert asyncio.run(capped.run_single(DataProto(right)))["reward_score"] == 1.0  # padding does not count
    assert asyncio.run(capped.run_single(DataProto([*right, 5])))["reward_score"] == 0.0
    with pytest.raises(ConfigError, match="verl scores one answer at a time, without groups;"):
        verl.reward_manager(Manager, Shield("reward_outlier", brings=["groups"]))


@dataclass
class Meta:
    """As ``transfer_queue.KVBatchMeta``."""

    keys: list[str]
    tags: list[dict[str, Any]]
    partition_id: str = "train"
    extra_info: dict[str, Any] = field(default_factory=dict)


class Buffer:
    """As ``verl.trainer.ppo.v1.replay_buffer.ReplayBuffer``."""

    def __init__(self, keys: list[str], partition: str = "train") -> None:
        self.meta = Meta(keys, [{"seq_len": at} for at in range(len(keys))], partition, {"more": 1})

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Meta, dict[str, Any]]:
        return self.meta, {"training/other": 3}


@dataclass
class Queue:
    """As the module ``transfer_queue``."""

    infos: dict[str, Any]
    cleared: list[str] = field(default_factory=list)

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        assert (partition_id, select_fields) == ("train", ["extra_fields"])
        return {"extra_fields": [SimpleNamespace(data={"reward_extra_info": self.infos[key]}) for key in keys]}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        assert partition_id == "train"
        self.cleared += keys


@pytest.mark.parametrize(
    ("keys", "rejected", "kept"),
    [
        ("a_0_0 a_1_0 a_2_0 b_0_0 b_1_0", "", [0, 1, 2, 3, 4]),
        ("a_0_0 a_1_0 a_2_0 b_0_0 b_1_0", "a_1_0", [0, 2, 3, 4]),
        ("a_0_0 a_1_0 a_2_0 b_0_0 b_1_0", "b_0_0", [0, 1, 2]),  # one survivor has no baseline
        ("a_0_0 a_1_0 a_1_1 a_2_0", "a_1_0 a_1_1", [0, 3]),  # a session goes as a whole
        ("a_0_0 a_0_1 a_1_0 b_0_0", "a_1_0", [3]),  # two outputs of one session are one survivor
        ("a_0_0 b_0_0 c_0_0 c_1_0", "c_0_0", [0, 1]),  # groups of one lost nothing
    ],
)
def test_verl_replay_buffer_drops(monkeypatch, keys, rejected, kept):
    queue = Queue({key: {"hailproof_left_out": float(key in rejected.split())} for key in keys.split()})
    monkeypatch.setitem(sys.modules, "transfer_queue", queue)
    batch, metrics = verl.replay_buffer(Buffer)(keys.split()).sample(1, "train", 2)
    assert [tag["seq_len"] for tag in batch.tags] == kept and batch.keys == [keys.split()[at] for at in kept]
    assert batch.extra_info == {"more": 1} and not {*batch.keys} & {*queue.cleared}
    assert len(batch.keys) + len(queue.cleared) == len(keys.split())
    assert metrics == {"training/other": 3, "training/hailproof_left_out": len(queue.cleared)}


def test_verl_replay_buffer_refuses_what_nobody_screened(monkeypatch):
    buffer = verl.replay_buffer(Buffer)
    for info in ({"acc": 1.0}, {}, None):
        monkeypatch.setitem(sys.modules, "transfer_queue", Queue({"a_0_0": info}))
        with pytest.raises(ConfigError, match="a rollout has no 'hailproof_left_out'"):
            buffer(["a_0_0"]).sample(1, "train", 1)
    assert buffer(["a_0_0"], "val").sample(1, "val", 1)[0].keys == ["a_0_0"]  # validation is not touched
    monkeypatch.setitem(sys.modules, "transfer_queue", Queue({"a_0_0": {"hailproof_left_out": 1.0}}))
    with pytest.raises(RunError, match="all 1 rollouts of the batch were rejected"):
        buffer(["a_0_0"]).sample(1, "train", 1)


@dataclass
class Sample:
    """As ``slime.utils.types.Sample``."""

    response: str
    reward: Any = 1.0
    prompt: Any = "2 + 2?"
    group_index: int = 0
    tokens: list[int] = field(default_factory=list)
    response_length: int = 0
    loss_mask: list[int] | None = None
    remove_sample: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


def test_slime_removes_samples_and_their_place_in_the_baseline():
    args = SimpleNamespace(reward_key="r")
    groups = [[Sample(RIGHT), Sample(WRONG), Sample("no", 0.0)], [Sample(RIGHT, {"r": 2.0}, group_index=1)]]
    slime.sample_filter_of(Shield("equations"))(args, groups)
    assert [[each.remove_sample for each in group] for group in groups] == [[False, True, False], [False]]
    raw, rewards = slime.post_process_of(scale=False)(args, groups)
    assert (raw, rewards) == ([1.0, 1.0, 0.0, 2.0], [0.5, 0.0, -0.5, 0.0])
    _, scaled = slime.post_process_of()(args, groups)
    assert scaled == pytest.approx([0.7071, 0.0, -0.7071, 0.0], abs=1e-3)
    slime.sample_filter_of(Shield("equations"))(args, [])


def test_slime_mutes_tokens(base_policy):
    shield = Shield("texts", model=base_policy.model, tokenizer=base_policy.codec.tokenizer)
    ids = base_policy.codec.as_completion("<think>Gleeb Glorp. So 2 + 2 = 4.</think><answer>4</answer>").token_ids
    sample = Sample("", tokens=[1, 2, *ids], response_length=len(ids), loss_mask=[1] * (len(ids) - 1) + [0])
    slime.sample_filter_of(shield)(SimpleNamespace(), [[sample]])
    assert not sample.remove_sample and sample.loss_mask is not None
    assert 0 < sum(sample.loss_mask) < len(ids) - 1 and sample.loss_mask[-1] == 0


def trace(text: str, score: float | None = 1.0) -> Any:
    """As ``verifiers.v1.trace.Trace``."""
    def node(role: str, content: Any, sampled: bool) -> Any:
        return SimpleNamespace(message=SimpleNamespace(role=role, content=content), sampled=sampled)

    rewards = {"right": None if score is None else SimpleNamespace(score=score, weight=0.5), "late": None}
    nodes = [node("user", "2 + 2?", False), node("assistant", [SimpleNamespace(text=text)], True),
             node("tool", WRONG, False), node("assistant", None, True)]  # fmt: skip
    return SimpleNamespace(nodes=nodes, rewards=rewards, errors=[], ok=True)


def test_verifiers_traces_end_with_an_error():
    traces = [trace(RIGHT), trace(WRONG), trace(WRONG, 0.0), trace(RIGHT, None)]
    names = iter("abcd")
    result = verifiers.leave_out(Shield("equations"), traces, sender=lambda _: next(names))
    assert [each.ok for each in traces] == [True, False, True, False]
    assert [len(each.errors) for each in traces] == [0, 1, 0, 1]
    error = traces[1].errors[0]
    said = error if isinstance(error, dict) else error.model_dump()
    assert said["type"] == "HailproofRejected" and said["message"] == "equations: 2 + 2 = 5 should be 4"
    assert result.rewards == [0.5, None, 0.0, None] and result.rows[1].sender == "b"


def test_verifiers_reads_reasoning_and_calls():
    thought, called = trace(RIGHT), trace(RIGHT)
    thought.nodes[1].message.reasoning_content = WRONG
    called.nodes[1].message.tool_calls = [SimpleNamespace(name="calculator", arguments='{"sum": "2 + 2 = 5"}')]
    verifiers.leave_out(Shield("equations"), [thought, called, trace(RIGHT)])
    assert [thought.ok, called.ok] == [False, False]


def node(text: str, ids: list[int], sampled: bool = True) -> Any:
    """As ``verifiers.v1.graph.MessageNode``; the first id is a part of the template."""
    message = SimpleNamespace(role="assistant" if sampled else "user", content=text)
    return SimpleNamespace(message=message, sampled=sampled, token_ids=[9, *ids], mask=[False] + [sampled] * len(ids),
                           advantages=None, loss_weights={"ce": [0.1] * (len(ids) + 1)})  # fmt: skip


def rollout(reward: float, *nodes: Any, trainable: bool = True, ok: bool = True) -> Any:
    """As ``verifiers.v1.Trace``."""
    rewards = {"right": SimpleNamespace(score=reward, weight=1.0)}
    return SimpleNamespace(nodes=[node("2 + 2?", [1], False), *nodes], rewards=rewards, errors=[], ok=ok,
                           agent=SimpleNamespace(trainable=trainable), reward=reward)  # fmt: skip


class GRPO:
    """As ``prime_rl.orchestrator.algo.GRPOAlgorithm``: reward less the mean of the group, over traces without error."""

    def __init__(self, loss: str = "rl") -> None:
        self.action_loss_type, self.baselines = loss, []

    async def score_group(self, episodes: list[Any]) -> None:
        traces = [each for episode in episodes for each in episode.traces if each.ok and each.agent.trainable]
        self.baselines.append(sum(each.reward for each in traces) / len(traces))
        for each in traces:
            for part in each.nodes:
                if any(part.mask):
                    part.advantages = [each.reward - self.baselines[-1]] * sum(part.mask)


def group(*traces: Any) -> list[Any]:
    return [SimpleNamespace(traces=[each]) for each in traces]


def test_prime_rl_leaves_rejected_traces_out_of_baseline_and_loss():
    traces = [rollout(1.0, node(RIGHT, [2, 3])), rollout(1.0, node(WRONG, [4, 5]), node(RIGHT, [6])),
              rollout(0.0, node("no", [7])), rollout(1.0, node(WRONG, [8]), trainable=False),
              rollout(1.0, node(WRONG, [8]), ok=False), rollout(1.0)]  # fmt: skip
    names = iter("abc")
    made = prime_rl.shielded(GRPO, Shield("equations"), sender=lambda _: next(names))
    algorithm = made()
    assert isinstance(algorithm, GRPO) and made.__name__ == "ShieldedGRPO"
    asyncio.run(algorithm.score_group(group(*traces)))
    assert algorithm.baselines == [pytest.approx((1 + 0 + 1) / 3)]  # the trace without tokens is none of ours
    assert [each.ok for each in traces] == [True, False, True, True, False, True]
    assert [len(each.errors) for each in traces] == [0, 1, 0, 0, 0, 0]
    assert [part.advantages for part in traces[1].nodes] == [None, [0.0, 0.0], [0.0]]
    assert [part.loss_weights for part in traces[1].nodes] == [None] * 3
    assert traces[0].nodes[1].advantages == [pytest.approx(1 / 3)] * 2 and traces[0].nodes[1].loss_weights
    assert traces[2].nodes[1].advantages == [pytest.approx(-2 / 3)]
    assert traces[3].nodes[1].advantages is None and traces[4].nodes[1].loss_weights


def test_prime_rl_with_nothing_left_asks_for_no_credit():
    traces = [rollout(1.0, node(WRONG, [4, 5])), rollout(1.0, node(WRONG, [4]))]
    algorithm = prime_rl.shielded(GRPO, Shield("equations"))()
    asyncio.run(algorithm.score_group(group(*traces)))
    assert algorithm.baselines == [] and [each.nodes[1].advantages for each in traces] == [[0.0, 0.0], [0.0]]
    asyncio.run(algorithm.score_group([]))


def test_prime_rl_mutes_tokens(base_policy):
    shield = Shield("texts", model=base_policy.model, tokenizer=base_policy.codec.tokenizer)
    ids = list(base_policy.codec.as_completion("<think>Gleeb Glorp. So 2 + 2 = 4.</think><answer>4</answer>").token_ids)
    muted, zero = rollout(1.0, node("", ids[:5]), node("", ids[5:])), rollout(0.0, node("", [ids[-1]]))
    asyncio.run(prime_rl.shielded(GRPO, shield)().score_group(group(muted, zero)))
    credit = [each for part in muted.nodes[1:] for each in part.advantages]
    (row,) = shield.screen(prompts=["2 + 2?"], prompt_ids=[[9, 1, 9]], completion_ids=[ids], rewards=[1.0])
    assert muted.ok and row.mask is not None and 0 in row.mask
    share = sum(row.mask) / len(row.mask)  # rewards 1 and 0, counted for share and 1
    assert credit == pytest.approx([(1 - share / (share + 1)) * kept for kept in row.mask])


def test_prime_rl_refuses_losses_without_advantages():
    with pytest.raises(ConfigError, match="GRPO trains by the loss 'ce', which goes by no advantages"):
        prime_rl.shielded(GRPO, Shield("equations"))("ce")


def scored(*arguments: Any, **answers: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda shield, **more: genrl.kept(shield, {}, **more), "genrl cannot weigh rows as told asks, or mute tokens"),
        (lambda shield, **more: verifiers.leave_out(shield, [], **more), "verifiers cannot weigh rows as told asks"),
        (lambda shield, **more: openrlhf.shielded(shield, scored, **more), "reward function of OpenRLHF cannot weigh"),
        (lambda shield, **more: openrlhf.executor(object, shield, **more), "OpenRLHF cannot weigh rows as told asks; "),
        (lambda shield, **more: verl.shielded(shield, scored, **more), "A score function of verl cannot weigh rows"),
        (lambda shield, **more: verl.reward_manager(Manager, shield, **more), "A reward manager of verl cannot weigh"),
        (lambda shield, **more: verl.replay_buffer(Buffer, shield, **more), "verl without its trainer cannot weigh"),
    ],
)
def test_what_a_trainer_cannot_do_is_said_when_it_is_built(build, says, base_policy):
    tokenizer = base_policy.codec.tokenizer
    with pytest.raises(ConfigError, match=says):
        build(Shield(Told(), tokenizer=tokenizer))
    build(Shield(Told(), tokenizer=tokenizer), coarse=True)
    build(Shield("equations", tokenizer=tokenizer))


def test_what_defenses_give_is_known_before_they_speak(base_policy):
    model, tokenizer = base_policy.model, base_policy.codec.tokenizer
    chain = Shield("heterogeneous", "token_credit", "sender_stats", model=model, tokenizer=tokenizer,
                   brings={"senders"}).chain  # fmt: skip
    assert chain.that_give("weights") == ("influence", "sender_stats")
    assert chain.that_give("masks") == ("equations", "token_credit")
    assert Shield("equations", "imports").chain.that_give("masks") == ()


def test_rows_that_cannot_be_weighed_are_left_out():
    answers = ["weight=0.4", "weight=0.6", "weight=1"]
    states = {answer: {0: [payload(answer)]} for answer in answers}
    assert [*genrl.kept(Shield(Told()), states, coarse=True)] == answers[1:]
    assert [*genrl.kept(Shield(Quiet()), states)] == answers[2:]  # nobody said that it weighs: nothing is ignored

    traces = [trace(answer) for answer in answers]
    verifiers.leave_out(Shield(Quiet()), traces)
    assert [each.ok for each in traces] == [False, False, True]
    score = verl.shielded(Shield(Told()), scored, instead=-1.0, coarse=True)
    assert [score("d", answer, "4")["score"] for answer in answers] == [-1.0, 1.0, 1.0]
    reward = openrlhf.shielded(Shield(Quiet()), lambda queries, prompts, labels: [1.0], instead=-1.0)
    assert [reward([answer], [""], [""])["rewards"].item() for answer in answers] == [-1.0, -1.0, 1.0]


def test_advantages_are_taken_relative_to_the_mean_by_shares():
    assert recentered([0.5, -0.25, -0.25], [1, 1, 1]) == [0.5, -0.25, -0.25]
    # rewards 1, 0, 0 with shares 1/3, 1, 2/3: the mean is 1/6 where it was 1/3
    assert recentered([2 / 3, -1 / 3, -1 / 3], [1 / 3, 1, 2 / 3]) == pytest.approx([5 / 6, -1 / 6, -1 / 6])
    assert recentered([1.0, 0.0], [0.5, 1]) == [1.0, 0.0]  # not relative to a mean: rewards as they are
    assert recentered([0.5, -0.5], [0, 0]) == [0.5, -0.5]


def test_prime_rl_weighs_credit_and_the_place_in_the_baseline():
    half, muted, zero = (rollout(float(each == "weight=0.5"), node(each, [2, 3]))
                         for each in ("weight=0.5", "mute=1", "weight=1"))  # fmt: skip
    muted.nodes[1].loss_weights = {"rl": [0.0, 0.2, 0.2], "ce": [0.1, 0.1, 0.1]}
    half.nodes[1].loss_weights = {"rl": [0.0, 0.2, 0.2], "ce": [0.1, 0.1, 0.1]}
    asyncio.run(prime_rl.shielded(GRPO, Shield(Told(), brings=["ids"]))().score_group(group(half, muted, zero)))
    # rewards 1, 0, 0 with shares 1/2, 1/2, 1: the mean is 1/4
    assert half.nodes[1].advantages == pytest.approx([0.5 * 0.75] * 2)
    assert muted.nodes[1].advantages == pytest.approx([-0.25, 0.0])
    assert zero.nodes[1].advantages == pytest.approx([-0.25] * 2)
    assert half.nodes[1].loss_weights == {"rl": [0.0, 0.2, 0.2], "ce": pytest.approx([0.05] * 3)}
    assert muted.nodes[1].loss_weights == {"rl": [0.0, 0.2, 0.0], "ce": [0.1, 0.1, 0.0]}
    assert half.nodes[0].loss_weights == {"ce": [0.05, 0.05]} and zero.nodes[1].loss_weights == {"ce": [0.1] * 3}


def test_prime_rl_leaves_other_credit_where_it_is():
    class ByToken(GRPO):
        async def score_group(self, episodes):
            for each in episodes:
                each.traces[0].nodes[1].advantages = [0.5, -0.5]

    first, second = rollout(1.0, node("weight=0.5", [2, 3])), rollout(0.0, node("weight=1", [2, 3]))
    asyncio.run(prime_rl.shielded(ByToken, Shield(Told()))().score_group(group(first, second)))
    assert first.nodes[1].advantages == [0.25, -0.25] and second.nodes[1].advantages == [0.5, -0.5]


def test_slime_weighs_what_it_returns():
    args = SimpleNamespace(custom_reward_post_process_path="my_hooks.post_process")
    told = [("weight=0.5", 1.0), ("mute=0,1", 0.0), ("weight=1", 0.0), ("reject", 1.0)]
    samples = [Sample(answer, reward, tokens=[1, 2, 3, 4], response_length=4) for answer, reward in told]
    slime.sample_filter_of(Shield(Told(), brings=["ids"]))(args, [samples])
    assert samples[1].loss_mask == [0, 0, 1, 1] and [each.remove_sample for each in samples] == [False] * 3 + [True]
    raw, final = slime.post_process_of(scale=False)(args, samples)
    assert raw == [1.0, 0.0, 0.0, 1.0] and final == pytest.approx([0.5 * 0.75, -0.25, -0.25, 0.0])
    _, scaled = slime.post_process_of()(args, samples)
    assert scaled[0] / scaled[2] == pytest.approx(-1.5) and abs(scaled[2]) > 0.25


def test_slime_without_its_second_hook_weighs_nothing():
    with pytest.raises(ConfigError, match="slime weighs no rows by itself, as told asks; name what"):
        slime.sample_filter_of(Shield(Told()))(SimpleNamespace(), [])
    samples = [Sample("weight=0.9"), Sample("weight=1")]
    slime.sample_filter_of(Shield(Quiet()))(SimpleNamespace(), samples)
    assert [each.remove_sample for each in samples] == [True, False]


class Executor:
    """As ``openrlhf.utils.agent.SingleTurnAgentExecutor``."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def execute(self, prompt: str, label: Any, hf_tokenizer: Any, reward: Any = 1.0) -> dict[str, Any]:
        tokens = [9, 9, 1, 2, 3, 8, 4, 5]  # two of the prompt, three of one turn, a tool's, two of another turn
        return {"prompt": prompt, "reward": reward, "scores": reward, "observation_tokens": tokens,
                "action_ranges": [(2, 5), (6, 8)], "extra_logs": {"mine": 1}}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "ranges", "reward"),
    [
        ("weight=1", [(2, 5), (6, 8)], 1.0),
        ("mute=1", [(2, 3), (4, 5), (6, 8)], 1.0),
        ("mute=2,3", [(2, 4), (7, 8)], 1.0),
        ("mute=0,1,2,3,4", [], -1.0),
        ("reject", [], -1.0),
        ("weight=0.4", [], -1.0),
    ],
)
def test_openrlhf_executor_lets_only_learned_tokens_be_actions(told, ranges, reward):
    asked = []

    class Tokenizer:
        def decode(self, ids, skip_special_tokens):
            asked.append(ids)
            return told

    made = openrlhf.executor(Executor, Shield(Told(), brings=["ids"]), "rewards.py", instead=-1.0, coarse=True)()
    said = asyncio.run(made.execute("2 + 2?", "4", hf_tokenizer=Tokenizer()))
    assert made.url == "rewards.py" and asked == [[1, 2, 3, 4, 5]]
    assert (said["action_ranges"], said["reward"]) == (ranges, reward)
    assert said["extra_logs"] == {"mine": 1, "hailproof_left_out": float(not ranges)}
    unscored = asyncio.run(made.execute("2 + 2?", "4", hf_tokenizer=Tokenizer(), reward=None))
    assert (unscored["action_ranges"], unscored["reward"]) == ([], -1.0)


def test_openrlhf_refuses_what_compares_rows():
    shield = Shield("reward_outlier", brings=["groups"])
    for build in (lambda: openrlhf.shielded(shield, scored), lambda: openrlhf.executor(Executor, shield)):
        with pytest.raises(ConfigError, match="OpenRLHF scores one answer at a time, without groups; choose other"):
            build()


class Store(dict[str, dict[str, Any]]):
    """As the module ``transfer_queue``, with fields by key; nested tensors come out."""

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        found = {name: [self[key][name] for key in keys] for name in select_fields}
        return {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) if isinstance(rows[0], torch.Tensor)
                else rows for name, rows in found.items()}  # fmt: skip

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: dict[str, Any]) -> None:
        for name, rows in fields.items():
            for key, row in zip(keys, rows.unbind(), strict=True):
                self[key][name] = row

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            del self[key]


def stored(monkeypatch: pytest.MonkeyPatch, rewards: dict[str, float]) -> Store:
    """A queue with a rollout of two tokens and a tool's between them for each key."""
    store = Store()
    for key, reward in rewards.items():
        store[key] = {"prompts": torch.tensor([7, 7]), "responses": torch.tensor([20, 8, 21]), "sender": key[0],
                      "response_mask": torch.tensor([1, 0, 1]), "loss_mask": torch.tensor([1, 0, 1]),
                      "rm_scores": torch.tensor([0.0, 0.0, reward])}  # fmt: skip
    monkeypatch.setitem(sys.modules, "transfer_queue", store)
    tensordict = SimpleNamespace(TensorDict=lambda fields, batch_size: fields)
    monkeypatch.setitem(sys.modules, "tensordict", tensordict)
    return store


class Asked(Told):
    """Says of each row what a table says of its place in the batch."""

    def __init__(self, *said: str) -> None:
        super().__init__()
        self.said, self.seen = said, []

    def screen(self, evidence):
        """One verdict a completion."""
        self.seen = [(each.problem_id, each.sender, each.completion.token_ids) for each in evidence.submissions]
        return [self._told(text) for text in self.said]


class Trainer:
    """As ``verl.trainer.ppo.v1.PPOTrainer``: GRPO without a deviation, on every row of its batch."""

    def __init__(self, replay_buffer: Any) -> None:
        self.replay_buffer = replay_buffer

    def _compute_advantage(self, batch: Meta, metrics: dict[str, Any]) -> Meta:
        store: Any = sys.modules["transfer_queue"]
        for group in {key.rsplit("_", 2)[0] for key in batch.keys}:
            rows = [store[key] for key in batch.keys if key.startswith(group)]
            mean = sum(float(each["rm_scores"].sum()) for each in rows) / len(rows)
            for each in rows:
                each["advantages"] = (float(each["rm_scores"].sum()) - mean) * each["response_mask"]
        return batch


def test_verl_replay_buffer_screens_mutes_and_weighs(monkeypatch, base_policy):
    store = stored(monkeypatch, {"a_0_0": 1.0, "a_1_0": 0.0, "a_2_0": 0.0, "b_0_0": 1.0, "b_1_0": 0.0, "b_2_0": 1.0})
    told = Asked("weight=0.5", "mute=1", "weight=1", "weight=1", "weight=1", "reject")

    class Mine(Trainer):
        pass

    shield = Shield(told, tokenizer=base_policy.codec.tokenizer, brings=["ids", "groups", "senders"])
    buffer = verl.replay_buffer(Buffer, shield, Mine, sender="sender")([*store])
    verl.replay_buffer(Buffer, shield, Mine)  # the user's file is imported twice: it must not weigh twice
    batch, metrics = buffer.sample(1, "train", 2)
    assert [group for group, *_ in told.seen] == [*"aaabbb"] and [ids for *_, ids in told.seen] == [(20, 21)] * 6
    assert [sender for _, sender, _ in told.seen] == [0, 0, 0, 1, 1, 1]
    assert batch.keys == ["a_0_0", "a_1_0", "a_2_0", "b_0_0", "b_1_0"] and "b_2_0" not in store
    assert metrics["training/hailproof_left_out"] == 1 and metrics["training/hailproof/rejected/told"] == 1 / 6
    assert store["a_1_0"]["response_mask"].tolist() == store["a_1_0"]["loss_mask"].tolist() == [1, 0, 0]
    assert store["a_0_0"]["response_mask"].tolist() == [1, 0, 1]

    padded = Meta([*batch.keys, "p_0_0"], [*batch.tags, {}])  # verl fills the batch up with padding
    store["p_0_0"] = {**store["a_2_0"], "rm_scores": torch.zeros(3)}
    Mine(buffer)._compute_advantage(padded, {})
    found = {key: row["advantages"].tolist() for key, row in store.items()}
    assert found["a_0_0"] == pytest.approx([0.375, 0, 0.375])  # 1 less a mean by shares of 1/4, times its weight
    assert found["a_1_0"] == pytest.approx([-0.25, 0, 0]) and found["a_2_0"] == pytest.approx([-0.25, 0, -0.25])
    assert found["b_0_0"] == pytest.approx([0.5, 0, 0.5]) and found["p_0_0"] == [0, 0, 0]


def test_verl_sessions_of_several_outputs_are_one_row_of_the_baseline(monkeypatch, base_policy):
    store = stored(monkeypatch, {"a_0_0": 1.0, "a_0_1": 1.0, "a_1_0": 0.0})

    class Mine(Trainer):
        def _compute_advantage(self, batch, metrics):
            for key in batch.keys:
                store[key]["advantages"] = (0.5 if key.startswith("a_0") else -0.5) * store[key]["response_mask"]
            return batch

    shield = Shield(Asked("mute=0", "weight=1", "weight=1"), tokenizer=base_policy.codec.tokenizer)
    buffer = verl.replay_buffer(Buffer, shield, Mine)([*store])
    batch, _ = buffer.sample(1, "train", 2)
    Mine(buffer)._compute_advantage(batch, {})
    # shares 3/4 and 1: the mean of 0.5 and -0.5 is -1/14
    assert store["a_0_0"]["advantages"].tolist() == pytest.approx([0, 0, 0.5 + 1 / 14])
    assert store["a_0_1"]["advantages"].tolist() == pytest.approx([0.5 + 1 / 14, 0, 0.5 + 1 / 14])
    assert store["a_1_0"]["advantages"].tolist() == pytest.approx([-0.5 + 1 / 14, 0, -0.5 + 1 / 14])


def test_verl_replay_buffer_is_refused_what_it_cannot_do(monkeypatch, base_policy):
    for build in (lambda: verl.replay_buffer(Buffer, trainer=Trainer), lambda: verl.replay_buffer(Buffer, sender="s")):
        with pytest.raises(ConfigError, match="A replay buffer without a shield reads verdicts only"):
            build()
    with pytest.raises(ConfigError, match="verl's queue holds ids, which the shield cannot read"):
        verl.replay_buffer(Buffer, Shield("equations"))
    store = stored(monkeypatch, {"a_0_0": 1.0})
    shield = Shield(Asked("reject"), tokenizer=base_policy.codec.tokenizer)
    with pytest.raises(RunError, match=r"all 1 rollouts .* of the first the shield says: told: told to"):
        verl.replay_buffer(Buffer, shield, coarse=True)([*store]).sample(1, "train", 1)
