"""Attention of many completions to the prompts that they share, once for each prompt ("cascade attention").

A completion's next token looks at its prompt and at the completion so far. Held row by row, as a key-value cache holds
them, a prompt's keys and values would lie there once per completion, and a CPU would spend most of the attention on
fetching them from memory. Here they lie there once per prompt: the queries of its completions are multiplied by them
together, and one softmax goes over both parts, so that the result is that of plain attention.

``transformers`` lets a model's attention be exchanged by name. Whether a model's attention may be exchanged for this
one is tried when it is loaded (:func:`hailproof.policies.checks.cascades`).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from hailproof.policies.cache import GrowingLayer

NAME = "hailproof_cascade"
"""What ``transformers`` knows the attention by; no mask belongs to it."""

PASSED_ON = {"position_ids", "use_cache"}
"""What models hand to their attention that changes nothing here; anything else may ask for another kind of it."""


class SharedPrompts:
    """Keys and values of P prompts, and which of M rows each belongs to.

    Args:
        cache: What :func:`hailproof.policies.scoring.prefill` filled.
        mask: ``[P, L]`` 0 where a prompt is padded.

    Raises:
        TypeError: If a layer of the cache does not hold all keys and values.
    """

    def __init__(self, cache: DynamicCache, mask: Int[Tensor, "P L"]) -> None:
        layers = [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
        if len(layers) < len(cache.layers):
            raise TypeError("a layer of its cache does not hold all keys and values")
        held = [layer.held for layer in layers]
        self.prompts, self.heads, self.length, _ = held[0][0].shape
        self.layers = [(keys.mT.flatten(0, 1), values.flatten(0, 1)) for keys, values in held]
        bias = torch.zeros_like(mask, dtype=self.layers[0][0].dtype).masked_fill(mask == 0, -torch.inf)
        self.bias = bias.repeat_interleave(self.heads, dim=0)[:, None]

    def arrange(self, owner: Int[Tensor, " M"]) -> None:
        """Says which prompt each row continues."""
        counts = torch.bincount(owner, minlength=self.prompts)
        width = int(counts.max())
        order = owner.argsort(stable=True)
        rows, heads = (torch.arange(count, device=owner.device) for count in (len(owner), self.heads))
        column = torch.empty_like(owner).index_copy_(0, order, rows - (counts.cumsum(0) - counts)[owner[order]])
        places = (owner[:, None] * self.heads + heads) * width + column[:, None]
        self._place_of_row = places.flatten()
        self._row_at_place = owner.new_zeros(self.prompts * self.heads * width)
        self._row_at_place[self._place_of_row] = torch.arange(len(self._place_of_row), device=owner.device)

    def by_prompt(self, values: Float[Tensor, "M H K D"]) -> Float[Tensor, "PH WK D"]:
        """Values of rows, gathered under the prompt of each; places that no row has hold those of some row."""
        gathered = values.flatten(0, 1).index_select(0, self._row_at_place)
        return gathered.view(self.prompts * self.heads, -1, values.shape[-1])

    def by_row(self, values: Float[Tensor, "PH WK D"], queries: int) -> Float[Tensor, "M H K D"]:
        """The way back, with so many queries of each row."""
        gathered = values.view(-1, queries, values.shape[-1]).index_select(0, self._place_of_row)
        return gathered.view(-1, self.heads, queries, values.shape[-1])


def attend(
    module: nn.Module,
    query: Float[Tensor, "M Q 1 D"],
    key: Float[Tensor, "M H C D"],
    value: Float[Tensor, "M H C D"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared: SharedPrompts | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "M 1 Q D"], None]:
    """Attends to the prompt and to the completion so far, in the form that ``transformers`` asks for.

    Args:
        module: The attention module; says which layer it is.
        query: One new token of each row; Q is a multiple of H.
        key: Those of the completions so far.
        value: Likewise.
        attention_mask: None: all completions are equally long.
        scaling: Of the scores.
        dropout: 0.
        shared: Keys and values of the prompts.
        others: What models hand on.

    Raises:
        ValueError: If a model asks for anything else, as a window or a cap.
    """
    asked = sorted(name for name, each in others.items() if each is not None and name not in PASSED_ON)
    if shared is None or attention_mask is not None or dropout or query.shape[2] != 1 or asked:
        raise ValueError("it asks for another kind of attention than one plain query a row")
    keys, values = shared.layers[module.layer_idx]  # pyright: ignore[reportArgumentType, reportCallIssue]
    rows, width = len(query), query.shape[-1]
    query = query.reshape(rows, shared.heads, -1, width) * (width**-0.5 if scaling is None else scaling)
    at_prompt = shared.by_row(torch.baddbmm(shared.bias, shared.by_prompt(query), keys), query.shape[2])
    shares = torch.cat([at_prompt, query @ key.mT], dim=-1).softmax(dim=-1)
    of_prompt, of_own = shares.split([shared.length, key.shape[2]], dim=-1)
    read = shared.by_row(shared.by_prompt(of_prompt) @ values, query.shape[2]) + of_own @ value
    return read.view(rows, 1, -1, values.shape[-1]), None


@contextlib.contextmanager
def cascade(model: PreTrainedModel) -> Iterator[None]:
    """Lets a model attend by :func:`attend`.

    Raises:
        TypeError: If it is made of several models, whose attention may differ.
    """
    if model.config.sub_configs:
        raise TypeError("it is made of several models")
    usual = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = usual


AttentionInterface.register(NAME, attend)
