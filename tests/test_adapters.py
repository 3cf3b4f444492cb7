"""The shield in the seams of other trainers, on objects of their documented form."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hailproof.errors import ConfigError
from hailproof.integrations import genrl, openrlhf, slime, verifiers, verl
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
