"""GENRL: what peers of a genrl swarm send: msgpack of ``Payload(world_state, actions, metadata)``, as in its DHT.

A value is a list of payloads by batch, for one peer; or, gathered, that by peer. Without a peer in the file the file's
name stands for it. ``actions`` are texts: one, or a list of them; anything else is no completion. The prompt is the
question of ``world_state.environment_states``. Bytes are capped at 100 MB, as genrl's own reader caps them, types are
checked, and no object is ever built. There is no reward: receivers compute their own. Read in gensyn-genrl 0.3.0.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hailproof.errors import DataError
from hailproof.screening.formats import Peek
from hailproof.screening.rows import Columns, StoredRow, label_in
from hailproof.screening.stream import opened, read

MAX_BYTES = 100 * 1024 * 1024
"""What genrl's own reader takes."""

MAX_VALUES = 2**21
"""Values in them; an empty list takes one byte in a file and sixty in memory."""

MAX_DEPTH = 3
"""Tables around payloads: peers, batches, lists."""

QUESTIONS = ("question", "prompt", "proposal_question")
KINDS = ("Payload", "WorldState")
"""What genrl sends; it builds nothing else."""


_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
          0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}  # fmt: skip
"""Of binaries, extensions and texts in msgpack: bytes of the size, and bytes before the content."""

_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
          0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # fmt: skip
"""Bytes that follow the first of other values; what lists and tables hold is counted for itself."""


class Genrl:
    """One value of a swarm's table."""

    brings = frozenset({"senders", "groups"})
    multi_turn = False

    def matches(self, peek: Peek) -> bool:
        """Whether a file begins as msgpack does and holds a payload."""
        return peek.line is None and peek.data[:1] >= b"\x80" and b"Payload" in peek.data

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the texts of all payloads."""
        with opened(path) as file:
            data = read(path, file, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"{path} holds more than {MAX_BYTES // 2**20} MiB, which no peer of genrl reads; split it.")
        if _values_in(data, MAX_VALUES) > MAX_VALUES:
            raise DataError(f"{path} holds over {MAX_VALUES} values; no payload does.")
        try:
            tree = msgspec.msgpack.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError, TypeError) as error:
            raise DataError(f"{path} is no msgpack ({error}); give the bytes that a peer sent.") from error
        for place, (keys, payload) in enumerate(_payloads(tree, (), 0), 1):
            yield from _texts(place, path, keys, payload)


def _values_in(data: bytes, enough: int) -> int:
    """How many values some msgpack holds, counted without building any; not counted further than enough."""
    count = at = 0
    while at < len(data) and count <= enough:
        count += 1
        kind = data[at]
        if 0xA0 <= kind < 0xC0:
            at += 1 + kind - 0xA0
        elif kind in _SIZED:
            bytes_of_size, extra = _SIZED[kind]
            at += 1 + bytes_of_size + extra + int.from_bytes(data[at + 1 : at + 1 + bytes_of_size], "big")
        else:
            at += 1 + _FIXED.get(kind, 0)
    return count


def _payloads(tree: Any, keys: tuple[str, ...], depth: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields each payload with the keys that lead to it, lists left out."""
    if isinstance(tree, Mapping) and "__type__" in tree:
        yield keys, tree
    elif isinstance(tree, Mapping) and depth < MAX_DEPTH:
        for key, value in tree.items():
            yield from _payloads(value, (*keys, str(key)), depth + 1)
    elif isinstance(tree, list) and depth < MAX_DEPTH:
        for value in tree:
            yield from _payloads(value, keys, depth + 1)
    else:
        yield keys, None


def _texts(place: int, path: Path, keys: tuple[str, ...], payload: Any) -> Iterator[StoredRow]:
    sender = keys[0] if len(keys) > 1 else path.stem
    group = keys[-1] if keys else "0"
    if not isinstance(payload, Mapping) or payload.get("__type__") != "Payload":
        yield StoredRow(place, sender=sender, group=group, fault="it is no payload")
        return
    actions = payload.get("actions")
    question = _question(payload.get("world_state"))
    for action in actions if isinstance(actions, list) else [actions]:
        if isinstance(action, str):
            yield StoredRow(place, action, question, sender=sender, group=group)
        else:
            fault = f"its action is a {type(action).__name__}, not a text"
            yield StoredRow(place, prompt=question, sender=sender, group=group, fault=fault)


def _question(state: Any) -> str | None:
    if not isinstance(state, Mapping) or state.get("__type__", "WorldState") != "WorldState":
        return None
    environment = state.get("environment_states")
    return label_in(environment, *QUESTIONS) if isinstance(environment, Mapping) else None


FORMAT = Genrl()
