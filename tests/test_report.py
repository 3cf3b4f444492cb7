"""The report and the figures of a synthetic run folder, written by an attacker where one could write."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pyarrow.parquet
import pytest

from hailproof.errors import RunError
from hailproof.experiments.figures import (
    Line,
    Panel,
    draw_comparison,
    draw_run,
    draw_seeds,
    lonely,
    panels_of,
    read_rounds,
    spread_labels,
)
from hailproof.experiments.report import segments, ticks, visible, write_report
from hailproof.experiments.store import SCHEMA

HOSTILE = "<script>alert(1)</script><img src='http://evil.example/x' onerror=alert(1)>\"'&\u202etxt"
PNG = b"\x89PNG\r\n\x1a\n"


def line(number: int, attack_success: float | None = 0.25, defended: bool = True, **changes: Any) -> dict[str, Any]:
    honest = {"accept": 90, "reject": 6, "abstain": 3, "error": 1}
    malicious = {"accept": 2, "reject": 17, "abstain": 0, "error": 1}
    return {
        "round": number,
        "reward": 0.5,
        "attack_success": attack_success,
        "eligible": 10,
        "completion_tokens": 50.0,
        "finished": 1.0,
        "malicious_reward": None,
        "screened": {"honest": 100, "malicious": 20} if defended else {"honest": 0, "malicious": 0},
        "honest_acceptance": 0.93 if defended else None,
        "malicious_acceptance": 0.1 if defended else None,
        "defenses": {"logit": {"honest": honest, "malicious": malicious}} if defended else {},
        "update": {"loss": 0.0, "grad_norm": 1.0, "kl": None, "trained": 3, "passes": 3},
        "models": {"nano": {"reward": 0.5, "attack_success": attack_success, "eligible": 10, "completion_tokens": 50}},
        "seconds": {"sample": 3.0, "update": 1.0},
        **changes,
    }


def verdict(decision: str = "reject", spans: tuple[tuple[int, int], ...] = (), **changes: Any) -> dict[str, Any]:
    marks = [{"start": start, "end": end, "note": "rank 1,204"} for start, end in spans]
    fixed = {"defense": "logit", "reason": "low rank", "score": 3.0, "error": False}
    return {**fixed, "decision": decision, "spans": marks, **changes}


def row(number: int, text: str, malicious: bool = False, **changes: Any) -> dict[str, Any]:
    return {
        "round": number,
        "view": 0,
        "sender": 3 if malicious else 0,
        "malicious": malicious,
        "problem_id": "wp-1",
        "question": "How many?",
        "slot": 0,
        "text": text,
        "tokens": 9,
        "token_ids": [1, 2],
        "finished": True,
        "raw_reward": 1.0,
        "reward": 1.0,
        "admitted": True,
        "success": malicious,
        "verdicts": [],
        **changes,
    }


def run(
    folder: Path,
    lines: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    summary: dict[str, Any] | None = None,
    config: str = "rounds = 3\n",
) -> Path:
    folder.mkdir(parents=True)
    (folder / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    (folder / "config.toml").write_text(config)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), folder / "completions.parquet")
    return folder


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text in them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.texts.setdefault(tag, []).append(data)

    def named(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag and css in (attrs.get("class") or "")]

    def text(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))


def page_of(folder: Path) -> Page:
    # The picture takes most of the time, and has tests of its own.
    with patch("hailproof.experiments.report.draw_run"):
        return Page(write_report(folder).read_text(encoding="utf-8"))


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path) -> None:
    hostile = verdict(reason=HOSTILE, spans=((0, 8),), defense=HOSTILE)
    hostile["spans"][0]["note"] = HOSTILE
    defended = line(1, models={HOSTILE: {"reward": 0.1}, "other": {"reward": 0.2}}, seconds={HOSTILE: 1.0})
    defended["defenses"] = {HOSTILE: defended["defenses"]["logit"]}
    rows = [row(1, HOSTILE, malicious=True, question=HOSTILE, problem_id=HOSTILE, verdicts=[hostile])]
    summary = {"name": HOSTILE, "held_out": {HOSTILE: 0.5}}
    page = page_of(run(tmp_path / "run", [defended], rows, summary, f"# {HOSTILE}"))
    assert len(page.named("script")) == 1
    assert "alert" not in page.text("script")
    assert not page.named("img")
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    assert HOSTILE[:-4] + "<U+202E>txt" in page.text("article")
    assert "\u202e" not in page.text("html")


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    page = page_of(run(tmp_path / "run", [line(1), line(2)], [row(1, "see http://evil.example")]))
    assert not [attrs for _, attrs in page.elements for name in attrs if name in {"src", "href", "srcset", "action"}]
    assert not re.search(r"url\(|@import|https?:", page.text("style") + page.text("script"))
    (policy,) = [attrs["content"] for attrs in page.named("meta") if attrs.get("http-equiv")]
    assert policy is not None and "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "http://evil.example" in page.text("article")


def test_undefined_rounds_are_gaps_and_lone_values_are_dots(tmp_path: Path) -> None:
    values = [0.0, 0.1, None, 0.3, None, 0.5, 0.6]
    lines = [line(index + 1, value, defended=False) for index, value in enumerate(values)]
    page = page_of(run(tmp_path / "run", lines, []))
    curve = page.named("path", "curve")[0]["d"] or ""
    assert curve.count("M") == 3 and curve.count("L") == 2
    assert len(page.named("circle")) == 1
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
    cells = page_of(run(tmp_path / "run", [line(1), line(2)], [])).texts["td"]
    cells = [cell for cell in cells if cell.strip()]
    assert cells[:7] == ["logit", "honest", "180", "12", "6", "2", "93.0 %"]
    assert cells[7:14] == ["logit", "malicious", "4", "34", "0", "2", "10.0 %"]
    assert cells[14:] == ["sample", "3.00", "6.0", "75.0 %", "update", "1.00", "2.0", "25.0 %"]


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


def test_rejected_spans_are_marked(tmp_path: Path) -> None:
    verdicts = [verdict(spans=((0, 11),)), verdict("accept", spans=((12, 14),), defense="equations")]
    page = page_of(run(tmp_path / "run", [line(1)], [row(1, "All hail to the thief", True, verdicts=verdicts)]))
    # The explanation above the samples shows each kind of mark once.
    assert page.texts["mark"][2:] == ["All hail to", "th"]
    assert [attrs["class"] for attrs in page.named("mark")][2:] == ["reject", "note"]
    assert page.named("mark")[2]["title"] == "logit: rank 1,204"


def test_samples_come_from_first_middle_and_last_rounds_as_one_receiver_judged(tmp_path: Path) -> None:
    rows = [row(number, f"honest {number}", view=view) for number in range(1, 102) for view in (2, 1)]
    page = page_of(run(tmp_path / "run", [line(number) for number in range(1, 102)], rows))
    shown = [attrs["data-title"] for attrs in page.named("section", "round")]
    assert len(shown) == 9
    assert {"round 1", "round 51", "round 101"} <= set(shown)
    assert len(page.named("article")) == 9
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


def test_the_worst_texts_of_a_hundred_rounds_stay_under_a_megabyte(tmp_path: Path) -> None:
    spans = tuple((index, index + 1) for index in range(0, 400, 2))
    rows = [
        row(number, f"{number}-{index}" + "'<" * 2500, malicious, verdicts=[verdict(spans=spans)])
        for number in range(1, 101)
        for malicious in (False, True)
        for index in range(4)
    ]
    folder = run(tmp_path / "run", [line(number) for number in range(1, 101)], rows)
    page = page_of(folder)
    assert len(page.named("article")) == 9 * 6
    assert len(page.named("mark")) == 2 + 9 * 6 * 40
    assert "letters …" in page.text("pre")
    assert (folder / "report.html").stat().st_size < 1_000_000


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


def test_damage_and_absence_are_one_sentence(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(1)], [])
    path = folder / "rounds.jsonl"
    path.write_text("{\n" + path.read_text())
    with pytest.raises(RunError, match=r"Line 1 of .* is damaged"):
        read_rounds(folder)
    with pytest.raises(RunError, match="is not a run folder"):
        write_report(tmp_path)


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


def test_segments_join_to_the_text_and_rejections_win() -> None:
    verdicts = [
        verdict("accept", ((0, 4), (9, 99)), defense="credit"),
        verdict(spans=((2, 6), (5, 5), (-3, -1), (40, 50))),
    ]
    parts = segments("abcdefghijkl", verdicts, 1, 11)
    assert [(part.text, part.tone) for part in parts] == [
        ("b", "note"),
        ("cd", "reject"),
        ("ef", "reject"),
        ("ghi", ""),
        ("jk", "note"),
    ]
    assert parts[1].note == "credit: rank 1,204; logit: rank 1,204"
    assert segments("", verdicts, 0, 0) == []


def test_visible_spells_out_what_would_be_hidden_and_keeps_the_rest() -> None:
    assert visible("a\x00b\u200bc\u2066d\ud800") == "a<U+0000>b<U+200B>c<U+2066>d<U+D800>"
    assert visible("Zoë\n\t×½ 数 🙂") == "Zoë\n\t×½ 数 🙂"
