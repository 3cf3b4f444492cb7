"""Commands, status, metrics, archive and retention of real swarms, without models."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from page_reader import HOSTILE, Page, needs_chromium
from stores import free_port, served
from swarms import IDENTITIES, swarm_files
from typer.testing import CliRunner

from hailproof.cli import app
from hailproof.errors import ConfigError, HailproofError, RunError
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.object_store import ObjectStore
from hailproof.exchange.relay import RelayStore
from hailproof.exchange.stores import FolderStore
from hailproof.identity import Identity
from hailproof.runs.build import shared
from hailproof.service.config import SwarmFile, load_node, load_swarm
from hailproof.service.metrics import serve
from hailproof.service.open import open_store
from hailproof.service.records import Log, Records
from hailproof.service.relay import pruning
from hailproof.service.status import find_status, hosts_of, read_status, rows_of, status_app
from hailproof.settings import validated

LAST = {
    "round": 4, "reward": 0.25, "sent": [0, 1], "senders": {"0": {"accept": 6}, "2": {"reject": 4}},
    "refused": {"forged": 3},
    "equal": False, "weights": "ab" * 32, "bytes": {"sent": 10}, "seconds": {"learn": 1.5}, "mended": 1, "stalled": 0.0,
    "suspended": [2], "store_failures": 0, "completion_tokens": 20.0,
}  # fmt: skip
LEARNING = "yes: reward 61.3 % in the last 5 rounds against 44.0 % in the first 5"
STATUS = {
    "node": 1, "round": 4, "rounds": 9, "phase": "commit", "equal": False, "apart": [1], "learning": LEARNING,
    "last": LAST,
}  # fmt: skip


def called(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, HailproofError):
        raise result.exception
    return result.exit_code, result.output


def test_keygen_writes_a_key_that_loads(tmp_path: Path):
    _, said = called("keygen", str(tmp_path / "node.pem"))
    assert Identity.load(tmp_path / "node.pem").name in said.replace("\n", "")
    with pytest.raises(ConfigError, match="never overwritten"):
        called("keygen", str(tmp_path / "node.pem"))


def written(folder: Path, status: dict | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({**STATUS, "at": time.time(), **(status or {})}))
    return folder


def test_status_shows_who_sent_who_was_caught_and_who_is_equal(tmp_path: Path):
    written(tmp_path / "a")
    row = rows_of(read_status(find_status([tmp_path])))[0]
    assert row == {
        "node": "1", "round": "4/9", "doing": "commit", "learning": "yes", "reward": "0.250", "sent": "0, 1",
        "caught": "2: 4", "refused": "3 forged", "equal": "no", "apart": "1", "weights": "abababab",
    }  # fmt: skip
    _, said = called("status", str(tmp_path / "a"), "--once")
    assert "2: 4" in said and "0.250" in said and f"Is node 1 learning? {LEARNING}" in said.replace("\n", "")


def test_a_node_that_has_said_nothing_for_long_or_nothing_at_all(tmp_path: Path):
    written(tmp_path / "old", {"at": time.time() - 1000})
    written(tmp_path / "torn")
    (tmp_path / "torn" / "status.json").write_text("{")
    old, torn = rows_of(read_status(find_status([tmp_path])))
    assert old["doing"].startswith("silent for 1") and set(torn.values()) >= {"-"}
    with pytest.raises(RunError, match="no folder of a node"):
        find_status([tmp_path / "nothing"])


def test_the_page_refuses_other_hosts_and_shows_texts_as_text(tmp_path: Path):
    files = find_status([written(tmp_path / "a", {"phase": HOSTILE})])
    with served(status_app(files, every=0.05)) as url:
        page = urllib.request.urlopen(url, timeout=5)
        assert "script-src" in page.headers["Content-Security-Policy"] and HOSTILE not in page.read().decode()
        with urllib.request.urlopen(f"{url}/events", timeout=5) as events:
            assert json.loads(events.readline().removeprefix(b"data: "))[0]["doing"] == HOSTILE
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.example"}), timeout=5)


@pytest.mark.parametrize(
    ("address", "named", "good", "bad"),
    [
        ("127.0.0.1", [], ["127.0.0.1:80", "localhost", "[::1]:80"], ["10.0.0.5", "evil.example", "", "127.0.0.1.x"]),
        ("10.0.0.5", [], ["10.0.0.5:8471", "localhost"], ["evil.example", "10.0.0.6"]),
        ("fd00::5", [], ["[fd00::5]:80"], ["[fd00::6]:80", "fd00::5"]),
        ("0.0.0.0", ["farm.lan"], ["farm.lan:80", "FARM.lan"], ["0.0.0.0", "evil.example", "x.farm.lan"]),
        ("::1", ["farm.lan", "[fd00::7]"], ["farm.lan", "[fd00::7]", "localhost"], ["evil.example"]),
    ],
)
def test_the_page_is_served_under_names_that_its_owner_knows(
    address: str, named: list[str], good: list[str], bad: list[str], tmp_path: Path
):
    files = find_status([written(tmp_path / "a")])
    with served(status_app(files, hosts=hosts_of(address, named))) as url:
        for hosts, status in ((good, 200), (bad, 400)):
            for host in hosts:
                for path in ("/", "/events") if status == 400 else ("/",):
                    request = urllib.request.Request(f"{url}{path}", headers={"Host": host})
                    try:
                        assert urllib.request.urlopen(request, timeout=5).status == status, host
                    except urllib.error.HTTPError as error:
                        assert error.code == status, host


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give each with --allow-host"),
        (["--host", "::"], "give each with --allow-host"),
        (["--allow-host", "*"], "names no host"),
        (["--allow-host", "*.farm.lan"], "names no host"),
        (["--allow-host", "farm.lan:80"], "names no host"),
        (["--allow-host", ""], "names no host"),
    ],
)
def test_names_of_the_page_that_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("the page is served"))
    with pytest.raises(ConfigError, match=said):
        called("status", str(written(tmp_path / "a")), "--web", *arguments)


class Enough(Exception):
    """The first look was sent."""


def one_look(app: Any) -> Any:
    """The same application, whose stream ends after the first look, since a browser waits for its end."""

    async def cut(scope: Any, receive: Any, send: Any) -> None:
        async def forward(message: dict) -> None:
            last = scope["path"] == "/events" and message.get("body")
            await send({**message, "more_body": False} if last else message)
            if last:
                raise Enough

        with contextlib.suppress(Enough, ExceptionGroup):
            await app(scope, receive, forward)

    return cut


@needs_chromium
def test_the_page_updates_itself_in_a_browser(tmp_path: Path):
    from page_reader import CHROMIUM

    files = find_status([written(tmp_path / "a", {"phase": HOSTILE})])
    with served(one_look(status_app(files))) as url:
        done = subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000",
             "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{url}/"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    page = Page(done.stdout)
    assert page.tables[0][0][:2] == ["node", "round"] and page.tables[0][1][1] == "4/9", done.stderr[-500:]
    assert page.tables[0][1][2] == HOSTILE and not page.named("img")


def test_metrics_say_what_the_status_says():
    port = free_port()
    stop = serve(lambda: STATUS, "127.0.0.1", port)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        with pytest.raises(ConfigError, match="Metrics cannot be served"):
            serve(lambda: STATUS, "127.0.0.1", port)
    finally:
        stop()
    for line in (
        "hailproof_round 4.0", "hailproof_reward 0.25", "hailproof_equal 0.0", "hailproof_senders 2.0",
        'hailproof_refused_total{reason="forged"} 3.0', "hailproof_mended_total 1.0",
        'hailproof_completions{decision="reject",sender="2"} 4.0',
    ):  # fmt: skip
        assert line in text, line
    stop = serve(lambda: {}, "127.0.0.1", port)
    try:
        assert "hailproof_equal" not in urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
    finally:
        stop()


def test_log_lines_are_json_and_a_closed_stream_stops_nothing():
    import io

    stream = io.StringIO()
    log = Log(stream, node=3)
    log("round", reward=float("nan"), path=Path("x"))
    line = json.loads(stream.getvalue())
    assert (line["event"], line["node"], line["reward"], line["path"]) == ("round", 3, None, "x")
    stream.close()
    log("again")


def test_the_archive_and_the_journal_keep_so_many_rounds(tmp_path: Path):
    from hailproof.records import NodeRound, UpdateStats

    records = Records(tmp_path, retention=2)
    view = NodeRound(0, (), UpdateStats(0.0, 0.0, None, 0, 0))
    for round in range(1, 5):
        records.add({"round": round}, view)
        (tmp_path / "journal" / "farm" / f"{round:08d}").mkdir(parents=True)
    records.prune(tmp_path / "journal", 3)
    assert sorted(path.stem for path in (tmp_path / "archive").iterdir()) == ["00000003", "00000004"]
    assert sorted(path.name for path in (tmp_path / "journal" / "farm").iterdir()) == ["00000003", "00000004"]
    assert records.last_round() == 4


def test_a_relay_s_folder_is_pruned_by_age(tmp_path: Path):
    store = FolderStore(tmp_path)
    store.put("farm/old", b"1")
    store.put("farm/deep/new", b"2")
    os.utime(tmp_path / "farm" / "old", (1, 1))
    with pruning(store, 3600):
        until = time.monotonic() + 5
        while store.get("farm/old", 9) is not None and time.monotonic() < until:
            time.sleep(0.01)
    assert store.names("farm/", 9) == ["farm/deep/new"]


# -- files


def test_the_id_of_a_swarm_depends_on_all_that_nodes_must_share_and_nothing_else():
    members = tuple(identity.name for identity in IDENTITIES[:3])

    def named(**tree: object) -> str:
        file = validated(SwarmFile, {"members": members, **tree})
        return file.id_of(shared(file.run_config()))

    base = named()
    same = [{"run": {"threads": 1}}, {"run": {"swarm": {"device": "cpu"}}}, {"run": {"name": "x"}}]
    others = [
        {"run": {"seed": 1}}, {"run": {"learner": {"learning_rate": 1e-3}}}, {"run": {"defense": [{"name": "replay"}]}},
        {"timing": {"commit": 5.0}}, {"limits": {"batch": 5}}, {"members": members[::-1]}, {"name": "other"},
    ]  # fmt: skip
    assert all(named(**tree) == base for tree in same)
    assert len({base, *(named(**tree) for tree in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"members": ["ab"]}, "no public key"),
        ({"members": [IDENTITIES[0].name, IDENTITIES[0].name.upper()]}, "listed twice"),
        ({"members": [IDENTITIES[0].name], "mebers": []}, "unknown"),
        ({"members": [IDENTITIES[0].name], "timing": {"commit": 0}}, "timing.commit"),
        ({"members": [IDENTITIES[0].name], "name": "../x"}, "name"),
    ],
)
def test_swarm_files_that_are_refused(tree: dict, said: str, tmp_path: Path):
    import tomli_w

    (tmp_path / "swarm.toml").write_text(tomli_w.dumps(tree))
    with pytest.raises(ConfigError, match=said) as caught:
        load_swarm(tmp_path / "swarm.toml")
    assert "swarm.toml" in str(caught.value)


def test_shared_files_that_contradict_themselves():
    file = validated(SwarmFile, {"members": [IDENTITIES[0].name], "run": {"swarm": {"nodes": 4}}})
    with pytest.raises(ConfigError, match="1 members are listed; leave it out"):
        file.run_config()
    attack = {"name": "text", "malicious": 0}
    attacked = validated(SwarmFile, {"members": [IDENTITIES[0].name], "run": {"attack": attack}})
    with pytest.raises(ConfigError, match="the file of the node that attacks"):
        shared(attacked.run_config())


def test_a_node_that_is_no_member_is_refused(tmp_path: Path):
    from hailproof.service.node import NodeService

    path = swarm_files(tmp_path, 2)[0]
    (tmp_path / "0.pem").unlink()
    (tmp_path / "0.pem.pub").unlink()
    IDENTITIES[4].save(tmp_path / "0.pem")
    with pytest.raises(ConfigError, match="not among the swarm's members"):
        NodeService(load_node(path))


def test_two_processes_of_one_node_are_refused(tmp_path: Path):
    from hailproof.service.node import NodeService

    path = swarm_files(tmp_path, 2)[0]
    first = NodeService(load_node(path))
    with pytest.raises(RunError, match="Another process runs the node"):
        NodeService(load_node(path))
    first.store.close()
    first._lock.close()


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("http://relay", {"cb": "x"}, "no option 'cb'"),
        ("https://relay", {"ca": "missing.pem"}, "cannot be used"),
        ("folder", {"x": 1}, "no option 'x'"),
        ("zenoh", {"mode": 1}, "JSON5 in quotes"),
        ("zenoh", {"mode": '"nonsense"'}, "cannot be opened"),
        ("nonsense://x", {}, "cannot be opened"),
        ("s3://", {}, "cannot be opened"),
    ],
)
def test_exchanges_that_are_refused(address: str, options: dict, said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        open_store(address, options, Gate(Limits()), tmp_path)


def test_exchanges_by_address(tmp_path: Path):
    gate = Gate(Limits())
    folder = open_store("shared", {}, gate, tmp_path)
    assert isinstance(folder, FolderStore) and folder.root == tmp_path / "shared"
    assert isinstance(open_store("memory:///", {}, gate, tmp_path), ObjectStore)
    assert isinstance(open_store("http://127.0.0.1:1", {}, gate, tmp_path), RelayStore)


EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "swarm"


def test_the_example_files_are_sound(tmp_path: Path):
    import yaml

    files = load_node(EXAMPLES / "node.toml")
    assert files.swarm.id_of(shared(files.swarm.run_config())).startswith("farm-")
    compose = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    unit = (EXAMPLES / "hailproof-node.service").read_text()
    assert set(compose["services"]) == {"relay", "a", "b", "c"}
    assert "ExecStart=/opt/hailproof/bin/hailproof node" in unit
    for command in (compose["services"]["relay"], compose["x-node"]):
        assert called(command["command"][0], "--help")[0] == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_systemd_has_nothing_to_say_of_the_unit(tmp_path: Path):
    unit = (EXAMPLES / "hailproof-node.service").read_text()
    program = tmp_path / "hailproof"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "hailproof-node.service"
    for text, faultless in ((unit, True), (unit.replace("MemoryMax", "MemoryMaximum"), False)):
        copy.write_text(text.replace("/opt/hailproof/bin/hailproof", str(program)))
        done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0 and "hailproof" not in done.stderr) == faultless, done.stderr
