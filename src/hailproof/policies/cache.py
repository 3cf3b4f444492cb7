"""A key-value cache that grows by doubling instead of copying itself for every token."""

import inspect

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A ``DynamicLayer`` that writes into spare room, for further tokens and for further rows.

    ``DynamicLayer`` concatenates at every step, which copies the whole cache per token; this one copies O(log T)
    times. Seen from outside both are the same.
    """

    _store: tuple[torch.Tensor, torch.Tensor]
    """Keys and values, ``[rows and room, heads, tokens and room, width]``."""

    @property
    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, ``[N, heads, tokens, width]``, of a layer that something was written to."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends key and value states, ``[N, heads, new, width]``, and returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._store = (key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        rows, start = len(key_states), self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._store[0].shape[-2]:
            keys, values = (
                torch.cat([old[..., :start, :], old.new_empty(*old.shape[:2], max(end, 32), old.shape[-1])], dim=-2)
                for old in self._store
            )
            self._store = (keys, values)
        self._store[0][:rows, :, start:end] = key_states
        self._store[1][:rows, :, start:end] = value_states
        self.keys, self.values = (part[:rows, :, :end] for part in self._store)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the given rows of the batch; a row may be taken more than once."""
        length = self.get_seq_length()
        self._store = (self._store[0][indices], self._store[1][indices])
        self.keys, self.values = (part[..., :length, :] for part in self._store)

    def copy_rows(self, targets: torch.Tensor, sources: torch.Tensor) -> None:
        """Makes rows of the batch copies of others; rows beyond the last one are added.

        Args:
            targets: ``[M]`` which rows; those beyond the last one follow it without a gap.
            sources: ``[M]`` what they become copies of; none of them is a target.
        """
        assert self.keys is not None  # a layer that nothing was written to has no rows
        needed, length = max(len(self.keys), int(targets.max()) + 1), self.get_seq_length()
        if needed > len(self._store[0]):
            room = max(needed, 2 * len(self._store[0])) - len(self._store[0])
            keys, values = (torch.cat([old, old.new_empty(room, *old.shape[1:])]) for old in self._store)
            self._store = (keys, values)
        for part in self._store:
            part[targets, :, :length] = part[sources, :, :length]
        self.keys, self.values = (part[:needed, :, :length] for part in self._store)


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache of a model, with plain layers replaced by growing ones; sliding and other layers stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def copy_rows(cache: DynamicCache, targets: torch.Tensor, sources: torch.Tensor, selection: torch.Tensor) -> None:
    """Makes rows of a cache's batch copies of others; see :meth:`GrowingLayer.copy_rows`.

    Args:
        cache: The cache.
        targets: ``[M]`` which rows.
        sources: ``[M]`` what they become copies of.
        selection: The same as the row that each row is afterwards a copy of, for layers that take no other form.
    """
    growing = [layer for layer in cache.layers if isinstance(layer, GrowingLayer)]
    if len(growing) < len(cache.layers):
        cache.batch_select_indices(selection)
    else:
        for layer in growing:
            layer.copy_rows(targets, sources)


def cache_argument(model: PreTrainedModel) -> str:
    """The argument of a model's ``forward`` that takes a cache; ``transformers`` renames it, model by model."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
