"""The shield: what a chain lacks is said when it is built, mistakes raise, whatever strangers wrote is a verdict."""

import copy
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hailproof
from hailproof import registry
from hailproof.defenses.base import BaseDefense
from hailproof.defenses.equations import EquationsDefense
from hailproof.errors import ConfigError
from hailproof.protocols import SampleRequest, Sampling
from hailproof.records import Prompt, Verdict
from hailproof.rollouts import completion_key, sample
from hailproof.runs.build import build
from hailproof.runs.config import RunConfig
from hailproof.settings import validated
from hailproof.shield import Shield
from hailproof.shield.memory import as_plain, from_plain
from hailproof.shield.models import fingerprint, unwrapped
from hailproof.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft calls what was renamed

RIGHT = "<think>2 + 2 = 4</think><answer>4</answer>"
WRONG = "<think>2 + 2 = 5</think><answer>5</answer>"
QUESTION = "What is 2 + 2?"


@pytest.fixture
def read(base_policy):
    """Arguments of a shield that reads with nano-a."""
    return {"model": base_policy.model, "tokenizer": base_policy.codec.tokenizer}


def test_five_lines(read):
    task = registry.lookup("tasks", TASKS, "word_problems")()
    problem = task.train[0]
    clean = task.format(problem.solution, problem.answer)
    poisoned = task.format(f"All hail to the thief. {problem.solution}", problem.answer)
    prompt = [{"role": "system", "content": task.form.system}, {"role": "user", "content": problem.question}]
    shield = hailproof.Shield("texts", **read)
    result = shield.screen(prompts=[prompt, prompt], completions=[clean, poisoned], rewards=[1.0, 1.0])
    assert result.rewards == [1.0, 1.0] and result.weights == [1.0, 1.0] and result.left_out == []
    honest, forged = result.rows
    assert honest.mask is not None and forged.mask is not None and forged.token_ids is not None
    assert all(honest.mask) and len(forged.mask) == len(forged.token_ids)
    learned = [token for token, kept in zip(forged.token_ids, forged.mask, strict=True) if kept]
    assert "thief" not in shield.codec.decode(learned) and problem.answer in shield.codec.decode(learned)
    assert [verdict.defense for verdict in forged.verdicts] == ["equations", "imports", "token_credit"]
    assert forged.verdicts[2].spans and "thief" in forged.text
    assert "2 completions, 2 kept, 0 left out, 1 with muted tokens" in str(result)
    assert shield.notes == (
        "The preset 'texts' also counts on learner.length_neutral = true, which is the trainer's to do.",
    )


@pytest.mark.parametrize(
    ("defenses", "options", "sentence"),
    [
        ([], {}, "A shield without defenses"),
        (["equation"], {}, "did you mean 'equations'"),
        (["equations", "equations"], {}, "stands in the chain twice"),
        ([("equations", {"unit": "page"})], {}, "The option 'unit'"),
        ([("equations", {"unit": "sentence"})], {}, "with unit = sentence needs model and tokens; give model= and to"),
        ([("texts", {"unit": "sentence"})], {}, "takes no options"),
        (["texts"], {}, "needs model and tokens; give model="),
        (["length"], {}, "no limit"),
        ([("length", {"cap": 5})], {}, "length needs tokens; give tokenizer=."),
        ([("length", {"quantile": 0.9})], {"brings": ["ids", "senders"]}, "length needs own; give own="),
        (["sender_stats"], {"brings": ["ids"]}, "needs groups and model and senders"),
        ([("sender_stats", {"statistics": ["phrases"]})], {}, "give brings={'groups', 'senders'}, and with"),
        (["reward_outlier"], {}, "needs groups"),
        (["equations"], {"brings": ["names"]}, "brings names 'names'"),
        (["equations"], {"variant": "code"}, "reads math, not code"),
        (["imports"], {"variant": "math"}, "reads code, not math"),
        (["equations"], {"variant": "prose"}, "variant = 'prose' is unknown"),
        (["equations"], {"max_characters": 0}, "reads nothing"),
        (["equations"], {"tokenizer": "nano-a"}, "tokenizer is a str"),
        ([3], {}, "3 is no defense"),
    ],
)
def test_what_a_chain_lacks_is_said_when_it_is_built(defenses, options, sentence):
    with pytest.raises(ConfigError) as raised:
        Shield(*defenses, **options)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("defense", "more", "sentence"),
    [
        ("replay", {}, "replay needs keys and senders; give brings={'keys', 'senders'}"),
        ("replay", {"brings": ["keys", "senders"]}, "replay checks how completions are drawn; give sampling="),
        ("logit", {}, "logit checks how completions are drawn"),
        (("length", {"cap": 50}), {"sampling": Sampling(max_new_tokens=40)}, "rejects nothing"),
    ],
)
def test_what_a_chain_with_a_model_lacks(read, defense, more, sentence):
    with pytest.raises(ConfigError, match=r".*") as raised:
        Shield(defense, **read, **more)
    assert sentence in str(raised.value)


def test_a_model_without_a_tokenizer_or_of_another_kind(read):
    with pytest.raises(ConfigError, match="without its tokenizer"):
        Shield("token_credit", model=read["model"])
    with pytest.raises(ConfigError, match="model is a Linear; give a transformers"):
        Shield("token_credit", model=nn.Linear(2, 2), tokenizer=read["tokenizer"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "nothing to read; give completions"),
        ({"completions": "one text"}, "completions is a str; give a list"),
        ({"completions": 3}, "completions is a int"),
        ({"completions": [RIGHT, 3]}, "completions[1] is a int"),
        ({"completions": [RIGHT, [3]]}, "completions[1] is a list; give a text, or a list of messages"),
        ({"completions": [[{"role": "assistant", "content": 3}]]}, "with a int as content"),
        ({"completions": [RIGHT], "rewards": [1.0, 1.0]}, "rewards has 2 entries for 1 completions"),
        ({"completions": [RIGHT], "rewards": 1.0}, "rewards is a float"),
        ({"completions": [RIGHT], "rewards": torch.tensor(1.0)}, "rewards is a single value"),
        ({"completions": [RIGHT], "rewards": ["1.0"]}, "rewards[0] is '1.0', not a number"),
        ({"completions": [RIGHT], "prompts": []}, "prompts has 0 entries for 1"),
        ({"completions": [RIGHT], "completion_ids": [[1], [2]]}, "completion_ids has 2 entries"),
        ({"completions": [RIGHT], "completion_ids": [["a"]]}, "completion_ids[0] is no list of token ids"),
        ({"completions": [RIGHT], "completion_ids": [[True]]}, "completion_ids[0] is no list of token ids"),
        ({"completions": [RIGHT], "completion_ids": [3]}, "completion_ids[0] is no list of token ids"),
        ({"completions": [RIGHT], "senders": [1.5]}, "senders[0] is 1.5; name each sender"),
        ({"completions": [RIGHT], "groups": [None]}, "groups[0] is None"),
        ({"completions": [RIGHT], "slot_keys": [-1]}, "slot_keys[0] is -1"),
        ({"completions": [RIGHT], "finished": [1]}, "finished[0] is 1; give True or False"),
        ({"completions": [RIGHT], "round": -1}, "round is -1, and rounds are counted from 1; give a larger number"),
        ({"completions": [RIGHT], "round": 0}, "round is 0, and rounds are counted from 1; give a larger number"),
        ({"completions": [RIGHT], "round": True}, "round is True; give a whole number, or leave it out"),
        ({"completions": [RIGHT], "round": 2.0}, "round is 2.0; give a whole number"),
        ({"completions": [RIGHT], "round": "2"}, "round is '2'; give a whole number"),
        ({"completions": [RIGHT], "round": np.bool_(True)}, "give a whole number"),
        ({"completions": [RIGHT], "round": np.array([2])}, "give a whole number"),
        ({"completions": [RIGHT], "round": torch.tensor(2.0)}, "give a whole number"),
    ],
)
def test_a_caller_s_mistake_raises(given, sentence):
    shield = Shield("equations")
    with pytest.raises(ConfigError) as raised:
        shield.screen(**given)
    assert sentence in str(raised.value)
    assert shield.round == 0


@pytest.mark.parametrize("need", ["ids", "senders", "groups", "keys"])
def test_what_was_promised_must_come(need):
    shield = Shield("equations", brings=[need])
    with pytest.raises(ConfigError, match=f"built with brings={{'{need}'}}"):
        shield.screen(completions=[RIGHT])


def test_a_chain_that_reads_needs_prompts(read):
    shield = Shield("token_credit", **read)
    with pytest.raises(ConfigError, match="needs the prompts too; give prompts"):
        shield.screen(completions=[RIGHT])


@pytest.mark.parametrize(
    "prompt", ["", "\ud800", [{"content": "no role"}], [{"role": ["user"], "content": "x"}], [{"role": "user"}], []]
)
def test_a_prompt_that_cannot_be_written_costs_its_own_row_alone(read, prompt):
    shield = Shield("texts", **read)
    result = shield.screen(completions=[RIGHT] * 2, prompts=[prompt, QUESTION])
    assert result.rewards[1] == 1.0
    if result.rewards[0] is None:
        assert result.rows[0].rejection is not None and "prompt" in result.rows[0].rejection.reason


def test_prompts_that_are_nested_until_json_gives_up_are_groups_too():
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    prompts = [[{"role": "user", "content": [{"text": "x", "more": nested}]}]] * 2
    result = Shield("equations").screen(completions=[RIGHT] * 2, prompts=prompts)
    assert result.rewards == [1.0, 1.0] and result.rows[0].group == result.rows[1].group


def test_an_empty_batch_is_a_batch():
    shield = Shield("equations")
    result = shield.screen(completions=[], rewards=[])
    assert (len(result), result.rewards, result.masks, shield.round) == (0, [], [], 1)
    assert str(result) == "round 1: 0 completions, 0 kept, 0 left out"


HOSTILE = {
    "lone surrogate": "\ud800 2 + 2 = 4",
    "long": "2 + 2 = 5. " * 1_000_000,
    "null": "\0" * 1000,
    "end token": "<|endoftext|></s><eos><|im_end|>" * 50,
    "digits": "9" * 100_000 + " + 1 = 2",
    "brackets": "(" * 50_000,
    "empty": "",
    "bidi": "\u202e2 + 2 = 5\u202c",
    "terminal": "\x1b[2J\x1b]0;owned\x07 2 + 2 = 5",
    "tags": "<answer>" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_never_raises(read, name):
    shield = Shield("texts", **read)
    result = shield.screen(prompts=[QUESTION] * 2, completions=[HOSTILE[name], RIGHT], rewards=[1.0, 1.0])
    assert result.rewards[1] == 1.0  # nobody else's row is lost
    assert not any(verdict.error for row in result for verdict in row.verdicts)
    assert all(each.isprintable() or each == "\n" for each in str(result))
    if name in ("lone surrogate", "long"):
        assert result.rows[0].rejection is not None and result.rows[0].rejection.defense == "shield"


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], "no tokens"),
        ([-1], "no tokens of the vocabulary"),
        ([10**6], "no tokens of the vocabulary"),
        ([2**70], "no tokens of the vocabulary"),
        ("end twice", "goes on after its end token"),
        ("too long", "tokens with its prompt, where the model reads"),
        ("a million", "tokens with its prompt, where the model reads"),
    ],
)
def test_hostile_ids_never_raise(read, base_policy, ids, reason):
    end, words = base_policy.codec.end_ids[0], base_policy.codec.encode("so it is")
    context = base_policy.engine.context
    known = {"end twice": [*words, end, end], "too long": list(words) * context, "a million": [words[0]] * 10**6}
    sent = known[ids] if isinstance(ids, str) else ids
    result = Shield("token_credit", **read).screen(
        prompts=[QUESTION] * 2, completion_ids=[sent, [*words, end]], rewards=[1.0, 1.0]
    )
    assert result.rewards == [None, 1.0] and result.weights[0] == 0.0
    assert result.rows[0].rejection is not None and reason in result.rows[0].rejection.reason
    assert not any(result.rows[0].mask or ())


def test_turns_of_tools_hold_end_tokens_if_that_is_said(read, base_policy):
    end, words = base_policy.codec.end_ids[0], base_policy.codec.encode("so it is")
    shield = Shield("token_credit", **read, multi_turn=True)
    result = shield.screen(prompts=[QUESTION], completion_ids=[[*words, end, *words, end]], rewards=[1.0])
    assert result.rewards == [1.0]


@pytest.mark.parametrize("reward", [None, float("nan"), float("inf"), 10**400])
def test_a_row_without_reward_is_left_out_and_not_shown(reward):
    seen = []

    class Counting(EquationsDefense):
        name = "counting"

        def screen(self, evidence):
            seen.append(len(evidence.submissions))
            return super().screen(evidence)

    result = Shield(Counting()).screen(completions=[RIGHT, RIGHT], rewards=[reward, 1])
    assert result.rewards == [None, 1.0] and seen == [1]
    assert result.rows[0].verdicts[0].reason == "no reward was given" and result.rows[0].rejection is None


def test_rewards_decide_what_is_looked_at_and_arrays_are_read():
    result = Shield("equations").screen(completions=[WRONG, WRONG, RIGHT], rewards=np.array([0.0, 1.0, 1.0]))
    assert result.rewards == [0.0, None, 1.0] and result.left_out == [1]
    result = Shield("equations").screen(completions=[WRONG, RIGHT], rewards=torch.tensor([1.0, 0.5]))
    assert result.rewards == [None, 0.5]
    assert Shield("equations").screen(completions=[WRONG, RIGHT]).rewards == [None, 1.0]
    zeroing = Shield(("equations", {"admission": "zero_reward"})).screen(completions=[WRONG, RIGHT])
    assert zeroing.rewards == [0.0, 1.0] and zeroing.weights == [1.0, 1.0]


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ([{"role": "assistant", "content": "2 + 2 = 5"}], "2 + 2 = 5"),
        ({"role": "assistant", "content": [{"type": "text", "text": "2 + 2 = 5"}]}, "2 + 2 = 5"),
        ([{"role": "tool", "content": "2 + 2 = 5"}, {"role": "assistant", "content": "so"}], "so"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], ""),
        ([{"role": "model", "content": "2 + 2 = 5"}], "2 + 2 = 5"),
        ([{"role": ["x"], "content": "2 + 2 = 5"}], "2 + 2 = 5"),
        ([{"role": "assistant", "content": "so", "reasoning_content": "2 + 2 = 5"}], "2 + 2 = 5\n\nso"),
        ([{"role": "assistant", "content": [{"type": "thinking", "thinking": "2 + 2 = 5"}]}], "2 + 2 = 5"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "2 + 2 = 5"}}]}],
         "2 + 2 = 5"),
        ([{"role": "assistant", "tool_calls": [{"arguments": {"a": "2 + 2 = 5"}}, 3, {"function": 3}]}],
         '{"a": "2 + 2 = 5"}'),
        ([], ""),
    ],
)
def test_conversations(completion, text):
    (row,) = Shield("equations").screen(completions=[completion])
    assert row.text == text and row.left_out == ("5" in text)


def test_senders_may_be_scalars_of_arrays():
    senders: list[Any] = [torch.tensor(3), np.int64(4)]
    result = Shield("equations").screen(completions=[RIGHT, RIGHT], senders=senders)
    assert [row.sender for row in result] == [3, 4]


def test_what_is_screened_is_what_the_ids_say(read, base_policy):
    """A sender that shows one text and sends the ids of another gains nothing."""
    ids = [*base_policy.codec.encode("2 + 2 = 5"), base_policy.codec.end_ids[0]]
    (row,) = Shield("equations", tokenizer=read["tokenizer"]).screen(completions=[RIGHT], completion_ids=[ids])
    assert row.text == "2 + 2 = 5" and row.left_out and row.token_ids == tuple(ids)
    (row,) = Shield("equations").screen(completions=[RIGHT], completion_ids=[ids])  # nobody can tell
    assert row.reward == 1.0 and row.mask == (1,) * len(ids)


class Wrapped(nn.Module):
    """As DDP: the model is an attribute."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def lora(model: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


@pytest.mark.parametrize(
    "wrap", [Wrapped, lora, lambda model: Wrapped(lora(model)), lambda model: torch.compile(Wrapped(model))]
)
def test_wrapped_models_are_read_and_left_as_they_were(fresh_policy, wrap):
    """Nothing that training depends on has changed: modes, gradients, what is trained, hooks, the tokenizer."""
    tokenizer, model = fresh_policy.codec.tokenizer, fresh_policy.model
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.config.use_cache = False
    wrapped = wrap(model)
    wrapped.train()
    next(wrapped.modules()).eval()
    tokenizer.padding_side = "left"
    for each in wrapped.parameters():
        if each.requires_grad:
            each.grad = torch.ones_like(each)

    def now():
        modes = [module.training for module in wrapped.modules()]
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in wrapped.modules()]
        parameters = [each.detach() for each in wrapped.parameters()]
        weights = [float(each.sum()) for each in parameters]
        weights += [(each.grad is not None, each.requires_grad) for each in wrapped.parameters()]
        return modes, hooks, weights, tokenizer.padding_side, tokenizer.truncation_side, model.config.use_cache

    before, random = now(), torch.random.get_rng_state()
    shield = Shield("texts", model=wrapped, tokenizer=tokenizer)
    result = shield.screen(prompts=[QUESTION] * 2, completions=[RIGHT, f"Gleeb Glorp. {RIGHT}"])
    assert result.rows[1].muted > result.rows[0].muted
    assert now() == before and torch.equal(torch.random.get_rng_state(), random)


def test_weights_that_are_not_whole_are_refused(fresh_policy):
    next(fresh_policy.model.parameters()).ds_id = 0
    with pytest.raises(ConfigError, match="sharded over processes"):
        unwrapped(fresh_policy.model)


def test_the_present_weights_are_read_and_the_anchor_stays(fresh_policy):
    """Under the policy alone the model can be taught to accept; the anchor is the model as it was."""
    tokenizer, model = fresh_policy.codec.tokenizer, fresh_policy.model
    own = Shield(("token_credit", {"rule": "policy"}), model=model, tokenizer=tokenizer)
    both = Shield("token_credit", model=model, tokenizer=tokenizer)
    assert both.anchor is not None and both.policy is not None
    print_of = fingerprint(both.anchor)

    def muted(shield: Shield) -> int:
        return shield.screen(prompts=[QUESTION], completions=["Gleeb Glorp Glub."]).rows[0].muted

    before = muted(own), muted(both)
    assert min(before) > 0
    ids = torch.tensor([[*tokenizer(QUESTION)["input_ids"], *tokenizer("Gleeb Glorp Glub.")["input_ids"]]])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(40):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert muted(own) < before[0] and muted(both) == before[1]
    assert fingerprint(both.anchor) == print_of != fingerprint(both.policy)


def test_under_an_adapter_the_anchor_shares_what_is_frozen(fresh_policy):
    shield = Shield("token_credit", model=lora(fresh_policy.model), tokenizer=fresh_policy.codec.tokenizer)
    assert shield.anchor is not None and shield.policy is not None
    own, kept = dict(shield.policy.model.named_parameters()), dict(shield.anchor.model.named_parameters())
    shared = {name for name in own if own[name] is kept[name]}
    assert shared == {name for name in own if not own[name].requires_grad} and 0 < len(shared) < len(own)
    assert not any(each.requires_grad for each in kept.values())


def test_a_frozen_model_may_be_trained_later_so_the_anchor_is_a_copy(fresh_policy):
    fresh_policy.model.requires_grad_(False)
    shield = Shield("token_credit", model=fresh_policy.model, tokenizer=fresh_policy.codec.tokenizer)
    assert shield.anchor is not None
    own, kept = fresh_policy.model.parameters(), shield.anchor.model.parameters()
    assert not any(one is other for one, other in zip(own, kept, strict=True))


SAMPLING = Sampling(max_new_tokens=24)


def drawn(policy, round, slots):
    """Honest draws of slots, with their keys."""
    keys = [completion_key(5, round, "p", slot) for slot in slots]
    completions = sample(policy, [SampleRequest(Prompt("p", "", QUESTION), key) for key in keys], SAMPLING)
    return completions, keys, [policy.codec.render(Prompt("p", "", QUESTION))] * len(keys)


def test_replay_through_a_shield_and_its_memory(read, base_policy, tmp_path):
    def shield():
        return Shield("homogeneous", **read, sampling=SAMPLING, brings=["keys", "senders"])

    first = shield()
    completions, keys, prompt_ids = drawn(base_policy, 1, range(4))
    first_token, second, *rest = completions[3].token_ids
    forged = (first_token, second + 1, *rest)
    ids = [each.token_ids for each in completions[:3]] + [forged]
    given = {"prompt_ids": prompt_ids, "slot_keys": keys, "senders": ["a", "a", "b", "mallory"]}
    result = first.screen(completion_ids=ids, rewards=[1, 0, 1, 1], **given)
    assert result.rewards == [1.0, 0.0, 1.0, None] and result.suspended == {"mallory"}
    assert result.rows[3].rejection is not None and result.rows[3].rejection.spans
    assert "sender mallory: 0 of 1 kept" in str(result) and "suspended: mallory" in str(result)

    path = tmp_path / "shield.json"
    first.save(path)
    assert list(tmp_path.iterdir()) == [path]
    second = shield()
    second.load(path)
    assert second.state() == first.state() == json.loads(path.read_text())
    assert second.chain.suspended(2) == first.chain.suspended(2) == {2}
    again = second.screen(completion_ids=[completions[0].token_ids], senders=["c"], prompt_ids=prompt_ids[:1],
                          slot_keys=keys[:1])  # fmt: skip
    assert again.round == 2 and again.suspended == {"mallory"}


def test_rounds_only_rise(tmp_path):
    shield = Shield("equations")
    # in rounds 2, 5, 6 and 8 nothing came
    for given, number in ((None, 1), (3, 3), (None, 4), (np.int64(7), 7), (torch.tensor(9), 9)):
        assert shield.screen(completions=[RIGHT], round=given).round == shield.round == number
        assert type(shield.round) is int
    for again in (9, np.int32(5), 1):
        with pytest.raises(ConfigError, match=f"round is {again}, and the last one was 9; give a larger number, leave"):
            shield.screen(completions=[WRONG], round=again)
    shield.save(tmp_path / "state.json")
    shield.screen(completions=[RIGHT], round=40)
    shield.load(tmp_path / "state.json")  # back to the checkpoint: rounds go on from there
    assert shield.screen(completions=[RIGHT], round=10).round == 10
    early = Shield("equations")
    early.screen(completions=[RIGHT])
    early.load(tmp_path / "state.json")
    with pytest.raises(ConfigError, match="the last one was 9"):
        early.screen(completions=[RIGHT], round=2)
    assert early.screen(completions=[RIGHT]).round == 10


def test_a_round_that_is_refused_changes_nothing(read):
    shield = Shield(("sender_stats", {"statistics": ["phrases"]}), brings=["senders", "groups"])
    given: dict[str, Any] = {"completions": [RIGHT, WRONG], "senders": ["a", "b"], "groups": ["g", "g"]}
    shield.screen(**given, round=2)
    before = shield.state()
    with pytest.raises(ConfigError, match="round is 2"):
        shield.screen(**given, round=2)
    assert shield.state() == before


def test_a_state_of_something_else_is_refused(read, tmp_path):
    shield = Shield("equations")
    shield.screen(completions=[RIGHT], senders=["a"])
    state = shield.state()
    for wrong, sentence in [
        ({}, "no state of a shield"),
        ({**state, "version": 1}, "no state of a shield"),
        ({**state, "defenses": {"imports": {}}}, "the chain imports; build that one, not equations"),
        ({**state, "round": "x"}, "damaged"),
        ({**state, "round": -1}, "damaged"),
        ({**state, "round": 2.5}, "damaged"),
        ({**state, "round": True}, "damaged"),
        ({**state, "senders": None}, "damaged"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            shield.restore(wrong)
        assert shield.state() == state
    for content in (None, "{", "[" * 10**5):
        path = tmp_path / "state.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match="give the file that save"):
            shield.load(path)
    with pytest.raises(ConfigError, match="cannot be written"):
        shield.save(tmp_path / "no" / "state.json")


def test_a_damaged_state_of_a_defense_changes_nothing(read):
    options = {"brings": ["keys", "senders"], "sampling": SAMPLING}
    shield = Shield("replay", **read, **options)
    state = shield.state()
    damaged = {**state, "round": 9, "defenses": {"replay": {"offenses": [[0, 1]]}}}
    with pytest.raises(ConfigError, match="damaged"):
        shield.restore(damaged)
    assert shield.state() == state


def test_a_state_belongs_to_its_anchor(read, fresh_policy):
    state = Shield("token_credit", **read).state()
    Shield("token_credit", model=fresh_policy.model, tokenizer=read["tokenizer"]).restore(state)
    with torch.no_grad():
        next(fresh_policy.model.parameters()).add_(0.01)
    moved = Shield("token_credit", model=fresh_policy.model, tokenizer=read["tokenizer"])
    with pytest.raises(ConfigError, match="another anchor"):
        moved.restore(state)
    Shield("token_credit", model=fresh_policy.model, tokenizer=read["tokenizer"], anchor=read["model"]).restore(state)


@pytest.mark.parametrize(
    "tree", [{1: 2, "1": 3}, (1, (2, [3])), {3, 1}, {"__hailproof__": 1}, {(0, 1): {"a": None}}, [], {"a": True}]
)
def test_memory_comes_back_as_it_was(tree):
    assert from_plain(json.loads(json.dumps(as_plain(tree)))) == tree


def test_memory_of_no_plain_type_is_refused():
    with pytest.raises(ConfigError, match="holds a object"):
        as_plain({"a": [object()]})
    assert as_plain(np.float64(1.5)) == 1.5


def test_own_completions_are_compared_with_and_not_judged():
    shield = Shield(
        ("length", {"quantile": 0.5, "calibration": 2, "slack": 1.0}), brings=["ids", "senders"], own="me"
    )
    result = shield.screen(completions=[""] * 4, completion_ids=[[1] * 5, [1] * 5, [1] * 5, [1] * 9],
                           senders=["me", "me", "b", "b"])  # fmt: skip
    assert result.rewards == [1.0, 1.0, 1.0, None]
    assert result.verdicts[0] == () and result.rows[0].mask == (1,) * 5


def test_figures_for_a_tracker():
    result = Shield("equations", brings=["ids"]).screen(
        completions=[RIGHT, WRONG, "\ud800", ""], completion_ids=[[1, 2], [1], [1], [1, 2]], rewards=[1, 1, 1, None]
    )
    figures = result.metrics(["equations", "imports"])
    assert figures.pop("hailproof/seconds") >= 0
    assert figures == {
        "hailproof/left_out": 0.75, "hailproof/muted_tokens": 0.0, "hailproof/rejected/equations": 0.25,
        "hailproof/rejected/imports": 0.0, "hailproof/rejected/shield": 0.25,
    }  # fmt: skip
    assert Shield("equations").screen(completions=[]).metrics() == {}


def test_groups_are_equal_prompts_or_labels():
    rewards = [1.0] * 6 + [0.0] * 6
    shield = Shield(("reward_outlier", {"threshold": 1.9}), brings=["groups"])
    apart = shield.screen(completions=[RIGHT] * 12, prompts=["a"] * 6 + ["b"] * 6, rewards=rewards)
    assert apart.left_out == []
    odd = [1.0, *[0.0] * 5, *[0.0] * 6]
    together = shield.screen(completions=[RIGHT] * 12, groups=[7] * 12, rewards=odd)
    assert together.left_out == [0] and together.rows[0].group == "7"


def test_a_broken_defense_closes_the_door():
    class Broken(BaseDefense):
        name = "broken"

        def screen(self, evidence) -> list[Verdict]:
            raise ValueError("\x1b[2Jowned")

    result = Shield(Broken()).screen(completions=[RIGHT])
    assert result.rewards == [None] and result.verdicts[0][0].error
    assert "<U+001B>" in str(result)


def test_texts_are_screened_without_torch():
    script = (
        "import sys; from hailproof import Shield;"
        "s = Shield('equations', 'imports'); r = s.screen(completions=['2 + 2 = 5']); s.state();"
        "assert r.rewards == [None]; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_learned_prompt_is_refused(fresh_policy):
    peft = pytest.importorskip("peft")
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    wrapped = peft.get_peft_model(fresh_policy.model, settings)
    with pytest.raises(ConfigError, match="learns a prompt"):
        Shield("token_credit", model=wrapped, tokenizer=fresh_policy.codec.tokenizer)


def test_messages_need_a_chat_template(fresh_policy):
    tokenizer = copy.deepcopy(fresh_policy.codec.tokenizer)
    tokenizer.chat_template = None
    shield = Shield("token_credit", model=fresh_policy.model, tokenizer=tokenizer)
    asked = [{"role": "user", "content": QUESTION}]
    with pytest.raises(ConfigError, match="has no chat template; give prompt_ids"):
        shield.screen(completions=[RIGHT], prompts=[asked])
    assert shield.screen(completions=[RIGHT], prompts=[QUESTION]).rewards == [1.0]
    assert shield.screen(completions=[RIGHT], prompts=[asked], prompt_ids=[[5, 6, 7]]).rewards == [1.0]


def test_what_was_cut_has_no_end_token(read, base_policy):
    shield = Shield("equations", tokenizer=read["tokenizer"])
    whole, cut = shield.screen(completions=[RIGHT] * 2, finished=[True, False])
    assert whole.token_ids == (*(cut.token_ids or ()), base_policy.codec.end_ids[0])


def test_a_model_by_name_is_read_and_is_its_own_anchor():
    shield = Shield("texts", model="nano-a")
    assert shield.screen(prompts=[QUESTION], completions=["Gleeb Glorp"]).rows[0].muted
    assert shield.anchor is shield.policy


def test_a_state_with_an_unknown_mark_is_damaged():
    with pytest.raises(ConfigError, match="The state is damaged"):
        Shield("equations").restore({**Shield("equations").state(), "defenses": {"equations": {"__hailproof__": "x"}}})


def test_state_that_was_written_by_somebody_else_is_no_memory():
    with pytest.raises(ValueError, match="stands for nothing"):
        from_plain({"__hailproof__": "x", "of": []})


# What no defense can decide by.


def told(shield: Shield, *senders: Any, **given: Any) -> tuple[str, ...]:
    result = shield.screen(completions=[RIGHT] * len(senders), senders=senders, groups=["g"] * len(senders), **given)
    shown = [line.removeprefix("  note: ") for line in str(result).split("\n") if line.startswith("  note: ")]
    assert shown == [*result.notes]
    return result.notes


STATS = ("sender_stats", {"statistics": ["phrases"]})


def test_names_that_may_be_free_are_noticed(tmp_path):
    def shield() -> Shield:
        return Shield(STATS, brings=["senders", "groups"], own="me")

    (note,) = told(shield(), *"abcd", "me")
    assert note.startswith("each of 4 senders has sent one row; where names are free, senders cannot be compared: ")
    assert told(shield(), *"abc") == () == told(shield(), *"abcdd")  # few, and one with two rows
    first = shield()
    assert told(first, *"aabb") == () == told(first, *"aabbc")  # one new name among three
    (note,) = told(first, *"aabbef")
    assert note.startswith("2 of 4 senders are new; where names are free")
    assert told(first, *"aabbef") == ()  # no longer new
    assert told(first, *"abcxy") == ()  # two new ones among five
    first.save(tmp_path / "state.json")
    second = shield()
    second.load(tmp_path / "state.json")
    assert told(second, *"abef") == () and len(told(second, *"aghi")) == 1
    assert told(Shield("equations"), *"abcd") == ()  # its chain does not go by senders


def test_rows_without_an_advantage_that_hide_a_sender_are_noticed(fresh_policy):
    read = {"model": fresh_policy.model, "tokenizer": fresh_policy.codec.tokenizer, "brings": {"senders", "groups"}}

    def said(count: int, live: int, chain: Any = "influence") -> tuple[str, ...]:
        senders = [*"aabb", *["[b]\x1bmallory"] * count]
        groups = [*"pqpq", *["p"] * live, *["r"] * (count - live)]
        rewards = [1.0, 0.0, 0.0, 1.0, *[1.0] * count]  # the groups p and q have both, r has one reward
        prompts = [QUESTION] * len(senders)
        shield = Shield(chain, **read)
        return shield.screen(completions=[RIGHT] * len(senders), prompts=prompts, senders=senders, groups=groups,
                             rewards=rewards).notes  # fmt: skip

    (note,) = said(9, 2)
    assert note.startswith("[b]<U+001B>mallory sent 9 rows, 7 of them without an advantage, where 2 are usual; such ")
    assert said(8, 0) == ()  # four times as many are not yet many
    assert said(9, 5) == ()  # most have an advantage
    assert said(9, 2, STATS) == ()  # compares rows with an advantage only


# Senders, by what they do to the weights.


def played(policy, rounds: int, shield: Shield) -> list[Any]:
    """What a shield says of the rounds of a swarm of four, one of which sends a phrase; nobody trains."""
    experiment = build(
        validated(
            RunConfig,
            {"attack": {"name": "text"}, "rounds": rounds, "sampling": {"max_new_tokens": 24},
             "swarm": {"prompts": 4, "group_size": 12}},
        )
    )  # fmt: skip
    node, task = experiment.swarm.honest[0], experiment.swarm.task
    results = []
    for round in range(1, rounds + 1):
        sent = [*node.produce(round), *experiment.swarm.malicious[0].produce(round)[0]]
        problems = [node.plan(round).problems[each.problem_id] for each in sent]
        results.append(
            shield.screen(
                prompt_ids=[policy.codec.render(task.prompt(problem)) for problem in problems],
                completion_ids=[policy.codec.received_ids(each.completion) for each in sent],
                rewards=[
                    len(each.completion.text) / 1000 + task.reward(problem, each.completion.text)
                    for problem, each in zip(problems, sent, strict=True)
                ],
                senders=[f"node {each.sender}" for each in sent],
                groups=[each.problem_id for each in sent],
            )
        )
    return results


def test_who_teaches_is_weighed_down_and_then_left_out(fresh_policy, tmp_path):
    read = {"model": fresh_policy.model, "tokenizer": fresh_policy.codec.tokenizer, "brings": {"senders", "groups"}}
    first = next(iter(fresh_policy.model.parameters()))
    first.grad = sentinel = torch.ones_like(first)
    before, fresh_policy.model.training = fingerprint(fresh_policy), True
    shield = Shield(("influence", {"prompt_blocks": 4}), **read)
    results = played(fresh_policy, 6, shield)
    weights = [{row.sender: row.weight for row in result} for result in results]
    assert weights[0]["node 3"] < 0.3 and weights[0]["node 3"] == min(weights[0].values())
    caught = next(index for index, result in enumerate(results) if result.left_out)
    (reason,) = {row.verdicts[-1].reason for row in results[caught] if row.left_out}
    assert "its sender pulls the weights one way" in reason
    assert {row.sender for result in results for row in result if row.left_out} == {"node 3"}
    assert results[caught].suspended == frozenset() and results[caught + 1].suspended == {"node 3"}
    assert first.grad is sentinel and bool((sentinel == 1).all()) and fresh_policy.model.training
    assert fingerprint(fresh_policy) == before
    shield.save(tmp_path / "state.json")
    again = Shield(("influence", {"prompt_blocks": 4}), **read)
    again.load(tmp_path / "state.json")
    assert again.suspended() == {"node 3"} and again.chain.suspicion(0) == shield.chain.suspicion(0) > 0


@pytest.mark.parametrize(
    ("named", "given", "message"),
    [
        ("influence", {"model": "nano-a"}, "'nano-a' is only a name; give the model that the trainer trains"),
        (("robust", {"rule": "median"}), {}, "which only a node of hailproof can do; choose influence"),
        (("influence", {"then": "project"}), {}, "which only a node of hailproof can do"),
    ],
)
def test_what_a_trainer_cannot_go_by_is_refused_when_the_shield_is_built(read, named, given, message):
    with pytest.raises(ConfigError, match=message):
        Shield(named, **{**read, **given}, brings={"senders", "groups"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: model.requires_grad_(False), "no weight of the model is trainable; give the model that"),
        (lambda model: model.to(torch.bfloat16), "are torch.bfloat16; load the model as float32, or train an adapter"),
    ],
)
def test_a_model_that_nobody_trains_in_float32_is_refused(fresh_policy, spoil, message):
    spoil(fresh_policy.model)
    shield = Shield(
        "influence", model=fresh_policy.model, tokenizer=fresh_policy.codec.tokenizer, brings={"senders", "groups"}
    )
    with pytest.raises(ConfigError, match=message):
        shield.screen(prompts=[QUESTION] * 2, completions=[RIGHT, WRONG], rewards=[1, 0], senders=["a", "b"])


def test_tensors_come_back_from_json():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.zeros(0)]}
    again = from_plain(json.loads(json.dumps(as_plain(state))))
    assert torch.equal(again["a"], state["a"]) and again["b"][0].shape == (0,)


FOUR: dict[str, Any] = {
    "prompts": [QUESTION] * 4, "completions": [RIGHT, WRONG] * 2, "rewards": [1.0, 0.0] * 2, "senders": [*"abcd"],
}  # fmt: skip


def of_senders(model, policy, **options) -> Shield:
    """A shield that looks at what senders do to a model."""
    return Shield("influence", model=model, tokenizer=policy.codec.tokenizer, brings={"senders"}, **options)


@pytest.mark.parametrize(
    ("given", "rewards"),
    [
        ({"rewards": [1e200, 0.0, 1.0, 0.0]}, [None, 0.0, 1.0, 0.0]),
        ({"rewards": [-1.7e308, 0.0, 1.0, 0.0]}, [None, 0.0, 1.0, 0.0]),
        ({"rewards": [3e38, 0.0, 1.0, 0.0]}, [3e38, 0.0, 1.0, 0.0]),
        ({"groups": ["\ud800"] * 4}, [1.0, 0.0, 1.0, 0.0]),
        ({"prompt_ids": [[5], [5, 10**6], [5, -1], [2**70]]}, [1.0, None, None, None]),
    ],
    ids=["huge", "very small", "as large as may be", "a group that is no Unicode", "prompts of no tokens"],
)
def test_what_overflows_or_cannot_be_read_raises_nothing_where_senders_are_told_apart(base_policy, given, rewards):
    assert of_senders(base_policy.model, base_policy).screen(**{**FOUR, **given}).rewards == rewards


@pytest.mark.parametrize("name", [2**63, -(2**63) - 1, 10**5000], ids=["large", "small", "huge"])
def test_a_whole_number_that_no_file_takes_names_nobody(name):
    with pytest.raises(ConfigError, match=r"senders\[1\] is over 64 bits long; name each sender"):
        Shield("imports").screen(completions=["a", "b"], senders=["a", name])


def test_hooks_that_act_on_each_gradient_are_refused_before_anything_is_done(fresh_policy):
    before = fingerprint(fresh_policy)
    first = next(iter(fresh_policy.model.parameters()))
    first.register_post_accumulate_grad_hook(lambda each: each.data.sub_(each.grad))  # as optimizers by layer do
    with pytest.raises(ConfigError, match="would act on their gradients; choose an optimizer"):
        of_senders(fresh_policy.model, fresh_policy).screen(**FOUR)
    assert fingerprint(fresh_policy) == before


def test_what_is_trained_may_change_on_the_way(fresh_policy):
    shield = of_senders(fresh_policy.model, fresh_policy)
    shield.screen(**FOUR)
    shield.screen(**FOUR)
    state = shield.state()
    next(iter(fresh_policy.model.parameters())).requires_grad_(False)
    again = of_senders(fresh_policy.model, fresh_policy)
    again.restore(state)
    for each in (shield, again):
        assert each.screen(**FOUR).rewards == each.screen(**FOUR).rewards == FOUR["rewards"]


@pytest.mark.parametrize("known", [True, False])
def test_a_shield_that_was_saved_when_a_sender_was_caught_leaves_out_that_sender_alone(base_policy, known):
    shield = of_senders(base_policy.model, base_policy)
    shield.screen(**FOUR)
    state = shield.state()
    memory = state["defenses"]["influence"]
    memory["terms"] = {"0": [2, 11, 1]}
    if not known:
        del memory["directions"]["0"]
    again = of_senders(base_policy.model, base_policy)
    again.restore(state)
    result = again.screen(**FOUR)
    assert result.rewards == [None, 0.0, 1.0, 0.0]
    assert bool(result.rows[0].verdicts[0].spans) == known and not result.rows[0].verdicts[0].error


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("reference", "x"), ("share", "x"), ("constancy", {"0": "x"}), ("seen", {"0": "x"}), ("round", "x"),
        ("terms", {"0": ["a", "b", "c"]}), ("test", {"0 1": {"rounds": 1, "stakes": [1], "unit": [1, 1]}}),
        ("test", {"0 1": {"rounds": "x", "stakes": [[0.0] * 6] * 4, "unit": [1, 1]}}),
        ("test", {"0 1": {"rounds": 1, "stakes": [[0.0] * 6] * 4, "unit": [1]}}),
    ],
)  # fmt: skip
def test_a_damaged_memory_of_senders_is_refused_when_it_is_loaded(base_policy, part, value):
    shield = of_senders(base_policy.model, base_policy)
    state = shield.state()
    state["defenses"]["influence"][part] = value
    with pytest.raises(ConfigError, match="The state is damaged"):
        shield.restore(state)
