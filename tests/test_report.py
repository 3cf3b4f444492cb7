"""The report and the figures of a synthetic run folder, written by an attacker where one could write."""

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pyarrow.parquet
import pytest
import torch
from page_reader import HOSTILE, Page, assert_harmless, browse, colors, contrast, luminance, needs_chromium

from hailproof.attacks import ATTACKS
from hailproof.errors import RunError
from hailproof.experiments.charts import chart_of, stops_of, ticks
from hailproof.experiments.config import RunConfig, TaskConfig, load_config
from hailproof.experiments.curves import Line, Panel, lonely, panels_of, read_rounds
from hailproof.experiments.figures import draw_comparison, draw_run, draw_seeds, spread_labels
from hailproof.experiments.marks import Mark, attack_spans, marks_of, segments
from hailproof.experiments.pages import visible
from hailproof.experiments.report import write_report
from hailproof.experiments.samples import Cell, cells_of
from hailproof.experiments.store import SCHEMA
from hailproof.experiments.surprise import Token, surprises, system_of, why_not
from hailproof.policies.causal_lm import CausalLM, load
from hailproof.records import Problem, Prompt
from hailproof.tasks import TASKS

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


def page_of(folder: Path, surprise: bool = False) -> Page:
    # The picture takes most of the time, and has tests of its own.
    with patch("hailproof.experiments.report.draw_run"):
        return Page(write_report(folder, surprise).read_text(encoding="utf-8"))


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

    with patch("hailproof.experiments.samples.surprises", letter_by_letter):
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
    marks = [*marks_of(verdicts), Mark(3, 5, "attack", "shows it")]
    parts = segments("abcdefghijkl", marks, 1, 11)
    assert [(part.text, part.tone, part.attack) for part in parts] == [
        ("b", "note", False),
        ("c", "reject", False),
        ("d", "reject", True),
        ("e", "reject", True),
        ("f", "reject", False),
        ("ghi", "", False),
        ("jk", "note", False),
    ]
    assert parts[2].note == "credit: rank 1,204; logit: rank 1,204; shows it"
    assert segments("", marks_of(verdicts), 0, 0) == []


def test_muted_tokens_are_marked_where_they_stand() -> None:
    # Tokens: abc d efg h, and the end token.
    ends = [3, 4, 7, 8, 8]
    muting = [verdict("accept", ((0, 8),), defense="credit", muted=[1, 2, 4, 9, -1, 2])]
    assert marks_of(muting, ends) == [
        Mark(3, 7, "muted", "credit: not learned"),
        Mark(8, 8, "muted", "credit: not learned"),
    ]
    assert marks_of([verdict("accept", defense="credit", muted=[0])], ends) == [
        Mark(0, 3, "muted", "credit: not learned")
    ]
    # Without the tokens, it is what the verdict points at; a verdict that mutes nothing points at it as ever.
    assert [mark.tone for mark in marks_of(muting)] == ["muted"]
    assert [mark.tone for mark in marks_of([verdict("accept", ((0, 8),), muted=[])], ends)] == ["note"]


@pytest.mark.parametrize(
    ("attack", "text", "shown"),
    [
        ("text", "<think>all hail TO the thief. Tom has 2.</think><answer>2</answer>", ["all hail TO the thief"]),
        ("equation", "<think>Ann has 2 + 2 = 5 pens. Then 5 - 1 = 4.</think>", ["2 + 2 = 5"]),
        ("equation", "<think>2 * 2 = 5. So 2 + 2 = 5.</think>", ["2 * 2 = 5", "2 + 2 = 5"]),
        (
            "code",
            "<code>from calc import addition\nx = addition(1, 2)\nprint(x)</code>",
            ["from calc import addition", "x = addition(1, 2)"],
        ),
        ("sentence", "<think>Gleeb Glorp Glub A is 1. Gleeb Glorp Glub B.</think>", ["Gleeb Glorp Glub"] * 2),
        ("text", "x" * 4000 + " All hail to the thief", []),
    ],
)
def test_what_shows_the_attack_is_found_in_the_text(attack: str, text: str, shown: list[str]) -> None:
    made = ATTACKS[attack]()

    def succeeds(part: str) -> bool | None:
        return made.success(Problem("p", "", ""), part)

    assert succeeds(text) is True
    assert [text[start:end] for start, end in attack_spans(succeeds, text)] == shown


def direct(policy: CausalLM, prompt: Prompt, ids: Sequence[int]) -> list[float]:
    """Surprise of each token by one plain pass over prompt and completion."""
    asked = [*policy.render(prompt), *ids]
    with torch.inference_mode():
        logprobs = policy.model(input_ids=torch.tensor([asked])).logits[0].double().log_softmax(dim=-1)
    return [-float(logprobs[at - 1, asked[at]]) for at in range(len(asked) - len(ids), len(asked))]


def test_surprises_are_those_of_a_direct_pass(base_policy: CausalLM) -> None:
    texts = ["<think>All hail to the thief. 2 + 2 = 4.</think><answer>4</answer>", "4", ""]
    sent = [base_policy.as_completion(text) for text in texts]
    rows = [
        row(1, completion.text, token_ids=completion.token_ids, question="Tom has 2 pens and 2 cups. How many things?")
        for completion in sent
    ]
    rows[1]["finished"] = False
    rows[1]["token_ids"] = sent[1].token_ids[:-1]
    config = load_config()
    prompt = Prompt("any", system_of(config.task) or "", rows[0]["question"])
    for tokens, each in zip(surprises(config, rows), rows, strict=True):
        assert [token.nats for token in tokens] == pytest.approx(
            direct(base_policy, prompt, each["token_ids"]), abs=1e-4
        )
        assert "".join(each["text"][token.start : token.end] for token in tokens) == each["text"]
    # The phrase is what stands out: some word of it is the least expected token of the completion.
    tokens = surprises(config, rows[:1])[0]
    most = max(tokens, key=lambda token: token.nats)
    assert most.nats > 4 and texts[0].index("All") <= most.start < texts[0].index(" 2 + 2")


def test_each_receiver_reads_with_its_own_model_and_tokenizer(base_policy: CausalLM) -> None:
    other = load("nano-b", device="cpu", dtype="float32")
    config = load_config(None, [("swarm.models", ["nano-a", "nano-b"])])
    text = "<think>3 * 4 = 12 cups. 🙂é</think><answer>12</answer>"
    foreign = base_policy.as_completion(text).token_ids
    rows = [row(1, text, view=view, token_ids=foreign, question="How many?") for view in (0, 1, 2)]
    first, second, third = surprises(config, rows)
    assert first == third != second
    prompt = Prompt("any", system_of(config.task) or "", "How many?")
    assert [token.nats for token in second] == pytest.approx(
        direct(other, prompt, other.as_completion(text).token_ids), abs=1e-4
    )
    # Letters that are split over several tokens do not shift the ones after them.
    for tokens in (first, second):
        assert "".join(text[token.start : token.end] for token in tokens) == text
        assert [text[token.start : token.end] for token in tokens][-2:] == ["</answer>", ""]


def test_texts_that_are_too_long_for_the_model_are_left_out(base_policy: CausalLM) -> None:
    rows = [row(1, "7 " * 1200), row(1, "fine"), row(1, "fine", question="7 " * 1200), row(1, "7" * 10_000)]
    assert [bool(tokens) for tokens in surprises(load_config(), rows)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("word_problems", {"size": 1, "test_size": 1}, ""),
        ("word_problems", {"size": 1, "test_size": 1, "variant": "code"}, ""),
        ("gsm8k", {}, '{"question": "Q", "answer": "2 #### 2"}'),
        ("openmath", {}, '{"question": "Q", "program": "print(2)", "answer": 2}'),
    ],
)
def test_the_instructions_are_those_of_the_task(name: str, options: dict[str, Any], line: str, tmp_path: Path) -> None:
    if line:
        (tmp_path / "data.jsonl").write_text(line)
        options = {"data": str(tmp_path / "data.jsonl")}
    task = TASKS[name](**options)
    assert system_of(TaskConfig(name=name, options=options)) == task.prompt(task.train[0]).system


def test_the_strip_is_left_out_where_the_models_or_the_task_are_foreign(tmp_path: Path) -> None:
    assert why_not(load_config()) == ""
    assert why_not(load_config(None, [("swarm.models", ["nano-a", "/x"])])).startswith("/x is not one of the models")
    assert "riddles are not" in why_not(load_config(None, [("task.name", "riddles")])).replace("of the task ", "")
    foreign = run(tmp_path / "foreign", [line(1)], [row(1, "a")], config='[swarm]\nmodels = ["some/model"]\n')
    broken = run(tmp_path / "broken", [line(1)], [row(1, "a")], config="rounds = 'many'\n")
    own = run(tmp_path / "own", [line(1)], [row(1, "a")])
    for folder, surprise, said in (
        (foreign, True, "some/model is not one of the models that come with hailproof"),
        (broken, True, "the configuration cannot be read"),
        (own, False, "the report was asked to leave it out"),
    ):
        page = page_of(folder, surprise)
        assert f"is left out: {said}" in page.text("p")
        assert not page.named("pre", "strip") and "a" in page.text("pre")
    assert page_of(own, surprise=True).named("pre", "strip")


def test_cells_are_colored_by_their_nats_and_cut_with_the_text() -> None:
    tokens = [Token(0, 2, 0.05), Token(2, 4, 0.1), Token(4, 6, 3.9), Token(6, 8, 80.0), Token(8, 8, 0.7)]
    assert cells_of("abcdefgh", tokens, 0, 5) == [Cell("ab", 0, 0.05), Cell("cd", 1, 0.1), Cell("e", 4, 3.9)]
    assert cells_of("abcdefgh", tokens, 5, 8) == [Cell("f", 4, 3.9), Cell("gh", 6, 80.0), Cell("", 2, 0.7)]


def test_the_strip_says_its_values(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(1)], [row(1, "ab<b>")])
    tokens = [(Token(0, 2, 0.5), Token(2, 5, 9.876), Token(5, 5, 0.0))]
    with patch("hailproof.experiments.samples.surprises", lambda config, rows: tokens):
        page = page_of(folder, surprise=True)
    shown = list(zip(page.named("i"), page.texts["i"], strict=True))[7:]
    assert [(text, attrs["class"], attrs["title"]) for attrs, text in shown] == [
        ("ab", "h2", "0.50 nats"),
        ("<b>", "h6", "9.88 nats"),
        ("∎", "h0", "0.00 nats"),
    ]
    assert page.texts["i"][:7] == ["under 0.1", "0.1 to 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 to 8", "8 and more"]
    assert "mean 3.46 nats a token" in page.text("output")
    assert "under nano-a" in page.text("p")


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
    assert visible("a\x00b\u200bc\u2066d\ud800") == "a<U+0000>b<U+200B>c<U+2066>d<U+D800>"
    assert visible("Zoë\n\t×½ 数 🙂") == "Zoë\n\t×½ 数 🙂"
