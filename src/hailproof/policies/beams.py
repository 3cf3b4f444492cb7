"""Beam sampling, as the paper's judge decodes: several beams, extended by draws instead of by the best tokens."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from hailproof.errors import ModelError
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.scoring import batches, padded_left
from hailproof.protocols import SampleRequest, Sampling
from hailproof.records import Row
from hailproof.seeds import derive

TOKENS_AT_ONCE = 24_576
"""Tokens of prompts and answers, over all beams, that are held side by side; bounds the key-value cache."""


@torch.no_grad()  # in inference mode autocast would cast the weights anew for every token
def beam_sample(policy: CausalLM, requests: Sequence[SampleRequest], sampling: Sampling, beams: int) -> list[str]:
    """Draws one answer per request with ``transformers``' own beam sampling.

    A search goes on while a beam may still end better than those that have ended, per token. (With the library's
    ``early_stopping`` it would end with the first: short answers, and a judge's are short that found a fault.)

    The library draws from torch's global generator, for a whole batch at once. It is seeded with the keys of the batch
    and put back afterwards, so equal requests give equal answers; but what one request draws depends on the others in
    its batch, which is not so in :func:`hailproof.rollouts.sample`.

    Args:
        policy: The model.
        requests: Prompts and keys.
        sampling: Temperature and limits; temperature 0 is plain beam search.
        beams: Number of beams.

    Returns:
        The text of each answer, special tokens left out; an answer that was cut at the limit is just short of its end.

    Raises:
        ModelError: If the model has no cache whose rows can be exchanged.
    """
    if not policy.trainable.shares_prompts:
        raise ModelError(f"Model {policy.name} cannot search with beams, which exchange rows of a cache; use one beam.")
    rows = [policy.codec.render(request.prompt) for request in requests]
    answers: dict[int, str] = {}
    longest = [Row(row, (0,) * sampling.max_new_tokens) for row in rows]  # room for an answer at its limit
    for batch in batches(longest, TOKENS_AT_ONCE // beams):
        drawn = _generate(policy, [rows[i] for i in batch], [requests[i].key for i in batch], sampling, beams)
        answers.update(zip(batch, drawn, strict=True))
    return [answers[index] for index in range(len(rows))]


def _generate(
    policy: CausalLM, rows: Sequence[tuple[int, ...]], keys: Sequence[int], sampling: Sampling, beams: int
) -> list[str]:
    device = policy.model.device
    padded, mask = (part.to(device) for part in padded_left(rows))
    draws = sampling.temperature > 0
    limits = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p} if draws else {}
    settings = GenerationConfig(
        do_sample=draws, num_beams=beams, max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(policy.codec.end_ids), pad_token_id=policy.codec.end_ids[0], **limits,
    )  # fmt: skip
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive(0, "beams", *keys))
        with policy.trainable.passes() as model:
            output = model.generate(padded, attention_mask=mask, generation_config=settings)  # pyright: ignore
    return [policy.codec.decode(ids) for ids in output[:, padded.shape[1] :].tolist()]
