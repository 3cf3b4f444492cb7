"""TRACES: ``traces.jsonl`` of verifiers and prime-rl: a line an episode, with the traces of its agents.

A trace is a graph of messages. Each path from a root to a leaf is one completion, which begins at the first message
that a model drew. The reward of a trace is the sum of its weighted rewards that were scored. The group is the
episode's, else the task's key, hash or id. There are no senders; ``--column sender=info.peer`` takes one from the
trace. Read in verifiers 0.4.0. A bare trace a line, as ``Trace.to_record`` gives it, is read too.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hailproof.screening.formats import Peek
from hailproof.screening.rows import Columns, StoredRow, ids_in, is_message, label_in, number_in, whole_in
from hailproof.screening.stream import records

MAX_NODES = 100_000
"""Messages of a trace; one with more is not read."""


class Traces:
    """A line an episode."""

    brings = frozenset({"groups"})
    multi_turn = True

    def matches(self, peek: Peek) -> bool:
        """Whether the first line is an episode or a trace."""
        line = peek.line or {}
        return isinstance(line.get("traces"), list) or (isinstance(line.get("nodes"), list) and "agent" in line)

    def rows(self, path: Path, columns: Columns) -> Iterator[StoredRow]:
        """Yields each branch of each trace."""
        for place, record in records(path):
            if isinstance(record, str):
                yield StoredRow(place, fault=record)
                continue
            found = record.get("traces") if "traces" in record else [record]
            for trace in found if isinstance(found, list) else []:
                yield from _branches(place, record, trace, columns)


def _branches(place: int, episode: Mapping[str, Any], trace: Any, columns: Columns) -> Iterator[StoredRow]:
    nodes = trace.get("nodes") if isinstance(trace, Mapping) else None
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES or not all(map(_is_node, nodes)):
        yield StoredRow(place, fault="it has a trace without readable messages")
        return
    parents = {node.get("parent") for node in nodes}
    if nodes and parents.issuperset(range(len(nodes))):
        yield StoredRow(place, fault="its messages are linked in a circle")
    shared = {
        "reward": number_in({"reward": columns.value(trace, "reward")}, "reward")
        if "reward" in columns.named else _reward(trace.get("rewards")),
        "sender": label_in({"sender": columns.value(trace, "sender")}, "sender"),
        "group": label_in({"group": columns.value(trace, "group")}, "group") or _group(episode, trace),
        "round": _step(episode),
    }  # fmt: skip
    for leaf in range(len(nodes)):
        if leaf in parents:
            continue
        path = _path(nodes, leaf)
        if path is None:
            yield StoredRow(place, fault="its messages are linked in a circle")
            continue
        first = next((at for at, node in enumerate(path) if node.get("sampled")), None)
        if first is None:  # nothing that a model drew
            continue
        prompt, drawn = path[:first], path[first:]
        ids, prompt_ids = _tokens(path)
        yield StoredRow(
            place, [node["message"] for node in drawn], [node["message"] for node in prompt],
            token_ids=ids, prompt_ids=prompt_ids, **shared,
        )  # fmt: skip


def _is_node(node: Any) -> bool:
    """Whether something is a message of a trace, with a link to the one before it or none."""
    if not isinstance(node, Mapping) or not is_message(node.get("message")):
        return False
    return node.get("parent") is None or type(node["parent"]) is int


def _path(nodes: Sequence[Mapping[str, Any]], leaf: int) -> list[Mapping[str, Any]] | None:
    """The messages from a root to a leaf; ``None`` if there is no root."""
    path: list[Mapping[str, Any]] = []
    at: int | None = leaf
    while at is not None:
        if not 0 <= at < len(nodes) or len(path) > len(nodes):
            return None
        path.append(nodes[at])
        at = nodes[at].get("parent")
    return path[::-1]


def _tokens(path: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Token ids of a completion and its prompt, which ends where the first token was drawn."""
    ids: list[int] = []
    drawn: list[bool] = []
    for node in path:
        tokens, mask = ids_in(node.get("token_ids")), node.get("mask")
        if tokens is None or not isinstance(mask, list) or len(mask) != len(tokens):
            return None, None
        ids += tokens
        drawn += [each is True for each in mask]
    if True not in drawn:
        return None, None
    start = drawn.index(True)
    return tuple(ids[start:]), tuple(ids[:start])


def _reward(rewards: Any) -> float | None:
    """The sum of the weighted rewards; ``None`` if none was scored."""
    values: list[float] = []
    for each in rewards.values() if isinstance(rewards, Mapping) else ():
        if isinstance(each, Mapping) and (score := number_in(each, "score")) is not None:
            weight = number_in(each, "weight")
            values.append(score * (1.0 if weight is None else weight))
    return sum(values) if values else None


def _group(episode: Mapping[str, Any], trace: Mapping[str, Any]) -> str | None:
    group, task = episode.get("group"), trace.get("task") or episode.get("task")
    if isinstance(group, Mapping) and (label := label_in(group, "id")) is not None:
        return label
    if not isinstance(task, Mapping):
        return None
    data = task.get("data")
    return label_in(task, "key", "hash") or (label_in(data, "id", "idx") if isinstance(data, Mapping) else None)


def _step(episode: Mapping[str, Any]) -> int | None:
    run = episode.get("run")
    work = run.get("work") if isinstance(run, Mapping) else None
    return whole_in(work, "step") if isinstance(work, Mapping) else None


FORMAT = Traces()
