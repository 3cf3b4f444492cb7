"""The recipe of the nano models: tokenizer, architecture, training; run by ``hailproof pretrain``.

Two base models with different architectures *and* different tokenizers, so that heterogeneous swarms exist offline:

=========  ==========  ======  =====  ==========
name       family      layers  width  vocabulary
=========  ==========  ======  =====  ==========
nano-a     Llama            4    160       2,048
nano-b     GPT-NeoX         4    160       1,536
=========  ==========  ======  =====  ==========

Both use a byte-level BPE with single digits and a chat template that keeps one bit of the system message, whether it
asks for ``<code>``, since a model of this size reads questions, not instructions. (``torch.optim.Muon`` was tried: its
bfloat16 Newton-Schulz iteration takes 1.2 s a step on a CPU without bfloat16 units, more than forward and backward
together; hence AdamW.)

``nano-judge`` is nano-a trained further, with a second bit in its template: whether the system message asks for a
``<decision>``. It learns to judge solutions (``judging_corpus.py``) and goes on solving problems.
"""

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hailproof.errors import ConfigError, RunError
from hailproof.policies.budget import TOKEN_BUDGET
from hailproof.policies.cycles import first_steps, steps_of
from hailproof.policies.nano.corpus import Document, Mixture, documents
from hailproof.policies.nano.judging_corpus import judging_documents
from hailproof.policies.shipped import shipped_models
from hailproof.records import Problem
from hailproof.seeds import derive
from hailproof.tasks.word_problems import stories

SOLVER_TEMPLATE = (
    "{# hailproof: the system text is read, not shown #}"  # policies/templates.py
    "{% set kind = namespace(answer='A') %}{% for message in messages %}"
    "{% if message.role == 'system' and '<code>' in message.content %}{% set kind.answer = 'P' %}{% endif %}"
    "{% if message.role == 'user' %}Q: {{ message.content }}\n{{ kind.answer }}:{% endif %}{% endfor %}"
)
JUDGE_TEMPLATE = (
    "{# hailproof: the system text is read, not shown #}"  # policies/templates.py
    "{% set kind = namespace(answer='A') %}{% for message in messages %}"
    "{% if message.role == 'system' and '<decision>' in message.content %}"
    "{% set kind.answer = 'C' if '<criticism>' in message.content else 'D' %}"
    "{% elif message.role == 'system' and '<code>' in message.content %}{% set kind.answer = 'P' %}{% endif %}"
    "{% if message.role == 'user' %}{% if kind.answer in 'CD' %}"
    "{{ message.content | replace(' ' ~ message.content[9:17] ~ '>', '>') }}\n{{ kind.answer }}:"
    "{% else %}Q: {{ message.content }}\n{{ kind.answer }}:{% endif %}{% endif %}{% endfor %}"
)
"""A judge's prompt loses its nonce: its tags are tokens of their own, which neutralized text cannot spell."""
END, PAD = "<|end|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<code>", "</code>")
JUDGE_TAGS = tuple(f"<{slash}{tag}>" for tag in ("problem", "solution", "criticism", "decision") for slash in ("", "/"))
MAX_DOCUMENT_TOKENS = 256
DECISIVE = (":", "<decision>")
DECISIVE_WEIGHT = 5.0
"""What comes after these tokens in a ruling, a comparison's outcome and the decision, counts so often in the loss."""
NEXT = ".next"
"""The folder inside a model's own in which its successor is saved."""
SORTED_DOCUMENTS = 64
"""Batches are cut from this many batches' worth of documents sorted by length, to waste little on padding."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One rise and fall of the learning rate, with a fresh optimizer (SGDR; Loshchilov, Hutter 2016)."""

    steps: int
    learning_rate: float
    mixture: Mixture
    judging: float = 0.0
    """Share of documents in which a solution is judged; the mixture shares out the others."""
    sums: float = 0.0
    """Share of these in which nothing but sums are judged."""


WIDE = Mixture(real=0.06, chatter=0.05, drill=0.12, sums=6, code=0.25, sayings=0.15, exclamations=0.1, rambling=0.06)
"""Every kind of text."""


JUDGE_CYCLES = (Cycle(250, 2e-3, WIDE, judging=0.85, sums=0.5), Cycle(650, 2e-3, WIDE, judging=0.88, sums=0.15))


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
    batch: int = 40
    warmup: int = 60
    two_two_share: float = 0.15
    seed: int = 20260
    base: str = ""
    """The shipped model whose weights and tokenizer training starts from, to become a judge; empty: from scratch."""
    cycles: tuple[Cycle, ...] = (
        Cycle(1400, 3e-3, Mixture(real=0.12, chatter=0.08, drill=0.12, sums=1)),
        Cycle(1200, 2e-3, Mixture(real=0.06, chatter=0.05, drill=0.25, sums=6)),
        Cycle(1700, 2e-3, WIDE),
        Cycle(500, 1e-3, WIDE),
    )

    @property
    def steps(self) -> int:
        """Optimizer steps of all cycles."""
        return steps_of(self.cycles)

    def shortened(self, steps: int) -> "Recipe":
        """The recipe with only so many steps, for a trial; cycles keep their order."""
        return replace(self, cycles=first_steps(self.cycles, steps))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("nano-a", "llama", vocabulary=2048),
        Recipe("nano-b", "gpt_neox", vocabulary=1536, intermediate=640, seed=20261),
        Recipe("nano-judge", "llama", 2048 + len(JUDGE_TAGS), seed=20262, base="nano-a", cycles=JUDGE_CYCLES),
    )
}


def prompt_text(document: Document) -> str:
    """What the chat template makes of a document's question."""
    if document.judging:
        nonce = document.question[9:17]
        return f"{document.question.replace(f' {nonce}>', '>')}\n{document.judging}:"
    return f"Q: {document.question}\n{'P' if document.program else 'A'}:"


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
        chat_template=SOLVER_TEMPLATE,
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


def judge_from(base: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The untrained judge: a shipped model with the judge's tags as new tokens, and the template that knows of them."""
    folder = shipped_models()[base]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, chat_template=JUDGE_TEMPLATE)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in JUDGE_TAGS])
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model, tokenizer


class _Row(NamedTuple):
    """Token ids with the end token, and the weight of each as a target of the loss."""

    ids: list[int]
    weights: list[float]


def _row(document: Document, prompt: list[int], answer: list[int], decisive: Collection[int]) -> _Row:
    """A document as a row.

    In judging documents only the ruling counts: to predict corrupted solutions would be to learn them.
    """
    ids = [*prompt, *answer]
    if document.judging:
        ruled = [DECISIVE_WEIGHT if before in decisive else 1.0 for before in answer[:-1]]
        weights = [*[0.0] * len(prompt), 1.0, *ruled]
    else:
        weights = [0.0, *[1.0] * (len(ids) - 1)]
    return _Row(ids[:MAX_DOCUMENT_TOKENS], weights[:MAX_DOCUMENT_TOKENS])


def _batches(
    tokenizer: PreTrainedTokenizerFast, stream: Iterator[Document], batch: int, rng: random.Random
) -> Iterator[list[_Row]]:
    """Cuts batches of similar length out of the stream."""
    vocabulary = tokenizer.get_vocab()
    end, decisive = vocabulary[END], {vocabulary[token] for token in DECISIVE if token in vocabulary}
    while True:
        chunk = list(itertools.islice(stream, batch * SORTED_DOCUMENTS))
        texts = [prompt_text(document) for document in chunk], [document.completion for document in chunk]
        prompts, completions = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in texts)
        rows = [
            _row(document, prompt, [*completion, end], decisive)
            for document, prompt, completion in zip(chunk, prompts, completions, strict=True)
        ]
        rows.sort(key=lambda row: len(row.ids))
        batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        rng.shuffle(batches)
        yield from batches


def _micro_batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Cuts a batch, sorted by length, into passes within the budget that suits a CPU."""
    size = max(1, TOKEN_BUDGET // len(rows[-1].ids))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _train(
    model: PreTrainedModel, batches: Iterator[list[_Row]], cycle: Cycle, warmup: int
) -> Iterator[tuple[list[_Row], float]]:
    """Trains one cycle; yields each batch with its loss in nats per token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=cycle.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    fall = max(1, cycle.steps - warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (cycle.steps - step) / fall)
    )
    for rows in itertools.islice(batches, cycle.steps):
        whole, loss = sum(sum(row.weights) for row in rows), 0.0
        for part in _micro_batches(rows):
            ids = pad_sequence([torch.tensor(row.ids) for row in part], batch_first=True)
            weights = pad_sequence([torch.tensor(row.weights) for row in part], batch_first=True)
            logits = model(input_ids=ids).logits[:, :-1]
            nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
            summed = nats @ weights[:, 1:].flatten()
            (summed / whole).backward()
            loss += summed.item() / whole
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        yield rows, loss


def pretrain(
    recipe: Recipe,
    real: tuple[Problem, ...],
    out: Path,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> dict[str, float]:
    """Trains a nano model, from scratch or from its base, and saves model, tokenizer and recipe after every cycle.

    A folder that holds a model with some cycles done is taken up where it stands.

    Args:
        recipe: What to train.
        real: Problems of a real data set (train split) to mix in; may be empty.
        out: Folder to write.
        progress: Called after every step with the step, the number of steps and the loss.

    Returns:
        Final loss (weighted nats per token, mean of the last 50 steps), and tokens and seconds of all cycles.

    Raises:
        RunError: If the folder holds what another recipe or other real text made.
    """
    _finish_save(out)
    done, measured = cycles_done(out), {"loss": 0.0, "tokens": 0.0, "seconds": 0.0}
    if done:
        recorded = _recorded(out)
        if _before(recorded, done) != _before(_record(recipe, done, real, measured), done):
            raise RunError(f"The model in {out} was trained by another recipe or on other text; choose another folder.")
        measured = recorded["measured"]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
        model = AutoModelForCausalLM.from_pretrained(out)
    elif recipe.base:
        torch.manual_seed(derive(recipe.seed, "weights"))
        model, tokenizer = judge_from(recipe.base)
    else:
        stream = _corpus(recipe, 0, real)
        sample = itertools.islice(stream, 20_000)
        tokenizer = train_tokenizer((f"{prompt_text(d)}{d.completion}" for d in sample), recipe.vocabulary)
        torch.manual_seed(derive(recipe.seed, "weights"))
        model = build_model(recipe, tokenizer)
    model.train()
    step = sum(cycle.steps for cycle in recipe.cycles[:done])
    for number in range(done, len(recipe.cycles)):
        started, losses = time.perf_counter(), []
        rng = random.Random(derive(recipe.seed, "order", number))
        batches = _batches(tokenizer, _corpus(recipe, number, real), recipe.batch, rng)
        for rows, loss in _train(model, batches, recipe.cycles[number], recipe.warmup):
            losses.append(loss)
            measured["tokens"] += sum(len(row.ids) for row in rows)
            step += 1
            progress(step, recipe.steps, loss)
        measured["loss"] = sum(losses[-50:]) / len(losses[-50:])
        measured["seconds"] += time.perf_counter() - started
        _save(model, tokenizer, _record(recipe, number + 1, real, measured), out)
    return measured


def _record(recipe: Recipe, done: int, real: Sequence[Problem], measured: Mapping[str, float]) -> dict[str, Any]:
    """What stands beside a model: how it was made so far."""
    return {"recipe": asdict(recipe), "cycles_done": done, "real_problems": len(real), "measured": dict(measured)}


def _before(record: Mapping[str, Any], done: int) -> Any:
    """What a model depends on that has some cycles behind it, as JSON has it."""
    recipe = {**record["recipe"], "cycles": record["recipe"]["cycles"][:done]}
    return json.loads(json.dumps({"recipe": recipe, "real_problems": record["real_problems"]}))


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, record: Mapping[str, Any], out: Path
) -> None:
    """Puts a model and its record into a folder; a kill on the way leaves the model that was there, or the new one."""
    beside = out / NEXT
    beside.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    (beside / "recipe.json.tmp").write_text(json.dumps(record, indent=2) + "\n")
    (beside / "recipe.json.tmp").replace(beside / "recipe.json")
    _finish_save(out)


def _finish_save(out: Path) -> None:
    """Moves a model that was saved beside an older one into its place; one that was not saved whole is left out."""
    beside = out / NEXT
    if (beside / "recipe.json").is_file():
        for path in sorted(beside.iterdir(), key=lambda path: path.name == "recipe.json"):  # the record comes last
            path.replace(out / path.name)
    shutil.rmtree(beside, ignore_errors=True)


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{folder / 'recipe.json'} is damaged; delete the folder and train the model again.") from error


def cycles_done(folder: Path) -> int:
    """How many cycles of its recipe the model in a folder has behind it; 0 if there is none.

    Raises:
        RunError: If its record is damaged.
    """
    return _recorded(folder)["cycles_done"] if (folder / "recipe.json").is_file() else 0


def _corpus(recipe: Recipe, cycle: int, real: tuple[Problem, ...]) -> Iterator[Document]:
    """The endless text of one cycle."""
    rng = random.Random(derive(recipe.seed, "corpus", cycle))
    story_stream = stories(derive(recipe.seed, "stories", cycle), "train", recipe.two_two_share)
    share = recipe.cycles[cycle].judging
    solving = documents(rng, story_stream, real, recipe.cycles[cycle].mixture)
    if not share:
        return solving
    judged = stories(derive(recipe.seed, "judged stories", cycle), "train", recipe.two_two_share)
    judging_rng = random.Random(derive(recipe.seed, "judging", cycle))
    judging = judging_documents(judging_rng, judged, real, recipe.cycles[cycle].sums)
    choice = random.Random(derive(recipe.seed, "mixing", cycle))
    return (next(judging if choice.random() < share else solving) for _ in itertools.count())
