"""The recipe of the nano base models: tokenizer, architecture, training; run by ``hailproof pretrain``.

Two models with different architectures *and* different tokenizers, so that heterogeneous swarms exist offline:

=========  ==========  ======  =====  ==========
name       family      layers  width  vocabulary
=========  ==========  ======  =====  ==========
nano-a     Llama            4    160       2,048
nano-b     GPT-NeoX         4    160       1,536
=========  ==========  ======  =====  ==========

Both use a byte-level BPE with single digits and a chat template that leaves the system message out, since a model
of this size reads questions, not instructions. (``torch.optim.Muon`` was tried: its bfloat16 Newton-Schulz iteration
takes 1.2 s a step on a CPU without bfloat16 units, more than forward and backward together; hence AdamW.)
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hailproof.errors import ConfigError
from hailproof.policies.nano.corpus import Document, documents
from hailproof.records import Problem
from hailproof.seeds import derive
from hailproof.tasks.word_problems import stories

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}Q: {{ message.content }}\nA:{% endif %}{% endfor %}"
)
END, PAD = "<|end|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<code>", "</code>")
MAX_DOCUMENT_TOKENS = 288
SORTED_DOCUMENTS = 64
"""Batches are cut from this many batches' worth of documents sorted by length, to waste little on padding."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a nano model depends on besides the real text that is mixed in."""

    name: str
    family: str
    vocabulary: int
    layers: int = 4
    width: int = 160
    heads: int = 5
    intermediate: int = 432
    steps: int = 1600
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 60
    two_two_share: float = 0.15
    real_share: float = 0.2
    chatter_share: float = 0.08
    seed: int = 20260


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("nano-a", "llama", vocabulary=2048),
        Recipe("nano-b", "gpt_neox", vocabulary=1536, intermediate=640, seed=20261),
    )
}


def prompt_text(question: str) -> str:
    """What the chat template makes of a question."""
    return f"Q: {question}\nA:"


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE whose digits are single tokens; the answer tags are single tokens too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"\n"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Builds the untrained model of a recipe."""
    shared = {
        "vocab_size": recipe.vocabulary,
        "hidden_size": recipe.width,
        "intermediate_size": recipe.intermediate,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if recipe.family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shared, num_key_value_heads=recipe.heads))
    if recipe.family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shared))
    raise ConfigError(f"The recipe's family '{recipe.family}' is unknown; use llama or gpt_neox.")


def _batches(
    tokenizer: PreTrainedTokenizerFast, stream: Iterator[Document], recipe: Recipe, rng: random.Random
) -> Iterator[list[list[int]]]:
    """Cuts batches of similar length out of the stream; token ids with the end token."""
    while True:
        chunk = list(itertools.islice(stream, recipe.batch * SORTED_DOCUMENTS))
        texts = [prompt_text(document.question) for document in chunk], [document.completion for document in chunk]
        prompts, completions = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in texts)
        rows = [
            (prompt + completion + [tokenizer.eos_token_id])[:MAX_DOCUMENT_TOKENS]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        rows.sort(key=len)
        batches = [rows[start : start + recipe.batch] for start in range(0, len(rows), recipe.batch)]
        rng.shuffle(batches)
        yield from batches


def pretrain(
    recipe: Recipe,
    real: tuple[Problem, ...],
    out: Path,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> dict[str, float]:
    """Trains a nano base model from scratch and saves model, tokenizer and recipe.

    Args:
        recipe: What to train.
        real: Problems of a real data set (train split) to mix in; may be empty.
        out: Folder to write.
        progress: Called after every step with the step, the number of steps and the loss.

    Returns:
        Final loss (nats per token, mean of the last 50 steps), tokens seen, and seconds.
    """
    started = time.perf_counter()
    rng = random.Random(derive(recipe.seed, "corpus"))
    stream = documents(
        rng, stories(recipe.seed, "train", recipe.two_two_share), real, recipe.real_share, recipe.chatter_share
    )
    sample = [f"{prompt_text(d.question)}{d.completion}" for d in itertools.islice(stream, 20_000)]
    tokenizer = train_tokenizer(iter(sample), recipe.vocabulary)
    torch.manual_seed(derive(recipe.seed, "weights"))
    model = build_model(recipe, tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))
    )
    losses, tokens = [], 0
    for step, rows in enumerate(itertools.islice(_batches(tokenizer, stream, recipe, rng), recipe.steps), start=1):
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=tokenizer.pad_token_id
        )
        labels = padded.masked_fill(padded == tokenizer.pad_token_id, -100)
        loss = model(input_ids=padded, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        losses.append(loss.item())
        tokens += sum(map(len, rows))
        progress(step, recipe.steps, losses[-1])
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    measured = {
        "loss": sum(losses[-50:]) / len(losses[-50:]),
        "tokens": float(tokens),
        "seconds": time.perf_counter() - started,
    }
    recorded = {"recipe": asdict(recipe), "real_problems": len(real), "measured": measured}
    (out / "recipe.json").write_text(json.dumps(recorded, indent=2) + "\n")
    return measured
