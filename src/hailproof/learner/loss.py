"""The GRPO objective as a weighted sum over tokens, so that micro-batches add up to exactly the full batch.

Every token's weight is known before the first pass: the objective is
``sum_it w_it * (-A_i * ratio_it + beta * kl_it)``. With one update per generation the ratio is 1 in value and carries
the gradient of the log-probability, so there is nothing to clip. Normalizations, with B groups of G admitted
completions of T tokens each:

* ``grpo``: ``w = 1 / (B * G * T_i)``, the mean over sequences of the mean over tokens (the paper);
* ``dapo``: ``w = 1 / sum of T``, the mean over tokens (Yu et al. 2025, arXiv 2503.14476);
* ``dr_grpo``: ``w = 1 / (B * G * max_new_tokens)`` (Liu et al. 2025, arXiv 2503.20783).

A deviation from TRL: where a defense dropped completions, ``grpo`` and ``dr_grpo`` average within each group first,
so that a group keeps its weight when it shrinks; for full groups both are the same. A group that a defense emptied
counts among the B, as a group without variance does: both teach nothing, and the others do not weigh more for it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hailproof.learner.config import LossType


def token_weights(lengths: Sequence[Sequence[int]], loss_type: LossType, max_new_tokens: int) -> list[list[float]]:
    """Weight of each token of each completion.

    Args:
        lengths: Tokens of the admitted completions of each group; a group may be empty.
        loss_type: The normalization.
        max_new_tokens: The length limit, used by ``dr_grpo``.

    Returns:
        One weight per completion, in the shape of ``lengths``; all tokens of a completion weigh the same.
    """
    groups = len(lengths)
    tokens = sum(map(sum, lengths))
    result = []
    for lengths_G in lengths:
        match loss_type:
            case "grpo":
                weights = [1.0 / (groups * len(lengths_G) * length) for length in lengths_G]
            case "dapo":
                weights = [1.0 / tokens for _ in lengths_G]
            case "dr_grpo":
                weights = [1.0 / (groups * len(lengths_G) * max_new_tokens) for _ in lengths_G]
        result.append(weights)
    return result


def k3_divergence(logprobs: Float[Tensor, "*T"], reference: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
    """Schulman's k3 estimate of KL(policy || reference) per token: ``exp(d) - d - 1``, d = reference - policy."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def objective(
    logprobs: Float[Tensor, "N C"],
    mask: Bool[Tensor, "N C"],
    heard: Bool[Tensor, "N C"],
    policy_weights: Float[Tensor, " N"],
    kl_weights: Float[Tensor, " N"],
    reference: Float[Tensor, "N C"] | None = None,
) -> Tensor:
    """The part of the objective that belongs to some rows.

    Args:
        logprobs: Log-probabilities of the completion tokens under the policy, with gradient.
        mask: Which of them are real.
        heard: Which of them the policy term learns from: the real ones without those that a defense muted.
        policy_weights: ``w_i * A_i``, summed over the completions that a row stands for.
        kl_weights: ``w_i * beta``, summed likewise.
        reference: Log-probabilities under the frozen reference; without it there is no KL term.
    """
    ratio = torch.exp(logprobs - logprobs.detach())
    per_token = -policy_weights[:, None] * ratio * heard
    if reference is not None:
        per_token = per_token + kl_weights[:, None] * k3_divergence(logprobs, reference)
    return (per_token * mask).sum()
