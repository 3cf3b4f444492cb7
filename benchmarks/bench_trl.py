"""Seconds of one of our rounds against one step of TRL's ``GRPOTrainer`` on the same work.

    .venv/bin/python benchmarks/bench_trl.py [--prompts 16] [--record] [--check]

Both start from the shipped nano-a and answer the same B prompts, as the same token ids, G times each, with the same
length limit, sampling, reward, loss, optimizer and learning rate; both make one update per generation. TRL runs with a
full train batch and with micro-batches, and its fastest setting counts. Steps and rounds alternate (A B A B) within
one process: our round is played between two steps of TRL, and the clock of each runs for its own part only. Our round
is `Swarm.play` of a clean homogeneous swarm of 4 without defense: plan, sample, exchange, reward, update; `--record`
adds writing its line and its completions to disk, durably, as a run does. TRL neither logs nor saves.
"""

import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import begin, make, options, spread, table, verdict
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from hailproof.policies.load import load
from hailproof.runs.build import Experiment
from hailproof.runs.measure import completion_rows, round_line
from hailproof.runs.store import RunFolder


@dataclass
class Measured:
    """One side's rounds: seconds, completion tokens, rows that went through the update, reward, stages."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def after(self, warmup: int) -> "Measured":
        """Without the first rounds."""
        return Measured(
            self.seconds[warmup:], self.tokens[warmup:], self.rows[warmup:], self.reward[warmup:], self.stages[warmup:]
        )

    def line(self, name: str) -> list[str]:
        """A row of the table."""
        means = (f"{statistics.fmean(part):.2f}" for part in (self.tokens, self.rows, self.reward))
        return [name, spread(self.seconds), *means]


HEAD = ["", "seconds, median (min..max)", "tokens", "rows trained", "reward"]


class Ours:
    """Our side: plays and times a round."""

    def __init__(self, experiment: Experiment, folder: RunFolder | None) -> None:
        self.experiment = experiment
        self.folder = folder
        self.measured = Measured()

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
        total = {"record": self.measured.seconds[-1] - sum(record.seconds.values())}
        self.measured.stages.append(record.seconds | total)


class Alternate(TrainerCallback):
    """TRL's side: times each step, then lets ours play."""

    def __init__(self, measured: Measured, ours: Ours) -> None:
        self.measured = measured
        self.ours = ours
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
        self.measured.seconds.append(time.perf_counter() - self.began)
        self.ours.play(state.global_step)


def compare(arguments: Any, micro: int, folder: Path) -> tuple[Measured, Measured]:
    """Alternates TRL with one micro-batch setting and our rounds; returns TRL's and ours, warm-up left out."""
    steps = arguments.warmup + arguments.repeats
    B, G = arguments.prompts, arguments.group_size
    experiment = make(
        swarm__prompts=B, swarm__group_size=G, sampling__max_new_tokens=arguments.tokens,
        learner__learning_rate=arguments.learning_rate, seed=arguments.seed,
    )  # fmt: skip
    runs = RunFolder.create(folder / "run", experiment.config) if arguments.record else None
    ours, trl = Ours(experiment, runs), Measured()
    policy, task = load("nano-a", "cpu"), experiment.swarm.task
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
        callbacks=[Alternate(trl, ours)],
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
    for micro in arguments.micro:
        with tempfile.TemporaryDirectory() as folder:
            results[micro] = compare(arguments, micro, Path(folder))
    rows: list[list[str]] = [HEAD]
    for micro, (trl, ours) in results.items():
        rows += [trl.line(f"TRL, {micro} micro-batch{'es' * (micro > 1)}"), ours.line("  hailproof beside it")]
    table(rows)
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
