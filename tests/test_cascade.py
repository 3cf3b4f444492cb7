"""Attention to prompts that lie in memory once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from hailproof.policies.cache import growing_cache
from hailproof.policies.cascade import SharedPrompts, attend
from hailproof.policies.load import load

LAYER: Any = SimpleNamespace(layer_idx=0)
OWNER = torch.tensor([1, 0, 1, 1])


@pytest.fixture
def shared(base_policy):
    """Prompts of 3 and 5 tokens, and one that no row continues; 2 heads of width 4."""
    torch.manual_seed(0)
    cache = growing_cache(base_policy.model.config)
    held = [cache.update(torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 4), layer) for layer in range(len(cache.layers))]
    prompts = SharedPrompts(cache, torch.tensor([[0, 0, 1, 1, 1], [1] * 5, [1] * 5]))
    prompts.arrange(OWNER)
    return prompts, *held[0]


@pytest.mark.parametrize(("queries", "scaling"), [(2, None), (6, 0.3)])
def test_it_is_plain_attention(shared, queries, scaling):
    prompts, keys, values = shared
    query, key, value = torch.randn(4, queries, 1, 4), torch.randn(4, 2, 3, 4), torch.randn(4, 2, 3, 4)
    found, _ = attend(LAYER, query, key, value, None, scaling, shared=prompts)
    for row, prompt in enumerate(OWNER.tolist()):
        start = 2 if prompt == 0 else 0
        seen, read = (torch.cat([a[prompt, :, start:], b[row]], dim=1) for a, b in ((keys, key), (values, value)))
        expected = scaled_dot_product_attention(query[row], seen, read, scale=scaling, enable_gqa=True)
        torch.testing.assert_close(found[row, 0], expected[:, 0])


@pytest.mark.parametrize(
    "asked", [{"softcap": 30.0}, {"sliding_window": 8}, {"s_aux": torch.zeros(2)}, {"dropout": 0.1}, {"shared": None}]
)
def test_other_attention_is_refused(shared, asked):
    key = torch.randn(4, 2, 3, 4)
    with pytest.raises(ValueError, match="another kind of attention"):
        attend(LAYER, torch.randn(4, 2, 1, 4), key, key, None, **{"shared": shared[0], **asked})


def test_a_mask_or_several_queries_are_refused(shared):
    key = torch.randn(4, 2, 3, 4)
    for tokens, mask in ((1, torch.ones(4, 1, 1, 3)), (2, None)):
        with pytest.raises(ValueError, match="another kind of attention"):
            attend(LAYER, torch.randn(4, 2, tokens, 4), key, key, mask, shared=shared[0])


@pytest.mark.parametrize(("dtype", "cascades"), [("float32", True), ("bfloat16", False)])
def test_it_serves_full_precision(dtype, cascades):
    assert load("nano-a", "cpu", dtype).trainable.cascades == cascades
