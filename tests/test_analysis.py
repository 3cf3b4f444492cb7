"""Runs and cells as tables, against the files that they come from; and every block of ``docs/analysis.md``."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tiny_runs import TINY

import hailproof
from hailproof.attacks.text import TextAttack
from hailproof.campaigns.analysis import Run
from hailproof.campaigns.cells import FORMAT, write_cell
from hailproof.campaigns.matrix import Cell, cells_of
from hailproof.campaigns.posthoc import counted
from hailproof.campaigns.sweep import merged, play_job
from hailproof.errors import ConfigError, RunError
from hailproof.reports.samples import read_samples
from hailproof.runs.checkpoint import Checkpoint, pointer_of
from hailproof.runs.config import load_config
from hailproof.runs.learned import learned
from hailproof.runs.store import SCHEMA

PAGE = Path(__file__).resolve().parents[1] / "docs" / "analysis.md"
ROUNDS = 3
SETTINGS = merged(TINY, {"rounds": ROUNDS, "evaluation": {"every": 2}, "sampling": {"max_new_tokens": 64}})


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, list[Cell]]:
    """What the page's bench leaves behind, with two seeds of tiny runs: the folder, and the cells."""
    folder = tmp_path_factory.mktemp("analysis")
    cells = cells_of(["text"], ["none", "logit"], [0, 1], "nano", folder / "runs" / "cells", SETTINGS)
    for cell in cells:
        for job in cell.runs:
            play_job(job)
        write_cell(cell, folder / "runs" / "bench" / "cells")
    return folder, cells


@pytest.fixture(scope="module")
def folder(played) -> Path:
    """The run with the defense and seed 0."""
    _, cells = played
    return next(cell for cell in cells if cell.defense == "logit").jobs[0].folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_block_of_the_page_runs(played, monkeypatch, capsys):
    root, _ = played
    monkeypatch.chdir(root)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    codes = [text for kind, text in blocks if kind == "python"]
    assert len(codes) == 6
    names: dict = {}
    for number, code in enumerate(codes, start=1):
        exec(compile(code, f"block {number} of {PAGE.name}", "exec"), names)
        # A block prints if and only if the page shows what it printed.
        followed = blocks[blocks.index(("python", code)) + 1 :][:1]
        assert bool(capsys.readouterr().out) == (followed[0][0] == "text" if followed else False)
    assert (root / "asr-against-reward.png").stat().st_size > 1000
    assert [run.config.seed for run in names["undefended"]] == [0, 1]


@pytest.mark.slow
def test_rounds_hold_what_the_file_holds(folder):
    run, written = hailproof.load(str(folder)), lines(folder)
    table = run.rounds
    assert table["round"].to_pylist() == list(range(1, ROUNDS + 1))
    assert table["seconds_screen"].to_pylist() == [line["seconds"]["screen"] for line in written]
    assert table["models_nano-a_reward"].to_pylist() == [line["models"]["nano-a"]["reward"] for line in written]
    rejected = [line["defenses"]["logit"]["malicious"]["reject"] for line in written]
    assert table["defenses_logit_malicious_reject"].to_pylist() == rejected and sum(rejected) > 0
    assert table["held_out_problems"].to_pylist() == [None, 4, None]  # asked for in every second round
    assert not any(pa.types.is_nested(field.type) or pa.types.is_null(field.type) for field in table.schema)
    assert run.config == load_config(folder / "config.toml")
    assert run.summary == json.loads((folder / "summary.json").read_text())
    frame = run.rounds_frame()
    assert frame.index.name == "round" and frame.loc[2, "reward"] == written[1]["reward"]


@pytest.mark.slow
def test_tables_of_several_runs_join(played):
    _, cells = played
    runs = [hailproof.load(job.folder) for cell in cells for job in cell.runs]
    joined = pa.concat_tables([run.rounds for run in runs], promote_options="default")
    assert len(joined) == len(runs) * ROUNDS
    assert joined.schema.field("malicious_acceptance").type == pa.float64()


@pytest.mark.slow
def test_completions_say_what_became_of_each(folder):
    run = hailproof.load(folder)
    stored = pq.read_table(folder / "completions.parquet")
    assert run.completions.equals(stored)
    frame = run.completions_frame()
    expected = []
    for row in stored.to_pylist():
        said = {verdict["decision"] for verdict in row["verdicts"]}  # of one defense
        expected.append(said.pop() if said else None)
    assert [None if value != value else value for value in frame["verdict"]] == expected
    rejected = frame[frame["verdict"] == "reject"]
    assert set(rejected["rejected_by"]) == {"logit"} and rejected["reason"].str.len().min() > 0
    assert not rejected["admitted"].any()
    assert {"token_ids", "verdicts"}.isdisjoint(frame.columns)


@pytest.mark.parametrize(
    ("decisions", "outcome"),
    [
        ([], (None, None, None)),
        (["abstain"], ("abstain", None, None)),
        (["accept", "abstain"], ("accept", None, None)),
        (["abstain", "accept"], ("accept", None, None)),
        (["accept", "reject"], ("reject", "d1", "because 1")),
    ],
)
def test_outcome_of_a_chain(tmp_path, decisions, outcome):
    verdicts = [
        {"defense": f"d{place}", "decision": decision, "reason": f"because {place}"}
        for place, decision in enumerate(decisions)
    ]
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n')
    pq.write_table(pa.Table.from_pylist([{"round": 1, "verdicts": verdicts}], SCHEMA), tmp_path / "completions.parquet")
    frame = hailproof.load(tmp_path).completions_frame()
    found = (frame.loc[0, name] for name in ("verdict", "rejected_by", "reason"))
    assert tuple(None if value != value else value for value in found) == outcome


def unfinished(folder: Path, copy: Path) -> Path:
    """A run as it lies there while round 3 is written: its completions stand, its line is half there, no checkpoint."""
    shutil.copytree(folder, copy)
    (copy / "summary.json").unlink()
    whole = pq.read_table(copy / "completions.parquet")
    (copy / "completions.parquet").unlink()
    (copy / "completions").mkdir()
    for round in range(1, ROUNDS + 1):
        part = whole.filter(pc.field("round") == round)
        pq.write_table(part, copy / "completions" / f"round-{round:06d}.parquet")
    start = Checkpoint.of_new_run(load_config(copy / "config.toml"))
    pointer_of(copy).write_text(start.model_dump_json())
    text = (copy / "rounds.jsonl").read_text().splitlines(keepends=True)
    (copy / "rounds.jsonl").write_text("".join(text[:2]) + text[2][:30])
    return copy


@pytest.mark.slow
def test_an_unfinished_run(folder, tmp_path):
    run = hailproof.load(unfinished(folder, tmp_path / "run"))
    assert run.summary is None
    assert run.rounds["round"].to_pylist() == [1, 2]
    expected = pq.read_table(folder / "completions.parquet", filters=[("round", "<=", 2)])
    assert run.completions.equals(expected) and len(expected) == 2 * 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the parts are looked for", "while they are read"])
def test_a_run_that_is_finished_while_it_is_read(folder, tmp_path, monkeypatch, when):
    path = unfinished(folder, tmp_path / "run")

    def finish(self: Run | None = None) -> pa.Table:
        shutil.rmtree(path)
        shutil.copytree(folder, path)
        raise RunError("round-000001.parquet cannot be read.")

    run = hailproof.load(path)
    assert len(run.rounds) == 2
    if when.startswith("before"):
        with pytest.raises(RunError):
            finish()
    else:
        monkeypatch.setattr(Run, "_parts", finish)
    assert set(run.completions["round"].to_pylist()) == {1, 2}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.unlink(), r"cannot be read \(No such file or directory\); play the run again"),
        (lambda path: path.write_bytes(b"PAR1" + b"\0" * 99), r"is damaged \(ArrowInvalid\); play the run again"),
        (lambda path: pq.write_table(pa.table({"x": [1]}), path), r"is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["completions.parquet", "completions/round-000001.parquet"])
def test_completions_that_cannot_be_read_are_one_sentence(tmp_path, damage, sentence, name):
    (tmp_path / "completions").mkdir()
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n')
    pq.write_table(pa.Table.from_pylist([{"round": 1}], SCHEMA), tmp_path / name)
    assert hailproof.load(tmp_path).completions.num_rows == 1
    damage(tmp_path / name)
    readers = [lambda: hailproof.load(tmp_path).completions_frame()]
    if (tmp_path / name).exists():
        readers.append(lambda: read_samples(tmp_path, [1], None, surprise=False))
    if name == "completions.parquet":
        readers += [lambda: counted(tmp_path, TextAttack(), 1, 1), lambda: learned(tmp_path)]
    if name == "completions.parquet" and not (tmp_path / name).exists():
        sentence = sentence.replace("; play", r"\)?; play")
    for read in readers:
        with pytest.raises(RunError, match=sentence):
            read()


def test_a_run_before_its_first_round(tmp_path):
    (tmp_path / "config.toml").write_text("rounds = 7\n")
    run = hailproof.load(tmp_path)
    assert run.config.rounds == 7 and run.summary is None
    assert run.rounds.num_rows == 0 and run.rounds_frame().empty
    assert run.completions.schema.equals(SCHEMA) and run.completions.num_rows == 0
    assert run.completions_frame().empty


@pytest.mark.slow
def test_cells_are_the_files_of_the_bench(played):
    root, _ = played
    table = hailproof.load_cells(root / "runs" / "bench")
    assert table.select(["attack", "defense"]).to_pylist() == [
        {"attack": "clean", "defense": "none"},
        {"attack": "text", "defense": "none"},
        {"attack": "text", "defense": "logit"},
    ]
    for row in table.to_pylist():
        name = f"nano-{row['attack']}-{row['defense']}-{row['digest']}.json"
        cell = json.loads((root / "runs" / "bench" / "cells" / name).read_text())
        assert json.loads(row.pop("config")) == cell.pop("config")
        assert row.pop("versions_torch") == cell["versions"]["torch"]
        assert row["seeds"] == [0, 1] and row["reward_seeds"] == cell["reward_seeds"]
        del cell["versions"]
        assert {key: row[key] for key in cell} == cell


def test_what_is_no_run_and_no_bench_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match=r"is not a run folder \(it has no config\.toml\); give .*\.$"):
        hailproof.load(tmp_path)
    with pytest.raises(RunError, match=r"holds no cells of the bench; give .*\.$"):
        hailproof.load_cells(tmp_path / "nowhere")
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        hailproof.load_cells(tmp_path)


CELL = {
    "attack": "text", "defense": "none", "setting": "", "topology": "horizontal", "seeds": [0], "rounds": 2,
    "format": FORMAT,
    "reward_mean": 0.5, "reward_low": None, "reward_high": None, "reward_seeds": [0.5], "config": {}, "versions": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"reward_mean": "0.5"}, {"reward_mean": True}, {"reward_low": [0.1, "x"]}, {"reward_seeds": ["much"]},
        {"reward_seeds": 0.5}, {"seeds": ["0"]}, {"seeds": 0}, {"rounds": "2"}, {"config": []}, {"versions": "new"},
        {"attack": 1}, {"setting": None}, {"learned_p": "0.01"}, {"format": True},
    ],
)  # fmt: skip
def test_a_cell_with_something_else_where_a_number_belongs_is_named(tmp_path, change):
    (tmp_path / "cells").mkdir()
    path = tmp_path / "cells" / "x.json"
    path.write_text(json.dumps(CELL))
    assert hailproof.load_cells(tmp_path)["reward_mean"].to_pylist() == [0.5]
    path.write_text(json.dumps({**CELL, **change}))
    with pytest.raises(ConfigError, match=r"x\.json is no cell of a bench; delete it"):
        hailproof.load_cells(tmp_path)
    for text in (b"[" * 100_000, b"\xff", b'{"seeds": [1' + b"0" * 5000 + b"]}"):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=r"x\.json is damaged"):
            hailproof.load_cells(tmp_path)


def test_the_package_offers_them_and_nothing_that_it_lacks():
    assert {"load", "load_cells", "__version__"} <= set(dir(hailproof))
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = hailproof.lode
