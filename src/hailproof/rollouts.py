"""Prompts and sampling to completions, batched across prompts."""

from collections.abc import Mapping, Sequence

from hailproof.errors import ModelError
from hailproof.protocols import Guide, Policy, SampleRequest, Sampling
from hailproof.records import Completion, Prompt, Slot
from hailproof.seeds import derive


def completion_key(seed: int, round: int, problem_id: str, slot: int) -> int:
    """The key of a completion's randomness, from public labels only.

    The node is not among them: else more identities would buy more draws.
    """
    return derive(seed, "round", round, "prompt", problem_id, "slot", slot)


def sample(
    policy: Policy, requests: Sequence[SampleRequest], sampling: Sampling, guide: Guide | None = None
) -> list[Completion]:
    """Draws one completion per request, in order.

    Args:
        policy: The policy that draws.
        requests: Prompts and keys.
        sampling: How tokens are drawn.
        guide: Steers the draws; honest nodes have none.

    Raises:
        ModelError: If a prompt and a completion of full length do not fit into the model's context.
    """
    prompts = [policy.codec.render(request.prompt) for request in requests]
    longest = max(map(len, prompts), default=0)
    if longest + sampling.max_new_tokens > policy.engine.context:
        raise ModelError(
            f"A prompt of {longest} tokens and {sampling.max_new_tokens} new ones do not fit into the context of "
            f"{policy.name}, {policy.engine.context} tokens; lower sampling.max_new_tokens."
        )
    drawn = policy.engine.draw(prompts, [request.key for request in requests], sampling, guide)
    return [policy.codec.drawn(token_ids) for token_ids in drawn]


def rollout(
    policy: Policy,
    slots: Sequence[Slot],
    prompts: Mapping[str, Prompt],
    *,
    round: int,
    seed: int,
    sampling: Sampling,
    guide: Guide | None = None,
) -> list[Completion]:
    """Draws one completion for each slot, in order.

    Args:
        policy: The policy that draws.
        slots: What to draw.
        prompts: Prompt of each problem id.
        round: The round, a label of the randomness.
        seed: The swarm's public seed.
        sampling: How tokens are drawn.
        guide: Steers the draws; honest nodes have none.
    """
    requests = [
        SampleRequest(prompts[slot.problem_id], completion_key(seed, round, slot.problem_id, slot.index))
        for slot in slots
    ]
    return sample(policy, requests, sampling, guide)
