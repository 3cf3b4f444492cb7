"""Trainings made of cycles, each with a fresh optimizer: how many steps they have, and a trial with fewer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar


class Cycle(Protocol):
    """A dataclass of one cycle."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        ...


AnyCycle = TypeVar("AnyCycle", bound=Cycle)


def steps_of(cycles: Sequence[Cycle]) -> int:
    """Optimizer steps of all cycles."""
    return sum(cycle.steps for cycle in cycles)


def first_steps(cycles: Sequence[AnyCycle], steps: int) -> tuple[AnyCycle, ...]:
    """The cycles with only their first steps, in their order; the last that is left is the shorter for it."""
    kept: list[AnyCycle] = []
    for cycle in cycles:
        if steps > 0:
            kept.append(replace(cycle, steps=min(cycle.steps, steps)))
            steps -= kept[-1].steps
    return tuple(kept)
