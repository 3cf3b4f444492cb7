"""RELIQUARY: the public archive of Bittensor's subnet 81, ``window-N.json.gz``: one JSON table a window.

``batch`` holds one submission a miner and prompt: ``hotkey``, ``prompt_idx``, ``env_name``, ``prompt`` and ``rollouts``
with ``completion_text``, ``reward``, ``tokens`` and ``completion_length``. The sender is the hotkey, the group the
environment and prompt, the round the window. A window is read whole, up to 512 MiB unpacked.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hailproof.errors import DataError
from hailproof.screening.formats import Peek
from hailproof.screening.rows import Columns, StoredRow, ids_in, label_in, number_in, text_in, whole_in
from hailproof.screening.stream import Twice, once, opened, read, values_in

MAX_BYTES = 512 * 2**20
MAX_VALUES = 2**24


class Reliquary:
    """One window."""

    brings = frozenset({"senders", "groups"})
    multi_turn = True

    def matches(self, peek: Peek) -> bool:
        """Whether a file begins as a window does."""
        begins = peek.data.lstrip().startswith(b"{")
        return begins and b'"window_start"' in peek.data and (peek.line is None or "batch" in peek.line)

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields the rollouts of all submissions."""
        with opened(path) as file:
            data = read(path, file, MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"{path} holds more than {MAX_BYTES // 2**20} MiB unpacked; no window does.")
        if values_in(data) > MAX_VALUES:
            raise DataError(f"{path} may hold over {MAX_VALUES} values; no window does.")
        try:
            window = json.loads(data, object_pairs_hook=once)
        except Twice as error:
            raise DataError(f"{path} names {str(error)[:40]!r} twice; take a sound copy of the window.") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is no JSON; take a whole copy of the window.") from error
        batch = window.get("batch") if isinstance(window, Mapping) else None
        if not isinstance(batch, list):
            raise DataError(f"{path} has no batch; give a window of Reliquary's archive.")
        number = whole_in(window, "window_start")
        for place, submission in enumerate(batch, 1):
            yield from _rollouts(place, submission, number, window)


def _rollouts(place: int, submission: Any, number: int | None, window: Mapping[str, Any]) -> Iterator[StoredRow]:
    rollouts = submission.get("rollouts") if isinstance(submission, Mapping) else None
    if not isinstance(rollouts, list):
        yield StoredRow(place, round=number, fault="it has no rollouts")
        return
    environment = label_in(submission, "env_name") or label_in(window, "environment") or ""
    sender, prompt = label_in(submission, "hotkey") or "unnamed", text_in(submission, "prompt")
    group = f"{environment}/{label_in(submission, 'prompt_idx') or place}"
    for rollout in rollouts:
        text = text_in(rollout, "completion_text") if isinstance(rollout, Mapping) else None
        if text is None:
            yield StoredRow(place, prompt=prompt, sender=sender, group=group, round=number, fault="it has no text")
            continue
        ids, prompt_ids = _tokens(rollout)
        yield StoredRow(place, text, prompt, number_in(rollout, "reward"), sender, group, number, ids, prompt_ids)


def _tokens(rollout: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Token ids of a completion and its prompt, where the length of the completion says which are which."""
    ids, length = ids_in(rollout.get("tokens")), whole_in(rollout, "completion_length")
    if ids is None or not length or length >= len(ids):
        return None, None
    return ids[-length:], ids[:-length]


FORMAT = Reliquary()
