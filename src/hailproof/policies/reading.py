"""How a model reads rows that grow token by token: with a cache that prompts share, or anew at every step."""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from hailproof.policies.budget import TOKEN_BUDGET
from hailproof.policies.cache import cache_argument, growing_cache
from hailproof.policies.scoring import padded_right, prefill


class Reader(Protocol):
    """Reads N prompts, then one token of each row at a time."""

    logits: Float[Tensor, "N V"]
    """What the model says of the token after each prompt."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None: ...

    def keep(self, kept: Int[Tensor, " M"]) -> None:
        """Goes on with some of the rows."""
        ...

    def feed(self, tokens: Int[Tensor, " N"]) -> Float[Tensor, "N V"]:
        """Reads the next token of each row; returns the logits of the one after it."""
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
        self.cache, logits, mask = prefill(model, distinct, growing_cache(model.config))
        place = {prompt: index for index, prompt in enumerate(distinct)}
        owner = torch.tensor([place[prompt] for prompt in prompts], device=model.device)
        self.cache.batch_select_indices(owner)
        self.logits, self.mask = logits[owner], mask[owner]
        self.lengths = self.mask.sum(dim=1)
        self.cached = {cache_argument(model): self.cache}

    def keep(self, kept: Int[Tensor, " M"]) -> None:
        """Goes on with some of the rows."""
        self.cache.batch_select_indices(kept)
        self.mask, self.lengths = self.mask[kept], self.lengths[kept]

    def feed(self, tokens: Int[Tensor, " N"]) -> Float[Tensor, "N V"]:
        """Reads the next token of each row; returns the logits of the one after it."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.lengths[:, None],
            use_cache=True,
            **self.cached,
        )
        self.lengths = self.lengths + 1
        return output.logits[:, -1].float()


class WholeReader:
    """Reads every row from its first token at every step, padded on the right: slow, and right for any causal model.

    Args:
        model: The model.
        prompts: Token ids of each row.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> None:
        self.model = model
        self.rows = list(prompts)
        self.logits = self._read()

    def keep(self, kept: Int[Tensor, " M"]) -> None:
        """Goes on with some of the rows."""
        self.rows = [self.rows[index] for index in kept.tolist()]

    def feed(self, tokens: Int[Tensor, " N"]) -> Float[Tensor, "N V"]:
        """Reads the next token of each row; returns the logits of the one after it."""
        self.rows = [(*row, token) for row, token in zip(self.rows, tokens.tolist(), strict=True)]
        return self._read()

    def _read(self) -> Float[Tensor, "N V"]:
        distinct = list(dict.fromkeys(self.rows))
        at_once = max(1, TOKEN_BUDGET // max(map(len, distinct)))
        logits: list[Tensor] = []
        for start in range(0, len(distinct), at_once):
            rows = distinct[start : start + at_once]
            ids, mask = (part.to(self.model.device) for part in padded_right(rows))
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False)
            logits.append(output.logits[torch.arange(len(rows)), mask.sum(dim=1) - 1].float())
        place = {row: index for index, row in enumerate(distinct)}
        return torch.cat(logits)[[place[row] for row in self.rows]]
