"""Nodes as processes, killed without warning, with the relay away for a while."""

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import forked
from stores import free_port
from swarms import lines, swarm_files

pytestmark = pytest.mark.slow
TIMING = {"commit": 10.0, "reveal": 3.0, "seal": 3.0, "seen": 3.0, "state": 10.0, "lobby": 120.0, "poll": 0.05}


def started(folder: Path, *arguments: object) -> BaseProcess:
    log = folder / f"{Path(str(arguments[-1])).stem}.log"
    return forked(folder, [*map(str, arguments)], log, log)


def round_of(folder: Path, index: int) -> int:
    try:
        return json.loads((folder / f"node-{index}" / "status.json").read_text())["round"]
    except (OSError, ValueError, KeyError):
        return 0


def wait_for(folder: Path, index: int, round: int, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while round_of(folder, index) < round:
        assert time.monotonic() < until, (folder / f"{index}.log").read_text()[-2000:]
        time.sleep(0.1)


def test_processes_that_are_killed_come_back_and_all_end_equal_over_a_relay_that_is_restarted(tmp_path: Path):
    port = free_port()
    serve = ("relay", "--port", port, "--folder", "kept", "swarm.toml")
    paths = swarm_files(tmp_path, 3, f"http://127.0.0.1:{port}", {"rounds": 5}, TIMING)
    relay = started(tmp_path, *serve)
    nodes = [started(tmp_path, "node", path) for path in paths]
    try:
        wait_for(tmp_path, 0, 1)
        nodes[2].kill()
        nodes[2].join()
        assert nodes[2].exitcode == -signal.SIGKILL
        relay.kill()
        relay.join()
        assert relay.exitcode == -signal.SIGKILL
        nodes[2] = started(tmp_path, "node", paths[2])
        relay = started(tmp_path, *serve)
        for node in nodes:
            node.join(300)
            assert node.exitcode == 0, [(tmp_path / f"{index}.log").read_text()[-1500:] for index in range(3)]
    finally:
        for process in (*nodes, relay):
            process.kill()
            process.join()
    last = [lines(tmp_path, index)[-1] for index in range(3)]
    assert [line["round"] for line in last] == [5, 5, 5]
    assert len({line["weights"] for line in last}) == 1 and [line["equal"] for line in last] == [True] * 3


def test_a_node_that_is_asked_to_stop_says_how_to_go_on(tmp_path: Path):
    paths = swarm_files(tmp_path, 2, run={"rounds": 5}, timing=TIMING)
    node = started(tmp_path, "node", paths[0])
    assert node.pid is not None
    until = time.monotonic() + 120
    while not (tmp_path / "node-0" / "status.json").is_file():
        assert time.monotonic() < until and node.is_alive(), (tmp_path / "0.log").read_text()
        time.sleep(0.1)
    os.kill(node.pid, signal.SIGTERM)
    node.join(60)
    said = (tmp_path / "0.log").read_text()
    assert node.exitcode == 0, said
    assert "Stopped after round 0 of 5; go on with: hailproof node" in said and "Traceback" not in said
