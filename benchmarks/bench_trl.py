"""Seconds of one of our rounds against one step of TRL's ``GRPOTrainer`` on the same work.

    .venv/bin/python benchmarks/bench_trl.py [--prompts 16] [--record] [--check]
    .venv/bin/python benchmarks/bench_trl.py --shape smollm2 --prompts 4 --group-size 8 --tokens 96 --micro 1 4 \
        --repeats 3 --warmup 1 [--only ours]

Both start from the shipped nano-a and answer the same B prompts, as the same token ids, G times each, with the same
length limit, sampling, reward, loss, optimizer and learning rate; both make one update per generation. With `--shape
smollm2` they start from random weights of SmolLM2-135M's shape with nano-a's tokenizer, rewarded by a
hash of the text.

TRL runs with a full train batch and with micro-batches, and its fastest setting counts. Steps and rounds alternate
(A B A B) within one process: our round is played between two steps of TRL, and the clock of each runs for its own part
only. `--only` plays one side alone, for its peak memory. "Through the model" are the tokens that forward passes were
given, padding included, draws and updates together. Our round is `Swarm.play` of a clean homogeneous swarm of 4 without
defense: plan, sample, exchange, reward, update; `--record` adds writing its line and its completions to disk, durably,
as a run does. TRL neither logs nor saves.
"""

import contextlib
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import begin, make, options, policy_of, spread, table, verdict
from datasets import Dataset
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, TrainerCallback, set_seed
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from hailproof.policies.load import load
from hailproof.policies.shipped import shipped_models
from hailproof.records import Problem
from hailproof.runs.build import Experiment
from hailproof.runs.measure import completion_rows, round_line
from hailproof.runs.store import RunFolder
from hailproof.seeds import derive
from hailproof.tasks.base import MATH_SYSTEM


@dataclass
class Measured:
    """One side's rounds: seconds, completion tokens, rows that went through the update, reward, stages."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    through: list[int] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def after(self, warmup: int) -> "Measured":
        """Without the first rounds."""
        return Measured(
            self.seconds[warmup:], self.tokens[warmup:], self.rows[warmup:], self.reward[warmup:],
            self.through[warmup:], self.stages[warmup:],
        )  # fmt: skip

    def line(self, name: str) -> list[str]:
        """A row of the table."""
        parts = (self.tokens, self.rows, self.reward, self.through)
        return [name, spread(self.seconds), *(f"{statistics.fmean(part):,.2f}" for part in parts)]


HEAD = ["", "seconds, median (min..max)", "tokens", "rows trained", "reward", "through the model"]


class Counted:
    """Counts the tokens that the forward passes of a model are given."""

    def __init__(self, model: nn.Module) -> None:
        self.tokens = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.tokens += (named["input_ids"] if "input_ids" in named else inputs[0]).numel()

    def taken(self) -> int:
        """The tokens since the last call."""
        tokens, self.tokens = self.tokens, 0
        return tokens


class CoinForm:
    """Rewards a text by its hash: random weights earn nothing else."""

    variant = "math"
    system = MATH_SYSTEM
    reward_seconds = 0.0

    def format(self, reasoning: str, answer: str) -> str:
        """Both, side by side."""
        return reasoning + answer

    def reward(self, problem: Problem, text: str) -> float:
        """0 or 1, half the time each."""
        return float(derive(0, problem.id, text) % 2)


@contextlib.contextmanager
def source_of(shape: str) -> Iterator[str]:
    """The model of a shape: nano-a as it is shipped, or a folder with random weights and nano-a's tokenizer."""
    if shape == "nano-a":
        yield shape
        return
    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, rms_norm_eps=1e-5,
                bos_token_id=0, eos_token_id=0, pad_token_id=1,
            )
        ).save_pretrained(folder)  # fmt: skip
        for path in shipped_models()["nano-a"].iterdir():
            if not path.name.startswith(("model", "config")):
                shutil.copy(path, folder)
        yield folder


class Ours:
    """Our side: plays and times a round."""

    def __init__(self, experiment: Experiment, folder: RunFolder | None) -> None:
        self.experiment = experiment
        self.folder = folder
        self.measured = Measured()
        self.counted = Counted(policy_of(experiment).model)

    def play(self, round: int) -> None:
        """Plays a round, and writes it if there is a folder."""
        started = time.perf_counter()
        record = self.experiment.swarm.play(round)
        if self.folder:
            line, rows = round_line(self.experiment, record), completion_rows(self.experiment, record)
            self.folder.write_round(round, line, rows)
        self.measured.seconds.append(time.perf_counter() - started)
        scored = [one for group in record.views[0].groups for one in group.completions]
        self.measured.tokens.append(statistics.fmean(len(one.submission.completion.token_ids) for one in scored))
        self.measured.rows.append(record.views[0].update.passes)
        self.measured.reward.append(statistics.fmean(one.reward for one in scored))
        self.measured.through.append(self.counted.taken())
        total = {"record": self.measured.seconds[-1] - sum(record.seconds.values())}
        self.measured.stages.append(record.seconds | total)


class Alternate(TrainerCallback):
    """TRL's side: times each step, then lets ours play."""

    def __init__(self, measured: Measured, ours: Ours | None, counted: Counted) -> None:
        self.measured = measured
        self.ours = ours
        self.counted = counted
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
        self.measured.seconds.append(time.perf_counter() - self.began)
        self.measured.through.append(self.counted.taken())
        if self.ours is not None:
            self.ours.play(state.global_step)


def compare(arguments: Any, model: str, micro: int, folder: Path) -> tuple[Measured, Measured]:
    """Alternates TRL with one micro-batch setting and our rounds; returns TRL's and ours, warm-up left out."""
    steps = arguments.warmup + arguments.repeats
    B, G = arguments.prompts, arguments.group_size
    experiment = make(
        swarm__prompts=B, swarm__group_size=G, sampling__max_new_tokens=arguments.tokens,
        learner__learning_rate=arguments.learning_rate, seed=arguments.seed, swarm__models=[model],
        swarm__device="cpu", swarm__dtype="float32",
    )  # fmt: skip
    if model != "nano-a":
        experiment.swarm.task.form = CoinForm()  # pyright: ignore[reportAttributeAccessIssue]
    runs = RunFolder.create(folder / "run", experiment.config) if arguments.record else None
    ours, trl = Ours(experiment, runs), Measured()
    if arguments.only == "ours":
        for step in range(1, steps + 1):
            ours.play(step)
        return trl, ours.measured.after(arguments.warmup)
    policy, task = load(model, "cpu", "float32"), experiment.swarm.task
    planned = [problem for step in range(1, steps + 1) for problem in experiment.swarm.plan(step).problems.values()]
    problems = {problem.id: problem for problem in planned}
    texts = [policy.codec.tokenizer.decode(list(policy.codec.render(task.prompt(problem)))) for problem in planned]
    for problem, text in zip(planned, texts, strict=True):
        if tuple(policy.codec.tokenizer(text)["input_ids"]) != policy.codec.render(task.prompt(problem)):
            raise RuntimeError("the prompts of both sides differ; the comparison would not be fair")

    def reward(
        completions: list[str], completion_ids: list[list[int]], problem: list[str], **_: Any
    ) -> list[float | None]:
        rewards = [task.reward(problems[key], text) for key, text in zip(problem, completions, strict=True)]
        trl.tokens.append(statistics.fmean(map(len, completion_ids)))
        trl.rows.append(len(completions))
        trl.reward.append(statistics.fmean(rewards))
        return list(rewards)

    settings = GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=steps, seed=arguments.seed,
        num_generations=G, per_device_train_batch_size=B * G // micro, gradient_accumulation_steps=micro,
        num_iterations=1, steps_per_generation=micro, max_completion_length=arguments.tokens,
        temperature=1.0, top_k=50, top_p=1.0, loss_type="grpo", beta=0.0, scale_rewards="group",
        learning_rate=arguments.learning_rate, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0,
        shuffle_dataset=False, use_cpu=True, bf16=False, gradient_checkpointing=False, dataloader_num_workers=0,
        dataloader_pin_memory=False, logging_strategy="no", save_strategy="no", eval_strategy="no", report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=policy.model, reward_funcs=reward, args=settings, processing_class=policy.codec.tokenizer,
        train_dataset=Dataset.from_dict({"prompt": texts, "problem": [problem.id for problem in planned]}),
        callbacks=[Alternate(trl, None if arguments.only else ours, Counted(policy.model))],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trl.after(arguments.warmup), ours.measured.after(arguments.warmup)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--prompts", type=int, default=12, help="B")
    parser.add_argument("--group-size", type=int, default=12, help="G")
    parser.add_argument("--tokens", type=int, default=40, help="length limit of completions")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--micro", type=int, nargs="+", default=[1, 4, 8, 12], help="micro-batches per TRL step to try")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2, help="steps of each that do not count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", choices=["nano-a", "smollm2"], default="nano-a")
    parser.add_argument("--only", choices=["ours", "trl"], help="play one side alone and say its peak memory")
    parser.add_argument("--record", action="store_true", help="our round includes writing its records")
    parser.add_argument("--min-ratio", type=float, default=2.0, help="what --check asks for")
    arguments = parser.parse_args()
    if any(arguments.prompts * arguments.group_size % micro for micro in arguments.micro):
        parser.error("every --micro must divide prompts x group size")
    begin(arguments, "trl")
    recorded = "with" if arguments.record else "without"
    print(
        f"B={arguments.prompts} G={arguments.group_size}, at most {arguments.tokens} tokens; our rounds are {recorded} "
        f"recording; {arguments.repeats} of each, after {arguments.warmup} of warm-up"
    )
    warnings.simplefilter("ignore", FutureWarning)
    results: dict[int, tuple[Measured, Measured]] = {}
    with source_of(arguments.shape) as model:
        for micro in arguments.micro:
            with tempfile.TemporaryDirectory() as folder:
                results[micro] = compare(arguments, model, micro, Path(folder))
    rows: list[list[str]] = [HEAD]
    for micro, (trl, ours) in results.items():
        rows += [trl.line(f"TRL, {micro} micro-batch{'es' * (micro > 1)}")] if trl.seconds else []
        rows += [ours.line("  hailproof beside it")] if ours.seconds else []
    table(rows)
    if arguments.only:
        print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        return 0
    best = min(results, key=lambda micro: statistics.median(results[micro][0].seconds))
    trl, ours = results[best]
    stages = {name: statistics.median(stage[name] for stage in ours.stages) for name in ours.stages[0]}
    if not arguments.record:
        stages.pop("record")
    print("stages of our round: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in stages.items()))
    ratio = statistics.median(trl.seconds) / statistics.median(ours.seconds)
    claim = f"TRL's fastest step ({best} micro) takes {ratio:.2f} times as long as our round"
    return verdict(f"{claim} (asked: at least {arguments.min_ratio})", ratio >= arguments.min_ratio, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
