"""What a trainer hands to a shield: lists of any kind become checked columns, and a mistake is a ``ConfigError``."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hailproof.errors import ConfigError
from hailproof.shield.results import Sender

Message = Mapping[str, Any]
Text = str | Sequence[Message]
"""A plain text, or a conversation as a list of messages with ``role`` and ``content``."""

OTHERS = ("user", "tool", "function", "ipython")
"""Roles of those who are not the policy; any other role may be the policy's."""

LARGEST_REWARD = 3.4028234663852886e38
"""The largest number of float32, as which trainers keep rewards: what is larger is infinite there."""

T = TypeVar("T")


def column(name: str, values: Iterable[T], count: int | None = None) -> list[T]:
    """A column of a batch as a list; arrays and tensors are read.

    Args:
        name: What messages call it.
        values: Its values.
        count: How many there must be.

    Raises:
        ConfigError: If it is no list, or has another length.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} is a {type(values).__name__}; give a list with one entry for each completion.")
    as_list = getattr(values, "tolist", None)  # arrays and tensors
    found: list[T] = as_list() if as_list is not None else list(values)
    if not isinstance(found, list):
        raise ConfigError(f"{name} is a single value; give a list with one entry for each completion.")
    if count is not None and len(found) != count:
        raise ConfigError(f"{name} has {len(found)} entries for {count} completions; give one for each.")
    return found


def text_of(name: str, value: Text, roles: tuple[str, ...] | None = None) -> str:
    """The text of a plain or conversational value.

    Args:
        name: What messages call it.
        value: A text, or messages.
        roles: Whose messages count; ``None``: everybody's.

    Raises:
        ConfigError: If it is neither.
    """
    if isinstance(value, str):
        return value
    return "\n\n".join(
        text for message in _messages(name, value) if (roles is None or message.get("role") in roles)
        if (text := _content(name, message))
    )  # fmt: skip


def _messages(name: str, value: Any) -> list[Message]:
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise ConfigError(f"{name} is a {type(value).__name__}; give a text, or a list of messages (role, content).")
    return list(messages)


def _content(name: str, message: Message) -> str:
    content = message.get("content")
    if content is None:  # a message with nothing but tool calls
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple) and all(isinstance(part, Mapping) for part in content):
        return "".join(str(part.get(key) or "") for part in content for key in ("thinking", "reasoning", "text"))
    raise ConfigError(f"{name} has a message with a {type(content).__name__} as content; give a text or parts.")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a policy was asked.

    Attributes:
        system: Instructions.
        user: The rest.
        label: The same for equal prompts, and for no others.
        given: The prompt as it was given.
    """

    system: str
    user: str
    label: str
    given: Text = ""

    @classmethod
    def of(cls, name: str, prompt: Text) -> "Asked":
        """From a prompt as a trainer has it."""
        if isinstance(prompt, str):
            return cls("", prompt, prompt, prompt)
        system = text_of(name, prompt, ("system",))
        rest = [each for each in _messages(name, prompt) if each.get("role") != "system"]
        user = text_of(name, rest)
        try:
            label = json.dumps(prompt, sort_keys=True, default=str)
        except (RecursionError, TypeError, ValueError):  # somebody nested parts until JSON gives up
            label = json.dumps([system, user])
        return cls(system, user, label, prompt)


def answer_of(name: str, completion: Text) -> str:
    """The text of a completion: of a conversation, what was not said by a tool or a user.

    That is what a policy learns: reasoning, content, and the arguments of calls, under whatever role they stand.
    """
    if isinstance(completion, str):
        return completion
    messages = _messages(name, completion)
    said = (
        text for message in messages if message.get("role", "assistant") not in OTHERS
        for text in (_reasoning(message), _content(name, message), *_calls(message))
    )  # fmt: skip
    return "\n\n".join(filter(None, said))


def _reasoning(message: Message) -> str:
    """What a message holds beside its content, under the names that servers use."""
    return "\n\n".join(
        value for key in ("reasoning_content", "reasoning", "thinking") if isinstance(value := message.get(key), str)
    )


def _calls(message: Message) -> Iterator[str]:
    """The arguments of the calls of tools in a message."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list | tuple) else ():
        function = call.get("function", call) if isinstance(call, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            yield arguments
        elif arguments is not None:
            try:
                yield json.dumps(arguments, ensure_ascii=False, default=str)
            except (RecursionError, TypeError, ValueError):  # somebody nested them until JSON gives up
                yield str(type(arguments))


def ids_of(name: str, values: Any) -> tuple[int, ...]:
    """Token ids as a tuple of plain integers; arrays and tensors are read.

    Raises:
        ConfigError: If they are no list of integers.
    """
    as_list = getattr(values, "tolist", None)
    found = as_list() if as_list is not None else values
    if not isinstance(found, list | tuple) or any(type(token) is not int for token in found):
        raise ConfigError(f"{name} is no list of token ids; give whole numbers, one for each token.")
    return tuple(found)


def reward_of(name: str, value: Any) -> float | None:
    """A reward; ``None`` if there is none, which is what ``None``, NaN and what no float32 holds mean.

    Raises:
        ConfigError: If it is no number.
    """
    if value is None:
        return None
    scalar = getattr(value, "item", None)
    found = scalar() if scalar is not None else value
    if not isinstance(found, int | float):
        raise ConfigError(f"{name} is {found!r:.80}, not a number; give the reward, or None where there is none.")
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST_REWARD else None


def whole(value: Any) -> int | None:
    """A whole number, of Python or of an array or tensor; ``None`` if it is none, as ``True`` is none."""
    scalar = getattr(value, "item", None)
    found = scalar() if scalar is not None and getattr(value, "ndim", 0) == 0 else value
    return found if type(found) is int else None


def round_of(value: Any, last: int) -> int:
    """The number of a batch.

    Args:
        value: As the caller gives it.
        last: The number of the last batch; 0 before the first.

    Raises:
        ConfigError: If it is no whole number, or none after the last: defenses that remember senders count rounds, and
            would count one twice.
    """
    number = whole(value)
    if number is None:
        raise ConfigError(f"round is {value!r:.80}; give a whole number, or leave it out.")
    if number <= last:
        seen = f"the last one was {last}" if last else "rounds are counted from 1"
        raise ConfigError(
            f"round is {number}, and {seen}; give a larger number, leave it out, or load the state that was saved with "
            "your checkpoint."
        )
    return number


def sender_of(name: str, value: Any) -> Sender:
    """A sender's name.

    Raises:
        ConfigError: If it is neither a text nor a whole number.
    """
    scalar = getattr(value, "item", None)
    found = scalar() if scalar is not None else value
    if type(found) is str or (type(found) is int and -(2**63) <= found < 2**63):
        return found
    shown = f"{value!r:.80}" if type(found) is not int else "over 64 bits long"
    raise ConfigError(f"{name} is {shown}; name each sender by a text or a whole number.")
