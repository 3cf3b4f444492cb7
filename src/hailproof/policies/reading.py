"""How a model reads rows that grow token by token: with a cache that equal beginnings share, or anew at every step.

Completions of one prompt often begin alike, and late in training they often are alike. Rows that hold the same tokens
so far are one branch, which goes through the model once; a branch is copied when its rows part.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from hailproof.policies.budget import TOKEN_BUDGET
from hailproof.policies.cache import cache_argument, copy_rows, growing_cache
from hailproof.policies.cascade import SharedPrompts, cascade
from hailproof.policies.scoring import padded_right, prefill

KEEP_SHARE = 0.75
"""Branches that no row is on are cut out of the batch when fewer than this share are still in use."""


class Reader(Protocol):
    """Reads N prompts, then one token of each row at a time."""

    logits: Float[Tensor, "M V"]
    """What the model says of the next token on each branch."""
    branch: Int[Tensor, " N"]
    """The branch that each row is on."""

    def feed(self, kept: Int[Tensor, " K"], tokens: Int[Tensor, " K"]) -> None:
        """Reads the next token of some of the rows, which are the rows from now on."""
        ...


class Memory(Protocol):
    """Keys and values of M branches, each of which begins as one of P prompts."""

    logits: Float[Tensor, "P V"]
    """What the model says of the token after each prompt."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None: ...

    def copy(self, targets: Int[Tensor, " P"], sources: Int[Tensor, " P"], branches: int) -> None:
        """Copies branches whose rows part, to others or behind the last; there are so many branches afterwards."""
        ...

    def keep(self, branches: Int[Tensor, " K"]) -> None:
        """Cuts out the other branches."""
        ...

    def read(self, tokens: Int[Tensor, " M"]) -> Float[Tensor, "M V"]:
        """Reads the next token of every branch; returns what the model says of the one after it."""
        ...


class CachedReader:
    """Reads each distinct prompt once, padded on the left, and keeps keys and values.

    Args:
        model: The model.
        prompts: Token ids of each row.
        memory: How keys and values are kept.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], memory: type[Memory]) -> None:
        distinct = list(dict.fromkeys(prompts))
        self.memory = memory(model, distinct)
        self.logits = self.memory.logits
        place = {prompt: index for index, prompt in enumerate(distinct)}
        self.branch = torch.tensor([place[prompt] for prompt in prompts], device=model.device)

    def feed(self, kept: Int[Tensor, " K"], tokens: Int[Tensor, " K"]) -> None:
        """Reads the next token of some of the rows, which are the rows from now on."""
        branches, columns = self.logits.shape
        pairs, group = torch.unique(self.branch[kept] * columns + tokens, return_inverse=True)
        sources, fed = pairs // columns, pairs % columns  # sorted by branch: the first of each goes on in its place
        parted = torch.zeros_like(sources, dtype=torch.bool)
        parted[1:] = sources[1:] == sources[:-1]
        unused = torch.ones(branches, dtype=torch.bool, device=sources.device)
        unused[sources] = False
        added = torch.arange(branches, branches + len(pairs), device=sources.device)
        slots = sources.clone()
        slots[parted] = torch.cat([unused.nonzero().squeeze(-1), added])[: int(parted.sum())]
        if parted.any():
            branches = max(branches, int(slots.max()) + 1)
            self.memory.copy(slots[parted], sources[parted], branches)
        if len(pairs) < KEEP_SHARE * branches:
            self.memory.keep(slots)
            branches, slots = len(pairs), torch.arange(len(pairs), device=slots.device)
        self.branch = slots[group]
        self.logits = self.memory.read(fed.new_zeros(branches).index_copy_(0, slots, fed))


class RowMemory:
    """Keys and values of prompt and completion side by side, as ``transformers`` keeps them: for any cache."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.model = model
        self.cache, self.logits, self.mask = prefill(model, prompts, growing_cache(model.config))
        self.lengths = self.mask.sum(dim=1)

    def copy(self, targets: Int[Tensor, " P"], sources: Int[Tensor, " P"], branches: int) -> None:
        """Copies branches whose rows part."""
        selection = torch.arange(branches, device=targets.device).index_copy_(0, targets, sources)
        copy_rows(self.cache, targets, sources, selection)
        self.mask, self.lengths = self.mask[selection], self.lengths[selection]

    def keep(self, branches: Int[Tensor, " K"]) -> None:
        """Cuts out the other branches."""
        self.cache.batch_select_indices(branches)
        self.mask, self.lengths = self.mask[branches], self.lengths[branches]

    def read(self, tokens: Int[Tensor, " M"]) -> Float[Tensor, "M V"]:
        """Reads the next token of every branch."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        read = {"attention_mask": self.mask, cache_argument(self.model): self.cache}
        output = self.model(input_ids=tokens[:, None], position_ids=self.lengths[:, None], use_cache=True, **read)
        self.lengths = self.lengths + 1
        return output.logits[:, -1].float()


class CascadeMemory:
    """Keys and values of each prompt once, and those of each branch's completion: less to fetch, less to copy.

    All completions are equally long, so nothing is masked but the padding of prompts.

    Raises:
        TypeError: If the model has no such cache.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.model = model
        cache, self.logits, mask = prefill(model, prompts, growing_cache(model.config))
        self.shared = SharedPrompts(cache, mask)
        self.cache = growing_cache(model.config)
        self.lengths = mask.sum(dim=1)
        self._now(torch.arange(len(prompts), device=model.device))

    def _now(self, owner: Int[Tensor, " M"]) -> None:
        """Takes note of which prompt each branch continues."""
        self.owner = owner
        self.shared.arrange(owner)

    def copy(self, targets: Int[Tensor, " P"], sources: Int[Tensor, " P"], branches: int) -> None:
        """Copies branches whose rows part."""
        selection = torch.arange(branches, device=targets.device).index_copy_(0, targets, sources)
        if self.cache.get_seq_length():
            copy_rows(self.cache, targets, sources, selection)
        self._now(self.owner[selection])

    def keep(self, branches: Int[Tensor, " K"]) -> None:
        """Cuts out the other branches."""
        if self.cache.get_seq_length():
            self.cache.batch_select_indices(branches)
        self._now(self.owner[branches])

    def read(self, tokens: Int[Tensor, " M"]) -> Float[Tensor, "M V"]:
        """Reads the next token of every branch."""
        places = self.lengths[self.owner] + self.cache.get_seq_length()
        read = {"shared": self.shared, cache_argument(self.model): self.cache}
        with cascade(self.model):
            output = self.model(input_ids=tokens[:, None], position_ids=places[:, None], use_cache=True, **read)
        return output.logits[:, -1].float()


class WholeReader:
    """Reads every branch from its first token at every step, padded on the right: slow, right for any causal model.

    Args:
        model: The model.
        prompts: Token ids of each row.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.model = model
        self.rows = list(prompts)
        self._read()

    def feed(self, kept: Int[Tensor, " K"], tokens: Int[Tensor, " K"]) -> None:
        """Reads the next token of some of the rows, which are the rows from now on."""
        pairs = zip(kept.tolist(), tokens.tolist(), strict=True)
        self.rows = [(*self.rows[index], token) for index, token in pairs]
        self._read()

    def _read(self) -> None:
        distinct = list(dict.fromkeys(self.rows))
        at_once = max(1, TOKEN_BUDGET // max(map(len, distinct)))
        logits: list[Tensor] = []
        for start in range(0, len(distinct), at_once):
            rows = distinct[start : start + at_once]
            ids, mask = (part.to(self.model.device) for part in padded_right(rows))
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False)
            logits.append(output.logits[torch.arange(len(rows)), mask.sum(dim=1) - 1].float())
        place = {row: index for index, row in enumerate(distinct)}
        self.logits = torch.cat(logits)
        self.branch = torch.tensor([place[row] for row in self.rows], device=self.model.device)
