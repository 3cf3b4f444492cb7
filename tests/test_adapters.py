"""The shield in the seams of other trainers, on objects of their documented form."""

import asyncio
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hailproof.errors import ConfigError, RunError
from hailproof.integrations import genrl, openrlhf, prime_rl, slime, verifiers, verl
from hailproof.shield import Shield

RIGHT, WRONG = "so 2 + 2 = 4", "so 2 + 2 = 5"


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
    assert credit == [0.5 * kept for kept in row.mask]


def test_prime_rl_refuses_losses_without_advantages():
    with pytest.raises(ConfigError, match="GRPO trains by the loss 'ce', which goes by no advantages"):
        prime_rl.shielded(GRPO, Shield("equations"))("ce")
