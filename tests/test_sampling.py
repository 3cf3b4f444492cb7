"""The sampler: exact distribution, noise from labels alone, limits, and gaps below the limits."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hailproof import draws
from hailproof.policies.sampling import draw, gap_below_allowed, gumbel_noise, top
from hailproof.protocols import Sampling
from hailproof.seeds import derive

MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    """The published finalizer of splitmix64, in plain integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def plain_noise(key: int, position: int, token: int) -> float:
    golden = 0x9E3779B97F4A7C15
    stream = splitmix((splitmix(key) + (position + 1) * golden) & MASK)
    bits = splitmix(splitmix((stream + (token + 1) * golden) & MASK))
    return -math.log(-math.log(((bits >> 11) + 0.5) * 2.0**-53))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20), st.integers(0, 2**20))
def test_noise_is_that_of_plain_integers(key, position, token):
    noise = gumbel_noise(torch.tensor([key]), torch.tensor([position]), torch.tensor([[token]]))
    assert noise.item() == pytest.approx(plain_noise(key, position, token), rel=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**31)), min_size=1, max_size=4),
    st.lists(st.integers(0, 2**31), min_size=1, max_size=70),
)
def test_noise_is_that_of_a_verifier_without_torch(labels, ids):
    """But for the last bits: torch and numpy each have a logarithm of their own."""
    keys, positions = (list(part) for part in zip(*labels, strict=True))
    drawn = gumbel_noise(torch.tensor(keys), torch.tensor(positions), torch.tensor([ids] * len(keys)))
    repeated = draws.gumbel_noise(np.array(keys), np.array(positions), np.array([ids] * len(keys)))
    np.testing.assert_allclose(drawn.numpy(), repeated, rtol=1e-15, atol=1e-15)


def test_draws_follow_the_softmax():
    logits = torch.tensor([1.5, 0.0, -1.0, 0.7, -3.0])
    count = 40_000
    keys = torch.tensor([derive(1, "draw", index) for index in range(count)])
    tokens = draw(logits.expand(count, -1), keys, torch.zeros_like(keys), Sampling(top_k=0))
    counts = Counter(tokens.tolist())
    expected = logits.softmax(0) * count
    chi_square = sum((counts[token] - mean) ** 2 / mean for token, mean in enumerate(expected.tolist()))
    assert chi_square < 18.47  # 4 degrees of freedom, p = 0.001


def test_positions_and_keys_have_streams_of_their_own():
    logits = torch.zeros(1000, 50)
    keys = torch.tensor([derive(1, "draw", index) for index in range(1000)])
    zeros = torch.zeros_like(keys)
    first = draw(logits, keys, zeros, Sampling(top_k=0))
    second = draw(logits, keys, zeros + 1, Sampling(top_k=0))
    assert (first == second).float().mean() < 0.05  # 1 in 50 by chance
    assert len(set(first.tolist())) == 50


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(top_k=2), {0, 1}),
        (Sampling(top_k=0, top_p=0.5), {0}),  # 0 alone reaches 0.5
        (Sampling(top_k=0, top_p=0.9), {0, 1, 2}),
        (Sampling(top_k=3, top_p=0.9), {0, 1, 2}),
        (Sampling(temperature=0), {0}),
        (Sampling(temperature=0.05), {0}),
        (Sampling(top_k=0), {0, 1, 2, 3}),
    ],
)
def test_limits(sampling, allowed):
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    keys = torch.tensor([derive(2, "draw", index) for index in range(2000)])
    drawn = draw(logits.expand(2000, -1), keys, torch.zeros_like(keys), sampling)
    assert set(drawn.tolist()) == allowed


def test_gaps_by_hand():
    logits = torch.tensor([[4.0, 3.0, 1.0, -2.0]]).expand(4, -1)
    tokens, ranks = torch.arange(4), torch.arange(4)
    assert gap_below_allowed(logits, tokens, ranks, Sampling(top_k=2)).tolist() == [0, 0, 2, 5]
    assert gap_below_allowed(logits, tokens, ranks, Sampling(top_k=0)).tolist() == [0, 0, 0, 0]
    # the softmax is (0.70, 0.26, 0.03, 0.00): 0.9 needs the first two
    assert gap_below_allowed(logits, tokens, ranks, Sampling(top_k=0, top_p=0.9)).tolist() == [0, 0, 2, 5]
    assert gap_below_allowed(logits, tokens, ranks, Sampling(temperature=0)).tolist() == [0, 1, 3, 6]


@given(st.integers(1, 5), st.sampled_from([40, 64, 801, 2048]), st.integers(1, 60), st.integers(0, 2**32))
def test_candidates_by_blocks_are_the_top_k(rows, vocabulary, k, seed):
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))
    k = min(k, vocabulary)
    values, ids = top(logits.contiguous(), k)
    assert torch.equal(values, logits.gather(-1, ids))
    assert torch.equal(values.sort(descending=True).values, logits.topk(k).values)
