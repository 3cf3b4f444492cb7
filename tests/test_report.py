"""The report of a synthetic run folder, written by an attacker where one could write."""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from page_reader import HOSTILE, assert_harmless, browse, colors, contrast, luminance, needs_chromium
from synthetic_run import line, page_of, row, run, verdict

from hailproof.errors import RunError
from hailproof.reports.charts import chart_of, stops_of, ticks
from hailproof.reports.curves import Line, Panel
from hailproof.reports.pages import visible
from hailproof.reports.report import write_report
from hailproof.reports.surprise import Token
from hailproof.runs.config import RunConfig
from hailproof.runs.store import read_rounds


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    hostile = verdict(reason=HOSTILE, spans=((0, 8),), defense=HOSTILE)
    hostile["spans"][0]["note"] = HOSTILE
    defended = line(1, models={HOSTILE: {"reward": 0.1}, "other": {"reward": 0.2}}, seconds={HOSTILE: 1.0})
    defended["defenses"] = {HOSTILE: defended["defenses"]["logit"]}
    rows = [row(1, HOSTILE, malicious=True, question=HOSTILE, problem_id=HOSTILE, verdicts=[hostile])]
    summary = {"name": HOSTILE, "held_out": {HOSTILE: 0.5}}
    page = page_of(run(tmp_path / "run", [defended], rows, summary, f"# {HOSTILE}"), surprise=True)
    assert_harmless(page)
    assert HOSTILE[:-4] + "<U+202E>txt" in page.text("article")
    assert len(page.named("i", "h6")) > 1  # the strip shows it as well, token by token, beside the legend


def test_undefined_rounds_are_gaps_and_lone_values_are_dots(tmp_path: Path) -> None:
    values = [0.0, 0.1, None, 0.3, None, 0.5, 0.6]
    lines = [line(index + 1, value, defended=False) for index, value in enumerate(values)]
    page = page_of(run(tmp_path / "run", lines, []))
    curve = page.named("path", "curve")[0]["d"] or ""
    assert curve.count("M") == 3 and curve.count("L") == 2
    assert len([attrs for attrs in page.named("circle") if attrs["class"] == "d0"]) == 1
    titles = page.text("g")
    assert "all honest: undefined" in titles and "all honest: 0.0 %" in titles
    # Nothing was screened, so the panel of acceptance has no curve: attack success, reward and tokens have theirs.
    assert len(page.named("path", "curve")) == 3


def test_undefined_figures_are_named_and_missing_ones_left_out(tmp_path: Path) -> None:
    summary = {"attack_success": None, "reward": 0.875, "held_out": {"reward": 0.5, "attack_success": None}}
    page = page_of(run(tmp_path / "run", [line(1)], [], summary))
    assert page.texts["dt"] == ["attack success", "reward", "held-out reward", "held-out attack success"]
    assert page.texts["dd"] == ["undefined", "87.5 %", "50.0 %", "undefined"]


def test_tables_sum_over_rounds(tmp_path: Path) -> None:
    _, defenses, stages = page_of(run(tmp_path / "run", [line(1), line(2)], [])).tables
    assert defenses[1:] == [
        ["logit", "honest", "180", "12", "6", "2", "93.0 %"],
        ["logit", "malicious", "4", "34", "0", "2", "10.0 %"],
    ]
    assert stages[1:] == [["sample", "3.00", "6.0", "75.0 %", ""], ["update", "1.00", "2.0", "25.0 %", ""]]


def test_a_run_without_defenses_says_so(tmp_path: Path) -> None:
    page = page_of(run(tmp_path / "run", [line(1, defended=False)], [row(1, "fine")]))
    assert "This run had no defenses" in page.text("p")
    assert page.text("table").count("sample") == 1 and "logit" not in page.text("table")


@pytest.mark.parametrize(
    ("malicious", "changes", "badge"),
    [
        (True, {}, "attack succeeded"),
        (True, {"success": None}, "let through"),
        (True, {"verdicts": [verdict()]}, "attack stopped"),
        (True, {"admitted": False}, "attack stopped"),
        (True, {"verdicts": [verdict("accept", muted=[3])]}, "partly not learned"),
        (False, {"success": True}, "honest, shows the attack"),
        (False, {"verdicts": [verdict()]}, "honest, rejected"),
        (False, {"verdicts": [verdict("abstain")]}, ""),
    ],
)
def test_badges_tell_what_became_of_a_completion(
    tmp_path: Path, malicious: bool, changes: dict[str, Any], badge: str
) -> None:
    page = page_of(run(tmp_path / "run", [line(1)], [row(1, "text", malicious, **changes)]))
    assert len(page.named("span", "badge")) == bool(badge)
    assert badge in page.text("header")


def test_spans_muted_tokens_and_what_shows_the_attack_are_marked(tmp_path: Path) -> None:
    verdicts = [
        verdict(spans=((0, 11),)),
        verdict("accept", spans=((12, 14),), defense="equations"),
        verdict("accept", spans=((15, 17),), defense="credit", muted=[7]),
    ]
    rows = [row(1, "All hail to the thief", True, verdicts=verdicts)]
    page = page_of(run(tmp_path / "run", [line(1)], rows, config='[attack]\nname = "text"\n'))
    legend, marks = page.named("mark")[:4], page.named("mark")[4:]
    assert [attrs["class"] for attrs in legend] == ["attack", "reject", "muted", "note"]
    # The whole text is what the attack says; the verdicts divide it.
    assert page.texts["mark"][4:] == ["All hail to", " ", "th", "e", " t", "hief"]
    assert [attrs["class"] for attrs in marks] == [
        "reject attack", " attack", "note attack", " attack", "muted attack", " attack"
    ]  # fmt: skip
    assert marks[0]["title"] == "shows the attack; logit: rank 1,204"


def test_samples_come_from_first_middle_and_last_rounds_as_one_receiver_judged(tmp_path: Path) -> None:
    rows = [row(number, f"honest {number}", view=view) for number in range(1, 102) for view in (2, 1)]
    page = page_of(run(tmp_path / "run", [line(number) for number in range(1, 102)], rows))
    shown = [attrs["data-round"] for attrs in page.named("section", "round")]
    assert len(shown) == 11
    assert {"1", "51", "101"} <= set(shown)
    assert len(page.named("article")) == 11
    assert "as node 1 judged it" in page.text("h3") and "node 2" not in page.text("h3")


def test_samples_show_each_outcome_before_a_second_of_the_same(tmp_path: Path) -> None:
    rows = [row(1, f"passing {index}", True) for index in range(5)]
    rows += [row(1, "passing 0", True), row(1, "caught", True, verdicts=[verdict()])]
    text = page_of(run(tmp_path / "run", [line(1)], rows)).text("pre")
    assert re.findall(r"passing \d|caught", text) == ["passing 0", "caught", "passing 1"]


def test_an_unfinished_run_is_reported_from_its_parts(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(1)], [row(1, "from a part")])
    (folder / "completions").mkdir()
    (folder / "completions.parquet").rename(folder / "completions" / "round-000001.parquet")
    page = page_of(folder)
    assert "from a part" in page.text("pre")
    assert "not finished" in page.text("p")


@pytest.mark.slow
def test_the_worst_texts_of_a_hundred_rounds_stay_under_five_megabytes(tmp_path: Path) -> None:
    spans = tuple((index, index + 1) for index in range(0, 400, 2))
    rows = [
        row(number, f"{number}-{index}" + "'<" * 2500, malicious, verdicts=[verdict(spans=spans)])
        for number in range(1, 101)
        for malicious in (False, True)
        for index in range(4)
    ]
    folder = run(tmp_path / "run", [line(number) for number in range(1, 101)], rows)

    def letter_by_letter(config: RunConfig, asked: Sequence[dict[str, Any]]) -> list[tuple[Token, ...]]:
        return [tuple(Token(at, at + 1, 12.345) for at in range(len(each["text"]))) for each in asked]

    with patch("hailproof.reports.samples.surprises", letter_by_letter):
        page = page_of(folder, surprise=True)
    assert len(page.named("article")) == 11 * 6
    assert len(page.named("mark")) == 4 + 11 * 6 * 40
    assert len(page.named("i")) == 7 + 11 * 6 * 1200
    assert page.text("pre").count("letters …") == 2 * 11 * 6
    assert (folder / "report.html").stat().st_size < 5_000_000


def test_the_slider_stops_at_rounds_and_the_table_says_their_values(tmp_path: Path) -> None:
    lines = [line(1, 0.25), line(2, None), line(3, 1.0, reward=0.875, completion_tokens=20.0)]
    page = page_of(run(tmp_path / "run", lines, [row(1, "a")]))
    (slider,) = page.named("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "2", "2")
    # The plot is 386 wide from 40 on, and 190 high from 10 on.
    stops = [attrs for attrs in page.named("tr") if "data-round" in attrs]
    assert [(attrs["data-round"], attrs["data-x"]) for attrs in stops] == [
        ("1", "40.0"),
        ("2", "233.0"),
        ("3", "426.0"),
    ]
    assert page.tables[0][1:] == [
        ["1", "25.0 %", "50.0 %", "50.0 tokens", "93.0 %", "10.0 %"],
        ["2", "undefined", "50.0 %", "50.0 tokens", "93.0 %", "10.0 %"],
        ["3", "100.0 %", "87.5 %", "20.0 tokens", "93.0 %", "10.0 %"],
    ]
    heights = [attrs.get("data-y") for attrs in page.named("td")][:15]
    assert heights[:2] == ["152.5", "105.0"]  # 25 % and 50 %
    assert heights[5] is None  # undefined
    assert heights[10] == "10.0"
    # One cursor a chart, one dot a curve, and a value beside each label; in the bar each curve by name.
    assert len(page.named("line", "cursor")) == 4 and len(page.named("circle", "now")) == 5
    columns = [attrs["data-column"] for attrs in page.named("b") if "data-column" in attrs]
    assert columns == ["0", "1", "2", "3", "4"] * 2
    assert re.findall(r"[a-z]+(?: [a-z]+)*", page.text("li"))[:4] == [
        "attack success", "reward", "length", "honest kept"
    ]  # fmt: skip


def test_a_long_run_has_stops_from_its_first_round_to_its_last() -> None:
    rounds = range(1, 1001)
    stops = stops_of(rounds)
    assert len(stops) == 200
    assert (stops[0].round, stops[-1].round) == (1, 1000)
    assert (stops[0].left, stops[-1].left + stops[-1].width) == (40.0, 426.0)
    edges = [(one.left + one.width, other.left) for one, other in itertools.pairwise(stops)]
    assert all(math.isclose(end, start, abs_tol=0.11) for end, start in edges)
    chart = chart_of(Panel("Reward", "%", (Line("a", tuple(number / 10 for number in rounds)),)), rounds, stops)
    assert [chart.curves[0].values[at][1] for at in (0, -1)] == ["0.1 %", "100.0 %"]
    assert stops_of([]) == ()
    assert [(stop.x, stop.left, stop.width) for stop in stops_of([7])] == [(233.0, 40.0, 386.0)]


def test_damage_and_absence_are_one_sentence(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(1)], [])
    path = folder / "rounds.jsonl"
    path.write_text("{\n" + path.read_text())
    with pytest.raises(RunError, match=r"Line 1 of .* is damaged"):
        read_rounds(folder)
    with pytest.raises(RunError, match="is not a run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("top", "whole", "expected"),
    [
        (100, False, [0, 20, 40, 60, 80, 100]),
        (1, True, [0, 1]),
        (0.7, False, [0, 0.2, 0.4, 0.6]),
        (99.3, False, [0, 20, 40, 60, 80]),
        (7, True, [0, 2, 4, 6]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(top: float, whole: bool, expected: list[float]) -> None:
    assert ticks(top, whole=whole) == pytest.approx(expected)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_more_surprise_is_further_from_the_ground_and_always_readable(tmp_path: Path, dark: bool) -> None:
    palette = colors(page_of(run(tmp_path / "run", [line(1)], [])).text("style"))[dark]
    steps = [palette["raised"], *(palette[f"h{level}"] for level in range(1, 7))]
    lights = [luminance(step) for step in steps]
    assert lights == sorted(lights, reverse=not dark)
    for level, step in enumerate(steps):
        assert contrast(step, palette.get(f"h{level}-ink", palette["ink"])) >= 4.5
    for tone in ("bad-soft", "mute-soft", "warn-soft"):
        assert contrast(palette[tone], palette["ink"]) >= 4.5


@needs_chromium
@pytest.mark.slow
def test_in_a_browser_the_slider_moves_everything(tmp_path: Path) -> None:
    lines = [line(number, number / 100) for number in range(1, 41)]
    rows = [row(number, f"text of {number}", token_ids=[]) for number in range(1, 41)]
    folder = run(tmp_path / "run", lines, rows)
    page_of(folder, surprise=True)
    untouched, said = browse(folder / "report.html")
    assert said == []
    assert untouched.named("html", "js")  # the policy lets the page's own script run
    assert [attrs["data-round"] for attrs in untouched.named("section", "round") if "hidden" not in attrs] == ["40"]
    page, _ = browse(
        folder / "report.html",
        "var slider = document.getElementById('round'); slider.value = 10; slider.dispatchEvent(new Event('input'));"
        "document.body.dataset.wide = document.documentElement.scrollWidth > window.innerWidth;",
        width=500,
    )
    assert page.texts["b"][:2] == ["11.0 %", "50.0 %"]
    assert {attrs["x1"] for attrs in page.named("line", "cursor")} == {"139.0"}  # 40 + 386 * 10 / 39
    assert [attrs["cx"] for attrs in page.named("circle", "on")] == ["139.0"] * 5
    # Shown are the rounds 1, 5, 9, 13, …: 9 and 13 are as near, and the earlier one stays.
    assert [attrs["data-round"] for attrs in page.named("section", "round") if "hidden" not in attrs] == ["9"]
    assert page.named("body")[0]["data-wide"] == "false"


def test_visible_spells_out_what_would_be_hidden_and_keeps_the_rest() -> None:
    assert visible("a\U0001d173b\t\n") == "a<U+1D173>b\t\n"
    assert visible("a\x00b\u200bc\u2066d\ud800") == "a<U+0000>b<U+200B>c<U+2066>d<U+D800>"
    assert visible("\U000e0041\u3164\u2800") == "<U+E0041><U+3164><U+2800>"
    assert visible("Zoë\n\t×½ 数 🙂") == "Zoë\n\t×½ 数 🙂"
