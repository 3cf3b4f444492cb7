"""What every format is read as: one row a completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hailproof.shield.results import Sender
from hailproof.shield.rows import Text


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One completion in a file.

    Attributes:
        place: Number of the line, row or payload that it stands in, from 1.
        completion: What was answered: a text, or messages.
        prompt: What was asked: a text, or messages; ``None`` if the file does not say.
        reward: The reward that the file holds; ``None`` if it holds none.
        sender: Who sent it; ``None`` if the file does not say.
        group: The label of its group; ``None`` if the file does not say.
        round: The step or round that it is of; ``None`` if the file does not say.
        token_ids: Its tokens, where the file holds them.
        prompt_ids: Its prompt's tokens, where the file holds them.
        fault: Why it cannot be read; empty if it can.
    """

    place: int
    completion: Text = ""
    prompt: Text | None = None
    reward: float | None = None
    sender: Sender | None = None
    group: str | None = None
    round: int | None = None
    token_ids: tuple[int, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    fault: str = ""

    @property
    def size(self) -> int:
        """Characters that it holds, about."""
        return sum(
            len(part) if isinstance(part, str) else sum(len(str(message)) for message in part or ())
            for part in (self.completion, self.prompt)
        )


def text_in(record: Mapping[str, Any], key: str) -> str | None:
    """A text of a record; ``None`` if it has none under this key."""
    value = record.get(key)
    return value if isinstance(value, str) else None


def number_in(record: Mapping[str, Any], key: str) -> float | None:
    """A number of a record; ``None`` if it has none under this key. What is not finite is none."""
    value = record.get(key)
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def label_in(record: Mapping[str, Any], *keys: str) -> str | None:
    """The first text or whole number that a record has under some keys, as a text."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) or type(value) is int:
            return str(value)
    return None


def whole_in(record: Mapping[str, Any], key: str) -> int | None:
    """A whole number, 0 or more, of a record; ``None`` if it has none under this key."""
    value = record.get(key)
    return value if type(value) is int and 0 <= value < 2**63 else None


def ids_in(value: Any) -> tuple[int, ...] | None:
    """Token ids; ``None`` if a value is no list of whole numbers."""
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return tuple(value)
    return None


def is_message(value: Any) -> bool:
    """Whether something is a message of a conversation: one whose content is a text, parts, or nothing."""
    if not isinstance(value, Mapping):
        return False
    content = value.get("content")
    parts = isinstance(content, list) and all(isinstance(part, Mapping) for part in content)
    return content is None or isinstance(content, str) or parts


def text_or_messages(value: Any) -> Any:
    """A text, or a conversation as a list of messages; ``None`` if it is neither."""
    if isinstance(value, str):
        return value
    messages = [value] if isinstance(value, Mapping) else value
    return messages if isinstance(messages, list) and all(map(is_message, messages)) else None


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the parts of a row are, as a user named them: keys, with dots for what lies inside.

    Attributes:
        named: By part (``text``, ``prompt``, ``reward``, ``sender``, ``group``, ``ids``, ``round``), the key.
        seen: Parts whose key some row had.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set, compare=False)

    def value(self, record: Any, part: str) -> Any:
        """The value that a record has for a part; ``None`` if it has none, or the part is not named."""
        path = self.named.get(part)
        if path is None:
            return None
        for key in (path,) if isinstance(record, Mapping) and path in record else path.split("."):
            if not isinstance(record, Mapping) or key not in record:
                return None
            record = record[key]
        self.seen.add(part)
        return record
