"""Real processes against the simulation: equal weights, and what a round costs over each exchange.

    python benchmarks/bench_swarm.py OUT [--nodes 6] [--rounds 5] [--exchange folder relay zenoh slow]

All nodes but the last are honest, the last sends what TEXT forges, and `replay` defends. `slow` is the relay behind a
proxy for each node that delays every chunk by 100 ms each way, passes 10 Mbit/s, and holds one chunk in fifty for
300 ms more, as TCP does with a lost packet: a stand-in for `netem`, where the kernel has none.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import tomli_w

from hailproof.identity import Identity

DELAY, BYTES_PER_SECOND, LOSS, RESEND = 0.1, 10e6 / 8, 0.02, 0.3
TIMING = {"commit": 120.0, "reveal": 60.0, "seal": 60.0, "seen": 60.0, "state": 120.0, "lobby": 600.0, "poll": 0.05}
RUN: dict[str, Any] = {
    "seed": 5, "swarm": {"prompts": 4, "group_size": 6, "device": "cpu"}, "sampling": {"max_new_tokens": 96},
    "task": {"options": {"size": 200, "test_size": 8}}, "evaluation": {"problems": 4}, "defense": [{"name": "replay"}],
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SlowLink:
    """A TCP proxy with delay, limited rate and losses, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.port, self.target, self.bytes = free_port(), target, 0
        self._free = {"up": 0.0, "down": 0.0}
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pass(reader, up_writer, "up"), self._pass(up_reader, writer, "down"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            while True:
                at, data = await queue.get()
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        async def take() -> None:
            at = 0.0
            while True:
                data = await reader.read(16384)
                now = time.monotonic()
                self.bytes += len(data)
                self._free[way] = max(self._free[way], now) + len(data) / BYTES_PER_SECOND
                lost = RESEND if random.random() < LOSS else 0.0
                at = max(at, self._free[way] + DELAY + lost)
                await queue.put((at, data))
                if not data:
                    return

        await asyncio.gather(take(), deliver(), return_exceptions=True)


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hailproof", *arguments]
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)


def played(kind: str, folder: Path, nodes: int, rounds: int) -> list[list[dict[str, Any]]]:
    """The lines of all nodes after a swarm of processes has played."""
    folder.mkdir(parents=True)
    identities = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(nodes)]
    members = [each.name for each in identities]
    shared = {"name": kind, "members": members, "timing": TIMING, "run": {**RUN, "rounds": rounds}}
    (folder / "swarm.toml").write_text(tomli_w.dumps(shared))
    port, processes = free_port(), []
    links = [SlowLink(port) for _ in range(nodes)] if kind == "slow" else []
    for number, identity in enumerate(identities):
        identity.save(folder / f"{number}.pem")
        tree: dict[str, Any] = {"swarm": "swarm.toml", "identity": f"{number}.pem", "folder": f"node-{number}"}
        tree["threads"] = 1
        tree["exchange"] = {
            "folder": "kept", "relay": f"http://127.0.0.1:{port}", "zenoh": "zenoh",
            "slow": f"http://127.0.0.1:{links[number].port}" if links else "",
        }[kind]  # fmt: skip
        if kind == "zenoh":
            own, other = f'["tcp/127.0.0.1:{0 if number else port}"]', f'["tcp/127.0.0.1:{port}"]'
            tree["options"] = {
                "listen/endpoints": own, "connect/endpoints": other if number else "[]",
                "scouting/multicast/enabled": "false",
            }  # fmt: skip
        if number == nodes - 1:
            tree["attack"] = {"name": "text"}
        (folder / f"{number}.toml").write_text(tomli_w.dumps(tree))
    if kind in ("relay", "slow"):
        processes.append(start(folder, "relay", "relay", "swarm.toml", "--folder", "kept", "--port", str(port)))
    running = [start(folder, str(number), "node", f"{number}.toml") for number in range(nodes)]
    for process in running:
        if process.wait(3600):
            raise SystemExit(f"A node of {kind} ended with {process.returncode}; look into {folder}.")
    for process in processes:
        process.kill()
        process.wait()
    if links:
        print(f"slow: {sum(link.bytes for link in links) / 1e6 / nodes / rounds:.2f} MB a node and round over its link")
    return [
        [json.loads(line) for line in (folder / f"node-{number}" / "rounds.jsonl").read_text().splitlines()]
        for number in range(nodes)
    ]


def simulated(nodes: int, rounds: int) -> tuple[str, float]:
    """The weights of the in-process simulation, and its seconds a round."""
    import torch

    from hailproof.runs.build import build
    from hailproof.runs.config import RunConfig
    from hailproof.service.state import weights_hash
    from hailproof.settings import validated

    torch.set_num_threads(1)
    tree = {**RUN, "rounds": rounds, "attack": {"name": "text", "malicious": 1}}
    tree["swarm"] = {**RUN["swarm"], "nodes": nodes, "topology": "horizontal"}
    experiment = build(validated(RunConfig, tree))
    started = time.perf_counter()
    for round in range(1, rounds + 1):
        experiment.swarm.play(round)
    return weights_hash(experiment.swarm.honest[0]).hex(), (time.perf_counter() - started) / rounds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exchange", nargs="*", default=["folder", "relay", "zenoh", "slow"])
    options = parser.parse_args()
    expected, seconds = simulated(options.nodes, options.rounds)
    print(f"in one process: {seconds:.1f} s a round, weights {expected[:16]}", flush=True)
    print("| exchange | equal | equal to the simulation | produce | exchange | learn | agree | MB sent a round |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for kind in options.exchange:
        lines = played(kind, options.out.resolve() / kind, options.nodes, options.rounds)
        ends = {line[-1]["weights"] for line in lines}
        stages = [
            sum(line["seconds"][stage] for node in lines for line in node) / len(lines) / options.rounds
            for stage in ("produce", "exchange", "learn", "agree")
        ]
        sent = sum(node[-1]["bytes"]["sent"] for node in lines) / 1e6 / len(lines) / options.rounds
        cells = [kind, len(ends) == 1, ends == {expected}, *(f"{stage:.2f} s" for stage in stages), f"{sent:.3f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
