"""The work of strangers on trial, checked with nano models, and a stranger's node from its first word to its seat."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from swarms import IDENTITIES, Nodes, lines, swarm_files
from test_node import node_of

from hailproof.errors import ConfigError
from hailproof.node import HonestNode
from hailproof.records import Completion, Submission
from hailproof.service import trials
from hailproof.service.trials import CHECKED, is_honest, trial_batch, trial_slots

X, Y = b"x" * 32, b"y" * 32
Batch = list[Submission]


@pytest.fixture(scope="module")
def member() -> HonestNode:
    return node_of()


@pytest.fixture(scope="module")
def batch(member: HonestNode) -> Batch:
    return trial_batch(member, 1, X)


def test_the_work_of_a_stranger_is_one_draw_a_prompt_and_nobody_else_s(member: HonestNode, batch: Batch):
    slots = trial_slots(member, 1, X)
    assert sorted(slot.problem_id for slot in slots) == sorted(member.plan(1).problems)
    assert {slot.index for slot in slots}.isdisjoint({slot.index for slot in trial_slots(member, 1, Y)})
    assert all(slot.index >= 2**30 for slot in slots) and not {slot.index for slot in slots} & {
        slot.index for slot in member.plan(1).slots
    }
    assert is_honest(member, 1, X, batch, beacon=5) and not is_honest(member, 1, Y, batch, beacon=5)
    assert not is_honest(member, 2, X, batch, beacon=5)


def with_each(batch: Batch, change: Callable[[Completion], Completion]) -> Batch:
    return [replace(each, completion=change(each.completion)) for each in batch]


@pytest.mark.parametrize(
    "act",
    [
        lambda batch: batch[:-1],
        lambda batch: [*batch, batch[-1]],
        lambda batch: batch[::-1],
        lambda batch: [],
        lambda batch: [replace(each, slot=each.slot + 1) for each in batch],
        lambda batch: [replace(each, problem_id=batch[0].problem_id) for each in batch],
        lambda batch: with_each(batch, lambda c: Completion("", (), True)),
        lambda batch: with_each(batch, lambda c: replace(c, token_ids=c.token_ids[:1])),
        lambda batch: with_each(batch, lambda c: replace(c, text=c.text + "!")),
        lambda batch: with_each(batch, lambda c: replace(c, text=c.text + "\udc80")),
        lambda batch: with_each(batch, lambda c: replace(c, text="x" * 10**6)),
        lambda batch: with_each(batch, lambda c: replace(c, token_ids=(2**31 - 1,) * 9)),
        lambda batch: with_each(batch, lambda c: replace(c, token_ids=(5,) * 1000)),
        lambda batch: with_each(batch, lambda c: replace(c, finished=not c.finished)),
        lambda batch: with_each(batch, lambda c: batch[0].completion),
    ],
)
def test_what_is_not_the_work_is_not_taken_for_it(act: Callable[[Batch], Batch], member: HonestNode, batch: Batch):
    assert not is_honest(member, 1, X, act(batch), beacon=5)


def test_draws_of_other_weights_are_not_the_work(member: HonestNode):
    other = node_of()
    with torch.no_grad():
        for parameter in other.learner.trainable.parameters():  # type: ignore
            parameter.mul_(0.7)
    other.policy.engine.refresh()
    assert not is_honest(member, 1, X, trial_batch(other, 1, X), beacon=5)


def test_the_beacon_says_which_draws_are_repeated(member: HonestNode, batch: Batch, monkeypatch: pytest.MonkeyPatch):
    """One forged completion of four, of which two are looked at: it is found in half of the rounds."""
    forged = [replace(batch[0], completion=member.policy.codec.as_completion("5")), *batch[1:]]
    found = [not is_honest(member, 1, X, forged, beacon=beacon) for beacon in range(12)]
    assert len(batch) == 4 and CHECKED == 2 and 2 <= sum(found) <= 10
    monkeypatch.setattr(trials, "CHECKED", 4)
    assert not is_honest(member, 1, X, forged, beacon=0) and is_honest(member, 1, X, batch, beacon=0)


# -- a node


SWIFT = {"commit": 20.0, "reveal": 5.0, "seal": 5.0, "seen": 5.0, "state": 20.0, "poll": 0.02}


def open_swarm(folder: Path, nodes: int, rounds: int, admission: dict[str, Any]) -> list[Path]:
    """Files of a swarm of two founders; the others are strangers."""
    import tomli_w

    paths = swarm_files(folder, nodes, run={"rounds": rounds}, timing=SWIFT)
    members = [identity.name for identity in IDENTITIES[:2]]
    from hailproof.runs.config import read_toml

    shared = {**read_toml(folder / "swarm.toml"), "members": members, "admission": admission}
    (folder / "swarm.toml").write_text(tomli_w.dumps(shared))
    return paths


@pytest.mark.slow
def test_a_stranger_asks_pays_stops_comes_back_and_is_heard(tmp_path: Path):
    paths = open_swarm(tmp_path, 3, 12, {"seats": 1, "rounds": 3})
    nodes = Nodes()
    for index in range(2):
        nodes.start(index, paths[index])
    nodes.start(2, paths[2])
    stranger = nodes.services[2]
    until = time.monotonic() + 200
    while not (stranger.membership.on_trial and stranger.exchange.rolls.latest.trials[0].paid) and not nodes.errors:
        assert time.monotonic() < until and not stranger.membership.member, nodes.logs[2].getvalue()
        time.sleep(0.02)
    nodes.stop(2)
    assert json.loads((tmp_path / "node-2" / "status.json").read_text())["node"] == "stranger"
    assert not (tmp_path / "node-2" / "rounds.jsonl").exists() or all(
        2 not in line["sent"] for line in lines(tmp_path, 2)
    )
    nodes.start(2, paths[2])
    nodes.join(seconds=300)
    services = [nodes.services[index] for index in range(3)]
    ends = [hashlib.sha256(service._snapshot(12)).hexdigest() for service in services]
    assert len(set(ends)) == 1 and [service.round for service in services] == [12] * 3
    assert json.loads((tmp_path / "node-2" / "status.json").read_text())["node"] == 2
    assert services[2].index == 2 and services[0].exchange.rolls.latest.members[2] == IDENTITIES[2].key
    first = next(line["round"] for line in lines(tmp_path, 0) if line["members"] == 3)
    sent = {line["round"]: line["sent"] for line in lines(tmp_path, 0)}
    assert all(2 not in sent[round] for round in range(1, first + 1)) and any(2 in each for each in sent.values())
    assert max(trial for line in lines(tmp_path, 0) for trial in line["trials"].values()) == 2
    paid = [event["event"] for event in nodes.events(2)]
    assert "seated" in paid and not any(line["equal"] is False for index in (0, 1) for line in lines(tmp_path, index))


def test_a_swarm_whose_nodes_hold_different_weights_lets_no_strangers_in(tmp_path: Path):
    from hailproof.service.config import load_node
    from hailproof.service.node import NodeService

    paths = open_swarm(tmp_path, 2, 2, {"seats": 1, "rounds": 3})
    text = (tmp_path / "swarm.toml").read_text()
    (tmp_path / "swarm.toml").write_text(text.replace("[run.swarm]", '[run.swarm]\nmodels = ["nano-a", "nano-b"]'))
    with pytest.raises(ConfigError, match="hold the same weights"):
        NodeService(load_node(paths[0]))
