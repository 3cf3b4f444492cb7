"""A policy on any ``transformers`` causal language model: sampling and scoring, batched across prompts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hailproof.errors import ModelError
from hailproof.policies.cache import growing_cache
from hailproof.policies.sampling import draw, gap_below_allowed, shortfall
from hailproof.policies.scoring import Batch, Row, passes, prefill
from hailproof.policies.shipped import shipped_models
from hailproof.protocols import Guide, Replayed, SampleRequest, Sampling, TokenScores
from hailproof.records import Completion, Prompt

ROWS_AT_ONCE = 512
"""Completions drawn side by side; bounds the memory of the key-value cache."""

RENDERED_AT_ONCE = 8192
"""Prompts whose ids are remembered; judges see new ones in every round."""

_USER = "\ue000user\ue001"
"""Stands for the user's text while a chat template is looked at; private-use characters that no template writes."""

LONGEST_CHARACTER = 4
"""Tokens, one for each byte, after which a character has ended: what is decoded until then is no Unicode."""

KEEP_SHARE = 0.75
"""Finished rows are cut out of the batch when fewer than this share are still going."""


class CausalLM:
    """A causal language model with its tokenizer.

    Args:
        name: What records call it.
        model: The model, already on its device.
        tokenizer: Its tokenizer; if it has a chat template, prompts are rendered with it.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        configured = getattr(model.generation_config, "eos_token_id", None)
        listed = configured if isinstance(configured, list) else [configured]
        self.end_ids = tuple(
            dict.fromkeys(i for i in (tokenizer.eos_token_id, *listed) if isinstance(i, int))
        )
        if not self.end_ids:
            raise ModelError(f"Model {name} has no end-of-sequence token; set one in its tokenizer's configuration.")
        flagged = (token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
        self._special_ids = frozenset((*tokenizer.all_special_ids, *flagged))  # decoding leaves all of them out
        self._never_inside = self._special_ids | set(self.end_ids)
        self._undrawable: Tensor | None = None
        self._rendered: dict[Prompt, tuple[int, ...]] = {}
        self._pieces: dict[int, str] = {}

    @property
    def context(self) -> int:
        """Tokens that the model can read at once, prompt and completion together."""
        return getattr(self.model.config, "max_position_embeddings", None) or 1 << 30

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt: by chat template if the tokenizer has one, else plain text.

        Special tokens that the user's text spells out stay text: they are split into ordinary pieces.

        Raises:
            ModelError: If that cannot be had, since the chat template does not show the user's text exactly once.
        """
        if prompt not in self._rendered:
            if len(self._rendered) >= RENDERED_AT_ONCE:
                self._rendered.clear()
            begins = not self.tokenizer.chat_template  # templates write their own begin token
            ids = self.tokenizer(self._templated(prompt.system, prompt.user), add_special_tokens=begins)["input_ids"]
            around = self._templated(prompt.system, _USER).split(_USER)
            head, *more = (self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in around)
            head = self.tokenizer(around[0], add_special_tokens=True)["input_ids"] if begins else head
            if self._specials(ids) != self._specials(head) + sum(map(self._specials, more)):
                if len(more) != 1:
                    raise ModelError(f"The chat template of {self.name} hides or repeats the user's text; mend it.")
                ids = [*head, *self.encode(prompt.user), *more[0]]
            self._rendered[prompt] = tuple(ids)
        return self._rendered[prompt]

    def _specials(self, ids: Sequence[int]) -> int:
        return sum(i in self._special_ids for i in ids)

    def _templated(self, system: str, user: str) -> str:
        if not self.tokenizer.chat_template:
            return f"{system}\n\n{user}\n\n"
        apart = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        together = [{"role": "user", "content": f"{system}\n\n{user}"}]  # for templates that know no system role
        for messages in (apart, together):
            try:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except TemplateError as error:
                reason = str(error)
        raise ModelError(f"The chat template of {self.name} fails ({reason}); mend it.")

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenizes a completion's text, without special tokens and without the end token.

        Special tokens that a stranger spells out in text stay text: they are split into ordinary pieces.
        """
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of completion ids; special tokens are left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def as_completion(self, text: str) -> Completion:
        """Makes a finished completion of a text: its ids under this tokenizer, then the end token."""
        return Completion(text, (*self.encode(text), self.end_ids[0]), finished=True)

    def received_ids(self, completion: Completion) -> tuple[int, ...]:
        """Ids to score and train a received completion with.

        The sender's ids are used if they are ids of this vocabulary, decode to the text that was sent, and hold an
        end token at the end only; else the text is tokenized anew (as between models with different tokenizers).
        """
        ids = completion.token_ids
        ended = bool(ids) and ids[-1] in self.end_ids
        body = ids[:-1] if ended else ids
        if (
            ended == completion.finished
            and ids
            and all(0 <= i < len(self.tokenizer) for i in ids)
            and self._never_inside.isdisjoint(body)
            and self.decode(body) == completion.text
        ):
            return ids
        end = (self.end_ids[0],) if completion.finished else ()
        return (*self.encode(completion.text), *end) or (self.end_ids[0],)

    def received(self, completion: Completion) -> Completion:
        """A received completion with the text that its ids say.

        It is another than the one that was sent where text was tokenized anew and the tokenizer does not keep all of
        it (Qwen's joins accents to letters): then what is read, rewarded and screened must be what will be learned.
        """
        ids = self.received_ids(completion)
        text = self.decode(ids[:-1] if ids[-1] in self.end_ids else ids)
        return completion if text == completion.text else Completion(text, ids, completion.finished)

    @torch.inference_mode()
    def sample(
        self, requests: Sequence[SampleRequest], sampling: Sampling, guide: Guide | None = None
    ) -> list[Completion]:
        """Draws one completion per request.

        Each prompt is read once, however many completions it gets; rows that have ended leave the batch. What is
        drawn depends on weights, prompt and key only, as far as floating-point sums of different batch shapes agree.

        Raises:
            ModelError: If a prompt and a completion of full length do not fit into the model's context.
        """
        longest = max((len(self.render(request.prompt)) for request in requests), default=0)
        if longest + sampling.max_new_tokens > self.context:
            raise ModelError(
                f"A prompt of {longest} tokens and {sampling.max_new_tokens} new ones do not fit into the context of "
                f"{self.name}, {self.context} tokens; lower sampling.max_new_tokens."
            )
        results: list[Completion] = []
        for start in range(0, len(requests), ROWS_AT_ONCE):
            results += self._sample(requests[start : start + ROWS_AT_ONCE], sampling, guide)
        return results

    def _sample(
        self, requests: Sequence[SampleRequest], sampling: Sampling, guide: Guide | None
    ) -> list[Completion]:
        device = self.model.device
        prompts = list(dict.fromkeys(request.prompt for request in requests))
        rendered = [self.render(prompt) for prompt in prompts]
        cache, logits, prompt_mask = prefill(self.model, rendered, growing_cache(self.model.config))
        place = {prompt: index for index, prompt in enumerate(prompts)}
        owner = torch.tensor([place[request.prompt] for request in requests], device=device)
        cache.batch_select_indices(owner)
        logits, mask = logits[owner], prompt_mask[owner]
        lengths = mask.sum(dim=1)
        keys = torch.tensor([request.key for request in requests], device=device)
        rows = torch.arange(len(requests), device=device)
        ends = torch.tensor(self.end_ids, device=device)
        drawn = torch.full((len(requests), sampling.max_new_tokens), -1, dtype=torch.long, device=device)
        alive = torch.ones(len(requests), dtype=torch.bool, device=device)
        for position in range(sampling.max_new_tokens):
            self._bar(logits)
            steer = None if guide is None else _steering(guide, drawn[rows, :position])
            tokens = draw(logits, keys, torch.full_like(keys, position), sampling, steer)
            drawn[rows[alive], position] = tokens[alive]
            alive &= ~torch.isin(tokens, ends)
            going = int(alive.sum())
            if going == 0 or position + 1 == sampling.max_new_tokens:
                break
            if going < KEEP_SHARE * len(rows):
                kept = alive.nonzero().squeeze(-1)
                cache.batch_select_indices(kept)
                rows, keys, tokens, mask, lengths, alive = (
                    part[kept] for part in (rows, keys, tokens, mask, lengths, alive)
                )
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=(lengths + position)[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1].float()
        return [self._completion([token for token in row if token >= 0]) for row in drawn.tolist()]

    def _bar(self, logits: Tensor) -> None:
        """Keeps out of the draw, in place, what no receiver takes for a part of a completion.

        These are special tokens that do not end it, which text cannot say, and the columns by which some models are
        wider than their tokenizer.
        """
        if self._undrawable is None or self._undrawable.device != logits.device:
            special = sorted(self._special_ids - set(self.end_ids))
            ids = (*special, *range(len(self.tokenizer), logits.shape[-1]))
            self._undrawable = torch.tensor([i for i in ids if i < logits.shape[-1]], device=logits.device).long()
        logits.index_fill_(-1, self._undrawable, -torch.inf)

    def _completion(self, token_ids: list[int]) -> Completion:
        finished = bool(token_ids) and token_ids[-1] in self.end_ids
        body = token_ids[:-1] if finished else token_ids
        return Completion(self.decode(body), tuple(token_ids), finished)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], sampling: Sampling
    ) -> list[TokenScores]:
        """Scores every token of every completion; identical rows are computed once."""
        rows = self._rows(prompts, completions)
        distinct = list(dict.fromkeys(rows))
        scored: dict[Row, TokenScores] = {}
        for batch in passes(self.model, distinct):
            for index, parts in zip(batch.indices, self._token_scores(batch, sampling), strict=True):
                scored[distinct[index]] = TokenScores(*parts, ends=self._character_ends(distinct[index].completion))
        return [scored[row] for row in rows]

    @torch.inference_mode()
    def replay(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        keys: Sequence[int],
        sampling: Sampling,
    ) -> list[Replayed]:
        """Repeats the draws of completions; identical rows go through the model once."""
        rows = self._rows(prompts, completions)
        distinct = list(dict.fromkeys(rows))
        asked: dict[Row, list[int]] = {}
        for index, row in enumerate(rows):
            asked.setdefault(row, []).append(index)
        shortfalls: dict[int, np.ndarray] = {}
        for batch in passes(self.model, distinct):
            self._bar(batch.logits)
            claims = [(place, index) for place, row in enumerate(batch.indices) for index in asked[distinct[row]]]
            for start in range(0, len(claims), len(batch.indices)):  # the memory of as many rows as were read
                part = claims[start : start + len(batch.indices)]
                numbers = [index for _, index in part]
                shortfalls.update(zip(numbers, _shortfalls(batch, part, keys, sampling), strict=True))
        return [
            Replayed(shortfalls[index], self._character_ends(row.completion)) for index, row in enumerate(rows)
        ]

    def _rows(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Row]:
        """Received completions as they are scored."""
        return [
            Row(self.render(prompt), self.received_ids(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _token_scores(self, batch: Batch, sampling: Sampling) -> list[tuple[np.ndarray, ...]]:
        """Ids, log-probabilities, ranks and gaps of each row of a batch, as numpy arrays without padding."""
        logits, targets = batch.logits[batch.mask], batch.targets[batch.mask]
        own = logits.gather(-1, targets[:, None])
        logprobs = own.squeeze(-1) - logits.logsumexp(dim=-1)
        self._bar(logits)
        ranks = (logits > own).sum(dim=-1)
        gaps = gap_below_allowed(logits, targets, ranks, sampling)
        gaps = gaps.masked_fill(logprobs.isnan(), torch.inf)  # what is no number lies outside all limits
        ends = np.cumsum(batch.mask.sum(dim=1).tolist())[:-1]

        def split(values: Tensor) -> list[np.ndarray]:
            return np.split(values.cpu().numpy(), ends)

        return list(zip(*map(split, (targets, logprobs, ranks, gaps)), strict=True))

    def _character_ends(self, token_ids: Sequence[int]) -> np.ndarray:
        """``[T]`` index of the character at which each token ends; one that ends inside a character ends before it."""
        for token in set(token_ids) - self._pieces.keys():
            self._pieces[token] = self.decode([token])
        pieces, text = [self._pieces[token] for token in token_ids], self.decode(token_ids)
        if "".join(pieces) != text:  # not by length alone: what one piece lacks, another may have too much
            return self._exact_ends(token_ids, len(text))
        return np.cumsum([len(piece) for piece in pieces])

    def _exact_ends(self, token_ids: Sequence[int], size: int) -> np.ndarray:
        """The same where tokens split characters, or decode to another length in a text than alone.

        Tokens are decoded with those before them, from one clean border to the next (as streaming servers do).
        """
        ends, end = np.zeros(len(token_ids), dtype=int), 0
        first = read = 0
        for index in range(len(token_ids)):
            known, text = self.decode(token_ids[first:read]), self.decode(token_ids[first : index + 1])
            if not text.endswith("\ufffd") or index - read + 1 >= LONGEST_CHARACTER:
                end += max(0, len(text) - len(known))
                first, read = read, index + 1
            ends[index] = end
        ends[-1] = size
        return np.minimum(ends, size)


def _steering(guide: Guide, drawn: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A guide as the sampler takes it."""

    def steer(ids: Tensor, values: Tensor) -> Tensor:
        adjusted = guide.adjust(drawn.cpu().numpy(), ids.cpu().numpy(), values.cpu().numpy())
        return torch.as_tensor(adjusted, device=values.device)

    return steer


def _shortfalls(
    batch: Batch, claims: Sequence[tuple[int, int]], keys: Sequence[int], sampling: Sampling
) -> list[np.ndarray]:
    """Shortfalls of some completions, each given by its row in the batch and its index among the keys."""
    places = torch.tensor([place for place, _ in claims], device=batch.mask.device)
    mask = batch.mask[places]
    claim, position = mask.nonzero(as_tuple=True)
    place, repeated = places[claim], torch.tensor([keys[index] for _, index in claims], device=mask.device)[claim]
    short = shortfall(batch.logits[place, position], repeated, position, batch.targets[place, position], sampling)
    return np.split(short.cpu().numpy(), np.cumsum(mask.sum(dim=1).tolist())[:-1])


def load(name: str, device: str = "auto", dtype: str = "auto") -> CausalLM:
    """Loads a shipped model by name, a local folder, or a hub id.

    Args:
        name: ``nano-a``, a folder with ``config.json``, or a hub id such as ``Qwen/Qwen2.5-1.5B``.
        device: A torch device, or ``auto`` for the first accelerator, else the CPU.
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` for the checkpoint's own.

    Raises:
        ModelError: If the model or its tokenizer does not load.
    """
    source = shipped_models().get(name, name)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
        model.to(torch.device(device))  # pyright: ignore[reportArgumentType] - the library's decorator hides self
        return CausalLM(name, model, tokenizer)
    except ModelError:
        raise
    except Exception as error:  # the library raises many types, all of which mean "does not load"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"Model '{name}' does not load ({reason}); give a shipped name ({', '.join(shipped_models())}), "
            "a folder with config.json, or a hub id."
        ) from error
