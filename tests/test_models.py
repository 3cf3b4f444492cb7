"""Models and tokenizers that are damaged, unusual or in another format: one sentence at load, or the right draws."""

import copy
import json
import warnings
from collections import Counter
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import peft
import pytest
import torch
from damaged import NANO, copy_of_nano
from tiny_gguf import write_gguf
from tiny_runs import TINY
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from hailproof import registry
from hailproof.defenses.evidence import Received
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.errors import ConfigError, ModelError
from hailproof.policies.beams import beam_sample
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.codec import TokenizerCodec
from hailproof.policies.engine import TransformersEngine
from hailproof.policies.load import load
from hailproof.policies.scoring import forward, forward_whole
from hailproof.policies.trainable import Trainable
from hailproof.protocols import Codec, SampleRequest, Sampling
from hailproof.records import Completion, Prompt, Row, Submission
from hailproof.rollouts import sample
from hailproof.runs.build import Experiment, build
from hailproof.runs.check import check
from hailproof.runs.config import RunConfig
from hailproof.seeds import derive
from hailproof.settings import validated
from hailproof.tasks.word_problems import WordProblems

SAMPLING = Sampling(max_new_tokens=48)
UP = "model.layers.2.mlp.up_proj.weight"


class Hub:
    """A hub that answers one status, or raises, and counts how often it was asked."""

    def __init__(self, answer: int | Exception) -> None:
        self.answer, self.asked = answer, 0

    def head(self, url: str, timeout: float) -> SimpleNamespace:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(status_code=self.answer)


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("nanoo-a", OSError("no route to host"), r"is 'nano-a' meant\?.*cannot be asked for it \(no route to host\)"),
        ("some/model", OSError("no route to host"), r"no folder, and the hub cannot be asked"),
        ("some/model", 404, "not on the hub; check the name"),
        ("some/model", 401, "not on the hub; check the name"),
        ("not a name", 200, "cannot be asked for it"),
    ],
)
def test_a_name_of_no_model_fails_at_once(name: str, answer: int | Exception, said: str, monkeypatch):
    """The library of the hub asks five times, for more than a minute."""
    from hailproof.policies import hub

    asked = Hub(answer)
    monkeypatch.setattr(hub, "get_session", lambda: asked)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file: None)
    with pytest.raises(ModelError, match=said):
        load(name, device="cpu")
    assert asked.asked <= 2


def test_the_hub_is_not_asked_where_that_is_forbidden_or_needless(monkeypatch):
    from hailproof.policies import hub

    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("it was asked"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    hub.check_hub("some/model")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file: "/cache/config.json")
    hub.check_hub("some/model")
    load("nano-a", device="cpu")


def received(sampling: Sampling, prompts, submissions, **more) -> Received:
    return Received(
        round=1, sampling=sampling, variant="math", prompts=prompts, submissions=submissions,
        earned=[1.0] * len(submissions), **more,
    )  # fmt: skip


def renamed(prefix: str):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def without(name: str):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def poisoned(value: float):
    def change(state):
        state[UP][3, 5] = value
        return state

    return change


def more_tokens(folder: Path, count: int) -> None:
    """Adds tokens to the tokenizer of a folder, beyond the rows of the model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra-{index}>" for index in range(count)])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tensors": renamed("_orig_mod.")}, r"names begin with '_orig_mod\.': torch\.compile adds it; save"),
        ({"tensors": renamed("module.")}, r"names begin with 'module\.': DataParallel adds it; save"),
        ({"tensors": renamed("base_model.model.")}, r"names begin with 'base_model\.model\.': peft adds it; save"),
        ({"tensors": renamed("other.")}, r"the weights lack tensor 'lm_head\.weight' \(and 38 more\)"),
        ({"config": {"num_hidden_layers": 9}}, "config.json says 9 layers and the weights have 4; mend"),
        ({"config": {"num_hidden_layers": 2}}, "config.json says 2 layers and the weights have 4; mend"),
        ({"config": {"intermediate_size": 400}}, r"\(and 11 more\) does not have the shape .* \(160 x 432 in the file"),
        ({"config": {"vocab_size": 2050}}, r"'model\.embed_tokens\.weight' does not have the shape"),
        ({"config": {"tie_word_embeddings": False}}, r"the weights lack tensor 'lm_head\.weight', which would be rand"),
        ({"tensors": without(UP)}, f"the weights lack tensor '{UP}', which would be random"),
        ({"tensors": lambda state: {**state, "v_head.bias": torch.zeros(1)}}, r"no place for tensor 'v_head\.bias'"),
        ({"tensors": poisoned(float("nan"))}, f"tensor '{UP}' holds values that are not finite"),
        ({"tensors": poisoned(float("inf"))}, f"tensor '{UP}' holds values that are not finite"),
        ({"without": ("config.json",)}, r"its folder has no config\.json"),
        ({"without": ("model.safetensors",)}, "its folder has no weights"),
        ({"without": ("tokenizer.json", "tokenizer_config.json")}, "its folder has no tokenizer"),
        ({"config": {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}}, r"code of its own \(auto_map\)"),
        ({"config": {"model_type": "own"}}, r"does not load \(.*`own`.*\); give a shipped name \(nano-a, "),
        ({"tokenizer": {"eos_token": None}, "generation": {"eos_token_id": None}}, "has no end-of-sequence token"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_one_sentence_at_load(tmp_path, monkeypatch, changes, sentence):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the console"))
    with pytest.raises(ModelError, match=sentence) as caught:
        load(str(copy_of_nano(tmp_path, **changes)), device="cpu")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_an_undamaged_copy_loads_and_says_what_the_original_does(tmp_path, base_policy):
    policy = load(str(copy_of_nano(tmp_path)), device="cpu")
    row = Row(tuple(range(40, 60)), (7, 8, 9))
    for here, there in zip(*(each.engine.score([row], SAMPLING) for each in (policy, base_policy)), strict=True):
        assert (here.logprobs == there.logprobs).all()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/no/such/folder", "there is no such folder; check the path"),
        ("no/such.gguf", "there is no such file; check the path"),
        (str(NANO / "config.json"), "is a file; give the folder that it lies in"),
    ],
)
def test_a_path_that_is_no_model_is_one_sentence(name, sentence):
    with pytest.raises(ModelError, match=sentence):
        load(name, device="cpu")


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(tmp_path):
    more_tokens(copy_of_nano(tmp_path), 2)
    with pytest.raises(ModelError, match=r"has tokens up to id 2,049, but the model has only 2,048 rows"):
        load(str(tmp_path), device="cpu")


def test_no_peer_can_name_an_id_that_the_model_lacks(base_policy):
    tokenizer = copy.deepcopy(base_policy.codec.tokenizer)
    tokenizer.add_tokens(["<extra>"])
    codec = TokenizerCodec("short", tokenizer, columns=2048)
    sent = Completion("a <extra>", (*codec.encode("a "), 2048, 0), True)
    assert codec.tokenizer.decode(list(sent.token_ids[:-1])) == sent.text  # the tokenizer itself would keep it
    assert max(codec.received_ids(sent)) < 2048 and codec.received(sent).text == sent.text
    assert 2048 in codec.barred(2050)


def test_a_model_keeps_its_mode(base_policy):
    model = copy.deepcopy(base_policy.model).train()
    policy = CausalLM("training", model, base_policy.codec.tokenizer)
    policy.engine.draw([(5, 6)], [1], Sampling(max_new_tokens=2))
    assert all(module.training for module in model.modules())


# Chat templates

SHOWN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
PARTS = (
    "{% for m in messages %}[{{ m.role }}] {% for part in m.content %}{{ part.text }}{% endfor %}"
    "{{ '\\n' }}{% endfor %}"
)
DROPS = "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endif %}{% endfor %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + SHOWN
CLOCK = "{{ strftime_now('%d %b %Y') }}\n" + SHOWN
TOGETHER = "[user] Be brief.\n\nHow many?\n"


def with_template(base_policy, template: str | None) -> TokenizerCodec:
    tokenizer = copy.deepcopy(base_policy.codec.tokenizer)
    tokenizer.chat_template = template
    return TokenizerCodec("chatty", tokenizer)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (SHOWN, "[system] Be brief.\n[user] How many?\n"),
        (PARTS, "[system] Be brief.\n[user] How many?\n"),
        (DROPS, TOGETHER),
        (REFUSES, TOGETHER),
        (PARTS.replace("in messages", "in messages if m.role != 'system'"), TOGETHER),
        (CLOCK, "26 Jul 2024\n[system] Be brief.\n[user] How many?\n"),
        (None, "Be brief.\n\nHow many?\n\n"),
    ],
)
def test_both_texts_are_shown_once_by_every_template(base_policy, template, expected):
    codec = with_template(base_policy, template)
    assert codec.decode(codec.render(Prompt("p", "Be brief.", "How many?"))) == expected


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("A:", "hides or repeats the user's text"),
        (SHOWN + SHOWN, "hides or repeats the user's text"),
        ("{{ raise_exception('never') }}", r"fails \(never\)"),
        ("{% for", "fails"),
        ("{{ range(999) | random }}" + SHOWN, "writes the same prompt differently each time"),
    ],
)
def test_a_template_that_loses_a_text_is_refused_at_load(base_policy, template, sentence):
    with pytest.raises(ModelError, match=f"The chat template of chatty {sentence}.*; mend it"):
        with_template(base_policy, template)


def test_the_shipped_templates_read_the_instructions_without_showing_them(base_policy):
    render = base_policy.codec.render
    assert base_policy.codec.tokenizer.decode(render(Prompt("p", "Be brief.", "How many?"))) == "Q: How many?\nA:"
    assert base_policy.codec.tokenizer.decode(render(Prompt("p", "<code>", "How many?"))) == "Q: How many?\nP:"


def test_the_prompt_does_not_end_in_an_end_token_that_the_tokenizer_appends(base_policy):
    tokenizer = copy.deepcopy(base_policy.codec.tokenizer)
    tokenizer.chat_template = None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A <|end|>", special_tokens=[("<|pad|>", 1), ("<|end|>", 0)]
    )
    assert tokenizer("a")["input_ids"][-1] == 0
    ids = TokenizerCodec("appending", tokenizer).render(Prompt("p", "Be brief.", "How many?"))
    assert ids[0] == 1 and 0 not in ids and tokenizer.decode(list(ids[1:])) == "Be brief.\n\nHow many?\n\n"


# What ends a turn

ANSWERS = NANO.joinpath("chat_template.jinja").read_text().removesuffix("{% endfor %}") + (
    "{% if message.role == 'assistant' %} {{ message.content }}<|end|>\n{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "eos", "listed", "expected"),
    [
        (ANSWERS, "<|pad|>", [1, 0], (0, 1)),  # the shape of Gemma-it and Phi-3.5
        (ANSWERS, "<|pad|>", 1, (0, 1)),  # the settings do not list what the template writes
        (ANSWERS.replace("<|end|>\n", " <|end|>"), "<|pad|>", 1, (0, 1)),
        (ANSWERS.replace("<|end|>", "Q: next"), "<|end|>", 0, (0,)),  # it writes text: no token says that it ended
        (NANO.joinpath("chat_template.jinja").read_text(), "<|pad|>", [1, 0], (1, 0)),  # it shows no answers
    ],
)
def test_what_ends_a_turn_is_what_the_template_writes(tmp_path, template, eos, listed, expected):
    ends = {"eos_token_id": listed}
    folder = copy_of_nano(tmp_path, template=template, tokenizer={"eos_token": eos}, generation=ends)
    assert load(str(folder), device="cpu").codec.end_ids == expected


def test_honest_text_of_a_model_with_two_end_tokens_passes_logit(tmp_path, base_policy):
    """Text that is tokenized anew must end in the token that the model ends its turns with."""
    folder = copy_of_nano(
        tmp_path, template=ANSWERS, tokenizer={"eos_token": "<|pad|>"}, generation={"eos_token_id": [1, 0]}
    )
    policy, task, sampling = load(str(folder), device="cpu"), WordProblems(size=60, test_size=1), Sampling()
    prompts = [task.prompt(problem) for problem in task.train]
    solved = [policy.codec.as_completion(task.format(each.solution, each.answer)) for each in task.train]
    texts = [Submission(1, 0, prompt.problem_id, 0, Completion(each.text, (), True))
             for prompt, each in zip(prompts, solved, strict=True)]  # fmt: skip
    alike = [Completion(each.text, (*base_policy.codec.encode(each.text), 0), True) for each in solved]
    rows = [Row(base_policy.codec.render(prompt), each.token_ids) for prompt, each in zip(prompts, alike, strict=True)]
    inside = [(scores.gaps <= 1e-3).all() for scores in base_policy.engine.score(rows, sampling)]
    assert sum(inside) >= 30
    seen = received(sampling, prompts, texts, model=policy)
    kept = [verdict.decision == "accept" for verdict in LogitDefense().screen(seen)]
    assert kept == inside


def test_an_end_token_that_is_not_flagged_special_stays_text_inside(base_policy):
    codec = TokenizerCodec("coded", base_policy.codec.tokenizer, [2047])  # </code>
    assert codec.end_ids == (0, 2047)
    ids = codec.encode("print(1)</code> more")
    assert 2047 not in ids and codec.decode(ids) == "print(1)</code> more"
    kept = codec.received_ids(Completion("a</code>b", (*base_policy.codec.encode("a</code>b"), 0), True))
    assert 2047 not in kept and kept[-1] == 0
    assert 2047 not in codec.render(Prompt("p", "", "What does </code> do?"))


# Architectures

SMALL: dict[str, Any] = {"vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


def tiny(model_class, config, base_policy) -> CausalLM:
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return CausalLM("tiny", model, base_policy.codec.tokenizer)


@pytest.fixture(scope="module")
def architectures(base_policy):
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return {
        "sliding": tiny(MistralForCausalLM, MistralConfig(**SMALL, **heads, sliding_window=8), base_policy),
        "grouped": tiny(LlamaForCausalLM, LlamaConfig(**SMALL, **heads), base_policy),
        "windowed": tiny(MistralForCausalLM, MistralConfig(**SMALL, **heads, sliding_window=512), base_policy),
        "capped": tiny(Gemma2ForCausalLM, Gemma2Config(**SMALL, **heads, head_dim=8, sliding_window=512), base_policy),
        "mamba": tiny(MambaForCausalLM, MambaConfig(**SMALL, state_size=4), base_policy),
        "rwkv": tiny(RwkvForCausalLM, RwkvConfig(**SMALL, attention_hidden_size=32), base_policy),
    }


def plain_logits(policy: CausalLM, row: Row) -> torch.Tensor:
    """One row alone, without cache and without padding: what every other way of reading must say."""
    with torch.no_grad(), policy.trainable.passes() as model:
        logits = model(input_ids=torch.tensor([[*row.prompt, *row.completion]]), use_cache=False).logits[0]
    return logits[len(row.prompt) - 1 : -1]


@pytest.mark.parametrize(
    ("name", "shares", "cascades"),
    [("grouped", True, True), ("sliding", True, False), ("windowed", True, False), ("capped", True, False),
     ("mamba", False, False), ("rwkv", False, False)],
)  # fmt: skip
def test_an_architecture_draws_scores_and_learns_what_plain_passes_say(architectures, name, shares, cascades):
    """Prompts of different length and rows that end at different times, beyond a sliding window."""
    policy, sampling = architectures[name], Sampling(max_new_tokens=20, top_k=5)
    assert (policy.trainable.shares_prompts, policy.trainable.cascades) == (shares, cascades)
    prompts = [tuple(range(10, 31)), (40, 41, 42), tuple(range(10, 31))]
    drawn = policy.engine.draw(prompts, [1, 2, 3], sampling)
    rows = [Row(*pair) for pair in zip(prompts, drawn, strict=True)]
    for row, scores in zip(rows, policy.engine.score(rows, sampling), strict=True):
        logits = plain_logits(policy, row)
        own = logits.log_softmax(-1).gather(-1, torch.tensor(row.completion)[:, None])[:, 0]
        np.testing.assert_allclose(scores.logprobs, own.numpy(), atol=1e-4)
    prompted = [Prompt(str(index), "", "") for index in range(3)]
    sent = [Submission(1, 0, str(index), 0, policy.codec.drawn(ids)) for index, ids in enumerate(drawn)]
    seen = received(sampling, prompted, sent, slot_keys=[1, 2, 3], model=policy, read=rows)
    assert [verdict.decision for verdict in ReplayDefense().screen(seen)] == ["accept"] * 3
    policy.trainable.forward(rows, [0, 1, 2]).logprobs.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.trainable.parameters())


def test_both_ways_of_reading_agree(base_policy):
    rows = [Row(tuple(range(10, 31)), (5, 6, 7)), Row((40, 41), (8,)), Row((40, 41), (9, 10, 11, 12))]
    with torch.no_grad():
        shared, whole = (way(base_policy.model, rows, [2, 0, 1]) for way in (forward, forward_whole))
    assert torch.equal(shared.targets, whole.targets) and torch.equal(shared.mask, whole.mask)
    torch.testing.assert_close(shared.logprobs, whole.logprobs, atol=1e-4, rtol=0)


class Crowded(LlamaForCausalLM):
    """Says other things of a row when it is not alone."""

    def forward(self, input_ids=None, cache=None, **options):  # pyright: ignore[reportIncompatibleMethodOverride]
        output: Any = super().forward(input_ids=input_ids, cache=cache, **options)
        assert input_ids is not None
        output.logits = output.logits * (1 + 0.1 * (len(input_ids) - 1))
        return output


class Broken(LlamaForCausalLM):
    def forward(self, *args, **options):  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("no kernel\nfor this")


@pytest.mark.parametrize(
    ("model_class", "sentence"),
    [(Crowded, "a Crowded reads a row in a batch differently than alone"), (Broken, r"does not run \(no kernel\)\.")],
)
def test_an_architecture_that_cannot_be_repeated_is_refused(base_policy, model_class, sentence):
    with pytest.raises(ModelError, match=sentence):
        tiny(model_class, LlamaConfig(**SMALL, num_attention_heads=4), base_policy)


def test_beams_need_a_cache(architectures):
    asked = [SampleRequest(Prompt("p", "", "How?"), 1)]
    with pytest.raises(ModelError, match="beam"):
        beam_sample(architectures["mamba"], asked, Sampling(max_new_tokens=2), beams=2)


def test_nothing_warns(tmp_path):
    """Libraries announce what their next version takes away; a console full of that hides what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = load("nano-b", device="cpu")
        asked = [SampleRequest(Prompt("p", "", "How?"), derive(1, index)) for index in range(3)]
        sample(policy, asked, Sampling(max_new_tokens=3))
        beam_sample(policy, asked, Sampling(max_new_tokens=3), beams=2)
        policy.trainable.forward([Row((5, 6), (7, 8))], [0])


# Other formats


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft calls what was renamed
def test_a_lora_folder_is_its_base_with_the_adapter_merged(tmp_path, base_policy):
    wrapped = peft.get_peft_model(
        copy.deepcopy(base_policy.model), peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"])
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    wrapped.peft_config["default"].base_model_name_or_path = "nano-a"
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    row = Row((40, 41, 42), (7, 8, 9))
    with torch.no_grad():
        expected = wrapped(input_ids=torch.tensor([[*row.prompt, *row.completion]])).logits[0, 2:-1]
    policy = load(str(tmp_path), device="cpu")
    torch.testing.assert_close(plain_logits(policy, row), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain_logits(base_policy, row), expected, atol=1e-2)
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "target_modules": ["q_proj"]}))
    with pytest.raises(ModelError, match=r"no place for tensor '.*up_proj.lora_A"):
        load(str(tmp_path), device="cpu")
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="names no base_model_name_or_path"):
        load(str(tmp_path), device="cpu")


def test_a_gguf_file_is_the_model_that_it_was_made_from(tmp_path, base_policy):
    path = tmp_path / "nano.gguf"
    write_gguf(base_policy, path)
    policy = load(str(path), device="cpu")
    prompt = Prompt("p", "", "Tom has 12 pens <|end|>. How many?")
    assert policy.codec.render(prompt) == base_policy.codec.render(prompt)
    assert policy.codec.end_ids == base_policy.codec.end_ids
    asked = [SampleRequest(prompt, key) for key in range(4)]
    assert sample(policy, asked, SAMPLING) == sample(base_policy, asked, SAMPLING)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelError, match="does not load"):
        load(str(path), device="cpu")


# In a swarm


def experiment(swarm: dict[str, Any] | None = None, **settings) -> Experiment:
    """A small swarm, long enough for some answers to be right."""
    sizes = {"prompts": 4, "group_size": 4, "device": "cpu", **(swarm or {})}
    return build(validated(RunConfig, {**TINY, "sampling": {"max_new_tokens": 96}, **settings, "swarm": sizes}))


class Counting:
    """An engine of a third party: counts what it is asked, and asks ours."""

    made: ClassVar[list["Counting"]] = []

    def __init__(self, trainable: Trainable, codec: Codec) -> None:
        self.inner = TransformersEngine(trainable, codec)
        self.calls: Counter[str] = Counter()
        self.made.append(self)

    @property
    def context(self) -> int:
        return self.inner.context

    @property
    def rounding(self) -> float:
        return self.inner.rounding

    def draw(self, prompts, keys, sampling, guide=None):
        self.calls["draw"] += len(prompts)
        return self.inner.draw(prompts, keys, sampling, guide)

    def score(self, rows, sampling):
        self.calls["score"] += len(rows)
        return self.inner.score(rows, sampling)

    def candidates(self, rows, count):
        self.calls["candidates"] += len(rows)
        return self.inner.candidates(rows, count)

    def refresh(self) -> None:
        self.calls["refresh"] += 1


def test_an_engine_of_a_third_party_runs_a_swarm(monkeypatch):
    points = EntryPoints([EntryPoint("counting", f"{__name__}:Counting", "hailproof.engines")])
    monkeypatch.setattr(registry, "entry_points", lambda **selection: points.select(**selection))
    Counting.made.clear()
    defense = [{"name": "logit"}, {"name": "replay"}]
    theirs, ours = (experiment({"engine": name}, defense=defense) for name in ("counting", "transformers"))
    one, other = (each.swarm.play(1).views[0] for each in (theirs, ours))
    assert one.groups == other.groups and one.update == other.update and one.update.passes
    calls = sum((engine.calls for engine in Counting.made), Counter())
    assert calls["draw"] == 16 and calls["score"] and calls["candidates"] and calls["refresh"] == 1
    with pytest.raises(ConfigError, match="Unknown engine 'countin'"):
        experiment({"engine": "countin"})


def test_a_swarm_trains_an_adapter():
    learner = {"lora": {"r": 2, "alpha": 4}, "learning_rate": 1e-2}
    played = experiment({"separate": True, "nodes": 2}, learner=learner)
    assert played.swarm.play(1).views[0].update.passes
    states: list[Any] = [node.learner.state_dict()["weights"] for node in played.swarm.honest]
    assert all("lora_" in name for name in states[0])
    assert any(tensor.any() for name, tensor in states[0].items() if "lora_B" in name)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (450, r"problem 'rows-21' has \d+ tokens, and with 600 new ones .*; lower sampling.max_new_tokens to \d+, or"),
        (1500, r"problem 'rows-21' has \d+ tokens, .* the context of nano-a, 1024 tokens; leave the problem out"),
    ],
)
def test_a_problem_that_is_too_long_is_found_before_the_first_round(tmp_path, words, sentence):
    rows = [{"question": "How many are 1 + 1?", "answer": "#### 2"} for _ in range(20)]
    rows.append({"question": "pen " * words, "answer": "#### 2"})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = {"task": {"name": "gsm8k", "options": {"data": str(path)}}, "sampling": {"max_new_tokens": 600},
                "evaluation": {}}  # fmt: skip
    with pytest.raises(ModelError, match=sentence):
        check(experiment(**settings))
    path.write_text("\n".join(map(json.dumps, rows[:-1])))
    check(experiment(**settings))

