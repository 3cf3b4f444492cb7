"""Trackers, the live view, and the answer whether a node learns; trackers are the real packages, read back."""

import io
import json
import logging
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from logged import EXPECTED, FIGURES, logged_twice
from rich.console import Console
from scipy import stats

from hailproof import Shield
from hailproof.errors import ConfigError
from hailproof.metrics.intervals import difference_of_counts, difference_of_means
from hailproof.records import Verdict
from hailproof.runs.config import RunConfig
from hailproof.runs.run import resume, start
from hailproof.runs.store import read_rounds
from hailproof.settings import validated
from hailproof.tracking import TRACKERS, open_tracker
from hailproof.tracking.learning import LITTLE, Evaluation, is_learning
from hailproof.tracking.live import ROWS, LiveView, body_of, line_of
from hailproof.tracking.seen import SeenRound, SeenRow
from hailproof.tracking.tally import MOST_KEYS, MOST_NAMES, OTHERS, Tally, safe
from hailproof.tracking.watch import Watch

SMALL: dict[str, Any] = {
    "swarm": {"prompts": 2, "group_size": 4, "device": "cpu"}, "sampling": {"max_new_tokens": 48},
    "task": {"options": {"size": 16, "test_size": 4}}, "evaluation": {"problems": 4, "every": 2},
    "attack": {"name": "text"}, "defense": [{"name": "replay"}],
}  # fmt: skip

BAD = "so 2 + 2 = 5"
GOOD = "so 2 + 2 = 4"


class Kept:
    """A tracker that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.logged.append((step, dict(numbers)))

    def close(self) -> None:
        self.closed += 1


class Broken(Kept):
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        raise OSError("the disk\x1b[2J is full")


def row(sender: str | None = "alice", tokens: int | None = 10, rejected: str = "", reason: str = "why") -> SeenRow:
    verdict = Verdict(rejected, "reject", reason) if rejected else None
    learned = 0.0 if rejected or tokens is None else float(tokens)
    return SeenRow(sender=sender, tokens=tokens, learned=learned, muted=0, left_out=bool(rejected), rejection=verdict)


def shown(renderable: object, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, highlight=False, markup=False, force_terminal=True)
    console.print(renderable)
    return console.export_text()


# -- is my node learning?


def test_welch_s_interval_is_that_of_the_textbook():
    one, other = [0.61, 0.58, 0.66, 0.60, 0.63], [0.44, 0.41, 0.47, 0.40, 0.48]
    found = difference_of_means(one, other)
    parts = [stats.tvar(each) / 5 for each in (one, other)]
    freedom = sum(parts) ** 2 / sum(part**2 / 4 for part in parts)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert found == pytest.approx((fmean(one) - fmean(other) - half, fmean(one) - fmean(other) + half))
    assert difference_of_means([1.0, 1.0], [0.0, 0.0]) is None
    with pytest.raises(ValueError, match="two values on each side"):
        difference_of_means([1.0], [0.0, 0.1])


NOISE = [0.02, -0.03, 0.01, -0.01, 0.01]


@pytest.mark.parametrize(
    ("start", "end", "noise", "word"),
    [
        (0.4, 0.6, NOISE, "yes"),
        (0.6, 0.4, NOISE, "no"),
        (0.5, 0.505, [each / 100 for each in NOISE], "yes"),
        (0.5, 0.5, [each / 10 for each in NOISE], "no"),  # at most a rise of LITTLE
        (0.5, 0.51, NOISE, "not yet"),
        (0.0, 0.0, [0.0] * 5, "no"),
        (0.0, 1.0, [0.0] * 5, "yes"),
        (-4.0, -1.0, NOISE, "yes"),
        (30.0, 30.0, NOISE, "no"),
    ],
)
def test_whether_a_node_learns(start: float, end: float, noise: list[float], word: str):
    values = [start + each for each in noise] + [(start + end) / 2] * 3 + [end + each for each in noise]
    answer = is_learning(dict(enumerate(values, 1)))
    assert answer.word == word, answer
    ends = difference_of_means(values[-5:], values[:5])
    if word == "not yet":
        assert ends and ends[0] <= 0 and ends[1] >= LITTLE


def test_the_answer_says_what_it_rests_on():
    values = [0.42, 0.45, 0.44, 0.43, 0.46, 0.5, 0.61, 0.60, 0.63, 0.62, 0.605]
    low, high = difference_of_means(values[-5:], values[:5]) or (0, 0)
    assert str(is_learning(dict(enumerate(values, 1)))) == (
        "yes: reward 61.3 % in the last 5 rounds against 44.0 % in the first 5 "
        f"(+17.3, 95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )
    assert str(is_learning({1: 0.5})).startswith("not yet: 1 round has a reward;")
    nine = is_learning({round: round / 10 for round in range(1, 10)})
    assert nine.word == "not yet" and "9 rounds have" in nine.evidence


def test_rounds_count_in_their_order_and_not_in_that_of_arrival():
    rising = {round: 0.1 * round for round in range(1, 11)}
    assert is_learning(dict(reversed(rising.items()))).word == "yes"


def test_held_out_problems_are_taken_if_they_were_asked_at_the_start():
    falling = {round: 1 - 0.05 * round for round in range(1, 13)}
    early = {5: Evaluation(0.80, 128), 10: Evaluation(0.99, 128), 40: Evaluation(0.95, 128)}
    answer = is_learning(falling, early)
    low, high = difference_of_counts(0.95, 128, 0.80, 128)
    assert answer.word == "yes" and "95.0 % after round 40 against 80.0 % after round 5" in answer.evidence
    assert f"{100 * low:.1f} to {100 * high:.1f}" in answer.evidence
    assert is_learning(falling, {6: early[5], 40: early[40]}).word == "no"
    assert is_learning(falling, {5: early[5]}).word == "no"
    assert is_learning({}, {5: Evaluation(0.80, 8), 40: Evaluation(0.9, 8)}).word == "not yet"


# -- the tally


def test_figures_of_a_round():
    tally = Tally()
    assert tally.figures() == {}
    rows = (row(), row("bob", rejected="equations"), row("bob", tokens=None), row(None, rejected="mine/own"))
    tally.add(
        SeenRound(
            round=3, rows=rows, reward=0.5, completion_tokens=10.0, held_out=0.25, held_out_problems=8,
            attack_success=float("nan"), excluded=frozenset({"bob"}), defenses=("equations", "replay"),
            defense_seconds=0.5,
        )
    )  # fmt: skip
    assert tally.figures() == {
        "hailproof/reward": 0.5, "hailproof/held_out_reward": 0.25, "hailproof/completion_tokens": 10.0,
        "hailproof/left_out": 0.5, "hailproof/muted_tokens": 0.0, "hailproof/learned_tokens": pytest.approx(1 / 3),
        "hailproof/excluded": 1.0, "hailproof/seconds": 0.5, "hailproof/rejected/equations": 0.25,
        "hailproof/rejected/replay": 0.0, f"hailproof/rejected/{safe('mine/own')}": 0.25,
        "hailproof/kept/alice": 1.0, "hailproof/kept/bob": 0.5,
    }  # fmt: skip


def test_what_is_not_finite_is_no_reward_of_the_start():
    tally = Tally()
    for round in range(1, 12):
        tally.add(SeenRound(round=round, rows=(), reward=float("inf") if round == 1 else 0.05 * round))
    assert "10 rounds" not in str(tally.answer()) and tally.answer().word == "yes"
    assert "hailproof/left_out" not in tally.figures()


def test_exclusion_has_a_beginning_and_an_end():
    tally = Tally()
    for round, out in enumerate([(), ("bob",), ("bob",), (), ("bob", "never-sent")], 1):
        tally.add(SeenRound(round=round, rows=(row("bob"),), excluded=frozenset(out)))
        since = tally.senders["bob"].excluded_since
        assert since == {1: None, 2: 2, 3: 2, 4: None, 5: 5}[round]
    assert tally.senders["never-sent"].excluded_since == 5


def test_ten_thousand_names_have_bounded_keys_rows_and_memory():
    tally = Tally()
    for round in range(1, 11):
        names = [f"sybil-{round}-{number}" for number in range(1000)]
        rows = (*(row(name, rejected="equations") for name in names), row("zoe"))
        tally.add(SeenRound(round=round, rows=rows, notes={"zoe": "own"}))
        kept = {key: value for key, value in tally.figures().items() if key.startswith("hailproof/kept/")}
        assert kept["hailproof/kept/zoe"] == 1.0 and len(kept) <= MOST_KEYS + 1
        if round > 1:
            assert kept == {"hailproof/kept/zoe": 1.0, f"hailproof/kept/{OTHERS}": 0.0}
    assert len(tally.senders) == MOST_NAMES
    some, beyond, rest = tally.shown(ROWS)
    assert len(some) == ROWS and beyond == MOST_NAMES - ROWS and some[0][0] == "zoe"
    assert rest.sent + sum(each.sent for _, each in some) == 10_010
    text = shown(body_of(tally))
    assert text.count("sybil-") == ROWS - 1 and f"over {beyond} others" in text and len(text.splitlines()) < ROWS + 10


HOSTILE = [
    "[red]mallory[/red]", "[/]", "a\x1b[2J\x07\r\nb", "\u202etxt", "\ud800", "", OTHERS, "..", "x" * 10_000, "a/b",
    "a b", "名前" * 50, safe("a b"),
]  # fmt: skip


def test_hostile_names_are_shown_as_text_on_one_line_each():
    tally = Tally()
    tally.add(SeenRound(round=1, rows=tuple(row(name, rejected="x", reason=f"[bold]{name}") for name in HOSTILE[:11])))
    assert all(each.reasons["x"].isprintable() and len(each.reasons["x"]) < 250 for each in tally.senders.values())
    for width in (60, 80, 200):
        text = shown(body_of(tally), width)
        assert "[red]mallor" in text and "\x1b" not in text and "\u202e" not in text and "\x07" not in text
        assert sum("  0.0 %  " in line for line in text.splitlines()) == 11
        assert all(len(line) <= width for line in text.splitlines())
    assert "\n" not in line_of(tally)


def test_hostile_names_become_keys_that_differ():
    keys = [safe(name) for name in HOSTILE]
    assert len({*keys}) == len(HOSTILE)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,32}", key) for key in keys)
    assert safe("alice") == "alice" and OTHERS not in keys


# -- trackers


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on():
    said: list[str] = []
    first, second, broken = Kept(), Kept(), Broken()
    watch = Watch([first, broken, second], complain=said.append)
    for round in (1, 2):
        watch.see(SeenRound(round=round, rows=(row(),)))
    watch.close()
    assert [step for step, _ in first.logged] == [step for step, _ in second.logged] == [1, 2]
    assert len(said) == 1 and said[0].count("\n") == 0 and "\x1b" not in said[0]
    assert said[0].startswith("The tracker Broken failed (OSError: the disk<U+001B>[2J is full); tracking ends")
    assert (first.closed, broken.closed, second.closed) == (1, 1, 1)


def test_an_unknown_tracker_and_a_missing_package_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"Unknown tracker 'tensorbord' \(did you mean 'tensorboard'\?\); choose one"):
        open_tracker("tensorbord", tmp_path)
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError) as caught:
            open_tracker(name, tmp_path)
        sentence = str(caught.value)
        assert f"needs the package {name}" in sentence and f"pip install 'hailproof[{name}]'" in sentence
        assert sentence.count("\n") == 0 and sentence.endswith(".")
    assert not [*tmp_path.iterdir()]


def test_tensorboard_has_every_figure_and_one_value_a_round(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged_twice("tensorboard", tmp_path / "run")
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    assert {*read.Tags()["scalars"]} == {*FIGURES}
    found = read.Scalars("hailproof/reward")
    assert [(event.step, event.value) for event in found] == [*enumerate(EXPECTED, 1)]


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of W&B's file, a log of LevelDB's: blocks of 32 KiB that hold records or parts of them."""
    place, whole = 7, b""  # after the file's own header
    while place < len(data):
        left = -place % 32768
        if 0 < left < 7:  # no room for a part's header
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def written_whole(file: Path, kind: Any) -> list[Any]:
    """The records of a file of W&B, whose own process may write the last ones a little after a run was ended."""
    for _ in range(300):
        records = []
        with suppress(Exception):  # the last record may be cut off still
            records = [kind.FromString(data) for data in leveldb_records(file.read_bytes())]
        if records and records[-1].HasField("exit"):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def test_wandb_is_offline_unless_told_and_writes_figures_alone(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "run"
    logged_twice("wandb", folder)
    parts = sorted((folder / "wandb").glob("offline-run-*"))
    assert len({part.name.rpartition("-")[2] for part in parts}) == 1  # one run of W&B, in two parts
    steps: dict[int, dict[str, float]] = {}
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for record in written_whole(file, wandb_internal_pb2.Record):  # pyright: ignore[reportAttributeAccessIssue]
            if record.history.item:
                items = record.history.item
                found = {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items}
                step = int(found.get("_step", record.history.step.num))
                steps[step] = {key: value for key, value in found.items() if key in FIGURES}
            assert not record.HasField("output_raw") and not record.stats.item
    assert [steps[step]["hailproof/reward"] for step in range(1, 5)] == EXPECTED
    assert {*steps[4]} == {*FIGURES}
    monkeypatch.setenv("WANDB_MODE", "sideways")
    with pytest.raises(ConfigError, match="WANDB_MODE is 'sideways'; set it to one of online, offline"):
        open_tracker("wandb", folder)


TRACKIO = """
import socket, sys
from pathlib import Path
sys.path.insert(0, {tests!r})

asked = []

def refused(*what, **_):
    asked.append(what)
    raise OSError("there is no network")

socket.getaddrinfo = socket.socket.connect = refused
from logged import logged_twice
logged_twice("trackio", Path({folder!r}))
from trackio.sqlite_storage import SQLiteStorage
(run,) = SQLiteStorage.get_runs("hailproof")
assert run.startswith("run-"), run
found = [(each["step"], each["hailproof/reward"]) for each in SQLiteStorage.get_logs("hailproof", run)]
assert not asked, asked
print("FOUND", found)
"""


def test_trackio_logs_to_a_local_database_without_a_network(tmp_path, monkeypatch):
    """In a process of its own, since trackio reads where its database is when it is imported."""
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "database"))
    monkeypatch.setenv("HF_TOKEN", "hf_none")  # with one, it would ask the hub for the user's name
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    script = TRACKIO.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.strip().splitlines()
    assert len(said) == 1, said  # trackio's own words stay out of the console
    found = eval(said[0].removeprefix("FOUND "))
    assert dict(found) == dict(enumerate(EXPECTED, 1))  # a round that is played again has its later value


def test_trackio_does_not_end_a_run_of_the_trainer_s(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import context_vars

    token = context_vars.current_run.set(object())  # pyright: ignore[reportArgumentType]
    try:
        with pytest.raises(ConfigError, match="already logs another run to trackio"):
            open_tracker("trackio", tmp_path).log(1, FIGURES)
    finally:
        context_vars.current_run.reset(token)


# -- the shield


def test_a_shield_tracks_every_batch():
    tracker, shield = Kept(), Shield("equations", brings={"senders"}, own="me")
    shield.track(tracker)
    senders = ["me", "alice", "[red]mallory"]
    shield.screen(completions=[GOOD, GOOD, BAD], senders=senders, rewards=[0.5, 1.0, 1.0])
    result = shield.screen(completions=[GOOD, BAD, BAD], senders=senders)
    assert result.rewards == [1.0, None, None]
    (one, first), (two, second) = tracker.logged
    assert (one, two) == (1, 2)
    assert first["hailproof/reward"] == 0.5 and first["hailproof/left_out"] == pytest.approx(1 / 3)
    assert first["hailproof/kept/me"] == first["hailproof/kept/alice"] == 1.0
    assert first[f"hailproof/kept/{safe('[red]mallory')}"] == 0.0
    assert "hailproof/reward" not in second  # no reward was given, and none is made up
    assert second["hailproof/rejected/equations"] == pytest.approx(2 / 3)
    same = {name: value for name, value in second.items() if name in result.metrics()}
    assert same == pytest.approx(result.metrics()) and len(same) == 3


def test_a_shield_without_names_and_rewards_of_all():
    tracker, shield = Kept(), Shield("equations")
    shield.track(tracker)
    shield.screen(completions=[GOOD, BAD], rewards=[0.0, 1.0])
    ((_, figures),) = tracker.logged
    assert figures["hailproof/reward"] == 0.5 and not any("kept" in name for name in figures)


def test_a_tracker_that_fails_does_not_stop_the_shield(caplog):
    shield = Shield("equations")
    shield.track(Broken())
    with caplog.at_level(logging.WARNING):
        assert [shield.screen(completions=[GOOD]).rewards for _ in range(2)] == [[1.0]] * 2
    assert len(caplog.records) == 1


def test_a_live_view_where_there_is_no_terminal_is_a_line_a_round_and_a_table_at_the_end():
    written = io.StringIO()
    console = Console(file=written, width=100, highlight=False, markup=False)
    shield = Shield("equations", brings={"senders"})
    shield.screen(completions=[GOOD], senders=["before"])
    with shield.live(rounds=4, console=console):
        for _ in range(2):
            shield.screen(completions=[GOOD, BAD], senders=["alice", "[red]m"], rewards=[1.0, 1.0])
    said = written.getvalue()
    shield.screen(completions=[GOOD], senders=["after"])
    assert written.getvalue() == said and "after" not in said and "before" not in said
    lines = said.splitlines()
    assert lines[0].startswith("round 2 of 4  reward 100.0 %  kept 1 of 2  learning: not yet: 1 round has a reward")
    assert lines[1].startswith("round 3 of 4") and said.count("Is my node learning? not yet") == 1
    assert said.count("[red]m") == 1 and "equations 2" in said and "\x1b" not in said


def test_a_live_view_in_a_terminal_is_drawn_over_and_says_what_goes_on():
    written = io.StringIO()
    console = Console(file=written, width=100, height=30, force_terminal=True, highlight=False, markup=False)
    with LiveView(9, console, doing=lambda: "round 7: [red]commit\x1b[2J") as view:
        tally = Tally()
        tally.add(SeenRound(round=6, rows=(row(),), reward=0.5))
        view.show(tally)
    drawn = written.getvalue()
    assert "round 6 of 9" in drawn and "round 7: [red]commit<U+001B>" in drawn and "\x1b[2J" not in drawn
    last = drawn.rpartition("sender")[2]
    assert "round 7" not in last and "Is my node learning?" in last


# -- runs and nodes


def bare(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs from run to run: seconds, and the digest of a file that holds some."""
    return {key: value for key, value in line.items() if key not in ("seconds", "defense_seconds", "part")}


@pytest.mark.slow
def test_a_run_is_the_same_with_trackers_and_without_and_they_are_told_what_its_lines_say(tmp_path):
    config = validated(RunConfig, {**SMALL, "rounds": 2})
    tracker = Kept()
    start(config, tmp_path / "watched", watch=Watch([tracker]))
    start(config, tmp_path / "alone")
    assert (tmp_path / "watched" / "config.toml").read_text() == (tmp_path / "alone" / "config.toml").read_text()
    lines = read_rounds(tmp_path / "watched")
    assert [bare(line) for line in lines] == [bare(line) for line in read_rounds(tmp_path / "alone")]
    assert [step for step, _ in tracker.logged] == [1, 2]
    for line, (_, figures) in zip(lines, tracker.logged, strict=True):
        assert figures["hailproof/reward"] == line["reward"]
        assert figures["hailproof/completion_tokens"] == line["completion_tokens"]
        assert figures.get("hailproof/attack_success") == line["attack_success"]
        assert figures.get("hailproof/held_out_reward") == (line.get("held_out") or {}).get("reward")
        rejected = sum(counts["reject"] for counts in line["defenses"].get("replay", {}).values())
        assert (figures["hailproof/rejected/replay"] > 0) == (rejected > 0)
    assert tracker.logged[0][1]["hailproof/rejected/replay"] > 0
    assert "hailproof/held_out_reward" in tracker.logged[1][1]


class Crash(Exception):
    """The machine went down."""


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_tracker_and_knows_what_it_earned_before(tmp_path):
    def crash(line: dict[str, Any]) -> None:
        if line["round"] == 6:
            raise Crash

    plain = {"swarm": SMALL["swarm"], "sampling": {"max_new_tokens": 32}, "task": SMALL["task"]}
    config = validated(RunConfig, {**plain, "rounds": 10, "evaluation": {"problems": 0}})
    with pytest.raises(Crash):
        start(config, tmp_path / "run", crash)
    tracker, watch = Kept(), Watch()
    watch.trackers.append(tracker)
    resume(tmp_path / "run", watch=watch)
    assert [step for step, _ in tracker.logged] == [6, 7, 8, 9, 10]
    earned = {line["round"]: line["reward"] for line in read_rounds(tmp_path / "run")}
    assert watch.tally.answer() == is_learning(earned) and "in the first 5" in watch.tally.answer().evidence


@pytest.mark.slow
def test_the_command_line_tracks_and_shows(tmp_path, monkeypatch, capsys):
    from test_cli import SMALL as OPTIONS
    from test_cli import call

    monkeypatch.chdir(tmp_path)
    status, _, error = call(monkeypatch, capsys, "run", *OPTIONS, "--track=tensorbord", "--out=a")
    assert status == 2 and "Unknown tracker 'tensorbord'" in error and not (tmp_path / "a").exists()
    pytest.importorskip("tensorboard")
    status, said, error = call(monkeypatch, capsys, "run", *OPTIONS, "--track=tensorboard", "--live", "--out=a")
    assert status == 0, error
    assert [*(tmp_path / "a" / "tensorboard").iterdir()]
    assert "round 2 of 2  reward" in said and said.count("Is my node learning? not yet: 2 rounds have") == 1
    status, _, error = call(monkeypatch, capsys, "resume", "a", "--track=tensorbord")
    assert status == 2 and "Unknown tracker" in error


@pytest.mark.slow
def test_a_node_tracks_shows_and_tells_its_status(tmp_path, monkeypatch, capsys):
    from swarms import swarm_files
    from test_cli import call

    (path,) = swarm_files(tmp_path, 1, track=["tensorbord"])
    status, _, error = call(monkeypatch, capsys, "node", str(path), "--check")
    assert status == 2 and "Unknown tracker 'tensorbord'" in error
    pytest.importorskip("tensorboard")
    (path,) = swarm_files(tmp_path, 1, track=["tensorboard"])
    status, said, error = call(monkeypatch, capsys, "node", str(path), "--live")
    assert status == 0, error
    folder = tmp_path / "node-0"
    assert [*(folder / "tensorboard").iterdir()]
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert all(line["own_reward"] == line["reward"] is not None for line in lines)  # it is alone
    answer = "not yet: 2 rounds have a reward"
    assert "round 2 of 2" in said and f"Is my node learning? {answer}" in said
    assert json.loads((folder / "status.json").read_text())["learning"].startswith(answer)
    status, said, _ = call(monkeypatch, capsys, "status", str(folder), "--once")
    assert f"Is node 0 learning? {answer}" in said
    (folder / "checkpoints" / "00000002.safetensors").unlink()
    assert answer in call(monkeypatch, capsys, "node", str(path), "--live")[1]  # what it earned is not forgotten


def test_what_a_node_wrote_is_told_apart_from_what_it_read():
    from hailproof.records import Completion, Group, NodeRound, Prompt, Row, ScoredCompletion, Submission, UpdateStats
    from hailproof.tracking.seen import seen_by_node

    def scored(sender: int, reward: float, tokens: int, **more: Any) -> ScoredCompletion:
        sent = Submission(3, sender, "p", 0, Completion("x", (1,) * tokens, True))
        return ScoredCompletion(sent, Row((), (1,) * tokens), reward, reward, **more)

    no = Verdict("replay", "reject", "no")
    completions = (
        scored(0, 0.0, 4), scored(0, 1.0, 6, weight=0.5, muted=frozenset({1, 2})),
        scored(1, 1.0, 10, admitted=False, verdicts=(no,)), scored(2, 1.0, 10, admitted=False),
    )  # fmt: skip
    view = NodeRound(0, (Group(Prompt("p", "", ""), completions),), UpdateStats(0.0, 0.0, None, 0, 0))
    seen = seen_by_node(3, view, (0,), {1}, ("replay",))
    assert (seen.reward, seen.completion_tokens, seen.excluded, seen.notes) == (0.5, 5.0, {"1"}, {"0": "own"})
    assert [each.learned for each in seen.rows] == [4, 2.0, 0, 0]
    assert [each.kept for each in seen.rows] == [True, True, False, True]
    assert [each.left_out for each in seen.rows] == [False, False, True, False]
