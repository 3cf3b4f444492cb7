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
    prompts = [rendered_with_room(policy, request.prompt, sampling.max_new_tokens) for request in requests]
    drawn = policy.engine.draw(prompts, [request.key for request in requests], sampling, guide)
    return [policy.codec.drawn(token_ids) for token_ids in drawn]


def rendered_with_room(policy: Policy, prompt: Prompt, new_tokens: int) -> tuple[int, ...]:
    """The token ids of a prompt that leaves room for an answer of full length.

    Args:
        policy: The policy that is to answer.
        prompt: The prompt.
        new_tokens: The length limit of answers.

    Raises:
        ModelError: If prompt and answer do not fit into the model's context; it names the problem.
    """
    ids = policy.codec.render(prompt)
    room = policy.engine.context - len(ids)
    if new_tokens > room:
        lower = f"lower sampling.max_new_tokens to {room}, or " if room > 0 else ""
        raise ModelError(
            f"The prompt of problem '{prompt.problem_id}' has {len(ids)} tokens, and with {new_tokens} new ones "
            f"(sampling.max_new_tokens) it does not fit into the context of {policy.name}, {policy.engine.context} "
            f"tokens; {lower}leave the problem out of the data."
        )
    return ids


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
