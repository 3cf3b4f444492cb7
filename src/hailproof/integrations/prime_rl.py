"""prime-rl: an algorithm that lets a shield look at a whole group before credit is assigned.

    # my_orchestrator.py, run in place of the orchestrator
    from prime_rl.orchestrator.algo import ALGORITHM_CLASSES, GRPOAlgorithm
    ALGORITHM_CLASSES["grpo"] = shielded(GRPOAlgorithm, Shield("equations"))

prime-rl has no option that names an algorithm by import path: its configurations are a closed union, so the class takes
the place of the one that it extends, with the same options.

A rejected trace ends with an error, and algorithms of prime-rl leave such traces out of their baseline. The train sink
chose its traces before credit is assigned, though, and would send a rejected trace on without credit. It therefore gets
a credit of zero and loses its other loss streams: the sink takes tokens of zero credit out of the loss and out of its
denominator. A sink with ``constant_trainer_batch_size = false`` leaves them in the denominator.

Muted tokens get a credit of zero in the same way. Weights multiply the credit of a trace, and its other loss streams. A
trace counts in the baseline for what is learned from it: where the credit of a group sums to zero and is the same for
all tokens of a trace, it is taken relative to the mean by shares.

The orchestrator holds no weights. A defense that reads with a model reads the one that you give, as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

from hailproof.errors import ConfigError
from hailproof.integrations.seams import reason_of, recentered, share
from hailproof.integrations.verifiers import fail, screened
from hailproof.shield import Shield
from hailproof.shield.results import ScreenedRow, Sender


def shielded(
    algorithm: type,
    shield: Shield,
    sender: Callable[[Any], Sender] | None = None,
) -> type:
    """A subclass of an ``Algorithm`` whose ``score_group`` is shielded.

    Args:
        algorithm: The algorithm, as ``GRPOAlgorithm``. Its credit must be advantages (``action_loss_type = "rl"``).
        shield: The shield. It gets the ids of what was sampled, and reads them if it has a tokenizer; where traces have
            turns, build it with ``multi_turn=True``.
        sender: Says who sent a trace.

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
                fail(trace, reason_of(row, weighs=True, mutes=True))
            kept = [(trace, row) for trace, row in zip(traces, result, strict=True) if trace.ok]
            if kept:
                await super().score_group(episodes)
            _recenter(kept)
            for trace, row in kept:
                _weigh(trace, row)
            for trace in traces:
                if not trace.ok:
                    _silence(trace)

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


def _recenter(kept: Sequence[tuple[Any, ScreenedRow]]) -> None:
    """Lets traces count in the baseline for what is learned from them, where each has one credit for all its tokens."""
    credit = [{each for node in _sampled(trace) for each in node.advantages or ()} for trace, _ in kept]
    if any(len(values) != 1 for values in credit):
        return
    before = [value for (value,) in credit]
    for (trace, _), value in zip(kept, recentered(before, [share(row) for _, row in kept]), strict=True):
        for node in _sampled(trace):
            node.advantages = [value] * sum(node.mask)


def _weigh(trace: Any, row: ScreenedRow) -> None:
    """Multiplies credit and loss streams of a trace by its weight, and takes out its muted tokens.

    The trainer multiplies the stream ``rl`` with the credit and divides by its sum, so it is muted, and not weighed.
    """
    if row.weight == 1 and not row.muted:
        return
    learned = repeat(1) if row.mask is None else iter(row.mask)
    for node in trace.nodes:
        kept = [next(learned) if sampled else 1 for sampled in node.mask]
        if node.advantages is not None:
            credit = iter(node.advantages)
            node.advantages = [
                next(credit) * row.weight * one for one, sampled in zip(kept, node.mask, strict=True) if sampled
            ]
        if node.loss_weights is not None:
            known = {"rl": 1.0}
            node.loss_weights = {
                name: [each * one * known.get(name, row.weight) for each, one in zip(stream, kept, strict=True)]
                for name, stream in node.loss_weights.items()
            }
