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
from hailproof.policies.scoring import padded_right, prefill

KEEP_SHARE = 0.75
"""Branches that no row is on are cut out of the batch when fewer than this share are still in use."""


class Reader(Protocol):
    """Reads N prompts, then one token of each row at a time."""

    logits: Float[Tensor, "M V"]
    """What the model says of the next token on each branch."""
    branch: Int[Tensor, " N"]
    """The branch that each row is on."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None: ...

    def feed(self, kept: Int[Tensor, " K"], tokens: Int[Tensor, " K"]) -> None:
        """Reads the next token of some of the rows, which are the rows from now on."""
        ...


class CachedReader:
    """Reads each distinct prompt once, padded on the left, and keeps keys and values.

    Args:
        model: The model.
        prompts: Token ids of each row.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.model = model
        distinct = list(dict.fromkeys(prompts))
        self.cache, self.logits, self.mask = prefill(model, distinct, growing_cache(model.config))
        place = {prompt: index for index, prompt in enumerate(distinct)}
        self.branch = torch.tensor([place[prompt] for prompt in prompts], device=model.device)
        self.lengths = self.mask.sum(dim=1)
        self.cached = {cache_argument(model): self.cache}

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
        self._part(slots[parted], sources[parted])
        if len(pairs) < KEEP_SHARE * len(self.mask):
            self.cache.batch_select_indices(slots)
            self.mask, self.lengths = self.mask[slots], self.lengths[slots]
            slots = torch.arange(len(pairs), device=slots.device)
        self.branch = slots[group]
        self._read(torch.zeros(len(self.mask), dtype=fed.dtype, device=fed.device).index_copy_(0, slots, fed))

    def _part(self, targets: Int[Tensor, " P"], sources: Int[Tensor, " P"]) -> None:
        """Copies branches whose rows part."""
        if len(targets):
            selection = torch.arange(max(len(self.mask), int(targets.max()) + 1), device=targets.device)
            selection[targets] = sources
            copy_rows(self.cache, targets, sources, selection)
            self.mask, self.lengths = self.mask[selection], self.lengths[selection]

    def _read(self, tokens: Int[Tensor, " M"]) -> None:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.lengths[:, None],
            use_cache=True,
            **self.cached,
        )
        self.lengths = self.lengths + 1
        self.logits = output.logits[:, -1].float()


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
