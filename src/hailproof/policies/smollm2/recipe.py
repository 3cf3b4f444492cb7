"""The recipe of the adapter that prepares SmolLM2 for a swarm; run by ``hailproof models tune``.

As it is, SmolLM2-135M-Instruct earns nothing: it knows neither the tags nor how to stop. A LoRA learns both from a few
hundred answers in the form that earns reward: word problems of the train split as prose and as programs, and solutions
of GSM8K's train split. Only answers count in the loss; prompts are those of the tasks, as a run renders them.
"""

import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from hailproof.errors import RunError
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.cycles import first_steps, steps_of
from hailproof.policies.fetched import RECIPE, Fetchable
from hailproof.policies.load import load
from hailproof.policies.lora import Lora
from hailproof.policies.scoring import batches
from hailproof.records import Problem, Prompt, Row
from hailproof.seeds import derive
from hailproof.tasks.base import CODE_SYSTEM, MATH_SYSTEM, MathForm
from hailproof.tasks.word_problems import stories

TOKENS_AT_ONCE = 1024
"""Padded tokens per pass: the logits over 49,152 tokens are what needs memory."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """Steps with a fresh optimizer, whose learning rate rises over the first of them.

    Attributes:
        steps: Optimizer steps.
        falls: Whether the learning rate falls to zero after its rise, or stays.
    """

    steps: int
    falls: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the adapter depends on besides the base model and the real text.

    Attributes:
        cycles: When the learning rate rises and falls.
        batch: Answers a step.
        learning_rate: Of AdamW, after the warm-up.
        warmup: Steps over which the learning rate rises.
        r: Rank of the adapter.
        alpha: What it adds is multiplied by ``alpha / r``.
        programs: Share of the answers that are programs.
        real: Share that are solutions of a real data set, if one is given.
        two_two_share: Share of the stories that are made to hold a 2∘2 step.
        longest: Answers with more tokens are left out.
        seed: Of everything random.
    """

    cycles: tuple[Cycle, ...] = (Cycle(40, falls=False), Cycle(24, falls=True))
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: int = 4
    r: int = 6
    alpha: float = 12.0
    programs: float = 0.4
    real: float = 0.2
    two_two_share: float = 0.1
    longest: int = 160
    seed: int = 20263

    @property
    def steps(self) -> int:
        """Optimizer steps of all cycles."""
        return steps_of(self.cycles)

    def shortened(self, steps: int) -> "Recipe":
        """The recipe with only its first steps, for a trial; the last cycle that is left falls sooner, if it falls."""
        return replace(self, cycles=first_steps(self.cycles, steps))


class Example(NamedTuple):
    """A prompt and the answer that it should get."""

    prompt: Prompt
    answer: str


def examples(recipe: Recipe, real: Sequence[Problem]) -> Iterator[Example]:
    """The endless text of a recipe."""
    rng = random.Random(derive(recipe.seed, "examples"))
    told = stories(derive(recipe.seed, "stories"), "train", recipe.two_two_share)
    form = MathForm()
    for index in itertools.count():
        kind = rng.random()
        if kind < recipe.programs:
            story = next(told)
            yield Example(Prompt(str(index), CODE_SYSTEM, story.question), f"<code>{story.program}</code>")
        elif real and kind < recipe.programs + recipe.real:
            problem = rng.choice(real)
            solution = form.format(problem.solution or "", problem.answer)
            yield Example(Prompt(str(index), MATH_SYSTEM, problem.question), solution)
        else:
            story = next(told)
            solution = form.format(story.solution, story.answer)
            yield Example(Prompt(str(index), MATH_SYSTEM, story.question), solution)


def _rows(policy: CausalLM, recipe: Recipe, real: Sequence[Problem]) -> Iterator[Row]:
    """The same as token ids, what is too long left out."""
    for example in examples(recipe, real):
        answer = policy.codec.as_completion(example.answer).token_ids
        if len(answer) <= recipe.longest:
            yield Row(policy.codec.render(example.prompt), answer)


def train(policy: CausalLM, recipe: Recipe, real: Sequence[Problem]) -> Iterator[tuple[list[Row], float]]:
    """Trains the adapter of a policy; yields the rows of each step and its loss, in nats per token of an answer."""
    stream = _rows(policy, recipe, real)
    for cycle in recipe.cycles:
        yield from _cycle(policy, recipe, cycle, stream)


def _cycle(
    policy: CausalLM, recipe: Recipe, cycle: Cycle, stream: Iterator[Row]
) -> Iterator[tuple[list[Row], float]]:
    parameters = policy.trainable.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    fall = max(1, cycle.steps - recipe.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / recipe.warmup, (cycle.steps - step) / fall if cycle.falls else 1.0),
    )
    for _ in range(cycle.steps):
        rows = list(itertools.islice(stream, recipe.batch))
        tokens, loss = sum(len(row.completion) for row in rows), 0.0
        for indices in batches(rows, TOKENS_AT_ONCE):
            part = -policy.trainable.forward(rows, indices).logprobs.sum() / tokens
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        yield rows, loss


def tune(
    model: Fetchable,
    recipe: Recipe,
    real: Sequence[Problem],
    out: Path,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> dict[str, float]:
    """Trains an adapter for a fetched model and writes it as ``peft`` reads it, with its recipe beside it.

    Passes compute in bfloat16, the adapter is trained in float32 and saved in float16. The folder appears when all is
    written.

    Args:
        model: The model; its base must have been fetched.
        recipe: How to train.
        real: Problems of a real data set (train split) to mix in; may be empty.
        out: The folder to write, which must not exist.
        progress: Called after every step with the step, the number of steps and the loss.

    Returns:
        Loss (nats per token of an answer, mean of the last ten steps), tokens of answers, and seconds.

    Raises:
        ModelError: If the base was not fetched, or ``peft`` is missing.
        RunError: If the folder cannot be written.
    """
    policy = load(
        model.base, dtype="bfloat16", lora=Lora(r=recipe.r, alpha=recipe.alpha), lora_seed=derive(recipe.seed, "lora")
    )
    started, losses, tokens = time.perf_counter(), [], 0
    for step, (rows, loss) in enumerate(train(policy, recipe, real), start=1):
        losses.append(loss)
        tokens += sum(len(row.completion) for row in rows)
        progress(step, recipe.steps, loss)
    last = losses[-10:]
    measured = {"loss": sum(last) / len(last), "tokens": tokens, "seconds": time.perf_counter() - started}
    record = {
        "base": model.gguf.sha256, "recipe": asdict(recipe), "real_problems": len(real), "measured": measured,
    }  # fmt: skip
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            made = Path(scratch) / out.name
            _save(policy, recipe, model.base, made)
            (made / RECIPE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            made.rename(out)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); choose another with --out.") from error
    return measured


def _save(policy: CausalLM, recipe: Recipe, base: str, folder: Path) -> None:
    """Writes the adapter of a policy in float16, and its settings with the name of its base."""
    from peft import LoraConfig, get_peft_model_state_dict

    tensors = get_peft_model_state_dict(policy.model, adapter_name="default")
    named = {f"base_model.model.{name}": tensor.half().contiguous().cpu() for name, tensor in tensors.items()}
    settings = LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,  # pyright: ignore[reportArgumentType] - any number divides
        target_modules=sorted({name.split(".")[-3] for name in named}),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        inference_mode=True,
    )
    settings.save_pretrained(str(folder))
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
