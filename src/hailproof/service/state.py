"""All that a node's next round depends on, as bytes that are the same on every node that holds the same.

The format is safetensors: numbers and one string, never pickle. The hash of these bytes is what nodes compare, and what
a checkpoint that a stranger serves must have.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hailproof.errors import RunError
from hailproof.node import HonestNode
from hailproof.protocols import Learner

_FORMAT = 1


def snapshot(node: HonestNode, round: int, public: Any = None) -> bytes:
    """What a node holds after a round.

    Args:
        node: The node.
        round: The round.
        public: What is public of the swarm and changes with its rounds, in plain types; ``None`` if nothing does.

    Raises:
        RunError: If a defense remembers something that is no plain type.
    """
    tensors: dict[str, torch.Tensor] = {}
    held = {"learner": node.learner.state_dict(), "chain": node.chain.state()}
    rest = _stripped(held if public is None else {**held, "public": public}, "", tensors)
    plain = msgspec.msgpack.encode([_FORMAT, round, rest])
    return save(tensors, {"hailproof": base64.b85encode(plain).decode()})


def restore(node: HonestNode, data: bytes) -> tuple[int, Any]:
    """Takes up what :func:`snapshot` gave; a stranger's bytes must have been compared with a hash before.

    Returns:
        The round after which it was taken, and what was public of the swarm; ``None`` if that never changes.

    Raises:
        RunError: If it is damaged, or that of another model or chain of defenses.
    """
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(data[8 : 8 + size])
        plain = base64.b85decode(header["__metadata__"]["hailproof"])
        form, round, rest = msgspec.msgpack.decode(plain, strict=True)
        if form != _FORMAT:
            raise ValueError(f"format {form}")
        state = _filled(rest, tensors)
        _load(node.learner, state["learner"])
        node.chain.restore(state["chain"])
    except (SafetensorError, msgspec.MsgspecError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise RunError(f"A checkpoint cannot be taken up ({str(error).splitlines()[0]:.200}); use another.") from error
    node.policy.engine.refresh()
    return round, state.get("public")


def _load(learner: Learner, state: dict[str, Any]) -> None:
    learner.load_state_dict(state)


def weights_hash(node: HonestNode) -> bytes:
    """The hash of the weights that are trained, by name."""
    digest = hashlib.sha256()
    weights: Any = node.learner.state_dict()["weights"]
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor.numpy().tobytes())
    return digest.digest()


def _stripped(tree: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A tree of tagged lists in one order; tensors are moved out of it."""
    if isinstance(tree, torch.Tensor):
        tensors[path] = tree.detach().cpu().contiguous().clone()
        return ["tensor", path]
    if isinstance(tree, Mapping):
        pairs = [[key, _stripped(value, f"{path}/{key}", tensors)] for key, value in tree.items()]
        return ["table", sorted(pairs, key=lambda pair: msgspec.msgpack.encode(pair[0]))]
    if isinstance(tree, list | tuple):
        return ["list", [_stripped(value, f"{path}/{place}", tensors) for place, value in enumerate(tree)]]
    if tree is None or isinstance(tree, bool | int | float | str):
        return ["plain", tree]
    raise RunError(
        f"The state of this node holds a {type(tree).__name__} at {path}, which no checkpoint can hold; a defense must "
        "give plain types from state()."
    )


def _filled(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    kind, value = tree
    if kind == "tensor":
        return tensors[value]
    if kind == "table":
        return {key: _filled(inner, tensors) for key, inner in value}
    if kind == "list":
        return [_filled(inner, tensors) for inner in value]
    if kind != "plain":
        raise ValueError(f"unknown kind {kind!r:.40}")
    return value
