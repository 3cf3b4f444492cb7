"""A swarm under chaos: nodes and the relay killed, packets cut and changed, a partition; what must hold all the same.

    python benchmarks/bench_chaos.py [OUT] [--rounds 6] [--nodes 6] [--seed 0] [--minutes 20] [--pace 1]

`hailproof relay` and nano nodes run as processes; the last node sends what TEXT forges, and `replay` defends. Each node
reaches the relay through a TCP proxy of its own, which delays chunks, changes bytes of answers, and cuts connections.
By a schedule that the seed draws, nodes are killed with SIGKILL in the middle of rounds and started again, so is the
relay, and for ten rounds (a quarter of all, if those are fewer) a third of the nodes reaches nothing. Afterwards the
files of all nodes and the envelopes that the relay kept are compared; the exit status is 1 unless

* every round ended by its deadline: the median member closed it in time, and no node that was not cut off waited for
  a quorum,
* no node ended by itself, but for the end of its rounds,
* no honest node learned from a completion that its sender did not sign for that round, or that a defense rejected,
* all honest nodes ended with the same weights, after the last round.

The headline is `--rounds 200 --minutes 240`; the last line says what that takes.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

import tomli_w

from hailproof.campaigns.sweep import fresh_processes
from hailproof.errors import PeerError
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity
from hailproof.wire import Batch, Place, State, decoded, opened

TIMING = {"commit": 30.0, "reveal": 10.0, "seal": 10.0, "seen": 10.0, "state": 30.0, "lobby": 300.0, "poll": 0.05}
HEADLINE = 200
SLOW, DELAY = 0.1, 0.1
"""Share of chunks that a proxy delays, and by how many seconds at the most."""
CHANGED = 0.002
"""Share of chunks from the relay in which a proxy changes a byte."""
CUT_AFTER = 300_000
"""Bytes after which a proxy cuts a connection, in the mean."""
KILLED, RESTARTED = 0.4, 0.08
"""Share of rounds in which a node is killed, and in which the relay is."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Link:
    """A TCP proxy of one node, in a thread of its own.

    Args:
        target: The relay's port.
        seed: Of what it does to connections.
    """

    def __init__(self, target: int, seed: str) -> None:
        self.port, self.target, self.down = free_port(), target, False
        self.done: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        async with server:
            while True:
                if self.down:
                    for writer in list(self._open):
                        writer.close()
                await asyncio.sleep(0.1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if self.down:
                self.done["refused"] += 1
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(back)
            self._open.update(ends)
            left = [self._rng.expovariate(1 / CUT_AFTER)]
            ways = [self._pass(reader, back, left, changes=False), self._pass(there, writer, left, changes=True)]
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            self.done["relay away"] += 1
        finally:
            for end in ends:
                self._open.discard(end)
                end.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[float], changes: bool
    ) -> None:
        """Passes bytes on in one direction until the connection ends or is cut."""
        rng = self._rng
        while data := await reader.read(16384):
            left[0] -= len(data)
            if left[0] < 0:
                self.done["cut"] += 1
                return
            if rng.random() < SLOW:
                self.done["delayed"] += 1
                await asyncio.sleep(rng.uniform(0, DELAY))
            if changes and rng.random() < CHANGED:
                self.done["changed"] += 1
                place = rng.randrange(len(data))
                data = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
            writer.write(data)
            await writer.drain()


@dataclass(frozen=True)
class Plan:
    """What happens in which round, once the first node plays it.

    Attributes:
        kills: Which node is killed; ``None`` for the relay.
        cut_off: Nodes that reach nothing while it lasts.
        partition: First and last round of that.
    """

    kills: dict[int, int | None]
    cut_off: tuple[int, ...]
    partition: tuple[int, int]


def planned(rounds: int, nodes: int, seed: int) -> Plan:
    """Draws what happens; in the last round nothing does, and in a partition only those are killed who are cut off.

    So whoever is needed for a quorum is there, and every round can end by its deadline.
    """
    rng = random.Random(f"chaos {seed}")
    begin = rounds // 2 + 2
    partition = (begin, begin + min(10, rounds // 4) - 1)
    cut_off = tuple(sorted(rng.sample(range(nodes), nodes // 3)))
    kills: dict[int, int | None] = {2: rng.randrange(nodes), 3: None}
    for round in range(4, rounds):
        drawn = rng.random()
        inside = partition[0] - 1 <= round <= partition[1] + 1
        if drawn < KILLED:
            kills[round] = rng.choice(cut_off) if inside else rng.randrange(nodes)
        elif drawn < KILLED + RESTARTED and not inside:
            kills[round] = None
    return Plan(kills, cut_off, partition)


@dataclass
class Chaos:
    """A swarm of processes, and what was done to it.

    Attributes:
        folder: Where everything lies.
        nodes: How many nodes.
        rounds: How many rounds.
        seed: Of the schedule.
        pace: Deadlines are those of ``TIMING``, divided by this.
        by_itself: Nodes that ended with an error that was not ours: index and exit status.
        killed: How many nodes and relays were killed.
        cpu: Seconds of processor time, by process.
        links: Between each node and the relay.
        swarm: The swarm's id.
    """

    folder: Path
    nodes: int
    rounds: int
    seed: int
    pace: float = 1.0
    by_itself: list[tuple[int, int]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    cpu: dict[int, float] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    swarm: str = ""

    def __post_init__(self) -> None:
        self.plan = planned(self.rounds, self.nodes, self.seed)
        self.identities = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(self.nodes)]
        self.honest = range(self.nodes - 1)
        paced = {phase: seconds / self.pace for phase, seconds in TIMING.items() if phase not in ("lobby", "poll")}
        self.timing = {**TIMING, **paced}
        self._port = free_port()
        self._rng = random.Random(f"times {self.seed}")
        self._running: dict[int, BaseProcess] = {}
        self._back: dict[int, float] = {}
        self._relay: BaseProcess | None = None
        self._relay_back = 0.0

    def write(self) -> None:
        """The files of the swarm."""
        from hailproof.runs.build import shared
        from hailproof.service.config import load_swarm

        swarm = {"prompts": 2, "group_size": max(6, self.nodes), "device": "cpu"}
        run = {
            "rounds": self.rounds, "seed": 1, "swarm": swarm,
            "sampling": {"max_new_tokens": 48}, "task": {"options": {"size": 200, "test_size": 8}},
            "evaluation": {"problems": 4}, "defense": [{"name": "replay"}],
        }  # fmt: skip
        members = [each.name for each in self.identities]
        tree = {"name": "chaos", "members": members, "timing": self.timing, "run": run}
        path = self.folder / "swarm.toml"
        path.write_text(tomli_w.dumps(tree))
        file = load_swarm(path)
        self.swarm = file.id_of(shared(file.run_config()))
        for number, identity in enumerate(self.identities):
            identity.save(self.folder / f"{number}.pem")
            self.links.append(Link(self._port, f"link {self.seed} {number}"))
            node: dict[str, Any] = {
                "swarm": "swarm.toml", "identity": f"{number}.pem", "folder": f"node-{number}", "threads": 1,
                "exchange": f"http://127.0.0.1:{self.links[-1].port}",
                "retention": self.rounds, **({} if number in self.honest else {"attack": {"name": "text"}}),
            }  # fmt: skip
            (self.folder / f"{number}.toml").write_text(tomli_w.dumps(node))

    def play(self, minutes: float) -> None:
        """Lets the swarm play all its rounds, and does to it what is planned.

        Raises:
            SystemExit: If it does not end in time.
        """
        self._start_relay()
        for number in range(self.nodes):
            self._start(number)
        due, until = dict(self.plan.kills), time.monotonic() + 60 * minutes
        waits: dict[int, float] = {}
        try:
            while self._running or self._back:
                now = time.monotonic()
                if now > until:
                    raise SystemExit(f"The swarm has not ended after {minutes} minutes; look into {self.folder}.")
                reached = max(map(self.round_of, range(self.nodes))) + 1
                for link in (self.links[number] for number in self.plan.cut_off):
                    link.down = self.plan.partition[0] <= reached <= self.plan.partition[1]
                for round in [round for round in due if round <= reached]:
                    waits.setdefault(round, now + self._rng.uniform(0, 3))  # into any phase of it
                    if now >= waits[round] and not self._back and self._relay is not None:
                        self._kill(due.pop(round), now)
                self._look(now)
                time.sleep(0.1)
        finally:
            for process in (*self._running.values(), *([self._relay] if self._relay else [])):
                process.kill()
                process.join()

    def _kill(self, victim: int | None, now: float) -> None:
        process = self._relay if victim is None else self._running.get(victim)
        if process is None:
            return  # it has played all its rounds
        process.kill()
        process.join()
        self.killed["relay" if victim is None else "nodes"] += 1
        if victim is None:
            self._relay, self._relay_back = None, now + self._rng.uniform(0, 3)
        else:
            del self._running[victim]
            self._back[victim] = now + self._rng.uniform(0, 6)

    def _look(self, now: float) -> None:
        """Starts again what is due, and notices what has ended."""
        if self._relay is None and now >= self._relay_back:
            self._start_relay()
        for number, at in list(self._back.items()):
            if now >= at:
                del self._back[number]
                self._start(number)
        for process in (*self._running.values(), *([self._relay] if self._relay else [])):
            with suppress(OSError, IndexError, ValueError):
                stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu[process.pid or 0] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        for number, process in list(self._running.items()):
            if process.exitcode is not None:
                del self._running[number]
                if process.exitcode:
                    self.by_itself.append((number, process.exitcode))
                    self._back[number] = now + 1

    def _start(self, number: int) -> None:
        self._running[number] = started(self.folder, str(number), "node", f"{number}.toml")

    def _start_relay(self) -> None:
        arguments = ("relay", "swarm.toml", "--folder", "kept", "--port", str(self._port), "--swarm-id", self.swarm)
        self._relay = started(self.folder, "relay", *arguments)

    def round_of(self, number: int) -> int:
        """The last round that a node has finished."""
        try:
            status = json.loads((self.folder / f"node-{number}" / "status.json").read_text())
            return int(status["last"]["round"])
        except (OSError, ValueError, LookupError, TypeError):
            return 0

    # -- what came of it

    def lines(self, number: int) -> list[dict[str, Any]]:
        """The line of each round of a node."""
        text = (self.folder / f"node-{number}" / "rounds.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def said(self, round: int, phase: str, kind: type, number: int) -> list[Any]:
        """What a node has signed in a place, as the relay kept it."""
        place = Place(self.swarm, round, phase, self.identities[number].key)  # type: ignore[arg-type]
        found = []
        for path in sorted((self.folder / "kept" / place.prefix).glob("*")):
            envelope = opened(path.read_bytes(), 1 << 30, {place.sender}, place)
            found.append(decoded(kind, envelope.payload))
        return found

    def late(self) -> Iterator[str]:
        """Rounds that did not end by their deadline."""
        closed = [self._closed(round) for round in range(self.rounds + 1)]
        most = Timing(**self.timing).until("state")
        self.longest = 0.0
        for round in range(1, self.rounds + 1):
            seconds = (median(closed[round]) - median(closed[round - 1])) / 1000
            self.longest = max(self.longest, seconds)
            if seconds > most and round > 1:
                yield f"round {round} took {seconds:.1f} s, where {most:.0f} s are allowed"
        for number in self.honest:
            waited = [line["round"] for line in self.lines(number) if line["stalled"] and not line["followed"]]
            if waited := [round for round in waited if not self._is_cut_off(number, round)]:
                yield f"node {number} waited for a quorum in rounds {waited}"

    def _is_cut_off(self, number: int, round: int) -> bool:
        """Whether a node reached nothing as it played a round; if it was killed before, it is behind the others."""
        begin, end = self.plan.partition
        if number not in self.plan.cut_off or round > end:
            return False
        own = self.said(round, "state", State, number)
        return round >= begin or bool(own and own[0].closed > median(self._closed(begin - 1)))

    def _closed(self, round: int) -> list[int]:
        return [state.closed for number in range(self.nodes) for state in self.said(round, "state", State, number)[:1]]

    def unsigned(self) -> Iterator[str]:
        """Completions that an honest node learned from and must not."""
        signed: dict[tuple[int, int], set[tuple[Any, ...]]] = {}
        self.learned = self.rejected = 0
        for number in self.honest:
            for path in sorted((self.folder / f"node-{number}" / "archive").glob("*.jsonl")):
                for row in map(json.loads, path.read_text().splitlines()):
                    rejected = any(verdict["decision"] == "reject" for verdict in row["verdicts"])
                    self.rejected += rejected
                    if not row["admitted"]:
                        continue
                    self.learned += 1
                    place = row["round"], row["sender"]
                    if place not in signed:
                        signed[place] = {self._content(item) for item in self._items(*place)}
                    spoken = row["completion"], row["finished"]
                    content = row["problem_id"], row["slot"], tuple(row["token_ids"]), *spoken
                    if rejected or content not in signed[place]:
                        why = "a defense rejected it" if rejected else "its sender did not sign it"
                        yield f"node {number} learned in round {row['round']} from {row['sender']} although {why}"

    def _items(self, round: int, sender: int) -> Iterator[Any]:
        with suppress(PeerError):
            for batch in self.said(round, "reveal", Batch, sender):
                yield from batch.items

    @staticmethod
    def _content(item: Any) -> tuple[Any, ...]:
        return item.problem_id, item.slot, item.token_ids, item.text, item.finished

    def apart(self) -> Iterator[str]:
        """Honest nodes that do not hold what the others hold after the last round."""
        last = {number: self.lines(number)[-1] for number in self.honest}
        for number, line in last.items():
            if line["round"] != self.rounds:
                yield f"node {number} ended after round {line['round']}"
        if len({line["weights"] for line in last.values()}) > 1:
            yield f"weights differ: { {number: line['weights'][:8] for number, line in last.items()} }"


def commanded(folder: Path, name: str, arguments: Sequence[str]) -> None:
    """The command, in a process that has imported everything."""
    from hailproof.cli import main

    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the script ends it
    sys.argv = ["hailproof", *arguments]
    main()


def started(folder: Path, name: str, *arguments: str) -> BaseProcess:
    process = fresh_processes().Process(target=commanded, args=(folder, name, arguments))
    process.start()
    return process


def report(chaos: Chaos, seconds: float) -> bool:
    """Says line by line what holds; whether all of it does."""
    done = sum((link.done for link in chaos.links), Counter())
    plan, cut = chaos.plan, ", ".join(map(str, chaos.plan.cut_off))
    print(f"{chaos.nodes} nodes, {chaos.rounds} rounds, {seconds / 60:.1f} minutes; seed {chaos.seed}")
    print(f"killed: {chaos.killed['nodes']} nodes, {chaos.killed['relay']} relays; connections: {dict(done)}")
    print(f"nodes {cut} reached nothing in rounds {plan.partition[0]} to {plan.partition[1]}")
    crashed = [f"node {number} ended with {status}" for number, status in chaos.by_itself]
    found = {
        "every round ended by its deadline": list(chaos.late()),
        "no node crashed by itself": crashed,
        "no honest node learned from an unsigned or rejected completion": list(chaos.unsigned()),
        "all honest weights are equal at the end": list(chaos.apart()),
    }
    evidence = {
        "every round ended by its deadline": f"the longest took {chaos.longest:.1f} s",
        "no honest node learned from an unsigned or rejected completion":
            f"{chaos.learned} learned from, {chaos.rejected} rejected",
    }  # fmt: skip
    for claim, wrong in found.items():
        more = f" ({evidence[claim]})" if claim in evidence else ""
        print(f"{'FAILED' if wrong else 'ok'}: {claim}{more}")
        for each in wrong[:10]:
            print(f"    {each}")
    everything = [line for number in chaos.honest for line in chaos.lines(number)]
    refused = sum((Counter(chaos.lines(number)[-1]["refused"]) for number in chaos.honest), Counter())
    print(f"followed afterwards: {sum(line['followed'] for line in everything)} of {len(everything)} rounds of a node")
    print(f"apart for a round: {sum(line['equal'] is False for line in everything)}; refused: {dict(refused)}")
    minutes, wall = (total * HEADLINE / chaos.rounds / 60 for total in (sum(chaos.cpu.values()), seconds))
    print(f"The headline: python benchmarks/bench_chaos.py OUT --rounds {HEADLINE} --minutes 240; by this run it takes")
    print(f"about {minutes:.0f} minutes of processor time, {wall:.0f} minutes where it runs as this did")
    return not any(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="an empty folder; without, one that is removed afterwards")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--pace", type=float, default=1.0, help="by how much deadlines are shorter than usual")
    options = parser.parse_args()
    if options.rounds < 6 or options.nodes < 4:
        raise SystemExit("Chaos needs at least 6 rounds and 4 nodes; give more.")
    if options.pace <= 0:
        raise SystemExit(f"--pace {options.pace} is not above 0; 2 halves the deadlines.")
    with tempfile.TemporaryDirectory() as spare:
        folder = options.out.resolve() if options.out else Path(spare)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SystemExit(f"{folder} is not empty; name a new folder.")
        chaos = Chaos(folder, options.nodes, options.rounds, options.seed, options.pace)
        chaos.write()
        began = time.monotonic()
        chaos.play(options.minutes)
        if not report(chaos, time.monotonic() - began):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
