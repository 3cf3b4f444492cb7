"""A TRL trainer as a member of a real swarm, to be run in a process of its own."""

import json
from pathlib import Path
from typing import Any


def train(folder: Path, index: int) -> None:
    """Trains an unchanged ``GRPOTrainer`` over the rounds of a swarm, and writes down what it was given to learn."""
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from hailproof.integrations.trl_swarm import SwarmRollout
    from hailproof.policies.load import load
    from hailproof.service.trainer import TrainerExchange

    torch.set_num_threads(1)
    policy = load("nano-a", device="cpu")
    seen: list[dict[str, Any]] = []
    with TrainerExchange.of_file(folder / f"{index}.toml") as exchange:
        rollout = SwarmRollout(
            exchange, exchange.node, exchange.nodes, exchange.sampling, exchange.seed, names=exchange.name_of
        )

        def watched(prompts: Any, trainer: Any) -> dict[str, Any]:
            answered = rollout(prompts, trainer)
            names = [exchange.name_of(prompt) for prompt in prompts]
            texts = [policy.codec.decode(ids) for ids in answered["completion_ids"]]
            rows = zip(names, answered["sender"], answered["present"], texts, strict=True)
            seen.append({"beacon": rollout.beacon, "rows": [list(row) for row in rows]})
            return answered

        def reward(completions: Any, answer: Any, **_: Any) -> Any:
            pairs = zip(completions, answer, strict=True)
            return [float(f"<answer>{right}</answer>" in each[0]["content"]) for each, right in pairs]

        rows = [
            {"prompt": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
             "answer": problem.answer}
            for problem in exchange.problems()
            for prompt in [exchange.task.prompt(problem)]
        ]  # fmt: skip
        size = exchange.group_size * len(rows) // exchange.rounds
        options = GRPOConfig(
            output_dir=str(folder / f"trl-{index}"), per_device_train_batch_size=size,
            num_generations=exchange.group_size, max_completion_length=exchange.sampling.max_new_tokens,
            max_steps=exchange.rounds, learning_rate=1e-3, report_to=[], save_strategy="no", disable_tqdm=True,
            bf16=False, use_cpu=True, top_k=50, shuffle_dataset=False,
        )  # fmt: skip
        GRPOTrainer(
            policy.model, reward_funcs=reward, args=options, train_dataset=Dataset.from_list(rows),
            processing_class=policy.codec.tokenizer, rollout_func=watched,
        ).train()  # fmt: skip
    (folder / f"trl-{index}.json").write_text(json.dumps(seen))
