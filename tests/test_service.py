"""Nodes of a real swarm, as threads of this process: equal to the simulation, killed, late, apart and mended."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import served
from swarms import IDENTITIES, RUN, Nodes, lines, swarm_files

from hailproof.runs.build import build
from hailproof.runs.config import RunConfig
from hailproof.service.state import snapshot, weights_hash
from hailproof.settings import validated

pytestmark = pytest.mark.slow
ATTACKED = {"defense": [{"name": "replay"}], "sampling": {"max_new_tokens": 72}}  # what TEXT forges has at most 66


def simulated(nodes: int, attack: dict[str, Any] | None = None, **run: Any) -> bytes:
    """The weights after the last round of the in-process simulation."""
    tree = {**RUN, **run}
    tree["swarm"] = {**tree["swarm"], "nodes": nodes, "topology": tree["swarm"].get("topology", "horizontal")}
    tree["attack"] = attack or {"name": "none"}
    experiment = build(validated(RunConfig, tree))
    for round in range(1, experiment.config.rounds + 1):
        experiment.swarm.play(round)
    return weights_hash(experiment.swarm.honest[0])


@pytest.fixture(scope="module")
def expected() -> bytes:
    """The weights that an attacked and defended swarm of three ends with."""
    return simulated(3, {"name": "text", "malicious": 1}, **ATTACKED)


@pytest.mark.parametrize("kind", ["folder", "relay", "zenoh"])
def test_a_defended_swarm_with_an_attacker_ends_as_the_simulation_does(kind: str, expected: bytes, tmp_path: Path):
    nodes = Nodes()
    if kind == "relay":
        from hailproof.exchange.gate import Gate, Limits
        from hailproof.exchange.stores import FolderStore
        from hailproof.service.relay import Relay

        app = Relay(FolderStore(tmp_path / "kept"), Gate(Limits(members=3), [each.key for each in IDENTITIES])).app
        with served(app) as url:
            play(nodes, swarm_files(tmp_path, 3, url, ATTACKED))
    elif kind == "zenoh":
        paths = swarm_files(tmp_path, 3, "zenoh", ATTACKED)
        join_zenoh(paths)
        play(nodes, paths)
    else:
        play(nodes, swarm_files(tmp_path, 3, "exchange", ATTACKED))
    for index in range(3):
        assert weights_hash(nodes.services[index].participant.node) == expected
        assert [line["equal"] for line in lines(tmp_path, index)] == [True, True]
        assert [line["sent"] for line in lines(tmp_path, index)] == [[0, 1, 2], [0, 1, 2]]
        assert lines(tmp_path, index)[0]["suspended"] == [2]
        assert all("reject" in line["senders"].get("2", {"reject": 1}) for line in lines(tmp_path, index))
    assert {line["weights"] for index in range(3) for line in lines(tmp_path, index)[-1:]} == {expected.hex()}


def play(nodes: Nodes, paths: list[Path]) -> None:
    """Plays a swarm whose last node sends what TEXT forges."""
    with paths[-1].open("a") as file:
        file.write('\n[attack]\nname = "text"\n')
    for index, path in enumerate(paths):
        nodes.start(index, path)
    nodes.join()


def join_zenoh(paths: list[Path]) -> None:
    from stores import free_port

    port = free_port()
    for index, path in enumerate(paths):
        own = f"tcp/127.0.0.1:{port if index == 0 else 0}"
        to = "[]" if index == 0 else f'["tcp/127.0.0.1:{port}"]'
        with path.open("a") as file:
            file.write(f"\n[options]\n\"listen/endpoints\" = '[\"{own}\"]'\n\"connect/endpoints\" = '{to}'\n")
            file.write("\"scouting/multicast/enabled\" = 'false'\n")


def test_a_vertical_swarm_ends_as_the_simulation_does(tmp_path: Path):
    swarm = {"swarm": {**RUN["swarm"], "topology": "vertical"}}
    expected = simulated(2, **swarm)
    nodes = Nodes()
    for index, path in enumerate(swarm_files(tmp_path, 2, run=swarm)):
        nodes.start(index, path)
    nodes.join()
    assert [weights_hash(nodes.services[index].participant.node) for index in range(2)] == [expected] * 2


def test_nodes_of_different_models_decide_alike_and_compare_nothing_else(tmp_path: Path):
    swarm = {"swarm": {**RUN["swarm"], "models": ["nano-a", "nano-b"]}}
    expected = simulated(2, **swarm)
    nodes = Nodes()
    for index, path in enumerate(swarm_files(tmp_path, 2, run=swarm)):
        nodes.start(index, path)
    nodes.join()
    one, other = lines(tmp_path, 0), lines(tmp_path, 1)
    assert [line["decision"] for line in one] == [line["decision"] for line in other]
    assert one[-1]["weights"] == expected.hex() != other[-1]["weights"]
    assert {line["equal"] for line in (*one, *other)} == {None} and one[-1]["sent"] == [0, 1]


SWIFT = {"commit": 4.0, "reveal": 1.0, "seal": 1.0, "seen": 1.0, "state": 4.0}


def test_a_node_that_stops_comes_back_from_its_checkpoint_and_ends_equal(tmp_path: Path):
    paths = swarm_files(tmp_path, 3, run={"rounds": 4}, timing=SWIFT)
    nodes = Nodes()
    for index, path in enumerate(paths):
        nodes.start(index, path)
    until(nodes, 2, lambda service: service.round >= 1)
    nodes.stop(2)
    left = nodes.services[2].round
    nodes.start(2, paths[2])
    nodes.join()
    assert 1 <= left < 4 and nodes.events(2)[0]["round"] == left
    ends = [hashlib.sha256(snapshot(nodes.services[index].participant.node, 4)).hexdigest() for index in range(3)]
    assert len(set(ends)) == 1
    assert [line["round"] for line in lines(tmp_path, 2)] == [1, 2, 3, 4]


def until(nodes: Nodes, index: int, reached: Callable[[Any], bool]) -> None:
    """Waits until a node has come so far; an error of any node ends the wait."""
    while not reached(nodes.services[index]) and not nodes.errors:
        time.sleep(0.02)


def test_a_late_joiner_asks_for_a_checkpoint_and_a_node_that_parted_is_named_and_mended(tmp_path: Path):
    import torch

    timing = {**SWIFT, "commit": 2.0, "lobby": 1.0}
    paths = swarm_files(tmp_path, 3, run={"rounds": 9}, timing=timing, catch_up=1)
    nodes = Nodes()
    for index in range(2):
        nodes.start(index, paths[index])
    until(nodes, 1, lambda service: service.round >= 2)
    nodes.start(2, paths[2])
    until(nodes, 2, lambda service: service.equal)
    with torch.no_grad():
        next(iter(nodes.services[1].participant.node.learner.trainable.parameters())).add_(0.01)
    nodes.join(seconds=200)
    assert nodes.services[2].mended == 1 and nodes.services[1].mended >= 1
    assert [event["why"] for event in nodes.events(2) if event["event"] == "mend"] == ["behind"]
    named = [event["groups"].values() for event in nodes.events(1) if event["event"] == "apart"]
    assert named and all([1] in groups for groups in named)
    ends = [hashlib.sha256(snapshot(nodes.services[index].participant.node, 9)).hexdigest() for index in range(3)]
    assert len(set(ends)) == 1
