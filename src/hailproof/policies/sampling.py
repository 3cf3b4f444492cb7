"""Seeded sampling by the Gumbel-max trick, with noise that is a pure function of public labels.

A token is the argmax over the allowed candidates of ``logit / T + g``, with ``g = Gumbel(hash(key, position, token))``.
That draws from exactly the softmax over the candidates (Maddison et al. 2014, arXiv 1411.0030), and because the noise
depends on labels alone, a completion does not depend on what else was in its batch: a resumed run draws what the
first one would have, and a verifier can recompute every draw (``hailproof/draws.py``, which needs no torch).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hailproof.draws import GOLDEN, MIX_1, MIX_2
from hailproof.protocols import Sampling

_GOLDEN, _MIX_1, _MIX_2 = (constant - 2**64 for constant in (GOLDEN, MIX_1, MIX_2))
"""The constants of splitmix64 as the signed 64-bit integers that tensors hold."""


BLOCK = 8
"""Tokens in each block of the pre-selection of candidates."""


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shifts 64-bit integers right without copying the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014); integer arithmetic wraps around."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def gumbel_noise(keys: Int[Tensor, " N"], position: Int[Tensor, " N"], token_ids: Int[Tensor, "N K"]) -> Tensor:
    """Standard Gumbel noise for candidate tokens.

    Args:
        keys: One key per completion.
        position: Index of the token within its completion, from 0.
        token_ids: The candidates.

    Returns:
        ``[N, K]`` float64, equal on every device and in every batch.
    """
    stream = _mix(_mix(keys) + (position + 1) * _GOLDEN)
    bits = _mix(_mix(stream[:, None] + (token_ids + 1) * _GOLDEN))
    uniform = (_shift_right(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def top(logits: Float[Tensor, "N V"], k: int) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The k largest logits and their ids, in no order.

    On a CPU by way of blocks of tokens: the k largest lie in the k blocks with the largest maxima. That is exact, and
    two to three times as fast as a top-k over the vocabulary.
    """
    rows, vocabulary = logits.shape
    blocks = vocabulary // BLOCK
    if logits.device.type != "cpu" or vocabulary % BLOCK or k >= blocks:
        found = logits.topk(k, dim=-1, sorted=False)
        return found.values, found.indices
    best = logits.view(rows, BLOCK, blocks).amax(dim=1).topk(k, dim=-1, sorted=False).indices
    ids = (best[:, None, :] + torch.arange(BLOCK)[None, :, None] * blocks).flatten(1)
    values, places = logits.gather(-1, ids).topk(k, dim=-1, sorted=False)
    return values, ids.gather(-1, places)


def _candidates(
    logits: Float[Tensor, "N V"], sampling: Sampling
) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"]]:
    """The logits and ids of the tokens that may be drawn; others are -inf or left out."""
    vocabulary = logits.shape[-1]
    k = min(sampling.top_k or vocabulary, vocabulary)
    values, ids = top(logits, k) if sampling.top_p == 1 else logits.topk(k, dim=-1)
    values = values.double() / sampling.temperature
    if sampling.top_p < 1:
        _, mass_above = _masses(values)
        values = values.masked_fill(mass_above >= sampling.top_p, -torch.inf)
    return values, ids


def _masses(values: Float[Tensor, "N K"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N K"]]:
    """Of candidates in descending order, the probability of each and that of all before it, which top-p asks about."""
    probabilities = values.softmax(dim=-1)
    return probabilities, probabilities.cumsum(dim=-1) - probabilities


def draw(
    logits: Float[Tensor, "M V"],
    keys: Int[Tensor, " N"],
    position: Int[Tensor, " N"],
    sampling: Sampling,
    steer: Callable[[Tensor, Tensor], Tensor] | None = None,
    branch: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, " N"]:
    """Draws the next token of each row.

    Args:
        logits: Next-token logits of each branch.
        keys: One key per completion.
        position: Index of the token to be drawn within its completion.
        sampling: Temperature and limits; temperature 0 is greedy.
        steer: Changes the values of the candidates, given their ids and values; only attackers have one.
        branch: Which logits each row draws from; without, every row has its own.
    """
    if sampling.temperature == 0:
        best = logits.argmax(dim=-1)
        return best if branch is None else best[branch]
    values, ids = _candidates(logits, sampling)
    if branch is not None:
        values, ids = values[branch], ids[branch]
    if steer is not None:
        values = steer(ids, values)
    choice = (values + gumbel_noise(keys, position, ids)).argmax(dim=-1, keepdim=True)
    return ids.gather(-1, choice).squeeze(-1)


def gap_below_allowed(
    logits: Float[Tensor, "M V"], token_ids: Int[Tensor, " M"], ranks: Int[Tensor, " M"], sampling: Sampling
) -> Float[Tensor, " M"]:
    """Nats by which tokens lie below the least probable token that sampling allows; 0 for tokens that are allowed.

    Only rows that can lie outside are sorted, so that the cost for honest text is one comparison per logit.
    """
    gaps = logits.new_zeros(len(token_ids))
    if sampling.temperature == 0:
        sampling = replace(sampling, temperature=1.0, top_k=1, top_p=1.0)  # greedy allows the best token alone
    if sampling.top_p < 1:
        suspects = torch.arange(len(token_ids), device=logits.device)
    elif sampling.top_k:
        suspects = (ranks >= sampling.top_k).nonzero().squeeze(-1)
    else:
        return gaps
    if len(suspects):
        values, ids = _candidates(logits[suspects], sampling)
        lowest = logits[suspects].gather(-1, ids).masked_fill(values == -torch.inf, torch.inf).amin(dim=-1)
        own = logits[suspects].gather(-1, token_ids[suspects, None]).squeeze(-1)
        gaps[suspects] = (lowest - own).clamp(min=0)
    return gaps
