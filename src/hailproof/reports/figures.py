"""PNG pictures of the curves of runs: one run, several, or several with several seeds each."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hailproof.reports.curves import SeedPanel, aligned, lonely, panels_of, spread_of
from hailproof.runs.files import replacing
from hailproof.runs.store import read_rounds

# Okabe and Ito's palette, readable with every common color blindness, darkest first because the ground is white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
# Once the colors are used up the line style tells lines apart.
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
INK, MUTED, RULE = "#1b1f24", "#667079", "#e3e6e9"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    # Labels come from run folders; a dollar sign in one must not start a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#aab1b7",
    "axes.labelcolor": MUTED,
    **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 2.1,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}

LEGEND: dict[str, Any] = {
    "frameon": False,
    "handlelength": 1.6,
    "columnspacing": 1.8,
    "borderpad": 0,
    "borderaxespad": 0,
}


def draw_run(folder: Path, out: Path) -> None:
    """Draws the curves of one run: attack success, reward, completion tokens, acceptance.

    Args:
        folder: The run folder.
        out: The PNG file to write.

    Raises:
        RunError: If the folder holds no readable run.
    """
    records = read_rounds(folder)
    rounds = [record["round"] for record in records]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 7))
        axes_grid = figure.subplots(2, 2)
        figure.subplots_adjust(left=0.065, right=0.945, bottom=0.075, top=0.84, wspace=0.25, hspace=0.5)
        _title(figure, folder.resolve().name)
        for panel, axes in zip(panels_of(records), axes_grid.flat, strict=True):
            _frame(axes, panel.title, panel.unit, rounds, pad=23)
            for index, line in enumerate(panel.lines):
                _curve(axes, rounds, line.values, index)
            _finish(axes, panel.unit, [line.values for line in panel.lines])
            if len(panel.lines) > 1:
                handles = _handles([line.label for line in panel.lines])
                place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.03)}
                axes.legend(handles=handles, ncols=len(handles), fontsize=9, **LEGEND, **place)
        _save(figure, out)


def draw_comparison(runs: Mapping[str, Path], out: Path, title: str) -> None:
    """Draws several runs in one picture: attack success, reward and completion tokens, one line per run.

    Args:
        runs: Label to run folder, in the order of the legend.
        out: The PNG file to write.
        title: The picture's headline.

    Raises:
        RunError: If a folder holds no readable run.
    """
    draw_seeds({label: [folder] for label, folder in runs.items()}, out, title)


def draw_seeds(runs: Mapping[str, Sequence[Path]], out: Path, title: str) -> None:
    """Draws several runs with several seeds each: the mean as a line, minimum to maximum as a band.

    A round's mean is over the seeds for which it is defined.

    Args:
        runs: Label to the run folders of its seeds, in the order of the legend.
        out: The PNG file to write.
        title: The picture's headline.

    Raises:
        RunError: If a folder holds no readable run.
    """
    loaded = {label: [read_rounds(folder) for folder in folders] for label, folders in runs.items()}
    rounds = sorted({record["round"] for seeds in loaded.values() for seed in seeds for record in seed})
    panels = (
        ("Attack success rate", "%", "attack_success", 100.0),
        ("Reward", "%", "reward", 100.0),
        ("Completion length", "tokens", "completion_tokens", 1.0),
    )
    draw_panels(
        [
            SeedPanel(
                name,
                unit,
                {label: [aligned(seed, rounds, key, scale) for seed in seeds] for label, seeds in loaded.items()},
            )
            for name, unit, key, scale in panels
        ],
        rounds,
        out,
        title,
    )


def draw_panels(
    panels: Sequence[SeedPanel], positions: Sequence[float], out: Path, title: str, axis: str = "round",
    name_ends: bool = True,
) -> None:
    """Draws panels side by side: the mean over seeds as a line, minimum to maximum as a band; one legend for all.

    Args:
        panels: What to draw; a label has the same color in all of them.
        positions: Where the values stand on the horizontal axis, ascending.
        out: The PNG file to write.
        title: The picture's headline.
        axis: What the horizontal axis shows.
        name_ends: Whether the last value of each curve stands beside it.
    """  # fmt: skip
    labels = list(dict.fromkeys(label for panel in panels for label in panel.seeds))
    width = 4.0 * max(len(panels), 2)
    legend_rows = _legend_rows(labels, width=round(10 * width))
    height = 3.6 + 0.27 * len(legend_rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
        margin = 0.54 / width
        figure.subplots_adjust(
            left=margin, right=1 - margin, wspace=0.24, bottom=0.5 / height,
            top=1 - (0.88 + 0.27 * len(legend_rows)) / height,
        )  # fmt: skip
        _title(figure, title)
        for panel, axes in zip(panels, axes_row, strict=True):
            _frame(axes, panel.title, panel.unit, positions, pad=9, axis=axis)
            means, colors = [], []
            for label, seeds in panel.seeds.items():
                index = labels.index(label)
                low, mean, high = spread_of(seeds)
                kept = [i for i, value in enumerate(mean) if value is not None or not panel.joined]
                places = [positions[i] for i in kept]
                if len(seeds) > 1:
                    band = [_with_gaps([ends[i] for i in kept]) for ends in (low, high)]
                    axes.fill_between(places, *band, color=_color(index), alpha=0.16, linewidth=0)
                _curve(axes, places, [mean[i] for i in kept], index)
                means.append(mean)
                colors.append(index)
            _finish(axes, panel.unit, means, colors, name_ends)
        _legend(figure, labels, legend_rows, 1 - 0.56 / height, 0.27 / height)
        _save(figure, out)


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _dash(index: int) -> Any:
    return DASHES[index // len(COLORS) % len(DASHES)]


def _curve(axes: Axes, rounds: Sequence[float], values: Sequence[float | None], index: int) -> None:
    marks = {"marker": "o", "markersize": 4.5, "markevery": lonely(values)}
    # Earlier lines lie on top: the first label is the one that the picture is about. Lines at 0 or 100 % keep their
    # full width because the axes do not clip them.
    look = {"color": _color(index), "linestyle": _dash(index), "zorder": 10 - index * 0.01, "clip_on": False}
    axes.plot(rounds, _with_gaps(values), **look, **marks)


def _handles(labels: Sequence[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=_color(index), linestyle=_dash(index), label=label) for index, label in enumerate(labels)
    ]


def _frame(axes: Axes, name: str, unit: str, rounds: Sequence[float], pad: float, axis: str = "round") -> None:
    title = f"{name} ({unit})" if unit else name
    axes.set_title(title, loc="left", fontsize=11, pad=pad)
    axes.set_xlabel(axis, fontsize=9, labelpad=3)
    first, last = (rounds[0], rounds[-1]) if rounds else (0, 1)
    # One round alone stands in the middle of its panel.
    margin = 0.0 if last > first else 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=last > 1))


def _finish(
    axes: Axes, unit: str, lines: Sequence[Sequence[float | None]], colors: Sequence[int] | None = None,
    name_ends: bool = True,
) -> None:
    colors = range(len(lines)) if colors is None else colors
    known = [value for values in lines for value in values if value is not None]
    if not known:
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", va="center", color=MUTED)
    top = 100.0 if unit == "%" else max(known, default=1.0) * 1.08 or 1.0
    axes.set_ylim(-0.015 * top, top)
    if unit == "%":
        axes.set_yticks(range(0, 101, 20))
    if not name_ends:
        return
    last = [values[-1] if values else None for values in lines]
    ends = [(value, index) for index, value in zip(colors, last, strict=True) if value is not None]
    heights = spread_labels([end / top for end, _ in ends], gap=0.062)
    for (end, index), height in zip(ends, heights, strict=True):
        place = {"xy": (1.0, height * top), "xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        look = {"color": _color(index), "fontsize": 9.5, "fontweight": "bold", "va": "center"}
        axes.annotate(f"{end:.0f}", xytext=(6, 0), **place, **look)


def spread_labels(heights: Sequence[float], gap: float) -> list[float]:
    """Moves labels apart so that none covers another, each as near to its place as a simple rule allows.

    Args:
        heights: Where the labels would like to be, as shares of the axis.
        gap: The least distance between two of them, in the same unit.

    Returns:
        The new heights, in the order of the old ones.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    # A cluster is a run of labels one gap apart, centered on the mean of where they would like to be.
    clusters: list[list[int]] = []
    for index in order:
        clusters.append([index])
        while len(clusters) > 1 and _bottom(clusters[-1], heights, gap) < _top(clusters[-2], heights, gap) + gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    placed = list(heights)
    for cluster in clusters:
        for rank, index in enumerate(cluster):
            placed[index] = _bottom(cluster, heights, gap) + rank * gap
    return placed


def _bottom(cluster: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return fmean(heights[index] for index in cluster) - (len(cluster) - 1) * gap / 2


def _top(cluster: Sequence[int], heights: Sequence[float], gap: float) -> float:
    return fmean(heights[index] for index in cluster) + (len(cluster) - 1) * gap / 2


def _title(figure: Figure, title: str) -> None:
    height = figure.get_figheight()
    figure.text(0.3 / figure.get_figwidth(), 1 - 0.2 / height, title, fontsize=15, fontweight="bold", va="top")


def _legend_rows(labels: Sequence[str], width: int = 120) -> list[list[int]]:
    """Breaks a legend into rows of at most ``width`` characters, the sample lines counted as 6 each."""
    rows: list[list[int]] = []
    used = width
    for index, label in enumerate(labels):
        if used + len(label) + 6 > width or not rows:
            rows.append([])
            used = 0
        rows[-1].append(index)
        used += len(label) + 6
    return rows


def _legend(figure: Figure, labels: Sequence[str], rows: Sequence[Sequence[int]], top: float, step: float) -> None:
    handles = _handles(labels)
    for number, row in enumerate(rows):
        place = {"loc": "upper left", "bbox_to_anchor": (0.3 / figure.get_figwidth(), top - number * step)}
        figure.legend(handles=[handles[index] for index in row], ncols=len(row), fontsize=10.5, **LEGEND, **place)


def _save(figure: Figure, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib in it, the same run gives the same file.
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=160, metadata={"Software": None})
