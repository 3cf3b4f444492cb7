"""Curves of runs, and pictures of them."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import line, run

from hailproof.reports.curves import Line, Panel, lonely, panels_of
from hailproof.reports.figures import draw_comparison, draw_run, draw_seeds, spread_labels
from hailproof.reports.report import write_report
from hailproof.runs.store import read_rounds

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("lines", [[], [line(1, None)], [line(1), line(2)]], ids=["none", "one", "two"])
def test_pictures_are_written_however_short_the_run(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    folder = run(tmp_path / "run", lines, [])
    write_report(folder)
    assert (folder / "curves.png").read_bytes().startswith(PNG)
    draw_comparison({r"$\broken{$": folder, "_hidden": folder}, tmp_path / "new" / "comparison.png", "$")
    assert (tmp_path / "new" / "comparison.png").read_bytes().startswith(PNG)


def test_pictures_depend_on_the_run_and_on_nothing_else(tmp_path: Path) -> None:
    def picture(name: str, attack_success: float | None) -> bytes:
        folder = run(tmp_path / name / "run", [line(1), line(2), line(3, attack_success), line(4), line(5)], [])
        draw_run(folder, tmp_path / f"{name}.png")
        return (tmp_path / f"{name}.png").read_bytes()

    assert picture("a", 0.5) == picture("b", 0.5)
    # An undefined value is not drawn as 0.
    assert picture("c", None) != picture("d", 0.0)


def test_seeds_are_drawn_as_mean_and_band(tmp_path: Path) -> None:
    low, high = (run(tmp_path / str(value), [line(1, value), line(2, value)], []) for value in (0.2, 0.6))
    between = run(tmp_path / "between", [line(1, 0.4), line(2, 0.4)], [])
    draw_seeds({"text": [low, high]}, tmp_path / "band.png", "two")
    draw_seeds({"text": [between]}, tmp_path / "mean.png", "two")
    draw_seeds({"text": [between, between]}, tmp_path / "flat.png", "two")
    band, mean, flat = ((tmp_path / f"{name}.png").read_bytes() for name in ("band", "mean", "flat"))
    assert flat == mean != band


def test_rounds_are_read_in_order_and_half_a_last_line_is_left_out(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(2), line(1)], [])
    path = folder / "rounds.jsonl"
    path.write_text(path.read_text() + '{"round": 3, "rew')
    assert [record["round"] for record in read_rounds(folder)] == [1, 2]


def test_panels_show_shares_as_percent_and_models_apart() -> None:
    models = {"a": {"attack_success": 0.5}, "b": {"attack_success": None}}
    panels = panels_of([line(1, 0.25, models=models), line(2, math.nan, models={"a": {"attack_success": 1.0}})])
    assert panels[0] == Panel(
        "Attack success rate",
        "%",
        (Line("all honest", (25.0, None)), Line("a", (50.0, 100.0)), Line("b", (None, None))),
    )
    assert panels[2].lines[0] == Line("all honest", (50.0, 50.0))
    assert panels_of([line(1)])[0].lines == (Line("all honest", (25.0,)),)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([1.0], [0]),
        ([1.0, 2.0], []),
        ([None, 0.0, None], [1]),
        ([1.0, None, 2.0, 3.0, None, 4.0], [0, 5]),
    ],
)
def test_lonely_values(values: list[float | None], expected: list[int]) -> None:
    assert lonely(values) == expected


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.9, 0.1], [0.9, 0.1]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.0, 0.5, 0.5], [0.4, 0.0, 0.5, 0.6]),
        ([0.52, 0.5, 0.42], [0.58, 0.48, 0.38]),
    ],
)
def test_labels_move_apart_around_their_place(heights: list[float], expected: list[float]) -> None:
    assert spread_labels(heights, 0.1) == pytest.approx(expected)
