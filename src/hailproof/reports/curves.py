"""The curves of runs: what to plot, read from the run folder.

Unknown is not zero: an undefined value is ``None``, a gap in a picture, and never a point at 0. Percentages are in
[0, 100] from here on; in the run folder the same values are shares in [0, 1].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        label: What it shows, for the legend.
        values: One value per round, in the unit of its panel; ``None`` where it is undefined.
    """

    label: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves that share one pair of axes.

    Attributes:
        title: What is plotted.
        unit: ``"%"``, on a fixed axis from 0 to 100, or the name of a quantity whose axis starts at 0.
        lines: The curves.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class SeedPanel:
    """The curves that share one pair of axes, each over several seeds.

    Attributes:
        title: What is plotted.
        unit: ``"%"``, on a fixed axis from 0 to 100, or the name of a quantity whose axis starts at 0.
        seeds: By label, for each seed one value per position; ``None`` where it is undefined.
        joined: Whether lines go on over positions without a value, as in what is measured now and then.
    """

    title: str
    unit: str
    seeds: Mapping[str, Sequence[Sequence[float | None]]]
    joined: bool = False


def panels_of(records: Sequence[Mapping[str, Any]]) -> tuple[Panel, Panel, Panel, Panel]:
    """Turns the rounds of one run into its four panels.

    Where several models train, each has a line of its own beside the mean of all honest completions.

    Args:
        records: Lines of ``rounds.jsonl``, in order.

    Returns:
        The panels of attack success, reward, completion tokens and acceptance.
    """
    acceptance = (
        Line("honest", _series(records, "honest_acceptance", 100.0)),
        Line("malicious", _series(records, "malicious_acceptance", 100.0)),
    )
    return (
        Panel("Attack success rate", "%", _by_model(records, "attack_success", 100.0)),
        Panel("Reward", "%", _by_model(records, "reward", 100.0)),
        Panel("Completion length", "tokens", _by_model(records, "completion_tokens", 1.0)),
        Panel("Accepted by the defenses", "%", acceptance),
    )


def _number(record: Mapping[str, Any], key: str, scale: float) -> float | None:
    value = record.get(key)
    return float(value) * scale if value is not None and math.isfinite(value) else None


def _series(records: Sequence[Mapping[str, Any]], key: str, scale: float) -> tuple[float | None, ...]:
    return tuple(_number(record, key, scale) for record in records)


def _by_model(records: Sequence[Mapping[str, Any]], key: str, scale: float) -> tuple[Line, ...]:
    overall = Line("all honest", _series(records, key, scale))
    models = list(dict.fromkeys(name for record in records for name in record.get("models", {})))
    if len(models) < 2:
        return (overall,)
    parts = [[record.get("models", {}).get(name, {}) for record in records] for name in models]
    return (overall, *(Line(name, _series(part, key, scale)) for name, part in zip(models, parts, strict=True)))


def aligned(
    records: Sequence[Mapping[str, Any]], rounds: Sequence[int], key: str, scale: float
) -> tuple[float | None, ...]:
    """A key of the records times a factor, for each of some rounds; ``None`` where there is no value."""
    by_round = {record["round"]: _number(record, key, scale) for record in records}
    return tuple(by_round.get(number) for number in rounds)


def spread_of(
    seeds: Sequence[Sequence[float | None]],
) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Lowest, mean and highest value of each position over the seeds that have one there."""
    low: list[float | None] = []
    mean: list[float | None] = []
    high: list[float | None] = []
    for column in zip(*seeds, strict=True):
        known = [value for value in column if value is not None]
        low.append(min(known) if known else None)
        mean.append(fmean(known) if known else None)
        high.append(max(known) if known else None)
    return low, mean, high


def lonely(values: Sequence[float | None]) -> list[int]:
    """Indices of the values that have no defined neighbor, which a line alone would not show.

    Args:
        values: One value per round, ``None`` where undefined.

    Returns:
        The indices, ascending.
    """
    padded = [None, *values, None]
    return [
        index
        for index, value in enumerate(values)
        if value is not None and padded[index] is None and padded[index + 2] is None
    ]
