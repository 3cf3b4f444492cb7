"""What a shield remembers, as JSON: dictionaries with other keys than texts, tuples, sets and tensors come back."""

import base64
import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hailproof.errors import ConfigError

MARK = "__hailproof__"
"""Key of a table that stands for something that JSON has not."""


def as_plain(tree: Any) -> Any:
    """A tree of plain types as JSON has them.

    Raises:
        ConfigError: If something in it is of no plain type.
    """
    scalar = getattr(tree, "item", None)
    if scalar is not None and getattr(tree, "ndim", None) == 0:  # a number of numpy
        return scalar()
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) for key in tree) and MARK not in tree:
            return {key: as_plain(value) for key, value in tree.items()}
        return {MARK: "pairs", "of": [[as_plain(key), as_plain(value)] for key, value in tree.items()]}
    if isinstance(tree, list | deque):
        return [as_plain(each) for each in tree]
    if isinstance(tree, tuple):
        return {MARK: "tuple", "of": [as_plain(each) for each in tree]}
    if isinstance(tree, set | frozenset):
        return {MARK: "set", "of": sorted((as_plain(each) for each in tree), key=repr)}
    if hasattr(tree, "detach"):  # a tensor of torch, which many chains do without
        values = tree.detach().cpu().numpy()
        data = base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
        return {MARK: "tensor", "of": [list(values.shape), data]}
    raise ConfigError(f"The state holds a {type(tree).__name__}, which JSON has not; keep plain types in state().")


def from_plain(tree: Any) -> Any:
    """What :func:`as_plain` was given."""
    if isinstance(tree, list):
        return [from_plain(each) for each in tree]
    if not isinstance(tree, Mapping):
        return tree
    if MARK not in tree:
        return {key: from_plain(value) for key, value in tree.items()}
    content = [from_plain(each) for each in tree["of"]]
    kind = tree[MARK]
    if kind == "tensor":
        import numpy as np
        import torch

        shape, data = content
        return torch.from_numpy(np.frombuffer(base64.b64decode(data, validate=True), "<f4").reshape(shape).copy())
    if kind == "pairs":
        return dict(content)
    if kind in ("tuple", "set"):
        return tuple(content) if kind == "tuple" else set(content)
    raise ValueError(f"{kind!r} stands for nothing")


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state to a file, whole or not at all.

    Raises:
        ConfigError: If the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); give a path in an existing folder.") from error


def read(path: Path) -> Any:
    """Reads a state from a file.

    Raises:
        ConfigError: If there is none, or it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give the file that save() wrote.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no state of a shield; give the file that save() wrote.") from error
