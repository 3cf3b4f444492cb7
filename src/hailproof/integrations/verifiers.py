"""verifiers (v1, 0.4): traces that a shield rejects end with an error, and trainers do not train on those.

    class MyEnv(vf.Env):                       # after all agents of an episode are scored
        async def finalize(self, episode, ...):
            leave_out(shield, episode.traces)

prime-rl takes traces with an error out of the baseline and of the batch if they had it when the episode arrived: a true
drop. A trace has no place for a weight or for muted tokens here, so that a shield whose verdicts may ask for that is
refused. To see whole groups, to weigh traces and to mute tokens, use ``hailproof.integrations.prime_rl``.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from hailproof.integrations.seams import check, reason_of
from hailproof.shield import Screened, Shield
from hailproof.shield.results import Sender

ERROR = "HailproofRejected"
"""Type of the error that a rejected trace ends with."""


def leave_out(
    shield: Shield,
    traces: Sequence[Any],
    sender: Callable[[Any], Sender] | None = None,
    coarse: bool = False,
) -> Screened:
    """Screens traces and marks those that are rejected, in place.

    Args:
        shield: The shield. What it reads of a trace is what the model wrote, turn by turn.
        traces: Traces of one group, or of several; equal prompts make a group.
        sender: Says who sent a trace.
        coarse: Whether a trace with muted tokens or a weight below 0.5 is left out, and one that weighs more counts
            fully.

    Returns:
        What was said of each.

    Raises:
        ConfigError: If verdicts of the shield may ask for weights or muted tokens, unless ``coarse`` is set.
    """
    check(shield, "verifiers", weighs=False, mutes=False, coarse=coarse)
    result = screened(shield, traces, sender)
    for trace, row in zip(traces, result, strict=True):
        fail(trace, reason_of(row, weighs=False, mutes=False, coarse=coarse))
    return result


def screened(
    shield: Shield,
    traces: Sequence[Any],
    sender: Callable[[Any], Sender] | None = None,
    completion_ids: Sequence[Sequence[int]] | None = None,
    prompt_ids: Sequence[Sequence[int]] | None = None,
) -> Screened:
    """What a shield says of traces, which stay as they are.

    Args:
        shield: The shield.
        traces: ``[N]`` traces.
        sender: Says who sent a trace.
        completion_ids: ``[N]`` the ids that each is trained on, if they are known.
        prompt_ids: ``[N]`` the ids that came before them.
    """
    return shield.screen(
        prompts=[_messages(trace, sampled=False) for trace in traces],
        completions=[_messages(trace, sampled=True) for trace in traces],
        completion_ids=completion_ids,
        prompt_ids=prompt_ids,
        rewards=[_reward(trace) for trace in traces],
        senders=None if sender is None else [sender(trace) for trace in traces],
    )


def fail(trace: Any, reason: str) -> None:
    """Lets a trace end with an error, unless the reason is empty."""
    if reason:
        trace.errors.append(_error(trace, reason))
        trace.ok = False


def _messages(trace: Any, sampled: bool) -> list[dict[str, Any]]:
    """The messages that a model wrote, or those before the first of them."""
    nodes = list(trace.nodes)
    first = next((at for at, node in enumerate(nodes) if node.sampled), len(nodes))
    chosen = [node for node in nodes if node.sampled] if sampled else nodes[:first]
    return [_message(node.message) for node in chosen]


def _message(message: Any) -> dict[str, Any]:
    """A message as a shield reads it: reasoning, content, and the arguments of calls."""
    calls = [{"arguments": call.arguments} for call in getattr(message, "tool_calls", None) or ()]
    reasoning = getattr(message, "reasoning_content", None)
    return {
        "role": message.role,
        "content": _plain(message.content),
        "reasoning_content": reasoning,
        "tool_calls": calls,
    }


def _plain(content: Any) -> Any:
    """A content as text, or as parts with texts."""
    if content is None or isinstance(content, str):
        return content
    return [{"type": "text", "text": getattr(part, "text", None) or ""} for part in content]


def _reward(trace: Any) -> float | None:
    """The sum of the weighted rewards; ``None`` if none was scored."""
    scored = [each for each in trace.rewards.values() if each is not None]
    return sum(each.score * each.weight for each in scored) if scored else None


def _error(trace: Any, reason: str) -> Any:
    """An error as traces keep them."""
    try:
        kinds = importlib.import_module("verifiers.v1.trace")
    except ImportError:  # a trace of something else that has the same fields
        return {"type": ERROR, "message": reason}
    return kinds.Error(type=ERROR, message=reason)
