"""Two TRL trainers and one node of ours in one swarm, each a process, over a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from processes import forked
from swarms import IDENTITIES, RUN, lines, swarm_files
from trl_member import train

from hailproof.campaigns.sweep import fresh_processes
from hailproof.errors import ConfigError
from hailproof.integrations.trl_swarm import SwarmRollout
from hailproof.runs.config import read_toml
from hailproof.service.trainer import TrainerExchange

pytest.importorskip("trl")
MIXED = {"rounds": 2, "swarm": {**RUN["swarm"], "models": ["nano-a", "nano-b"]}}
WAITS = {"commit": 200.0, "reveal": 60.0, "seal": 60.0, "seen": 60.0, "state": 200.0, "lobby": 300.0}


@pytest.mark.slow
def test_two_trainers_of_trl_and_a_node_of_ours_learn_from_each_other(tmp_path: Path):
    paths = swarm_files(tmp_path, 3, run=MIXED, timing=WAITS)
    trainers = [fresh_processes().Process(target=train, args=(tmp_path, index)) for index in (1, 2)]
    log = tmp_path / "0.log"
    processes = [forked(tmp_path, ["node", str(paths[0])], log, log), *trainers]
    for process in trainers:
        process.start()
    try:
        for process in processes:
            process.join(400)
            assert process.exitcode == 0, log.read_text()[-2000:]
    finally:
        for process in processes:
            process.kill()
            process.join()
    ours = lines(tmp_path, 0)
    theirs = [json.loads((tmp_path / f"trl-{index}.json").read_text()) for index in (1, 2)]
    assert [line["sent"] for line in ours] == [[0, 1, 2]] * 2 and [line["missing"] for line in ours] == [{}, {}]
    assert all(line["unread"] == {} for line in ours)
    # A node may go on without an inventory that can change nothing, and without its sender's state: all have said one.
    assert all(line["compared"] in (2, 3) for line in ours)
    assert [len(list(tmp_path.glob(f"exchange/*/{round:08d}/state/*"))) for round in (1, 2)] == [3, 3]
    for round in (1, 2):
        archived = (tmp_path / "node-0" / "archive" / f"{round:08d}.jsonl").read_text().splitlines()
        sent = sorted((row["problem_id"], row["sender"], row["completion"]) for row in map(json.loads, archived))
        assert len(sent) == MIXED["swarm"]["prompts"] * MIXED["swarm"]["group_size"]
        for seen in theirs:
            assert seen[round - 1]["beacon"] == ours[round - 1]["beacon"]
            assert all(present for _, _, present, _ in seen[round - 1]["rows"])
            assert sorted((name, sender, text) for name, sender, _, text in seen[round - 1]["rows"]) == sent


def files_of(folder: Path, **changed: Any) -> Path:
    """The file of the first node of a swarm of three whose shared file is changed."""
    path = swarm_files(folder, 3, run=MIXED)[0]
    shared = read_toml(folder / "swarm.toml")
    run = {**shared["run"], "swarm": {**shared["run"]["swarm"], **changed.pop("swarm", {})}}
    (folder / "swarm.toml").write_text(tomli_w.dumps({**shared, "run": run, **changed}))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"swarm": {"topology": "vertical", "prompts": 3}}, "horizontal swarm without panel"),
        ({"panel": 1, "swarm": {"models": ["nano-a"]}}, "horizontal swarm without panel"),
        ({"admission": {"seats": 1, "rounds": 2}}, "horizontal swarm without panel"),
        ({"swarm": {"models": ["nano-a"]}}, "compare their weights"),
        ({"swarm": {"group_size": 7}}, "no multiple of 3 members"),
        ({"members": [identity.name for identity in IDENTITIES[1:4]]}, "not among the swarm's members"),
        ({"members": [IDENTITIES[0].name, 63 * "0" + "2", IDENTITIES[2].name]}, "placeholder"),
    ],
)
def test_swarms_that_a_trainer_cannot_be_in(changed: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        TrainerExchange.of_file(files_of(tmp_path, **changed))


def test_prompts_are_called_what_the_plan_calls_them(tmp_path: Path):
    with TrainerExchange.of_file(files_of(tmp_path)) as exchange:
        problems = exchange.problems()
        assert len(problems) == 4 and exchange.group_size == 6
        for problem in problems:
            prompt = exchange.task.prompt(problem)
            assert exchange.name_of([{"role": "user", "content": prompt.user}]) == problem.id
        for wrong in ([{"role": "user", "content": "What?"}], [], "text", None):
            with pytest.raises(ConfigError, match="none of the swarm's problems"):
                exchange.name_of(wrong)
        with pytest.raises(ConfigError, match="horizontal swarms only"):
            SwarmRollout(exchange, 0, 3, exchange.sampling, topology="vertical", names=exchange.name_of)
