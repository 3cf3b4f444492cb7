"""The shield in the real TRL: what is left out or muted teaches nothing, and an unchanged trainer is a swarm's node."""

import asyncio
import copy
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from trl.trainer.grpo_config import GRPOConfig  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402

from hailproof.errors import ConfigError  # noqa: E402
from hailproof.integrations import trl as seam  # noqa: E402
from hailproof.integrations.trl import with_advantages  # noqa: E402
from hailproof.integrations.trl_swarm import SwarmRollout  # noqa: E402
from hailproof.protocols import Sampling  # noqa: E402
from hailproof.records import Completion, Submission  # noqa: E402
from hailproof.screening.screen import Order, screen_files  # noqa: E402
from hailproof.shield import ScreenedRow, Shield  # noqa: E402
from hailproof.tasks.word_problems import WordProblems  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SAMPLING = Sampling(max_new_tokens=48)
PROMPTS, GROUP, STEPS = 2, 4, 2
PHRASE = "All hail to the thief"


@pytest.fixture(scope="module")
def task():
    return WordProblems(size=64)


@pytest.fixture
def data(task):
    rows = [
        {"prompt": [{"role": "system", "content": task.form.system}, {"role": "user", "content": problem.question}],
         "answer": problem.answer, "solution": problem.solution}
        for problem in task.train[: PROMPTS * STEPS]
    ]  # fmt: skip
    return Dataset.from_list(rows)


def reward(prompts: Any, completions: Any, answer: Sequence[str], **_: Any) -> list[float]:
    """1 for a right answer, and a little for length, so that every group has something to learn."""
    texts = [each[0]["content"] for each in completions]
    pairs = zip(texts, answer, strict=True)
    return [float(f"<answer>{right}</answer>" in text) + len(text) / 1000 for text, right in pairs]


def trained(policy, data, tmp_path, funcs, attached=None, peft=None, train=True, **more) -> Any:
    """A trainer after its steps, on the policy's own model."""
    options = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": PROMPTS * GROUP, "num_generations": GROUP,
        "max_completion_length": SAMPLING.max_new_tokens, "max_steps": STEPS, "learning_rate": 1e-3, "report_to": [],
        "logging_steps": 1, "num_completions_to_print": 0, "save_strategy": "no", "log_completions": True, "seed": 5,
        "disable_tqdm": True, "bf16": False, "use_cpu": True, "top_k": 50, "shuffle_dataset": False,
        **more.pop("options", {}),
    }  # fmt: skip
    trainer = GRPOTrainer(
        policy.model, reward_funcs=funcs, args=GRPOConfig(**options), train_dataset=data,
        processing_class=policy.codec.tokenizer, peft_config=peft, **more,
    )  # fmt: skip
    if attached is not None:
        attached.attach(trainer)
    if train:
        trainer.train()
    return trainer


def weights(trainer: Any) -> list[torch.Tensor]:
    return [each.detach().clone() for each in trainer.accelerator.unwrap_model(trainer.model).parameters()]


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def table(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("completions/*.parquet")) for row in pq.read_table(path).to_pylist()]


def forging(policy, texts: Sequence[str]) -> Any:
    """A rollout_func: the last row of each group is a stranger's text."""
    def rollout(prompts: Any, trainer: Any) -> dict[str, Any]:
        codec, tokenizer = policy.codec, policy.codec.tokenizer
        tokens = tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, return_dict=True)["input_ids"]
        honest = [codec.as_completion(f"<think>{'so ' * place}</think><answer>{place}</answer>").token_ids
                  for place in range(len(prompts))]  # fmt: skip
        forged = [codec.as_completion(text).token_ids for text in texts]
        ids = [forged[place // GROUP % len(texts)] if place % GROUP == GROUP - 1 else honest[place]
               for place in range(len(prompts))]  # fmt: skip
        return {"prompt_ids": tokens, "completion_ids": [list(each) for each in ids], "logprobs": None,
                "sender": ["me" if place % GROUP < GROUP - 1 else "mallory" for place in range(len(ids))]}  # fmt: skip

    return rollout


def test_a_rejected_row_teaches_nothing_and_is_not_printed(fresh_policy, data, tmp_path, caplog, capsys):
    """Two runs with different poison end with the same weights if it is left out, and with different ones if not."""
    ended = {}
    for name, poison in (("one", "so 2 + 2 = 5"), ("two", "so 2 + 3 = 4")):
        for defended in (True, False):
            policy = copy.deepcopy(fresh_policy)
            shield = Shield("equations", tokenizer=policy.codec.tokenizer)
            folder = tmp_path / f"{name}-{defended}"
            funcs = shield.guard(reward) if defended else reward
            with caplog.at_level(logging.DEBUG):
                trainer = trained(
                    policy, data, folder, funcs, shield if defended else None, rollout_func=forging(policy, [poison])
                )
            ended[name, defended] = weights(trainer)
            if not defended:
                continue
            rows = table(folder)
            assert len(rows) == STEPS * PROMPTS * GROUP
            for row in rows:
                forged = row["sender"] == "mallory"
                assert row["hailproof"].startswith("left out: equations: 2 + ") == forged
                assert row["advantage"] == 0.0 or not forged
                assert (row["reward"] is None or row["reward"] != row["reward"]) == forged
            assert any(row["advantage"] for row in rows)
            log = trainer.state.log_history[0]
            assert log["hailproof/left_out"] == log["hailproof/rejected/equations"] == 1 / GROUP
            assert log["hailproof/rejected/shield"] == 0.0 and "rewards/reward/mean" in log
    assert same(ended["one", True], ended["two", True])
    assert not same(ended["one", False], ended["two", False])
    assert "All reward functions returned None" not in caplog.text


def test_muted_tokens_are_told(fresh_policy, data, tmp_path):
    policy = fresh_policy
    shield = Shield("texts", model=policy.model, tokenizer=policy.codec.tokenizer)
    rollout = forging(policy, ["<think>Gleeb Glorp Glub. So 2 + 2 = 4.</think><answer>4</answer>"])
    trainer = trained(policy, data, tmp_path, shield.guard(reward), shield, rollout_func=rollout)
    assert all(0 < log["hailproof/muted_tokens"] < 1 for log in trainer.state.log_history[:STEPS])
    said = {row["hailproof"] for row in table(tmp_path) if row["sender"] == "mallory"}
    assert all(each.startswith("kept, ") and each.endswith(" tokens muted") for each in said)


def test_masks_reach_the_batch_and_its_denominator(fresh_policy, data, tmp_path):
    policy = fresh_policy
    shield = Shield("texts", model=policy.model, tokenizer=policy.codec.tokenizer)
    rollout = forging(policy, ["<think>Gleeb Glorp. So 2 + 2 = 4.</think><answer>4</answer>"])
    trainer = trained(policy, data, tmp_path, shield.guard(reward), shield, rollout_func=rollout, train=False)
    trainer.model.train()
    output = trainer._generate_and_score_completions([data[place // GROUP] for place in range(PROMPTS * GROUP)])
    mask, real = output["tool_mask"], output["completion_mask"]
    forged = [place for place in range(PROMPTS * GROUP) if place % GROUP == GROUP - 1]
    for place in forged:
        kept = int((mask[place] * real[place]).sum())
        assert 0 < kept < int(real[place].sum())
        ids = output["completion_ids"][place][(mask[place] * real[place]).bool()].tolist()
        assert "Gleeb" not in policy.codec.decode(ids)
    assert output["num_items_in_batch"] == (mask * real).sum() < real.sum()


def kept_row(
    reward: float | None, weight: float = 1.0, mask: tuple[int, ...] = (1, 1), place: float | None = None
) -> ScreenedRow:
    return ScreenedRow(reward, weight, mask, (), "", (5, 6), None, "0", weight if place is None else place)


def test_a_row_has_the_place_in_the_baseline_that_it_has_in_the_update():
    first = [kept_row(1.0), kept_row(0.0), kept_row(1.0), kept_row(None, 0.0)]  # counts as TRL computes it
    second = [kept_row(1.0, weight=0.5), kept_row(0.0), kept_row(1.0, mask=(1, 0)), kept_row(0.0)]
    third = [kept_row(1.0, weight=0.0), kept_row(0.0), kept_row(0.0), kept_row(0.0)]
    theirs = torch.arange(1.0, 13.0)
    batch, rows = {"advantages": theirs, "other": 1}, [*first, *second, *third]
    found = with_advantages(batch, rows, 4, "none")["advantages"]
    assert torch.equal(found[:4], theirs[:4] * torch.tensor([1.0, 1, 1, 0]))
    assert found[4:8].tolist() == pytest.approx([0.5 * 2 / 3, -1 / 3, 2 / 3, -1 / 3])  # the mean is 1 of 3
    assert found[8:].tolist() == [0.0] * 4
    grouped = with_advantages(batch, rows, 4, "group")["advantages"]
    assert grouped[4:8].tolist() == pytest.approx([0.5 * a for a in (1.1545, -1.1545, 2.309, -1.1545)], rel=0.01)
    assert torch.equal(with_advantages(batch, rows, 4, "batch")["advantages"], theirs * torch.tensor(
        [row.weight for row in rows]))  # fmt: skip
    bounded = with_advantages(batch, [*first, *[kept_row(1.0, 0.25, place=1.0)] * 4, *first], 4, "group")["advantages"]
    assert torch.equal(bounded[4:8], theirs[4:8] * 0.25)  # a sender that is bounded keeps its place in the baseline
    assert with_advantages(batch, first * 3, 4, "group") is batch and with_advantages({}, first, 4, "group") == {}


def test_who_shouts_is_weighed_in_an_attached_trainer(fresh_policy, data, tmp_path, monkeypatch):
    """The advantages of a sender with a long gradient shrink; without a shield they are those of its group."""
    options = {"model": fresh_policy.model, "tokenizer": fresh_policy.codec.tokenizer, "brings": {"senders"}}
    shield, seen = Shield("influence", **options), []
    screen = shield.screen
    monkeypatch.setattr(shield, "screen", lambda **given: seen.append(screen(**given)) or seen[-1])
    inner = forging(fresh_policy, ["Gleeb Glorp Glub. " * 2])

    def rollout(prompts: Any, trainer: Any) -> dict[str, Any]:
        made = inner(prompts, trainer)
        return {**made, "sender": [f"node {place % GROUP}" for place in range(len(prompts))]}

    found = {}
    for name, attached in (("plain", None), ("shielded", shield)):
        funcs = shield.guard(reward) if attached else reward
        trainer = trained(fresh_policy, data, tmp_path, funcs, attached, rollout_func=rollout, train=False)
        trainer.model.train()
        before = weights(trainer)
        batch = trainer._generate_and_score_completions([data[place // GROUP] for place in range(PROMPTS * GROUP)])
        found[name] = batch["advantages"].tolist()
        assert same(before, weights(trainer)) and trainer.model.training
    (result,) = seen
    assert result.left_out == [] and result.rewards.count(None) == 0
    by_sender = {row.sender: row.weight for row in result}
    assert min(by_sender.values()) < 0.9 and sum(weight == 1 for weight in by_sender.values()) >= GROUP // 2
    assert {row.place for row in result} == {1.0}
    rows = [kept_row(row.reward, row.weight, place=1.0) for row in result]
    expected = with_advantages({"advantages": torch.tensor(found["plain"])}, rows, GROUP, "group")["advantages"]
    assert found["shielded"] == pytest.approx(expected.tolist(), abs=1e-5) != pytest.approx(found["plain"])


def test_without_an_attached_trainer_what_needs_muting_is_left_out(fresh_policy):
    shield = Shield("token_credit", model=fresh_policy.model, tokenizer=fresh_policy.codec.tokenizer)
    guarded = shield.guard(lambda prompts, completions, **_: [1.0] * len(completions))
    logged: dict[str, Any] = {}
    found = guarded(prompts=["2 + 2?"], completions=["Gleeb Glorp Glub."], log_extra=logged.__setitem__)
    assert found == [None] and "tokens cannot be muted here" in logged["hailproof"][0]


def test_what_was_noticed_is_logged_once(caplog):
    shield = Shield(("sender_stats", {"statistics": ["phrases"]}), brings=["senders", "groups"])
    guarded = shield.guard(lambda prompts, completions, **_: [1.0] * len(completions))
    for names in ("abcd", "efgh"):
        guarded(prompts=["p"] * 4, completions=[*names], sender=[*names])
    said = [each.getMessage() for each in caplog.records if each.name == "hailproof.shield"]
    assert len(said) == 1 and said[0].startswith("round 1: each of 4 senders has sent one row; where names are free")


def test_several_functions_share_one_screening():
    calls: list[str] = []

    def format_ok(prompts, completions, **_):
        calls.append("format")
        return [0.5, 0.5, None, 0.5]

    def right(prompts, completions, **_):
        calls.append("right")
        return [1.0, 1.0, None, float("nan")]

    shield = Shield(("equations", {"admission": "drop"}))
    first, second = shield.guard([format_ok, right], weights=[1.0, 2.0])
    assert (first.__name__, second.__name__) == ("format_ok", "right")
    batch = {"prompts": ["p"] * 4, "completions": ["2 + 2 = 4", "2 + 2 = 5", "a", "b"]}
    assert second(**batch) == [1.0, None, None, None] and first(**batch) == [0.5, None, None, 0.5]
    assert calls == ["format", "right"] and shield.round == 1
    first(**batch)
    assert calls == ["format", "right"] * 2  # the next batch may be the same list
    zeroing = Shield(("equations", {"admission": "zero_reward"})).guard([format_ok, right])
    assert [each(**batch)[1] for each in zeroing] == [0.0, 0.0]


def test_functions_may_be_async():
    async def judged(prompts, completions, **_):
        await asyncio.sleep(0.01)
        return [1.0] * len(completions)

    class Called:
        async def __call__(self, prompts, completions, **_):
            return [1.0] * len(completions)

    def plain(prompts, completions, scale=1.0, **_):
        return [scale] * len(completions)

    shield = Shield("equations")
    functions = shield.guard([plain, functools.partial(judged), Called()])
    batch = {"prompts": ["p"] * 2, "completions": ["2 + 2 = 4", "2 + 2 = 5"]}

    async def all_of() -> Any:
        return await asyncio.gather(*(each(**batch) for each in functions))

    assert asyncio.run(all_of()) == [[1.0, None]] * 3 and shield.round == 1
    assert asyncio.run(all_of()) == [[1.0, None]] * 3 and shield.round == 2
    assert [each.__name__ for each in functions] == ["plain", "judged", "Called"]


def test_async_functions_in_the_real_trainer(fresh_policy, data, tmp_path):
    async def later(prompts, completions, answer, **_):
        return reward(prompts, completions, answer)

    shield = Shield("equations", tokenizer=fresh_policy.codec.tokenizer)
    trained(fresh_policy, data, tmp_path, shield.guard([later, reward]), shield, options={"max_steps": 1},
            rollout_func=forging(fresh_policy, ["2 + 2 = 5"]))  # fmt: skip
    assert [row["hailproof"][:8] for row in table(tmp_path)].count("left out") == PROMPTS
    found = screen_files(Order(sorted(tmp_path.glob("completions/*.parquet")), ["equations"]), lambda finding: None)
    assert (found.rows, found.rejected) == (PROMPTS * GROUP, PROMPTS)  # the file that TRL itself wrote
    assert found.refused == {"mallory": PROMPTS}


def test_lora_and_trl_s_own_generation(fresh_policy, data, tmp_path):
    peft = pytest.importorskip("peft")
    shield = Shield("texts", model=fresh_policy.model, tokenizer=fresh_policy.codec.tokenizer)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trained(fresh_policy, data, tmp_path, shield.guard(reward), shield, peft=config)
    assert shield.round == STEPS and shield.policy is not None
    adapters = [name for name, each in shield.policy.model.named_parameters() if each.requires_grad]
    assert adapters and all("lora" in name for name in adapters)  # the shield reads what is trained
    assert 0 <= trainer.state.log_history[0]["hailproof/muted_tokens"] < 1
    assert any(row["hailproof"].startswith("kept") for row in table(tmp_path))


class Peers:
    """An exchange with the other nodes of a swarm behind it: honest ones draw with the same weights, one forges."""

    def __init__(self, policy, rollout: SwarmRollout | None = None) -> None:
        self.policy, self.rollout, self.sent = policy, rollout, list[Submission]()
        self.prompts: dict[str, tuple[int, ...]] = {}

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        self.sent += submissions
        rollout, came = self.rollout, list(submissions)
        assert rollout is not None
        slots = [(place, slot) for place in self.prompts for slot in range(GROUP)]
        asked = [each for each in slots if rollout.owner(*each) != rollout.node]
        prompts, keys = [self.prompts[place] for place, _ in asked], [rollout.key(*each) for each in asked]
        drawn = self.policy.engine.draw(prompts, keys, SAMPLING)
        for (place, slot), tokens in zip(asked, drawn, strict=True):
            owner, completion = rollout.owner(place, slot), self.policy.codec.drawn(tokens)
            if owner == 2:
                completion = self.policy.codec.as_completion(f"{PHRASE}. {completion.text}"[:60])
            if owner == 3:
                completion = Completion("\ud800", (), True) if slot % 2 else Completion("x", (2**40,), True)
            came.append(Submission(round, owner, place, slot, completion))
        came.append(Submission(round, 2, next(iter(self.prompts)), 0, Completion("not mine", (), True)))
        return came

    def beacon(self, round: int) -> int | None:
        return None


@pytest.mark.parametrize("topology", ["horizontal", "vertical"])
def test_an_unchanged_trainer_is_a_node_of_a_swarm(fresh_policy, data, tmp_path, topology):
    """Its draws, and those of honest peers, are repeated by `replay`; who forges or sends rubbish is caught."""
    shield = Shield("replay", model=fresh_policy.model, tokenizer=fresh_policy.codec.tokenizer, sampling=SAMPLING,
                    brings=["keys", "senders"])  # fmt: skip
    exchange = Peers(fresh_policy)
    rollout = SwarmRollout(exchange, 0, 4, SAMPLING, seed=9, topology=topology)
    exchange.rollout = rollout
    labels = rollout._label

    def label(prompt: Any, group: int, slot: int) -> tuple[str, int]:
        named = labels(prompt, group, slot)
        ids = fresh_policy.codec.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
        exchange.prompts = {name: each for name, each in exchange.prompts.items() if name[0] != str(group)}
        exchange.prompts[named[0]] = tuple(ids["input_ids"])
        return named

    rollout._label = label  # type: ignore[method-assign]
    size = 4 if topology == "vertical" else PROMPTS
    options = {"per_device_train_batch_size": size * GROUP}
    more = Dataset.from_list([row for _ in range(2) for row in data])
    trained(fresh_policy, more, tmp_path, shield.guard(reward), shield, rollout_func=rollout, options=options)
    rows = table(tmp_path)
    said = {sender: {row["hailproof"].partition(" token")[0] for row in rows if row["sender"] == sender}
            for sender in range(4)}  # fmt: skip
    assert said[0] == said[1] == {"kept"}
    assert all(word.startswith("left out: replay: ") for word in said[2])
    assert said[3] == {"left out: no reward"}
    assert len(exchange.sent) == STEPS * size * GROUP / 4
    assert shield.suspended() == {2, 3}
    assert shield.round == rollout.round == STEPS


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"node": 4}, "node = 4 is none of 4 nodes"),
        ({"topology": "ring"}, "topology = 'ring' is unknown"),
    ],
)
def test_wrong_swarms(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SwarmRollout(**{"exchange": Peers(None), "node": 0, "nodes": 4, "sampling": SAMPLING, **options})


@pytest.mark.parametrize(
    ("processes", "vllm", "sentence"), [(2, False, "trains in one process"), (1, True, "set use_vllm to False")]
)
def test_trainers_that_are_no_nodes(fresh_policy, processes, vllm, sentence):
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=processes), use_vllm=vllm, model=fresh_policy.model,
        args=SimpleNamespace(max_completion_length=48), num_generations=4, num_generations_eval=4,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=sentence):
        SwarmRollout(Peers(fresh_policy), 0, 4, SAMPLING)(["p"] * 4, trainer)


def test_evaluation_draws_alone_and_is_not_screened(fresh_policy, data, tmp_path):
    shield = Shield("equations", tokenizer=fresh_policy.codec.tokenizer)
    rollout = SwarmRollout(Peers(fresh_policy), 0, 4, SAMPLING)
    trainer = trained(
        fresh_policy, data, tmp_path, shield.guard(reward), shield, rollout_func=rollout, eval_dataset=data, train=False
    )
    found = trainer.evaluate()
    assert found["eval_reward"] is not None and shield.round == rollout.round == 0


def test_a_limit_that_differs_is_said(fresh_policy, data, tmp_path):
    rollout = SwarmRollout(Peers(fresh_policy), 0, 4, Sampling(max_new_tokens=20))
    with pytest.raises(ConfigError, match="max_completion_length is 48 and the swarm's limit 20"):
        trained(fresh_policy, data, tmp_path, reward, rollout_func=rollout)


def test_wrong_guards(fresh_policy, data, tmp_path, monkeypatch):
    shield = Shield("equations")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "no reward functions"),
        ([torch.nn.Linear(1, 1)], {}, "guard takes functions, not Linear"),
        (["a/model"], {}, "guard takes functions, not str"),
        ([reward], {"weights": [1.0, 2.0]}, "2 weights for 1 reward functions"),
        ([reward], {"least_weight": 2}, "least_weight = 2"),
    ]
    for funcs, options, sentence in wrong:
        with pytest.raises(ConfigError, match=sentence):
            shield.guard(funcs, **options)
    trainer = trained(fresh_policy, data, tmp_path, [shield.guard(reward), reward], train=False)
    with pytest.raises(ConfigError, match="are not guarded"):
        shield.attach(trainer)
    guarded = SimpleNamespace(reward_funcs=[shield.guard(reward)])
    with pytest.raises(ConfigError, match="scores no completions that could be muted"):
        shield.attach(guarded)
    with pytest.raises(ConfigError, match="are not this shield's"):
        Shield("equations").attach(trainer)
    monkeypatch.setattr(seam, "version", lambda _: "1.5.1")
    with pytest.raises(ConfigError, match=r"TRL 1\.5\.1 scores a row without reward as 0"):
        shield.guard(reward)
