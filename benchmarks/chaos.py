"""A swarm under chaos: nodes killed and restarted at random, the relay too; every honest node must end equal.

    python benchmarks/chaos.py OUT [--nodes 4] [--rounds 200] [--kill-every 20] [--seed 0]

Starts ``hailproof relay`` and the nodes as processes with nano models, kills one of them with SIGKILL every so many
seconds (a node mostly, the relay one time in six), starts it again after a while, and at the end says how many rounds
ended by their deadline, how many were stalled, and whether all weights are equal.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import tomli_w

from hailproof.identity import Identity

TIMING = {"commit": 12.0, "reveal": 4.0, "seal": 4.0, "seen": 4.0, "state": 12.0, "lobby": 120.0, "poll": 0.05}


def write(folder: Path, nodes: int, rounds: int, port: int) -> list[Path]:
    """The files of the swarm."""
    identities = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(nodes)]
    run = {
        "rounds": rounds, "seed": 1, "swarm": {"prompts": 2, "group_size": max(4, nodes)},
        "sampling": {"max_new_tokens": 72}, "task": {"options": {"size": 200, "test_size": 8}},
        "evaluation": {"problems": 4},
        "defense": [{"name": "replay"}],
    }  # fmt: skip
    shared = {"name": "chaos", "members": [each.name for each in identities], "timing": TIMING, "run": run}
    (folder / "swarm.toml").write_text(tomli_w.dumps(shared))
    paths = []
    for number, identity in enumerate(identities):
        if not (folder / f"{number}.pem").exists():
            identity.save(folder / f"{number}.pem")
        tree = {
            "swarm": "swarm.toml", "identity": f"{number}.pem", "folder": f"node-{number}", "threads": 1,
            "exchange": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        paths.append(folder / f"{number}.toml")
        paths[-1].write_text(tomli_w.dumps(tree))
    return paths


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hailproof", *arguments]
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kill-every", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--port", type=int, default=18480)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, rng = options.out.resolve(), random.Random(options.seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = write(folder, options.nodes, options.rounds, options.port)
    relay_command = ("relay", "swarm.toml", "--folder", "kept", "--port", str(options.port))
    relay = start(folder, "relay", *relay_command)
    nodes = {number: start(folder, str(number), "node", path.name) for number, path in enumerate(paths)}
    back: dict[int, float] = {}
    kills, relay_kills, crashed = 0, 0, []
    began = time.monotonic()
    next_kill = began + options.kill_every + 30
    while nodes and time.monotonic() - began < 60 * options.minutes:
        time.sleep(0.5)
        now = time.monotonic()
        for number, process in list(nodes.items()):
            if process.poll() is None:
                continue
            if process.returncode == 0:
                del nodes[number]
            elif number not in back:
                crashed.append((number, process.returncode))
                back[number] = now
        for number, at in list(back.items()):
            if now >= at:
                nodes[number] = start(folder, str(number), "node", paths[number].name)
                del back[number]
        if now >= next_kill and len(nodes) == options.nodes and not back:
            if rng.random() < 1 / 6:
                relay.kill()
                relay.wait()
                time.sleep(rng.uniform(0, 3))
                relay = start(folder, "relay", *relay_command)
                relay_kills += 1
            else:
                victim = rng.randrange(options.nodes)
                nodes[victim].send_signal(signal.SIGKILL)
                nodes[victim].wait()
                back[victim] = now + rng.uniform(0, 15)
                kills += 1
            next_kill = now + rng.uniform(0.5, 1.5) * options.kill_every
    for process in (*nodes.values(), relay):
        process.kill()
        process.wait()
    report(folder, options, kills, relay_kills, crashed, time.monotonic() - began)


def report(
    folder: Path, options: argparse.Namespace, kills: int, relay_kills: int, crashed: list, seconds: float
) -> None:
    """Says what came of it."""
    lines = {
        number: [json.loads(line) for line in (folder / f"node-{number}" / "rounds.jsonl").read_text().splitlines()]
        for number in range(options.nodes)
    }
    last = {number: found[-1] for number, found in lines.items()}
    everything = [line for found in lines.values() for line in found]
    taken = [line for line in everything if not line["followed"]]
    apart = sum(line["equal"] is False for line in everything)
    print(f"{options.nodes} nodes, {seconds / 60:.0f} minutes, {kills} nodes and {relay_kills} relays killed")
    print(f"last rounds: {[line['round'] for line in last.values()]} of {options.rounds}")
    print(f"lines: {len(everything)}, of which followed afterwards {len(everything) - len(taken)}")
    print(f"rounds that waited for a quorum beyond the deadline: {sum(line['stalled'] > 0 for line in everything)}")
    print(f"rounds in which a node was apart: {apart}, mended: {sum(line['mended'] for line in last.values())}")
    print(f"crashes that were not ours: {crashed}")
    print(f"refused: {[line['refused'] for line in last.values()]}")
    weights: dict[int, set[str]] = {}
    for line in everything:
        weights.setdefault(line["round"], set()).add(line["weights"])
    alike = sum(len(found) == 1 for found in weights.values())
    print(f"rounds after which all nodes held the same weights: {alike} of {len(weights)}")


if __name__ == "__main__":
    main()
