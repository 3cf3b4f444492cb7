"""A key-value cache that grows by doubling instead of copying itself for every token."""

import inspect

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A ``DynamicLayer`` that writes into spare room.

    ``DynamicLayer`` concatenates at every step, which copies the whole cache per token; this one copies O(log T)
    times. Seen from outside both are the same.
    """

    _store: tuple[torch.Tensor, torch.Tensor]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends key and value states, ``[N, heads, new, width]``, and returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._store = (key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._store[0].shape[-2]:
            keys, values = (
                torch.cat([old[..., :start, :], old.new_empty(*old.shape[:2], max(end, 32), old.shape[-1])], dim=-2)
                for old in self._store
            )
            self._store = (keys, values)
        self._store[0][..., start:end, :] = key_states
        self._store[1][..., start:end, :] = value_states
        self.keys, self.values = (part[..., :end, :] for part in self._store)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the given rows of the batch; a row may be taken more than once."""
        length = self.get_seq_length()
        self._store = (self._store[0][indices], self._store[1][indices])
        self.keys, self.values = (part[..., :length, :] for part in self._store)


def growing_cache(config: PreTrainedConfig) -> DynamicCache:
    """The cache of a model, with plain layers replaced by growing ones; sliding and other layers stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_argument(model: PreTrainedModel) -> str:
    """The argument of a model's ``forward`` that takes a cache; ``transformers`` renames it, model by model."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
