"""prime-rl: an algorithm that lets a shield look at a whole group before credit is assigned.

    # my_orchestrator.py, run in place of the orchestrator
    from prime_rl.orchestrator.algo import ALGORITHM_CLASSES, GRPOAlgorithm
    ALGORITHM_CLASSES["grpo"] = shielded(GRPOAlgorithm, Shield("equations"))

prime-rl has no option that names an algorithm by import path: its configurations are a closed union, so the class takes
the place of the one that it extends, with the same options.

A rejected trace ends with an error, and algorithms of prime-rl leave such traces out of their baseline. The train sink
chose its traces before credit is assigned, though, and would send a rejected trace on without credit. It therefore gets
a credit of zero and loses its other loss streams: the sink takes tokens of zero credit out of the loss and out of its
denominator. A sink with ``constant_trainer_batch_size = false`` leaves them in the denominator. Muted tokens get a
credit of zero in the same way, and their row stays in the baseline.

The orchestrator holds no weights. A defense that reads with a model reads the one that you give, as it is.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hailproof.errors import ConfigError
from hailproof.integrations.seams import LEAST_WEIGHT, reason_of
from hailproof.integrations.verifiers import fail, screened
from hailproof.shield import Shield
from hailproof.shield.results import Sender


def shielded(
    algorithm: type,
    shield: Shield,
    sender: Callable[[Any], Sender] | None = None,
    least_weight: float = LEAST_WEIGHT,
) -> type:
    """A subclass of an ``Algorithm`` whose ``score_group`` is shielded.

    Args:
        algorithm: The algorithm, as ``GRPOAlgorithm``. Its credit must be advantages (``action_loss_type = "rl"``).
        shield: The shield. It gets the ids of what was sampled, and reads them if it has a tokenizer; where traces have
            turns, build it with ``multi_turn=True``.
        sender: Says who sent a trace.
        least_weight: A trace that weighs less is left out; the others count fully.

    Raises:
        ConfigError: When the algorithm is made, if its loss does not go by advantages.
    """

    class Shielded(algorithm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            loss = getattr(self, "action_loss_type", None)
            if loss != "rl":
                raise ConfigError(
                    f"{algorithm.__name__} trains by the loss {loss!r}, which goes by no advantages, so that nothing "
                    "could be left out; shield an algorithm with action_loss_type 'rl'."
                )

        async def score_group(self, episodes: list[Any]) -> None:
            traces = [trace for episode in episodes for trace in episode.traces if _trains(trace)]
            ids = [[token for node in _sampled(trace) for token in _chosen(node)] for trace in traces]
            result = screened(shield, traces, sender, ids, [_asked(trace) for trace in traces])
            for trace, row in zip(traces, result, strict=True):
                fail(trace, reason_of(row, True, least_weight))
            if any(trace.ok for trace in traces):
                await super().score_group(episodes)
            for trace, row in zip(traces, result, strict=True):
                if not trace.ok:
                    _silence(trace)
                elif row.muted and row.mask is not None:
                    _mute(trace, row.mask)

    Shielded.__name__ = Shielded.__qualname__ = f"Shielded{algorithm.__name__}"
    return Shielded


def _trains(trace: Any) -> bool:
    """Whether the sink would train on a trace."""
    return trace.ok and trace.agent.trainable and any(_sampled(trace))


def _sampled(trace: Any) -> Iterator[Any]:
    """The nodes of a trace that hold sampled tokens."""
    return (node for node in trace.nodes if any(node.mask))


def _chosen(node: Any) -> list[int]:
    """The ids of the sampled tokens of a node."""
    return [token for token, sampled in zip(node.token_ids, node.mask, strict=True) if sampled]


def _asked(trace: Any) -> list[int]:
    """The ids before the first sampled one."""
    ids: list[int] = []
    for node in trace.nodes:
        if any(node.mask):
            return ids + node.token_ids[: node.mask.index(True)]
        ids += node.token_ids
    return ids


def _silence(trace: Any) -> None:
    """Takes every loss from a trace."""
    for node in trace.nodes:
        node.loss_weights = None
        if any(node.mask):
            node.advantages = [0.0] * sum(node.mask)


def _mute(trace: Any, mask: tuple[int, ...]) -> None:
    """Takes the credit from muted tokens; ``mask`` goes over the sampled tokens of all nodes."""
    start = 0
    for node in _sampled(trace):
        end = start + sum(node.mask)
        if node.advantages is not None:
            node.advantages = [each * kept for each, kept in zip(node.advantages, mask[start:end], strict=True)]
        start = end
