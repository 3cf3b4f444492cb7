"""Rates that know the difference between zero and undefined."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of a number of trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float | None:
        """The share; ``None`` if nothing was eligible: unknown is not zero."""
        return self.successes / self.trials if self.trials else None


def rate(outcomes: Iterable[bool | None]) -> Rate:
    """Counts outcomes; ``None`` is not eligible and counts as no trial."""
    eligible = [outcome for outcome in outcomes if outcome is not None]
    return Rate(sum(eligible), len(eligible))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values; ``None`` if there are none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
