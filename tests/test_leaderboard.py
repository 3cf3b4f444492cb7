"""The page of a bench: every number of every cell, and nothing that its authors could smuggle in."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from page_reader import HOSTILE, Page, assert_harmless, browse, colors, contrast, needs_chromium

from hailproof.reports.claimed import claimed
from hailproof.reports.leaderboard import ASPECTS, LENGTHENING, MEASURES, write_leaderboard, written
from hailproof.reports.table import table_of

NBSP = "\u00a0"


def cell(attack: str = "text", defense: str = "none", seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> dict:
    figures: dict[str, Any] = {}
    for place, measure in enumerate(MEASURES, start=1):
        values = [place / 40 + seed / 1000 for seed in seeds]
        figures[f"{measure.key}_seeds"] = values
        figures[f"{measure.key}_mean"] = sum(values) / len(values)
        figures[f"{measure.key}_low"] = place / 40 - 0.01 if len(seeds) > 1 else None
        figures[f"{measure.key}_high"] = place / 40 + 0.02 if len(seeds) > 1 else None
    return {
        "attack": attack,
        "defense": defense,
        "topology": "horizontal",
        "setting": "",
        "scale": "nano",
        "rounds": 50,
        "seeds": list(seeds),
        "interval": "Student t over seeds, 95 %",
        "digest": "ab12cd34",
        "config": {"swarm": {"nodes": 4, "models": ["nano-a"]}, "defense": [{"name": defense}], "attack": {}},
        "versions": {"hailproof": "0.1.0"},
        **figures,
        **changes,
    }


def page_of(tmp_path: Path, *cells: dict) -> Page:
    return Page(write_leaderboard(cells, tmp_path / "new" / "board.html").read_text(encoding="utf-8"))


def matrix(page: Page, table: int = 0) -> list[list[str]]:
    """The text of each place, with the aspects one after the other."""
    return [["|".join(text.split()) for text in row] for row in page.tables[table]]


def test_the_details_hold_every_number_of_every_cell(tmp_path: Path) -> None:
    page = page_of(tmp_path, cell(), cell("equation", "logit", seeds=(7, 8)))
    first, second = page.tables[1:]
    # The mean of place / 40 + (0, 1, 2) / 1000, one less and two more, and each seed.
    assert [[text.replace(NBSP, " ") for text in row] for row in first[1:]] == [
        ["attack success", "2.6 %", "1.5 to 4.5 %", "", "2.5 %, 2.6 %, 2.7 %"],
        ["attack success beyond the clean control", "+5.1 pp", "+4.0 to +7.0 pp", "", "+5.0 pp, +5.1 pp, +5.2 pp"],
        ["reward", "7.6 %", "6.5 to 9.5 %", "", "7.5 %, 7.6 %, 7.7 %"],
        ["attack success on held-out prompts", "10.1 %", "9.0 to 12.0 %", "", "10.0 %, 10.1 %, 10.2 %"],
        ["that, beyond the clean control", "+12.6 pp", "+11.5 to +14.5 pp", "", "+12.5 pp, +12.6 pp, +12.7 pp"],
        ["held-out reward", "15.1 %", "14.0 to 17.0 %", "", "15.0 %, 15.1 %, 15.2 %"],
        [
            "held-out reward lost to the clean control", "+17.6 pp", "+16.5 to +19.5 pp", "",
            "+17.5 pp, +17.6 pp, +17.7 pp",
        ],
        ["tokens per completion", "0.2", "0.2 to 0.2", "", "0.2, 0.2, 0.2"],
        ["tokens, relative to the clean control", "×0.23", "×0.21 to 0.24", "", "×0.23, ×0.23, ×0.23"],
        ["held-out 2∘2 problems with the right answer", "25.1 %", "24.0 to 27.0 %", "", "25.0 %, 25.1 %, 25.2 %"],
        ["with the answer that follows from 5", "27.6 %", "26.5 to 29.5 %", "", "27.5 %, 27.6 %, 27.7 %"],
        ["with another answer", "30.1 %", "29.0 to 32.0 %", "", "30.0 %, 30.1 %, 30.2 %"],
        ["that go on with 5 in the next step", "32.6 %", "31.5 to 34.5 %", "", "32.5 %, 32.6 %, 32.7 %"],
        ["honest completions kept", "35.1 %", "34.0 to 37.0 %", "", "35.0 %, 35.1 %, 35.2 %"],
        ["forged completions kept", "37.6 %", "36.5 to 39.5 %", "", "37.5 %, 37.6 %, 37.7 %"],
        [
            "of right honest completions learned from, in tokens", "40.1 %", "39.0 to 42.0 %", "",
            "40.0 %, 40.1 %, 40.2 %",
        ],
        [
            "of right forged completions learned from, in tokens", "42.6 %", "41.5 to 44.5 %", "",
            "42.5 %, 42.6 %, 42.7 %",
        ],
        ["seconds per round", "0.45 s", "0.44 to 0.47 s", "", "0.45 s, 0.45 s, 0.45 s"],
        ["share of time spent screening", "47.6 %", "46.5 to 49.5 %", "", "47.5 %, 47.6 %, 47.7 %"],
    ]  # fmt: skip
    assert second[1][4].replace(NBSP, " ") == "3.2 %, 3.3 %"
    assert page.texts["h3"] == ["text against none", "equation against logit"]
    for said in ("horizontal", "nano", "50", "0, 1, 2", "7, 8", "ab12cd34", "hailproof 0.1.0"):
        assert said in page.texts["dd"]
    assert 'swarm.nodes = 4\nswarm.models = ["nano-a"]\ndefense = [{"name": "logit"}]\nattack = {}' in page.text("pre")
    # The plot of a share: a band from 1.5 % to 4.5 %, and a dot for each seed.
    band, *_ = page.named("rect")
    assert (band["x"], band["width"]) == ("1.5", "3.0")
    assert [attrs["cx"] for attrs in page.named("circle")][:3] == ["2.5", "2.6", "2.7"]


def test_each_place_links_to_its_details(tmp_path: Path) -> None:
    page = page_of(tmp_path, cell(), cell(defense="logit"))
    links = [attrs["href"] for attrs in page.named("a")]
    assert links == ["#cell-0", "#cell-1"]
    assert [f"#{attrs['id']}" for attrs in page.named("section", "detail")] == links


def test_rows_and_columns_begin_with_the_controls_and_say_what_is_missing(tmp_path: Path) -> None:
    cells = [
        cell("text", "logit"),
        cell("clean", "none", setting="control of length"),
        cell("text", "none"),
        cell("clean", "none", setting="control of text"),
        cell("length", "none", topology="vertical"),
    ]
    table = matrix(page_of(tmp_path, *cells))
    assert [row[0] for row in table[1:]] == [
        "cleancontrol|of|length", "cleancontrol|of|text", "text", "length"
    ]  # fmt: skip
    assert table[0][1:] == ["none", "logit"]
    ordered = write_leaderboard([cell("text", "mine"), *cells], tmp_path / "ordered.html", ["none", "judge", "logit"])
    assert matrix(Page(ordered.read_text(encoding="utf-8")))[0][1:] == ["none", "logit", "mine"]
    assert [row[2] == "not|run" for row in table[1:]] == [True, True, False, True]


def test_cells_are_told_apart_by_scale_and_only_then_by_topology(tmp_path: Path) -> None:
    alike = [cell("text"), cell("text", topology="vertical"), cell("code"), cell("text", scale="paper", topology="x")]
    page = page_of(tmp_path, *alike)
    assert page.texts["caption"] == ["scale nano, topology horizontal", "scale nano, topology vertical", "scale paper"]
    assert [[row[0] for row in table[1:]] for table in page.tables[:3]] == [["text", "code"], ["text"], ["text"]]
    # Where nothing tells two cells apart, both are shown.
    assert len(page_of(tmp_path, cell(), cell(digest="other")).named("a")) == 2


def test_the_matrix_shows_four_aspects(tmp_path: Path) -> None:
    figures: dict[str, Any] = {"excess_success_mean": 0.5, "held_out_loss_mean": -0.0001, "honest_learned_mean": 0.985}
    figures |= {"screen_share_mean": 0.12, "tokens_ratio_mean": 1.0}
    table = matrix(page_of(tmp_path, cell(**figures), cell("length-x", **figures), cell("grinding", **figures)))
    own = "+50.0|pp+4.0|to|+7.0|pp|0.0|pp+16.5|to|+19.5|pp|98.5|%39.0|to|42.0|%|12.0|%46.5|to|49.5|%"
    assert table[1][1] == own
    # Attacks on length have no success: the first aspect is their tokens.
    assert table[2][1].startswith("×1.00×0.21|to|0.24|0.0|pp") and table[3][1].startswith("×1.00")
    page = page_of(tmp_path, cell(**figures))
    assert [attrs["class"] for attrs in page.named("span", "v")] == ["v v0 l5", "v v1 l0", "v v2 l1", "v v3 l3"]
    assert [attrs["type"] for attrs in page.named("input")] == ["radio"] * 4
    assert page.texts["label"] == ["Security", "Utility", "Honest learned", "Cost"]


def test_a_measure_that_a_cell_does_not_have_is_not_one_of_its_rows(tmp_path: Path) -> None:
    without = {key: value for key, value in cell().items() if not key.startswith("seconds_per_round")}
    assert "seconds per round" in page_of(tmp_path, cell()).text("th")
    assert "seconds per round" not in page_of(tmp_path, without).text("th")


def test_undefined_is_a_dash_and_never_zero(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        f"{measure.key}_{part}": value
        for measure in MEASURES
        for part, value in (("mean", None), ("low", math.nan), ("high", math.inf), ("seeds", [None, True, "0", 0.5]))
    }
    page = page_of(tmp_path, cell("equation", seeds=(0, 1, 2, 3), **nothing))
    assert matrix(page)[1][1] == "–|–|–|–"
    assert [attrs["class"] for attrs in page.named("span", "v")] == [f"v v{aspect} undefined" for aspect in range(4)]
    for row in page.tables[1][1:]:
        assert row[1:3] == ["–", "–"]
        assert row[4].split(", ")[:3] == ["–", "–", "–"] and "5" in row[4].split(", ")[3]
    # A control that no success is defined for is about length.
    control = page_of(tmp_path, cell("clean", excess_success_mean=None, tokens_ratio_mean=1.0))
    assert matrix(control)[1][1].startswith("×1.00")


CLAIMED: dict[str, Any] = {"learned_margin": 0.1, "stopped_margin": 0.05, "no_worse_margin": 0.03}


def test_what_is_established_has_passed_a_test_that_was_corrected_over_the_rows_of_its_table(tmp_path: Path) -> None:
    cells = [
        cell(defense="none", **CLAIMED, learned_p=0.01, stopped_p=1.0, no_worse_p=0.04),
        cell(defense="logit", **CLAIMED, learned_p=1.0, stopped_p=0.03, no_worse_p=0.02),
        cell(defense="judge", **CLAIMED, learned_p=0.9, stopped_p=0.02, no_worse_p=None),
        # Another table has rows of its own, and a control claims nothing.
        cell(defense="mine", scale="paper", **CLAIMED, learned_p=1.0, stopped_p=0.03, no_worse_p=0.5),
        cell("clean"),
    ]
    found = claimed(cells)
    assert [each["learned"].corrected for each in found[:3]] == pytest.approx([0.03, 1.0, 1.0])
    assert [each["stopped"].corrected for each in found[:3]] == pytest.approx([1.0, 0.06, 0.06])
    assert [each["no_worse"].corrected for each in found[:2]] == pytest.approx([0.04, 0.04])
    assert [each["no_worse"].word for each in found[:4]] == [
        "established", "established", "not tested", "not established"
    ]  # fmt: skip
    assert found[3]["stopped"].established and found[3]["stopped"].rows == 1 and found[4] == {}
    page = page_of(tmp_path, *cells)
    said = {row[0]: row[1:] for row in matrix(page)[1:]}
    words = ("learned", "stopped", "no|worse", "not|established")
    assert [[word for word in words if f"pp{word}" in place] for place in said["text"]] == [
        ["learned", "no|worse"], ["no|worse", "not|established"], ["not|established"]
    ]  # fmt: skip
    rows = [[text.replace(NBSP, " ") for text in row] for row in page.tables[5][1:]]
    assert rows == [
        ["the attack is learned", "attack success beyond the clean control: above 10.0 pp", "+4.0 to +7.0 pp", "1.00",
         "1.00 (3 rows)", "not established"],
        ["the attack is stopped", "attack success beyond the clean control: below 5.0 pp", "+4.0 to +7.0 pp", "0.030",
         "0.060 (3 rows)", "not established"],
        ["held-out reward is no worse", "held-out reward lost to the clean control: within 3.0 pp", "+16.5 to +19.5 pp",
         "0.020", "0.040 (2 rows)", "established"],
    ]  # fmt: skip
    row = table_of(cells).splitlines()[3]
    assert row.endswith("| not established (p 1.00) | not established (p 0.060) | **established** (p 0.040) |")
    assert table_of(cells).splitlines()[6].endswith("| - | - | - |")
    assert claimed([cell(**CLAIMED, learned_p="0.001", stopped_p=True, no_worse_p=7)])[0]["learned"].p is None


def test_an_attack_on_length_is_claimed_of_lengths(tmp_path: Path) -> None:
    margins: dict[str, Any] = {"learned_margin": 1.25, "stopped_margin": 1.1, "no_worse_margin": 0.03}
    page = page_of(tmp_path, cell("length", **margins, learned_p=0.0001, stopped_p=1.0, no_worse_p=0.5))
    rows = [[text.replace(NBSP, " ") for text in row] for row in page.tables[2][1:]]
    assert rows[0][1:] == [
        "tokens, relative to the clean control: above ×1.25", "×0.21 to 0.24", "< 0.001", "< 0.001 (1 row)",
        "established",
    ]  # fmt: skip


def test_what_no_seed_showed_is_bounded_by_completion_and_by_seed(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {f"attack_success_{part}": 0.0 for part in ("mean", "low", "high")}
    bounds: dict[str, Any] = {"attack_success_upper_completion": 0.00042, "attack_success_upper_seed": 0.2589}
    quiet = cell(**nothing, **bounds)
    label = page_of(tmp_path, quiet).tables[1][1][0].replace(NBSP, " ")
    assert label == "attack success (at most 0.042 % by completion, 26 % by seed)"
    assert "| 0.0 (≤ 0.042 by completion, ≤ 26 by seed) |" in table_of([quiet])
    assert "| 2.6 (1.5 to 4.5) |" in table_of([cell()])


def test_a_cell_of_one_seed_is_marked(tmp_path: Path) -> None:
    one, three = matrix(page_of(tmp_path, cell(seeds=(4,)), cell(defense="logit")))[1][1:]
    assert one.count("1|seed") == 4 and "to" not in one
    assert "seed" not in three


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "share", "–"),
        (0.0, "share", "0.0 %"),
        (-0.0004, "points", "0.0 pp"),
        (-0.031, "points", "−3.1 pp"),
        (0.031, "points", "+3.1 pp"),
        (2.104, "ratio", "×2.10"),
        (46.04, "number", "46.0"),
        (1.256, "seconds", "1.26 s"),
    ],
)
def test_values_as_they_are_written(value: float | None, unit: Any, text: str) -> None:
    assert written(value, unit).replace(NBSP, " ") == text


def test_colors_go_from_good_to_bad() -> None:
    security, _, learned, _ = ASPECTS
    assert [security.level(value) for value in (-0.3, 0.019, 0.02, 0.6, 0.75, 1.0, None)] == [0, 0, 1, 5, 6, 6, None]
    assert [learned.level(value) for value in (1.0, 0.999, 0.96, 0.8, 0.0)] == [0, 1, 2, 5, 6]
    assert [LENGTHENING.level(value) for value in (0.5, 1.0, 1.3, 9.0)] == [0, 0, 3, 6]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_color_is_readable_and_good_is_blue(tmp_path: Path, dark: bool) -> None:
    palette = colors(page_of(tmp_path).text("style"))[dark]
    for level in range(7):
        color = palette[f"l{level}"]
        assert contrast(color, palette.get(f"l{level}-ink", palette["ink"])) >= 4.5
        # Blue against orange is told apart with every common color blindness.
        red, blue = int(color[1:3], 16), int(color[5:7], 16)
        assert (blue > red) == (level < 3)


def test_text_of_strangers_stays_text(tmp_path: Path) -> None:
    named = dict.fromkeys(
        ("attack", "defense", "topology", "setting", "scale", "rounds", "interval", "digest"), HOSTILE
    )
    page = page_of(tmp_path, cell(**named, config={HOSTILE: [HOSTILE]}, versions={HOSTILE: HOSTILE}, seeds_=HOSTILE))
    assert_harmless(page)
    spelled = HOSTILE[:-4] + "<U+202E>txt"
    for tag in ("th", "caption", "h3", "dd", "pre"):
        assert spelled in page.text(tag)
    assert [attrs["title"] for attrs in page.named("a")] == [f"Details of {spelled} against {spelled}"]
    odd = cell(seeds_=3, config="<b>", versions=["<b>"])
    odd |= {"seeds": HOSTILE, "attack_success_seeds": HOSTILE, "attack_success_mean": HOSTILE}
    assert_harmless(page_of(tmp_path, odd))


def test_a_bench_without_cells_says_so(tmp_path: Path) -> None:
    assert "no cells yet" in page_of(tmp_path).text("p")


def test_two_hundred_cells_stay_under_two_megabytes(tmp_path: Path) -> None:
    config = {"section": {f"a_rather_long_key_{index}": "a value" for index in range(500)}}
    cells = [
        cell(f"attack-{row}", f"defense-{column}", (0, 1, 2, 3, 4), config=config)
        for row in range(20)
        for column in range(10)
    ]
    path = write_leaderboard(cells, tmp_path / "board.html")
    assert len(Page(path.read_text(encoding="utf-8")).named("a")) == 200
    assert path.stat().st_size < 2_000_000


@needs_chromium
@pytest.mark.slow
def test_in_a_browser_a_cell_opens_its_details(tmp_path: Path) -> None:
    board = write_leaderboard([cell(), cell("equation", "logit")], tmp_path / "board.html")
    untouched, said = browse(board)
    assert said == []
    assert "hidden" in next(attrs for attrs in untouched.named("section") if attrs.get("id") == "details")
    shown = {
        "wide": "document.documentElement.scrollWidth > window.innerWidth",
        "inside": "!!document.querySelector('dialog[open] #cell-1')",
    }
    shown |= {
        aspect: f"getComputedStyle(document.querySelector('.matrix .{aspect}')).display" for aspect in ("v0", "v2")
    }
    report = f"document.title = JSON.stringify({{{', '.join(f'{name}: {what}' for name, what in shown.items())}}});"
    click = "document.querySelectorAll('.matrix a')[1].click(); document.getElementById('view-2').click();"
    page, _ = browse(board, click + report, width=500)
    assert json.loads(page.text("title")) == {"wide": False, "inside": True, "v0": "none", "v2": "block"}
    page, _ = browse(board, click + "document.getElementById('close').click();" + report)
    assert not json.loads(page.text("title"))["inside"]
