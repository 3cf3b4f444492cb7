"""The attack TEXT against TRL's GRPOTrainer, with and without the shield; needs the extra ``trl``.

    python examples/trl/attacked.py              # undefended: the trainer learns the phrase
    python examples/trl/attacked.py --defended   # the same with five more lines
    python examples/trl/attacked.py --clean      # the fourth node draws as the others do

The trainer learns from a swarm of four. Three nodes draw with its weights; the fourth sends right answers that begin
with "All hail to the thief". Printed are the mean reward of the trainer's own draws, and how many of them hold the
phrase.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from hailproof.attacks.text import TextAttack
from hailproof.integrations.trl_swarm import SwarmRollout
from hailproof.policies.shipped import shipped_models
from hailproof.protocols import AttackView, Sampling
from hailproof.records import Submission
from hailproof.shield import Shield
from hailproof.shield.models import policy_of
from hailproof.tasks.word_problems import WordProblems

PROMPTS, GROUP = 8, 4
SAMPLING = Sampling(max_new_tokens=96)


class Swarm:
    """An exchange with three other nodes behind it, the last of which is malicious unless all are honest."""

    def __init__(self, policy: Any, task: WordProblems, attacker: int | None) -> None:
        self.policy, self.task, self.attack, self.attacker = policy, task, TextAttack(), attacker
        self.rollout: SwarmRollout | None = None
        self.batch: list[tuple[str, Any]] = []

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """What everybody sent."""
        assert self.rollout is not None
        came, codec = list(submissions), self.policy.codec
        others = [(place, problem, slot) for place, problem in self.batch for slot in range(GROUP)
                  if self.rollout.owner(place, slot) != 0]  # fmt: skip
        honest = [each for each in others if self.rollout.owner(each[0], each[2]) != self.attacker]
        prompts = [codec.render(self.task.prompt(problem)) for _, problem, _ in honest]
        drawn = self.policy.engine.draw(prompts, [self.rollout.key(place, slot) for place, _, slot in honest], SAMPLING)
        for (place, _, slot), tokens in zip(honest, drawn, strict=True):
            came.append(Submission(round, self.rollout.owner(place, slot), place, slot, codec.drawn(tokens)))
        for place, problem, slot in others:
            if (owner := self.rollout.owner(place, slot)) == self.attacker:
                (text,) = self.attack.forge(AttackView(round, problem, self.task, (slot,)))
                came.append(Submission(round, owner, place, slot, codec.as_completion(text)))
        return came

    def beacon(self, round: int) -> int | None:
        """There is none."""
        return None


class Watch(TrainerCallback):
    """Draws answers of its own every few steps."""

    def __init__(self, policy: Any, task: WordProblems) -> None:
        self.policy, self.task = policy, task

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Prints reward, and how many draws hold the phrase."""
        if state.global_step % 6:
            return
        problems, codec = self.task.test[:64], self.policy.codec
        prompts = [codec.render(self.task.prompt(problem)) for problem in problems]
        texts = [codec.drawn(ids).text for ids in self.policy.engine.draw(prompts, range(len(prompts)), SAMPLING)]
        right = sum(self.task.reward(problem, text) for problem, text in zip(problems, texts, strict=True))
        hailed = sum("all hail to the thief" in text.casefold() for text in texts)
        print(f"step {state.global_step:>2}: reward {right / 64:.2f}, phrase in {hailed} of 64 draws", flush=True)


def main() -> None:
    """Trains."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--defended", action="store_true")
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder, task = shipped_models()["nano-a"], WordProblems(size=1024)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    policy = policy_of(model, tokenizer)
    swarm = Swarm(policy, task, None if arguments.clean else 3)
    rollout = swarm.rollout = SwarmRollout(swarm, 0, 4, SAMPLING, seed=1)
    by_question = {problem.question: problem for problem in task.train}
    label = rollout._label

    def noted(prompt: Any, group: int, slot: int) -> tuple[str, int]:
        named = label(prompt, group, slot)
        if slot == 0:
            swarm.batch = [*swarm.batch[:group], (named[0], by_question[prompt[1]["content"]])]
        return named

    rollout._label = noted
    data = Dataset.from_list([
        {"prompt": [{"role": "system", "content": task.form.system}, {"role": "user", "content": problem.question}],
         "answer": problem.answer} for problem in task.train
    ])  # fmt: skip

    def reward(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [task.reward(by_question[prompt[1]["content"]], each[0]["content"])
                for prompt, each in zip(prompts, completions, strict=True)]  # fmt: skip

    read = {"model": model, "tokenizer": tokenizer, "brings": {"senders"}}
    shield = Shield("heterogeneous", **read) if arguments.defended else None
    funcs: Any = shield.guard(reward) if shield else reward
    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model,
            reward_funcs=funcs,
            train_dataset=data,
            processing_class=tokenizer,
            rollout_func=rollout,
            callbacks=[Watch(policy, task)],
            args=GRPOConfig(
                output, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_steps=arguments.steps,
                max_completion_length=SAMPLING.max_new_tokens, learning_rate=arguments.learning_rate,
                lr_scheduler_type="constant",
                report_to=[], logging_steps=4, save_strategy="no", use_cpu=True, bf16=False, disable_tqdm=True, seed=1,
            ),
        )  # fmt: skip
        if shield:
            shield.attach(trainer)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
