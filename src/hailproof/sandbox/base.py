"""What a sandbox is: runs programs that strangers' models wrote, and tells what they printed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["ok", "error", "timeout", "memory", "output", "crash"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: Time to run.
        memory: Bytes of memory.
        output: Bytes of printed text.
        source: Characters of the program itself; a longer one is not run.
    """

    seconds: float = 1.0
    memory: int = 64 * 2**20
    output: int = 64 * 2**10
    source: int = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program.

    Attributes:
        status: ``ok`` if it ran to its end; ``error`` if it is no program or raised; else the limit that it broke, or
            ``crash`` if it took its interpreter down.
        output: What it printed until then.
        reason: One line for people; empty if it ran to its end.
    """

    status: Status
    output: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Library:
    """A module that programs may import, in both forms that sandboxes need.

    Attributes:
        functions: The functions by name, for an interpreter that calls back; each must be safe for any two numbers.
        source: The same as Python source, for one that runs it inside.
    """

    functions: Mapping[str, Callable[..., object]]
    source: str


class Sandbox(Protocol):
    """Runs programs without access to files, network, processes and the trainer."""

    honest_seconds: float
    """What an honest program takes at most, start-up included; what a receiver grants each slot of a sender."""

    def run(self, programs: Sequence[str]) -> list[Outcome]:
        """Runs each program on its own; whatever a program does is an outcome, never an exception."""
        ...


def last_line(outcome: Outcome) -> str | None:
    """The last non-empty line that a program printed, if it ran to its end and printed one."""
    if outcome.status != "ok":
        return None
    return next((line.strip() for line in reversed(outcome.output.splitlines()) if line.strip()), None)
