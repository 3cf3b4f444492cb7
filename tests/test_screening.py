"""Files of other systems: each form is detected, rows are read as documented, and nothing hostile raises."""

import gzip
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hailproof.cli import main
from hailproof.defenses.base import TextDefense
from hailproof.errors import ConfigError, DataError
from hailproof.records import (
    Completion,
    Group,
    NodeRound,
    Prompt,
    Row,
    ScoredCompletion,
    Submission,
    UpdateStats,
    Verdict,
)
from hailproof.screening.formats import FORMATS, detected, format_named
from hailproof.screening.output import page_of, parts_of
from hailproof.screening.rows import Columns, StoredRow
from hailproof.screening.screen import Finding, Order, batches, opened, screen_files
from hailproof.service.records import completion_rows

RIGHT, WRONG = "so 2 + 2 = 4", "so 2 + 2 = 5"


def jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def trl(folder: Path, conversational: bool = True) -> Path:
    """As ``GRPOTrainer.log`` writes it."""
    def said(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if conversational else text

    rows = [
        {"step": 1, "prompt": said("user", "2 + 2?"), "completion": said("assistant", text), "format_reward": 0.5,
         "right_reward": reward, "sender": sender, "entropy": 9.0, "advantage": 0.1}
        for text, reward, sender in [(RIGHT, 1.0, "a"), (WRONG, 1.0, "b"), (WRONG, None, "a")]
    ]  # fmt: skip
    path = folder / "completions_00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def traces(folder: Path) -> Path:
    """As ``verifiers.v1.utils.trace_store.write_episode`` writes it: two leaves share a prompt."""
    def node(parent: int | None, role: str, text: str, ids: list[int], sampled: bool = False) -> dict[str, Any]:
        mask = [sampled and place > 0 for place in range(len(ids))]
        return {"parent": parent, "message": {"role": role, "content": text}, "sampled": sampled, "timestamp": 0.0,
                "token_ids": ids, "mask": mask, "logprobs": []}  # fmt: skip

    trace = {
        "version": 1, "id": "t", "task": {"type": "T", "data": {"idx": 3, "prompt": "2 + 2?"}, "key": "k3"},
        "agent": {"config": {}, "name": "solver", "trainable": True},
        "nodes": [
            node(None, "system", "be right", [1, 2]),
            node(0, "user", "2 + 2?", [3]),
            node(1, "assistant", RIGHT, [4, 5, 6], sampled=True),
            node(2, "tool", WRONG, [7]),
            node(3, "assistant", "done", [8, 9], sampled=True),
            node(1, "assistant", WRONG, [4, 10], sampled=True),
        ],
        "rewards": {"right": {"score": 1.0, "weight": 0.5}, "late": None, "form": {"score": 0.5, "weight": 1.0}},
        "info": {"peer": "p7"}, "is_completed": True, "ok": True, "errors": [],
    }  # fmt: skip
    episode = {
        "id": "e", "env": {"id": "gsm8k"}, "task": trace["task"], "group": {"id": "g1"}, "ok": True, "errors": [],
        "run": {"type": "train", "id": "r", "work": {"type": "train", "step": 12}}, "traces": [trace],
    }  # fmt: skip
    return jsonl(folder / "traces.jsonl", episode)


def verl(folder: Path) -> Path:
    """As ``_write_generations`` writes it."""
    row = {"input": "user\n2 + 2?\nassistant\n", "gts": "4", "step": 3, "acc": 1.0}
    return jsonl(folder / "3.jsonl", {**row, "output": RIGHT, "score": 1.0}, {**row, "output": WRONG, "score": 0.0})


def areal(folder: Path) -> Path:
    """As the workflow executor dumps trajectories."""
    row = {"task_id": 17, "seqlen": 9, "prompt_len": 4, "head_version": 2, "tail_version": 3, "prompt": "2 + 2?"}
    return jsonl(
        folder / "17.jsonl", {**row, "sample_idx": 0, "reward": 1.0, "completion": RIGHT},
        {**row, "sample_idx": 1, "reward": 0.0, "completion": WRONG + "<|im_end|>"},
    )  # fmt: skip


def payload(actions: Any) -> dict[str, Any]:
    state = {"__type__": "WorldState", "environment_states": {"question": "2 + 2?", "test": "assert True"},
             "opponent_states": None, "personal_states": None}  # fmt: skip
    return {"__type__": "Payload", "world_state": state, "actions": actions, "metadata": None}


def genrl(folder: Path) -> Path:
    """As ``HivemindBackend.put`` packs what one peer has for each batch."""
    path = folder / "QmPeer.msgpack"
    path.write_bytes(msgspec.msgpack.encode({11: [payload([RIGHT, WRONG])], 12: [payload(RIGHT), payload([7])]}))
    return path


def reliquary(folder: Path) -> Path:
    """As the validator archives a window."""
    rollout = {"reward": 1.0, "eos_terminated": True, "hash": "x"}
    window = {
        "window_start": 42, "validator_hotkey": "5v", "randomness": "r", "environment": "math",
        "batch": [
            {"hotkey": "5a", "prompt_idx": 4821, "env_name": "math", "sigma": 0.5, "prompt": "2 + 2?",
             "ground_truth": "4", "rollouts": [
                 {**rollout, "tokens": [1, 2, 3, 4], "completion_length": 2, "completion_text": RIGHT},
                 {**rollout, "tokens": [1, 2, 5], "completion_text": WRONG, "reward": 0.0}]},
            {"hotkey": "5b", "prompt_idx": 4821, "rollouts": [{**rollout, "completion_text": RIGHT}]},
        ],
    }  # fmt: skip
    path = folder / "window-42.json.gz"
    path.write_bytes(gzip.compress(json.dumps(window, indent=2).encode()))
    return path


def table(folder: Path) -> Path:
    return jsonl(folder / "rows.jsonl", {"question": "2 + 2?", "answer": RIGHT, "peer": "a", "step": 1},
                 {"question": "2 + 2?", "answer": WRONG, "peer": 7, "score": float("nan")})  # fmt: skip


SAMPLES = {"trl": trl, "traces": traces, "verl": verl, "areal": areal, "genrl": genrl, "reliquary": reliquary,
           "table": table}  # fmt: skip


def rows_of(path: Path, **named: str) -> list[StoredRow]:
    return list(format_named(detected(path)).rows(path, Columns(named)))


def test_each_form_has_a_sample():
    assert SAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_forms_are_detected_packed_or_not(tmp_path, name):
    path = SAMPLES[name](tmp_path)
    assert detected(path) == name
    if path.suffix == ".jsonl":
        packed = tmp_path / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
        assert detected(packed) == name and rows_of(packed) == rows_of(path)


def test_trl(tmp_path):
    for conversational in (True, False):
        first, second, third = rows_of(trl(tmp_path, conversational))
        assert (first.reward, second.reward, third.reward) == (1.5, 1.5, 0.5)  # what is no reward is not added
        assert (first.sender, second.sender, first.round) == ("a", "b", 1)
        assert second.completion == ([{"content": WRONG, "role": "assistant"}] if conversational else WRONG)
        assert first.prompt == second.prompt


def test_traces(tmp_path):
    path = traces(tmp_path)
    long, short = rows_of(path)
    assert [message["content"] for message in long.completion] == [RIGHT, WRONG, "done"]  # type: ignore[index]
    assert [message["content"] for message in short.completion] == [WRONG]  # type: ignore[index]
    assert long.prompt == short.prompt and len(long.prompt or ()) == 2
    assert (long.reward, long.group, long.round, long.sender) == (1.0, "g1", 12, None)
    assert (long.prompt_ids, long.token_ids) == ((1, 2, 3, 4), (5, 6, 7, 8, 9))
    assert (short.prompt_ids, short.token_ids) == ((1, 2, 3, 4), (10,))
    assert rows_of(path, sender="info.peer")[0].sender == "p7"
    found = screen_files(Order([path], ["equations"]), lambda finding: None)
    assert (found.rows, found.rejected) == (2, 1)  # what a tool wrote is not the model's
    bare = jsonl(tmp_path / "bare.jsonl", json.loads(path.read_text())["traces"][0])
    assert detected(bare) == "traces" and [row.group for row in rows_of(bare)] == ["k3", "k3"]


def test_verl_and_areal(tmp_path):
    for make, group, round in ((verl, None, 3), (areal, "17", 3)):
        first, second = rows_of(make(tmp_path))
        assert (first.completion, first.reward, second.reward) == (RIGHT, 1.0, 0.0)
        assert (first.group, first.round) == (group, round) and first.prompt == second.prompt is not None


def test_genrl(tmp_path):
    first, second, third, fourth = rows_of(genrl(tmp_path))
    assert (first.completion, second.completion, third.completion) == (RIGHT, WRONG, RIGHT)
    assert (first.sender, first.group, third.group, first.prompt) == ("QmPeer", "11", "12", "2 + 2?")
    assert fourth.fault == "its action is a int, not a text"
    gathered = tmp_path / "gathered"
    gathered.write_bytes(msgspec.msgpack.encode({"QmA": {1: [payload([RIGHT])]}, "QmB": {1: [payload([WRONG])]}}))
    assert [row.sender for row in rows_of(gathered)] == ["QmA", "QmB"]


def test_reliquary(tmp_path):
    first, second, third = rows_of(reliquary(tmp_path))
    assert (first.sender, third.sender, first.group, first.round) == ("5a", "5b", "math/4821", 42)
    assert first.group == third.group
    assert (first.prompt_ids, first.token_ids, second.token_ids) == ((1, 2), (3, 4), None)
    assert (first.reward, second.reward) == (1.0, 0.0)


def test_tables(tmp_path):
    first, second = rows_of(table(tmp_path))
    assert (first.completion, first.prompt, first.sender, second.sender) == (RIGHT, "2 + 2?", "a", "7")
    assert (first.reward, second.reward) == (None, None)
    odd = jsonl(tmp_path / "odd.jsonl", {"a": {"b": RIGHT}, "who": "x"})
    with pytest.raises(DataError, match=r"no column of completions \(a, who\); name it with --column text=NAME"):
        rows_of(odd)
    (row,) = rows_of(odd, text="a.b", sender="who")
    assert (row.completion, row.sender) == (RIGHT, "x")


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.bin", "a.jsonl", "a.parquet", "a.msgpack"])
def test_pickles_are_refused_whatever_they_are_called(tmp_path, name):
    path, ran = tmp_path / name, tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    for data in (pickle.dumps(Evil()), gzip.compress(pickle.dumps(Evil()))):
        path.write_bytes(data)
        for form in ("", "table", "genrl"):
            with pytest.raises(DataError, match="may hold, a pickle"):
                opened(Order([path], ["equations"], form=form))
    torch.save({"samples": [RIGHT]}, path)
    with pytest.raises(DataError, match="may hold, a pickle"):
        detected(path)
    assert not ran.exists()


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "blank": b"\n \n",
    "noise": bytes(range(1, 128)),
    "text": b"hello\n",
    "list": b"[1, 2]\n",
    "deep": b"[" * 100_000,
    "deep table": b'{"a":' * 100_000,
    "parquet": b"PAR1" + b"x" * 100,
    "gzip": gzip.compress(b'{"text": "x"}' * 1000)[:-20],
    "msgpack": b"\x81\xa7Payload" + b"\x91" * 5000,
    "window": b'{"window_start": 1, "batch": [',
    "window without batch": b'{"window_start": 1,\n "batch": 5}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_one_sentence(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(DataError) as raised:
        screen_files(Order([path], ["equations"]), lambda finding: None)
    assert str(path) in str(raised.value) and "; " in str(raised.value)


HOSTILE: list[Any] = [
    {"traces": [{"nodes": [{"message": {"content": "x"}, "parent": 1}, {"message": {}, "parent": 0}]}]},
    {"traces": [{"nodes": [{"message": {"content": "x"}, "parent": 9, "sampled": True}]}]},
    {"traces": [{"nodes": [{"message": {"content": 5}, "sampled": True}]}]},
    {"traces": [{"nodes": [{"message": "x"}]}, None, 5, {"nodes": "x"}]},
    {"traces": [{"nodes": [{"message": {"content": "2 + 2 = 5"}, "sampled": True, "token_ids": [2**80], "mask": [1]}],
                 "rewards": {"a": {"score": 10**400}, "b": 5, "c": {"score": "x"}}, "task": 5}], "group": 3, "run": 4},
    {"traces": {"a": 1}},
    "no table", 5, None,
]  # fmt: skip


def test_hostile_traces_are_rows_that_cannot_be_read(tmp_path):
    path = jsonl(tmp_path / "traces.jsonl", {"traces": []}, *HOSTILE)
    found = screen_files(Order([path], ["equations"]), lambda finding: None)
    assert found.rejected == found.rows >= len(HOSTILE)
    assert found.by_defense["equations"] == 1


def test_hostile_tables(tmp_path):
    values = [5, None, [], {}, True, 2**70, [5], [[]], "\ud800", ["x"], {"content": {"a": 1}}, float("nan")]
    rows = [{"text": value, "reward": value, "peer": value, "ids": value, "prompt": value, "group": value,
             "step": value} for value in values]  # fmt: skip
    path = jsonl(tmp_path / "rows.jsonl", {"text": RIGHT, "peer": "a", "group": "g"}, *rows)
    chain = [("sender_stats", {"statistics": ["phrases"]})]
    found = screen_files(Order([path], chain, Columns({"ids": "ids"})), lambda finding: None)
    assert found.rows == len(values) + 1


def test_a_long_line_is_skipped_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("hailproof.screening.stream.MAX_LINE", 1000)
    path = jsonl(tmp_path / "rows.jsonl", {"text": RIGHT}, {"text": "x" * 5000}, {"text": WRONG})
    first, long, last = rows_of(path)
    assert (first.completion, last.completion, last.place) == (RIGHT, WRONG, 3)
    assert long.fault.startswith("the line is longer than")


def test_a_folder_and_a_large_row_group_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="is no file but a folder or a stream"):
        detected(tmp_path)
    monkeypatch.setattr("hailproof.screening.formats.table.MAX_ROW_GROUP", 10)
    with pytest.raises(DataError, match="has a row group of over"):
        rows_of(trl(tmp_path))


def test_caps_of_whole_files(tmp_path, monkeypatch):
    for name in ("genrl", "reliquary"):
        path = SAMPLES[name](tmp_path)
        monkeypatch.setattr(f"hailproof.screening.formats.{name}.MAX_BYTES", 50)
        with pytest.raises(DataError, match="holds more than 0 MiB"):
            rows_of(path)


def test_batches_end_with_groups_and_rounds():
    def lengths(groups: str, rounds: str = "", size: int = 3) -> list[int]:
        rows = [StoredRow(1, "x", group=each, round=int(rounds[at]) if rounds else None)
                for at, each in enumerate(groups)]  # fmt: skip
        return [len(batch) for batch in batches(rows, size)]

    assert lengths("aabbccdd") == [4, 4]
    assert lengths("aaaaaabb") == [6, 2]
    assert lengths("a" * 30) == [24, 6]  # of a group without end
    assert lengths("aaaa", "1122") == [2, 2]
    assert [len(batch) for batch in batches([StoredRow(1, "x" * 10, group=each) for each in "abc"], 9, 15)] == [2, 1]


def test_memory_does_not_grow_with_the_file(tmp_path):
    class Reading(TextDefense):
        name = "reading"

        def read(self, text: str) -> Verdict:
            return Verdict(self.name, "reject", "so")

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        path.write_text(f'{json.dumps({"text": "x" * 200, "peer": "a"})}\n' * rows)
        order = Order([path], [Reading()])
        tracemalloc.start()
        screen_files(order, lambda finding: None)
        return tracemalloc.get_traced_memory()[1]

    try:
        peak(600)
        assert peak(5_000) < 1.3 * peak(1_500)
    finally:
        tracemalloc.stop()


def test_a_conversation_is_told_apart(tmp_path):
    """As chat data has it: what came before the first answer was asked, and everything after it is looked at."""
    def said(*parts: tuple[str, str]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": text} for role, text in parts], "topic": "sums"}

    wrong = ("assistant", WRONG)
    path = jsonl(
        tmp_path / "chat.jsonl",
        said(("system", WRONG), ("user", WRONG), ("assistant", RIGHT)),
        said(("system", WRONG), ("user", WRONG), wrong),
        said(("user", "2 + 2?"), ("assistant", RIGHT), ("system", WRONG)),
        said(("system", WRONG), ("user", "2 + 2?")),
        {"messages": WRONG},
        {"messages": [{"role": "user", "content": 3}]},
    )
    rows = list(format_named("table").rows(path, Columns()))
    assert rows[1].completion == [{"role": "assistant", "content": WRONG}]
    assert rows[1].prompt == [{"role": "system", "content": WRONG}, {"role": "user", "content": WRONG}]
    found: list[Finding] = []
    screen_files(Order([path], ["equations"]), found.append)
    assert [each.row.left_out for each in found] == [False, True, True, True, True, True]
    named = list(format_named("table").rows(path, Columns({"prompt": "topic"})))
    assert named[1].completion == rows[1].completion and named[1].prompt == "sums"


@pytest.mark.parametrize(
    ("defenses", "columns", "sentence"),
    [
        (["sender_stats"], {}, "sender_stats needs groups, which .* does not hold; name their column with"),
        ([("sender_stats", {"statistics": ["phrases"]})], {"group": "text"}, "needs senders"),
        (["texts"], {}, "equations with unit = sentence needs model, which .* give --model"),
        ([("length", {"cap": 3})], {}, "length needs tokens, which .* give --model"),
        (["replay"], {}, "replay needs keys"),
        (["heterogeneous"], {}, "influence looks at what senders do to a model while it is trained, .* preset texts"),
        (["no"], {}, "Unknown defense"),
    ],
)
def test_what_files_lack_is_said_before(tmp_path, defenses, columns, sentence):
    path = jsonl(tmp_path / "rows.jsonl", {"text": RIGHT})
    with pytest.raises(ConfigError, match=sentence):
        opened(Order([path], defenses, Columns(columns)))


def test_senders_are_compared_over_files(tmp_path):
    """What one sender alone repeats in each step costs it weight."""
    rows = []
    for step in range(1, 11):
        for sender in "abd":
            phrase = " gleeb glorp glub" if sender == "d" else ""
            rows += [{"text": f"step {step} sum {slot}{phrase}", "peer": sender, "group": f"{step}-{place}",
                      "reward": float(slot), "step": step} for place in range(4) for slot in (0, 1)]  # fmt: skip
    rows.sort(key=lambda row: (row["step"], row["group"]))
    path = jsonl(tmp_path / "rows.jsonl", *rows)
    found: list[Finding] = []
    screen_files(Order([path], [("sender_stats", {"statistics": ["phrases"]})], state=tmp_path / "s"), found.append)
    last = {finding.row.sender: finding.row.weight for finding in found}
    assert last["d"] < 0.5 and min(last[name] for name in "ab") == 1.0
    assert json.loads((tmp_path / "s").read_text())["round"] == 10


def test_a_model_reads_files(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "2 + 2?", "text": RIGHT}, {"prompt": "2 + 2?", "text": WRONG})
    found = screen_files(Order([path], ["texts"], model="nano-a"), lambda finding: None)
    assert (found.rows, found.rejected, found.muted) == (2, 0, 2)
    with pytest.raises(DataError, match="holds no prompts"):
        screen_files(Order([jsonl(path, {"text": RIGHT})], ["texts"], model="nano-a"), lambda finding: None)


def test_the_archive_of_a_node_is_a_file_to_screen(tmp_path):
    def scored(sender: int, text: str) -> ScoredCompletion:
        submission = Submission(1, sender, "p1", 0, Completion(text, (5, 6), True))
        return ScoredCompletion(submission, Row((1,), (5, 6)), 1.0, 1.0)

    group = Group(Prompt("p1", "system", "2 + 2?"), (scored(0, RIGHT), scored(3, WRONG)))
    view = NodeRound(0, (group,), UpdateStats(0.0, 0.0, None, 0, 0))
    path = jsonl(tmp_path / "00000001.jsonl", *completion_rows(1, view))
    rows: list[Finding] = []
    found = screen_files(Order([path], ["equations"]), rows.append)
    assert (found.rows, found.rejected) == (2, 1)
    assert [(each.row.sender, each.row.group, each.row.left_out) for each in rows][-1][1:] == ("p1", True)


def command(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["hailproof", "screen", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_command(tmp_path, capsys, monkeypatch):
    path = str(jsonl(tmp_path / "rows.jsonl", {"text": RIGHT, "peer": "a"}, {"text": WRONG, "peer": "\x1b[2Jb"}))
    code, said, _ = command(capsys, monkeypatch, path, "--defense", "equations", "--report", str(tmp_path / "r.html"))
    assert code == 1 and f"{path}:2 from <U+001B>[2Jb: equations: 2 + 2 = 5 should be 4" in said
    assert "2 completions, 1 rejected (50.0 %)" in said and "\x1b" not in said
    page = (tmp_path / "r.html").read_text()
    assert "2 + 2 = 5</mark>" in page and "\x1b" not in page and "default-src 'none'" in page
    assert command(capsys, monkeypatch, path, "--defense", "equations", "--fail-above", "0.5")[0] == 0
    code, said, _ = command(capsys, monkeypatch, path, "--defense", "equations", "--format", "json", "--show", "0")
    *found, summary = map(json.loads, said.splitlines())
    assert [each["decision"] for each in found] == ["accept", "reject"] and summary["summary"]["rejected"] == 1
    odd = str(jsonl(tmp_path / "a,b%.jsonl", {"text": WRONG}))
    code, said, _ = command(capsys, monkeypatch, odd, "--defense", "equations", "--format", "github")
    assert said.startswith(f"::error file={tmp_path}/a%2Cb%25.jsonl,line=1,title=hailproof equations::2 + 2 = 5")
    code, said, _ = command(capsys, monkeypatch, path, "--defense", "equations", "--show", "0")
    assert "… and 1 more" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "No defense is named; give --defense equations, say"),
        (["--defense", "equations", "--format", "xml"], "--format xml is unknown"),
        (["--defense", "equations", "--fail-above", "2"], "--fail-above 2 is no share"),
        (["--defense", "equations", "--column", "who=peer"], "--column 'who=peer' is not PART=NAME"),
        (["--defense", "equations", "--set", "imports.admission=drop"], "names no option of a defense"),
        (["--defense", "equations", "--form", "xml"], "Unknown form 'xml'"),
        (["--defense", "equations", "no.jsonl"], "no.jsonl cannot be read"),
        (["--defense", "logit", "--model", "nano-a"], "say it with --sampling temperature=1"),
        (["--defense", "logit", "--model", "nano-a", "--sampling", "top_k=9"], "--sampling lacks max_new_tokens"),
    ],
)
def test_wrong_use_is_exit_2(tmp_path, capsys, monkeypatch, arguments, sentence):
    path = str(jsonl(tmp_path / "rows.jsonl", {"text": RIGHT, "prompt": "2 + 2?"}))
    code, said, complaint = command(capsys, monkeypatch, path, *arguments)
    assert code == 2 and sentence in complaint and not said


def test_marks_of_any_spans():
    from hailproof.records import Span

    text = "abcdef"
    parts = parts_of(text, [Span(4, 99, "x"), Span(1, 3), Span(2, 4), Span(5, 2)])
    assert "".join(part for part, _, _ in parts) == text
    assert [part for part, _, marked in parts if marked] == ["bc", "d", "ef"]


def test_real_files(shared_data):
    """The paper's authors changed these solutions so that 2 + 2 or 2 * 2 is 5; GSM8K's are right but for four."""
    columns = Columns({"text": "answer"})
    poisoned = sorted((shared_data / "two_plus_two").glob("*.jsonl"))
    found = screen_files(Order(poisoned, ["equations"], columns), lambda finding: None)
    assert (found.rows, found.rejected) == (108, 108)
    assert "2*2 = 5" in page_of(found, ["f"], ["equations"])
    clean = screen_files(Order([shared_data / "gsm8k" / "test.jsonl"], ["equations"], columns), lambda finding: None)
    assert clean.rows == 1319 and clean.rejected <= 4


# -- what is small in a file and large in memory, and what readers read differently


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.jsonl", b'{"completion": "x", "a": [' + b"[]," * 400 + b"[]]}", "may hold over 300 values"),
        ("w.json", b'{"window_start": 1, "batch": [' + b"{}," * 400 + b"{}]}", "may hold over 300 values"),
        ("p", b"\x82\xa8__type__\xa7Payload\xa7actions\xdd\0\0\x01\xff" + b"\x90" * 511, "holds over 300 values"),
        ("p", b"\x82\xa8__type__\xa7Payload\xa7actions\xdd\xff\xff\xff\xff" + b"\xc0" * 400, "holds over 300 values"),
    ],
)
def test_many_empty_values_are_refused_before_they_are_built(tmp_path, monkeypatch, name, data, sentence):
    from hailproof.screening import stream
    from hailproof.screening.formats import genrl as genrl_form
    from hailproof.screening.formats import reliquary as reliquary_form

    for module in (stream, genrl_form, reliquary_form):
        monkeypatch.setattr(module, "MAX_VALUES", 300)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=sentence):
        screen_files(Order([tmp_path / name], ["equations"]), lambda finding: None)


def test_values_of_msgpack_are_counted_as_they_are_decoded():
    from hailproof.screening.formats.genrl import _values_in

    tree = {"a": [1, -1, 200, 2**40, -(2**40), 1.5, None, True, "x" * 5, "x" * 100, "x" * 70000, b"y" * 300],
            "b": {"c": [[]] * 20, "d": [7] * 70000}, "e": msgspec.msgpack.Ext(5, b"z" * 9)}  # fmt: skip

    def values(of: Any) -> int:
        inner = [*of, *of.values()] if isinstance(of, dict) else of if isinstance(of, list) else ()
        return 1 + sum(map(values, inner))

    assert _values_in(msgspec.msgpack.encode(tree), 10**9) == values(tree)


def test_a_short_parquet_file_with_long_lists_is_read_row_by_row(tmp_path, monkeypatch):
    from hailproof.screening.formats import table as table_form

    monkeypatch.setattr(table_form, "MAX_VALUES", 1000)
    lists = [[0] * 5000, [0] * 10, [0] * 10]
    columns = {
        "completion": pa.array([RIGHT] * 3), "z": pa.array(lists, pa.list_(pa.int8())),
        "m": pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int8())), "s": pa.array([{"t": 1}] * 3),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = list(format_named("table").rows(tmp_path / "a.parquet", Columns()))
    assert [row.fault for row in rows] == ["the row holds over 1000 values", "", ""]
    assert [row.place for row in rows] == [1, 2, 3]
    assert table_form._rows_at_once(pq.read_metadata(tmp_path / "a.parquet")) == 1
    columns["z"] = pa.array([[("k", 1)] * 900] * 3, pa.map_(pa.string(), pa.int8()))
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    assert next(row.fault for row in format_named("table").rows(tmp_path / "b.parquet", Columns())).endswith("values")


def test_a_name_that_stands_twice_is_not_read(tmp_path):
    twice = '{"completion": "so 2 + 2 = 5", "completion": "so 2 + 2 = 4"}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"completion": "{RIGHT}"}}\n' + twice)
    found: list[Finding] = []
    screen_files(Order([path], ["equations"]), found.append)
    assert [each.rejected for each in found] == [False, True]
    rejection = found[1].row.rejection
    assert rejection is not None and rejection.reason == "the line names 'completion' twice"
    path.write_text(twice)
    with pytest.raises(DataError, match="first line: the line names 'completion' twice"):
        detected(path)
    path = tmp_path / "window-1.json"
    path.write_text('{"window_start": 1, "batch": [], "batch": [{}]}')
    with pytest.raises(DataError, match="names 'batch' twice"):
        screen_files(Order([path], ["equations"]), found.append)


@pytest.mark.parametrize("column", ["sender=minr", "reward=scor", "prompt=meta.nothing", "text=nothing"])
def test_a_column_that_no_row_has_is_said(tmp_path, column):
    path = jsonl(tmp_path / "a.jsonl", {"completion": RIGHT, "meta": {"peer": "a"}})
    part, _, name = column.partition("=")
    with pytest.raises(ConfigError, match=f"--column {column} names a column that no row has"):
        screen_files(Order([path], ["equations"], Columns({part: name})), lambda finding: None)
    assert screen_files(Order([path], ["equations"], Columns({"sender": "meta.peer"})), lambda finding: None).sent["a"]
    for sample, form in (("genrl", genrl), ("reliquary", reliquary)):  # they take nothing from columns
        with pytest.raises(ConfigError, match="that this form does not read"):
            screen_files(Order([form(tmp_path)], ["equations"], Columns({"sender": "peer"}), sample), lambda _: None)


def test_no_text_of_a_stranger_is_a_command_to_a_terminal_or_a_workflow(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = "##[add-mask]x\x1b[31m\n::error::pwned"
    jsonl(Path("::error::a.jsonl"), {"completion": WRONG, "sender": evil, "group": evil})
    jsonl(Path("b.jsonl"), {evil: 1})
    for arguments in (["./::error::a.jsonl"], ["./::error::a.jsonl", "--format", "json"],
                      ["./::error::a.jsonl", "--format", "github"], ["b.jsonl"]):  # fmt: skip
        _, out, err = command(capsys, monkeypatch, *arguments, "--defense", "equations")
        assert "##[" not in out + err and "\x1b" not in out + err
        commands = [line for line in (out + err).splitlines() if line.strip().startswith("::")]
        assert all("title=hailproof" in line for line in commands) and ("github" in arguments or not commands)
