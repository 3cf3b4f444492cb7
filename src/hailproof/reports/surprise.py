"""Surprise of each token of a completion, ``-log p`` in nats, under the model that its receiver started the run with.

An honest completion is a draw from a model near that one, so most of its tokens are no surprise; words that somebody
else chose stand out. What the model sees is the prompt of the run: the question is recorded, and the instructions
before it are those of the built-in task. Only shipped models are asked, since they are at hand, small, and the same
wherever this version is installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hailproof.policies.shipped import shipped_models
from hailproof.protocols import Policy, Sampling
from hailproof.records import Completion, Prompt, Row
from hailproof.runs.config import RunConfig, TaskConfig
from hailproof.tasks import TASKS
from hailproof.tasks.base import CODE_SYSTEM, MATH_SYSTEM

MAX_LETTERS = 6000
"""Longer texts and questions are not read: a stranger may have written them to keep the reader busy."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a completion.

    Attributes:
        start: Index of its first character in the text.
        end: Index after its last character; the end token has no characters.
        nats: Its surprise.
    """

    start: int
    end: int
    nats: float


def why_not(config: RunConfig) -> str:
    """Why the surprise of a run cannot be told, as a clause; empty if it can."""
    foreign = [name for name in config.swarm.models if name not in shipped_models()]
    if foreign:
        return f"{foreign[0]} is not one of the models that come with hailproof"
    if system_of(config.task) is None:
        return f"the instructions of the task {config.task.name} are not known here"
    return ""


def system_of(task: TaskConfig) -> str | None:
    """The instructions that a built-in task puts before its questions; ``None`` for another task.

    The task itself is not built: its problems may lie in a file or on the hub, and the questions are recorded.
    """
    if task.name not in TASKS:
        return None
    return {"math": MATH_SYSTEM, "code": CODE_SYSTEM}[TASKS[task.name].variant_of(task.options)]


def reader_of(config: RunConfig, view: int) -> str:
    """The model that a receiving node started with: models are dealt to nodes in turn."""
    return config.swarm.models[view % len(config.swarm.models)]


def surprises(config: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Token, ...]]:
    """Reads completions with the models that their receivers started with.

    Where all models are one, that is the model that an honest sender drew from; else a text whose tokens are not the
    receiver's is tokenized anew.

    Args:
        config: The configuration of the run, for which :func:`why_not` says nothing.
        rows: Rows of ``completions.parquet``.

    Returns:
        The tokens of each, in order; none for a text that is too long for the model.
    """
    from hailproof.policies.load import load

    readers = [reader_of(config, row["view"]) for row in rows]
    read: dict[int, tuple[Token, ...]] = {}
    for name in dict.fromkeys(readers):
        policy = load(name, device="cpu", dtype="float32")
        own = [index for index, reader in enumerate(readers) if reader == name]
        read |= zip(own, _read(policy, config, [rows[index] for index in own]), strict=True)
    return [read[index] for index in range(len(rows))]


def _read(policy: Policy, config: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Token, ...]]:
    system = system_of(config.task) or ""
    prompts = [Prompt(row["problem_id"], system, row["question"]) for row in rows]
    sent = [Completion(row["text"], tuple(row["token_ids"] or ()), bool(row["finished"])) for row in rows]
    asked = {
        index: row
        for index in range(len(rows))
        if max(len(prompts[index].user), len(sent[index].text)) <= MAX_LETTERS
        and len(row := Row(policy.codec.render(prompts[index]), policy.codec.received_ids(sent[index])))
        <= policy.engine.context
    }
    scores = policy.engine.score(list(asked.values()), Sampling())
    read: list[tuple[Token, ...]] = [()] * len(rows)
    for (index, row), score in zip(asked.items(), scores, strict=True):
        text, ends = sent[index].text, policy.codec.ends(row.completion)
        ends = _within(ends.tolist() if ends[-1] == len(text) else _ends(policy, row.completion), text)
        read[index] = tuple(
            Token(start, end, max(0.0, -float(logprob)))
            for start, end, logprob in zip([0, *ends], ends, score.logprobs, strict=False)
        )
    return read


def _ends(policy: Policy, token_ids: Sequence[int]) -> list[int]:
    """Where tokens end, with a character that is split over several of them counted once, to the first."""
    return [len(policy.codec.decode(token_ids[:count])) for count in range(1, len(token_ids) + 1)]


def _within(ends: Sequence[int], text: str) -> list[int]:
    """Ends that rise and stay in the text."""
    return np.minimum(np.maximum.accumulate(np.array(ends, dtype=int)), len(text)).tolist()
