"""Weights are float32 whatever passes compute in; what is no number never enters them unseen."""

import copy
import sys
from collections import Counter

import pytest
import torch
from damaged import copy_of_nano
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from hailproof.defenses.evidence import Received
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.errors import ModelError, RunError
from hailproof.learner.config import LearnerConfig
from hailproof.learner.update import Learner
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.load import load
from hailproof.policies.lora import Lora
from hailproof.protocols import Sampling
from hailproof.records import Group, Prompt, Row, ScoredCompletion, Submission
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems

STEPS, RATE = 100, 2e-5


def group(policy: CausalLM, texts: dict[str, float]) -> Group:
    prompt = Prompt("p", "", "Tom has 3 pens. How many?")
    members = []
    for slot, (text, reward) in enumerate(texts.items()):
        completion = policy.codec.as_completion(text)
        row = Row(policy.codec.render(prompt), completion.token_ids)
        members.append(ScoredCompletion(Submission(1, slot, "p", slot, completion), row, reward, reward))
    return Group(prompt, tuple(members))


def short(policy: CausalLM) -> Group:
    return group(policy, {"It is 3.": 1.0, "4": 0.0, "<answer>3</answer>": 1.0, "I do not know.": 0.0})


def flat(policy: CausalLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.trainable.parameters()]).clone()


def small(tokenizer, dtype: torch.dtype, spread: float = 0.02) -> CausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=2, tie_word_embeddings=True, initializer_range=spread)  # fmt: skip
    return CausalLM("small", LlamaForCausalLM(config), tokenizer, dtype)


def trained(tokenizer, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of a small model before and after many small steps."""
    policy = small(tokenizer, dtype)
    learner = Learner(policy.trainable, LearnerConfig(learning_rate=RATE), 96, STEPS)
    before = flat(policy)
    for _ in range(STEPS):
        learner.update([short(policy)])
    return before, flat(policy)


def test_many_small_steps_in_bfloat16_end_where_float32_ends(base_policy):
    """Adam moves each weight by about the rate a step, which is far below what bfloat16 weights resolve."""
    tokenizer = base_policy.codec.tokenizer
    before, exact = trained(tokenizer, torch.float32)
    start, rough = trained(tokenizer, torch.bfloat16)
    assert torch.equal(before, start)
    moved, off = exact - before, rough - exact
    assert (exact != before).all() and (rough != before).all()
    assert off.norm() < 0.02 * moved.norm()
    rounded = (before.bfloat16() + RATE).bfloat16()  # what one step would do to weights in low precision
    assert (rounded != before.bfloat16()).float().mean() < 0.5


@pytest.mark.parametrize(
    ("own", "asked", "training", "passes", "weights"),
    [
        ("float32", "auto", True, torch.float32, torch.float32),
        ("bfloat16", "auto", True, torch.bfloat16, torch.float32),
        ("float16", "auto", True, torch.bfloat16, torch.float32),
        ("bfloat16", "float32", True, torch.float32, torch.float32),
        ("float32", "bfloat16", True, torch.bfloat16, torch.float32),
        ("bfloat16", "auto", False, torch.bfloat16, torch.bfloat16),
        ("float32", "bfloat16", False, torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_passes_compute_in_and_what_weights_are(tmp_path, own, asked, training, passes, weights):
    kept = getattr(torch, own)
    copy_of_nano(tmp_path, config={"dtype": own}, tensors=lambda state: {k: v.to(kept) for k, v in state.items()})
    policy = load(str(tmp_path), device="cpu", dtype=asked, trained=training)
    assert policy.trainable.dtype == passes
    assert {parameter.dtype for parameter in policy.model.parameters()} == {weights}
    assert bool(policy.trainable.parameters()) == training
    computed = []
    layer = policy.model.get_submodule("model.layers.1.mlp.up_proj")
    layer.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    policy.engine.draw([(5, 6, 7)], [1], Sampling(max_new_tokens=3))
    policy.trainable.forward([Row((5, 6, 7), (8, 9))], [0])
    assert set(computed) == {passes}


@pytest.mark.parametrize(
    ("dtype", "sentence"), [("float16", "needs its loss scaled"), ("int8", "give auto, float32, bfloat16, float16")]
)
def test_a_type_that_cannot_be_trained_in_is_refused(dtype, sentence):
    with pytest.raises(ModelError, match=sentence):
        load("nano-a", device="cpu", dtype=dtype)


def test_weights_in_low_precision_are_not_trained(base_policy):
    model = copy.deepcopy(base_policy.model).bfloat16()
    policy = CausalLM("low", model, base_policy.codec.tokenizer, torch.bfloat16)
    with pytest.raises(ModelError, match=r"are torch\.bfloat16; load them as float32"):
        Learner(policy.trainable, LearnerConfig(), 96, 9)


class Casts(TorchDispatchMode):
    """Counts how often each weight is cast, by its address."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.weights = {parameter.data_ptr() for parameter in model.parameters()}
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.weights:
            self.counts[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_for_a_whole_draw():
    """Autocast keeps what it cast only in one context, and not in inference mode."""
    policy = load("nano-a", device="cpu", dtype="bfloat16")
    with Casts(policy.model) as casts:
        policy.engine.draw([(5, 6, 7)] * 2, [1, 2], Sampling(max_new_tokens=20))
    assert len(casts.counts) >= 28 and set(casts.counts.values()) == {1}  # seven linear layers in each of four blocks


def test_weights_that_are_not_finite_stop_the_run_in_their_round(fresh_policy):
    learner = Learner(fresh_policy.trainable, LearnerConfig(), 96, 9)
    learner.update([short(fresh_policy)])
    learner.learning_rate = lambda step: float("inf")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RunError, match=r"no longer finite after the update of round 2; lower learner\.learning_rate"):
        learner.update([short(fresh_policy)])


def test_a_step_that_is_not_made_is_counted(fresh_policy):
    learner = Learner(fresh_policy.trainable, LearnerConfig(), 96, 9)
    before = flat(fresh_policy)
    assert learner.update([group(fresh_policy, {"a": float("nan"), "b": 0.0})]).skipped == 1
    assert torch.equal(before, flat(fresh_policy))
    assert learner.update([short(fresh_policy)]).skipped == 0
    assert learner.update([]).skipped == 0


# LoRA


@pytest.fixture
def adapted():
    return load("nano-a", device="cpu", lora=Lora(r=4, alpha=8, targets=("q_proj", "v_proj")), lora_seed=1)


def test_an_adapter_is_trained_and_nothing_else(adapted, base_policy):
    row = Row((40, 41, 42), (7, 8, 9))
    (own,), (base,) = (each.engine.score([row], Sampling()) for each in (adapted, base_policy))
    assert own.logprobs.tolist() == pytest.approx(base.logprobs.tolist(), abs=1e-6)  # it changes nothing yet
    node, other = adapted.copied(), adapted.copied()
    learner = Learner(node.trainable, LearnerConfig(learning_rate=1e-2, beta=0.1), 96, 9)
    assert learner.update([short(node)]).kl == pytest.approx(0, abs=1e-6)
    assert learner.update([short(node)]).kl != pytest.approx(0, abs=1e-6)  # the reference is the base
    assert sum(parameter.numel() for parameter in node.trainable.parameters()) == 4 * 2 * 4 * (160 + 160)
    shared = [mine is theirs for mine, theirs in zip(node.model.parameters(), other.model.parameters(), strict=True)]
    frozen = [not parameter.requires_grad for parameter in node.model.parameters()]
    assert shared == frozen  # the base is held once for all nodes
    assert torch.equal(flat(other), flat(adapted)) and not torch.equal(flat(node), flat(adapted))
    assert torch.equal(node.model.get_input_embeddings().weight, base_policy.model.get_input_embeddings().weight)


def test_a_checkpoint_holds_the_adapter_only(adapted, tmp_path):
    node, other = adapted.copied(), adapted.copied()
    learner = Learner(node.trainable, LearnerConfig(learning_rate=1e-2), 96, 9)
    learner.update([short(node)])
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert len(state["weights"]) == 16 and all("lora_" in name for name in state["weights"])
    restored = Learner(other.trainable, LearnerConfig(learning_rate=1e-2), 96, 9)
    restored.load_state_dict(state)
    assert torch.equal(flat(other), flat(node))
    assert learner.update([short(node)]) == restored.update([short(other)])
    assert torch.equal(flat(other), flat(node))


def test_first_weights_depend_on_the_seed_alone(adapted):
    torch.rand(3)
    state = torch.random.get_rng_state()
    settings = Lora(r=4, alpha=8, targets=("q_proj", "v_proj"))
    again, other = (load("nano-a", device="cpu", lora=settings, lora_seed=seed) for seed in (1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(flat(again), flat(adapted)) and not torch.equal(flat(other), flat(adapted))


def test_a_base_may_stay_in_low_precision_under_its_adapter():
    policy = load("nano-a", device="cpu", dtype="bfloat16", lora=Lora(r=2, alpha=4))
    types = {(each.requires_grad, each.dtype) for each in policy.model.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}
    assert len({name.split(".")[-4] for name in policy.trainable.state_dict()}) == 7  # all linear layers of a block
    before = flat(policy)
    Learner(policy.trainable, LearnerConfig(learning_rate=1e-2), 96, 9).update([short(policy)])
    assert not torch.equal(flat(policy), before)


def test_layers_that_a_model_lacks_are_named():
    with pytest.raises(ModelError, match=r"has no layers named no_proj, other for LoRA; set learner\.lora\.targets"):
        load("nano-a", device="cpu", lora=Lora(r=2, alpha=4, targets=("no_proj", "other")))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"needs the package peft; install it with pip install 'hailproof\[peft\]'"):
        load("nano-a", device="cpu", lora=Lora(r=2, alpha=4))


def test_a_checkpoint_of_another_model_changes_nothing(fresh_policy):
    state, before = fresh_policy.trainable.state_dict(), flat(fresh_policy)
    name = "model.norm.weight"
    for wrong in ({**state, name: torch.zeros(3)}, {**state, "more": torch.zeros(1)}, {name: state[name] + 1}):
        with pytest.raises(RunError, match=r"The checkpoint is that of another model \(tensor '.*' differs\)"):
            fresh_policy.trainable.load_state_dict(wrong)
    assert torch.equal(before, flat(fresh_policy))


def test_honest_draws_of_bfloat16_passes_are_no_forgeries(base_policy):
    """Rounding moves a token past another now and then; the margin follows the precision of the passes."""
    policy, task = small(base_policy.codec.tokenizer, torch.bfloat16, 0.2), WordProblems(size=24, test_size=1)
    prompts = [task.prompt(problem) for problem in task.train] * 4
    sampling, keys = Sampling(max_new_tokens=24), [derive(5, index) for index in range(len(prompts))]
    drawn = policy.engine.draw([policy.codec.render(prompt) for prompt in prompts], keys, sampling)
    sent = [
        Submission(1, 0, prompt.problem_id, slot, policy.codec.drawn(ids))
        for slot, (prompt, ids) in enumerate(zip(prompts, drawn, strict=True))
    ]
    seen = Received(
        round=1, sampling=sampling, variant="math", prompts=prompts, submissions=sent, earned=[1.0] * len(sent),
        slot_keys=keys, model=policy,
    )  # fmt: skip

    def accepted(defense: LogitDefense | ReplayDefense) -> set[bool]:
        return {verdict.decision == "accept" for verdict in defense.screen(seen)}

    assert accepted(ReplayDefense()) == accepted(LogitDefense()) == {True}
    assert accepted(ReplayDefense(margin=1e-3)) == {False}  # what suits float32: narrow misses condemn the sender
