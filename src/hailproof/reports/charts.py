"""The curves of a run as SVG, and the stops of the slider that moves along all of them."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hailproof.reports.curves import Line, Panel, lonely
from hailproof.reports.pages import UNDEFINED

# The view box of a chart and the margins around its axes.
WIDTH, HEIGHT = 440, 236
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 10, 36
SIZE = (WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM)

STOPS = 200
"""Rounds that the slider stops at; of a longer run they are evenly spaced."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart.

    Attributes:
        label: What it shows.
        path: The line, broken where it is undefined.
        dots: The points that have no neighbor.
        values: Height and text of the value at each stop; the height is ``None`` where it is undefined.
    """

    label: str
    path: str
    dots: tuple[tuple[float, float], ...]
    values: tuple[tuple[float | None, str], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The geometry of one panel, in units of its view box.

    Attributes:
        title: What is plotted, with its unit.
        curves: The lines.
        x_ticks: Position and label of each tick on the axis of rounds.
        y_ticks: Position and label of each tick on the axis of values.
        undefined: Whether no line has any value.
    """

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    undefined: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """A round that the slider stops at, and the strip of each chart that belongs to it.

    Attributes:
        round: The round.
        x: Its place on the axis of rounds.
        left: Left edge of its strip.
        width: Width of its strip.
    """

    round: int
    x: float
    left: float
    width: float


def stops_of(rounds: Sequence[int]) -> tuple[Stop, ...]:
    """The stops of the slider: every round of a short run; of a long one some, the first and the last among them."""
    count = min(STOPS, len(rounds))
    chosen = [rounds[index * (len(rounds) - 1) // max(count - 1, 1)] for index in range(count)]
    places = [_x(number, rounds) for number in chosen]
    middles = [(one + other) / 2 for one, other in itertools.pairwise(places)]
    edges = [float(LEFT), *middles, float(WIDTH - RIGHT)]
    return tuple(
        Stop(number, place, round(left, 1), round(right - left, 1))
        for number, place, (left, right) in zip(chosen, places, itertools.pairwise(edges), strict=False)
    )


def chart_of(panel: Panel, rounds: Sequence[int], stops: Sequence[Stop]) -> Chart:
    """Draws a panel.

    Args:
        panel: The values.
        rounds: The round of each value.
        stops: Where the slider stops.
    """
    known = [value for line in panel.lines for value in line.values if value is not None]
    top = 100.0 if panel.unit == "%" else max(known, default=0.0) * 1.08 or 1.0
    first, last = (rounds[0], rounds[-1]) if rounds else (0, 1)
    # The first round is always labeled; a round number beside it would cover it.
    steps = [tick for tick in ticks(max(last, 1), 5, whole=True) if tick - first > (last - first) / 12 and tick <= last]
    return Chart(
        title=f"{panel.title} ({panel.unit})",
        curves=tuple(_curve(line, panel.unit, top, rounds, stops) for line in panel.lines),
        x_ticks=tuple((_x(tick, rounds), f"{tick:g}") for tick in [first, *steps]) if rounds else (),
        y_ticks=tuple((_y(tick, top), f"{tick:g}") for tick in ticks(top)),
        undefined=not known,
    )


def _x(number: float, rounds: Sequence[int]) -> float:
    first, last = rounds[0], rounds[-1]
    share = (number - first) / (last - first) if last > first else 0.5
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, top: float) -> float:
    return round(TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM), 1)


def _curve(line: Line, unit: str, top: float, rounds: Sequence[int], stops: Sequence[Stop]) -> Curve:
    points = [
        None if value is None else (_x(at, rounds), _y(value, top))
        for at, value in zip(rounds, line.values, strict=True)
    ]
    value_at = dict(zip(rounds, line.values, strict=True))
    stopped = [value_at[stop.round] for stop in stops]
    return Curve(
        label=line.label,
        path=_path(points),
        dots=tuple(point for index in lonely(line.values) if (point := points[index]) is not None),
        values=tuple(
            (None, UNDEFINED) if value is None else (_y(value, top), f"{value:.1f} {unit}") for value in stopped
        ),
    )


def _path(points: Iterable[tuple[float, float] | None]) -> str:
    commands: list[str] = []
    pen_down = False
    for point in points:
        if point is not None:
            commands.append(f"{'L' if pen_down else 'M'}{point[0]:g} {point[1]:g}")
        pen_down = point is not None
    return "".join(commands)


def ticks(top: float, count: int = 5, whole: bool = False) -> list[float]:
    """Round numbers from 0 up to ``top``, about ``count`` of them.

    Args:
        top: End of the axis, above 0.
        count: How many steps there should be, roughly.
        whole: Whether only whole numbers will do.

    Returns:
        The ticks, ascending, all within the axis.
    """
    power = 10.0 ** math.floor(math.log10(top / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= top * 0.999)
    step = max(step, 1.0) if whole else step
    return [step * index for index in range(int(top / step + 1e-9) + 1)]
