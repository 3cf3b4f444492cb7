"""Real swarms of nano models for tests: files of nodes, and nodes as threads of this process."""

import io
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from hailproof.identity import Identity

RUN = {
    "rounds": 2,
    "seed": 3,
    "swarm": {"prompts": 2, "group_size": 6, "device": "cpu"},
    "sampling": {"max_new_tokens": 40},
    "task": {"options": {"size": 40, "test_size": 8}},
    "learner": {"learning_rate": 1e-3},
    "evaluation": {"problems": 4},
}
PATIENT = {"commit": 60.0, "reveal": 30.0, "seal": 30.0, "seen": 30.0, "state": 60.0, "lobby": 60.0, "poll": 0.02}
IDENTITIES = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(6)]


def swarm_files(
    folder: Path,
    nodes: int,
    exchange: str = "exchange",
    run: Mapping[str, Any] | None = None,
    timing: Mapping[str, float] | None = None,
    draws: str = "public",
    **node: Any,
) -> list[Path]:
    """Writes the files of a swarm; returns those of its nodes."""
    members = [identity.name for identity in IDENTITIES[:nodes]]
    merged, times = {**RUN, **(run or {})}, {**PATIENT, **(timing or {})}
    shared = {"name": "test", "members": members, "draws": draws, "run": merged, "timing": times}
    (folder / "swarm.toml").write_text(tomli_w.dumps(shared))
    paths = []
    for index in range(nodes):
        key = folder / f"{index}.pem"
        if not key.exists():
            IDENTITIES[index].save(key)
        tree = {"swarm": "swarm.toml", "identity": key.name, "folder": f"node-{index}", "exchange": exchange, **node}
        paths.append(folder / f"{index}.toml")
        paths[-1].write_text(tomli_w.dumps(tree))
    return paths


class Nodes:
    """Nodes that run as threads; an error of one is raised when they are joined."""

    def __init__(self) -> None:
        self.services: dict[int, Any] = {}
        self.logs: dict[int, io.StringIO] = {}
        self._threads: dict[int, threading.Thread] = {}
        self.errors: dict[int, BaseException] = {}

    def start(self, index: int, path: Path) -> Any:
        from hailproof.service.config import load_node
        from hailproof.service.node import NodeService
        from hailproof.service.records import Log

        self.logs[index] = io.StringIO()
        service = self.services[index] = NodeService(load_node(path), Log(self.logs[index], node=index))

        def run() -> None:
            try:
                service.run()
            except BaseException as error:
                self.errors[index] = error

        self._threads[index] = threading.Thread(target=run, daemon=True)
        self._threads[index].start()
        return service

    def stop(self, index: int) -> None:
        self.services[index].stopping.set()
        self.join(index)

    def join(self, *indices: int, seconds: float = 120) -> None:
        for index in indices or list(self._threads):
            self._threads[index].join(seconds)
            assert not self._threads[index].is_alive(), self.logs[index].getvalue()[-2000:]
        if self.errors:
            raise next(iter(self.errors.values()))

    def events(self, index: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs[index].getvalue().splitlines()]


def lines(folder: Path, index: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"node-{index}" / "rounds.jsonl").read_text().splitlines()]
