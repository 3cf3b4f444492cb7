"""Draws that nobody but their node can compute or repeat."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swarms import RUN, Nodes, lines, swarm_files

from hailproof.errors import MismatchError
from hailproof.integrations.trl_swarm import SwarmRollout
from hailproof.policies.load import load
from hailproof.records import Submission
from hailproof.service.config import load_node
from hailproof.service.node import NodeService
from hailproof.service.state import weights_hash
from hailproof.service.trainer import TrainerExchange

MIXED = {**RUN["swarm"], "models": ["nano-a", "nano-b"]}


def node_of(folder: Path, draws: str = "private", index: int = 0, **run: Any) -> NodeService:
    """A node of a swarm of three whose files are written to a new folder; it is not to be run."""
    folder.mkdir()
    service = NodeService(load_node(swarm_files(folder, 3, run=run, draws=draws)[index]))
    service.close()
    return service


def drawn(service: NodeService) -> list[tuple[int, ...]]:
    return [each.completion.token_ids for each in service.participant.node.produce(1)]


def test_a_node_draws_what_only_its_key_and_swarm_say(tmp_path: Path):
    openly, own = node_of(tmp_path / "openly", "public"), node_of(tmp_path / "own")
    again, other = node_of(tmp_path / "again"), node_of(tmp_path / "other", index=1)
    assert own.swarm_id == again.swarm_id != openly.swarm_id, "nodes that draw otherwise are no swarm"
    assert drawn(own) == drawn(again) != drawn(openly), "a node that is started again repeats its own draws"
    assert len({each.participant.node.draw_seed for each in (own, again, other)} - {RUN["seed"], None}) == 2


@pytest.mark.slow
def test_nodes_with_private_draws_learn_alike(tmp_path: Path):
    nodes = Nodes()
    run = {"defense": [{"name": "heterogeneous"}], "rounds": 1}
    for index, path in enumerate(swarm_files(tmp_path, 2, run=run, draws="private")):
        nodes.start(index, path)
    nodes.join()
    assert len({weights_hash(each.participant.node) for each in nodes.services.values()}) == 1
    assert all(line["equal"] and line["sent"] == [0, 1] for index in (0, 1) for line in lines(tmp_path, index))


def test_what_nobody_can_repeat_is_not_checked_by_repeating_it(tmp_path: Path):
    with pytest.raises(MismatchError, match="'replay' repeats the draws of others, and draws = private keeps"):
        node_of(tmp_path / "node", defense=[{"name": "homogeneous"}])


class Alone:
    """An exchange that keeps what was sent."""

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        self.sent = list(submissions)
        return self.sent

    def beacon(self, round: int) -> None:
        return None


def test_a_trainer_of_trl_draws_as_privately_as_a_node_with_its_key(tmp_path: Path):
    pytest.importorskip("trl")
    service = node_of(tmp_path / "node", swarm=MIXED)
    policy = load("nano-a", device="cpu")
    with TrainerExchange.of_file(tmp_path / "node" / "0.toml") as exchange:
        assert exchange.draw_seed == service.participant.node.draw_seed != exchange.seed
    policy.model.train()
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=1, unwrap_model=lambda model: model), model=policy.model,
        args=SimpleNamespace(max_completion_length=40), num_generations=3, processing_class=policy.codec.tokenizer,
    )  # fmt: skip
    sent = []
    for seed in (None, exchange.seed, exchange.draw_seed):
        alone = Alone()
        rollout = SwarmRollout(alone, 0, 1, exchange.sampling, exchange.seed, draw_seed=seed)
        rollout([[{"role": "user", "content": "What is 2 + 2?"}]] * 3, trainer)
        sent.append([each.completion.token_ids for each in alone.sent])
    assert sent[0] == sent[1] != sent[2]


@pytest.mark.parametrize(
    ("draws", "chain", "topology", "said"),
    [
        ("public", "heterogeneous", "horizontal", True),
        ("public", "heterogeneous", "vertical", False),
        ("public", "homogeneous", "horizontal", False),
        ("private", "heterogeneous", "horizontal", False),
    ],
)
def test_a_check_says_where_draws_should_be_private(
    draws: str, chain: str, topology: str, said: bool, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    from test_cli import call

    run = {"defense": [{"name": chain}], "swarm": {**RUN["swarm"], "topology": topology}}
    path = swarm_files(tmp_path, 2, run=run, draws=draws)[0]
    status, shown, error = call(monkeypatch, capsys, "node", str(path), "--check")
    assert status == 0 and ('set draws = "private"' in " ".join(shown.split())) is said, error
