"""What one node of a swarm of m members sends, fetches, checks and holds in a round, and how that grows with m.

    python benchmarks/bench_scale_swarm.py [--members 4 16 64 256 1024 4096 10000] [--panel 101] [--out docs/scale]

Keys, envelopes, store, gate and rounds are the real ones. One process makes the envelopes of all members and puts them
into a folder; then nodes play the round against it, each in a process of its own, and everything they would send must
lie there already, byte for byte. The work of a round is that of B = 32 prompts with G = 12 completions of 512 tokens
and 4 characters a token (token ids drawn evenly below 151,936, the worst case for their length), dealt to all members
in turn; members beyond the 384th send an empty batch.

`all`: the protocol as nodes run it; all members send and list. `panel`: a panel of k members, drawn by the beacon of
the round before, sends and lists, and the node is one of them; `follower`: the node only follows it. These two run the
same code with the panel as the list of members.

Inventories of all members have m * m entries together. Beyond a million of them a node takes up as many whole
inventories as fit, and its figures of that phase are multiplied (`scaled` in the table); a quorum is then never there,
so that the round ends before it is decided.
"""

import argparse
import csv
import hashlib
import os
import platform
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import log
from multiprocessing import get_context
from pathlib import Path
from statistics import linear_regression

from synthetic import GROUP, PROMPTS, completion

from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.panels import panel
from hailproof.exchange.rounds import Stopped, StoreExchange
from hailproof.exchange.stores import FolderStore, MemoryStore, Store
from hailproof.exchange.timing import Timing
from hailproof.identity import Identity
from hailproof.records import Problem, Slot, Submission
from hailproof.topology import Planner, Rules, reassigned
from hailproof.wire import (
    Batch,
    Commit,
    Entry,
    Phase,
    Place,
    Seal,
    Seen,
    State,
    batch_of,
    decoded,
    encoded,
    sealed,
)

SEED, ROUND, BEGAN = 7, 1, 1_700_000_000
MOST_ENTRIES = 1 << 20
SWARM = "scale-0123456789abcdef"
PROBLEMS = tuple(Problem(f"problem-{number}", "?", "0") for number in range(4 * PROMPTS))
PAYLOADS: dict[Phase, type] = {"commit": Commit, "reveal": Batch, "seal": Seal, "seen": Seen, "state": State}
FIGURES = ("sent", "received", "envelopes", "lists", "verify", "cpu", "memory")
"""Bytes, bytes, envelopes, calls of the store, seconds, seconds, MiB."""


@dataclass
class CountingStore:
    """Counts by phase what a node asks of a store."""

    inner: Store
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, data: bytes) -> bool:
        fresh = self.inner.put(name, data)
        self._count("sent", name, len(data))
        if fresh:
            self.unknown.append(name)
        return fresh

    def get(self, name: str, limit: int) -> bytes | None:
        data = self.inner.get(name, limit)
        self._count("received", name, len(data or b""))
        self._count("envelopes", name, 1)
        return data

    def names(self, prefix: str, limit: int) -> list[str]:
        self._count("lists", prefix, 1)
        return self.inner.names(prefix, limit)

    def parts(self, prefix: str, limit: int) -> list[str]:
        return self.inner.parts(prefix, limit)

    def close(self) -> None:
        self.inner.close()

    def _count(self, what: str, name: str, many: int) -> None:
        with self.lock:
            self.counts[what, name.split("/")[2]] += many


@dataclass(frozen=True)
class Job:
    """One node's round.

    Attributes:
        folder: The store.
        members: Who sends and lists, by public key.
        seed: Of the node's key.
        submissions: What it sends; ``None``: it follows.
        decision: Hash of what is decided if all counts.
        share: Of how many of the inventories those that lie there are one.
    """

    folder: Path
    members: tuple[bytes, ...]
    seed: bytes
    submissions: tuple[Submission, ...] | None
    decision: bytes
    share: float = 1.0


@dataclass(frozen=True)
class Played:
    """What a round cost a node; figures as in ``FIGURES``, those of inventories multiplied by ``Job.share``.

    Attributes:
        figures: All together.
        microseconds: To check and decode one envelope, by phase.
        decision: Hash of what was decided; ``None`` if the inventories were not all there.
        beacon: The beacon of the round.
        unknown: Names that the node sent and that did not lie there already.
    """

    figures: dict[str, float]
    microseconds: dict[str, float]
    decision: bytes | None
    beacon: int | None
    unknown: tuple[str, ...]


def seed_of(number: int) -> bytes:
    """The secret seed of a member's key."""
    return hashlib.sha256(f"member {number}".encode()).digest()


def dealt(members: int, offset: int) -> dict[int, list[Slot]]:
    """The slots of each member: the plan of a round, whose slots go on to all in turn where it is for fewer."""
    seats = min(members, GROUP)
    slots = Planner(Rules(seats, "horizontal", PROMPTS, GROUP, "assigned", SEED), PROBLEMS).plan(ROUND).slots
    if members > seats:
        slots = reassigned(slots, range(seats), range(members), whole_groups=False, offset=offset)
    found: dict[int, list[Slot]] = {index: [] for index in range(members)}
    for slot in slots:
        found[slot.node].append(slot)
    return found


def written(slots: Sequence[Slot], rng: random.Random) -> tuple[Submission, ...]:
    """Completions as long as they may be."""
    return tuple(Submission(ROUND, slot.node, slot.problem_id, slot.index, completion(rng)) for slot in slots)


def state(decision: bytes) -> State:
    """What a member holds after a round."""
    return State(decision, bytes(32), bytes(32), BEGAN * 1000)


def spoken(
    store: Store, seeds: Sequence[bytes], inventories: int
) -> tuple[dict[bytes, tuple[Submission, ...]], bytes]:
    """Puts into a store what members say in a round, and their states before it.

    Args:
        store: The store.
        seeds: Of the members' keys.
        inventories: How many of them list.

    Returns:
        What each sends, by public key, and the hash of what all decide.
    """
    identities = [Identity.of_seed(seed) for seed in seeds]
    rng, plan = random.Random(SEED), dealt(len(seeds), offset=0)
    sent = {each.key: written(plan[index], rng) for index, each in enumerate(identities)}

    def say(identity: Identity, phase: Phase, payload: bytes, round: int = ROUND) -> None:
        place = Place(SWARM, round, phase, identity.key)
        frame = sealed(identity, place, payload)
        store.put(place.name(frame), frame)

    entries = []
    for identity in identities:
        batch, nonce = encoded(batch_of(sent[identity.key])), identity.secret("nonce", SWARM, ROUND)
        sha256 = hashlib.sha256(batch).digest()
        say(identity, "state", encoded(state(bytes(32))), round=ROUND - 1)
        say(identity, "commit", encoded(Commit(len(batch), sha256, hashlib.sha256(nonce).digest())))
        say(identity, "reveal", batch)
        say(identity, "seal", encoded(Seal(nonce)))
        entries.append(Entry(identity.key, sha256, nonce))
    inventory = encoded(Seen(tuple(sorted(entries, key=lambda entry: entry.sender))))
    decision = hashlib.sha256(inventory).digest()
    for number, identity in enumerate(identities):
        if number < inventories:
            say(identity, "seen", inventory)
        say(identity, "state", encoded(state(decision)))
    return sent, decision


def memory(what: str) -> float:
    """MiB that this process holds (VmRSS), or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def play(job: Job) -> Played:
    """Plays a round as one node."""
    store, identity = CountingStore(FolderStore(job.folder)), Identity.of_seed(job.seed)
    gate = Gate(Limits(members=len(job.members)), job.members, SWARM)
    marks: dict[str, tuple[float, float]] = {}

    def mark(phase: str) -> None:
        marks[phase] = (time.process_time(), memory("VmHWM"))

    began = time.monotonic()
    exchange = StoreExchange(
        store, identity, job.members, SWARM, Timing(600, 600, 600, 600, 600), gate, MemoryStore(),
        clock=lambda: BEGAN + time.monotonic() - began, tell=mark,
        stopping=lambda: True,  # all is there at the first look, but for inventories that were not made
    )  # fmt: skip
    base = memory("VmRSS")
    exchange.states(ROUND - 1)
    store.counts.clear()
    mark("begin")
    gathered = None
    with suppress(Stopped):
        gathered = exchange.gather(ROUND, job.submissions)
    mark("end")
    if gate.refused:
        raise SystemExit(f"A node refused what the others sent: {dict(gate.refused)}.")
    if gathered is None and (job.share == 1 or "seen" not in marks):
        raise SystemExit("A round did not end at the first look; something in the store is missing.")
    if job.submissions is None:
        exchange.states(ROUND)
    else:
        exchange.agree(ROUND, state(gathered.decision if gathered else job.decision))
    mark("over")
    microseconds = {phase: checked(store.inner, phase, job.members) for phase in PAYLOADS}
    figures = {
        name: float(sum(many * (job.share if phase == "seen" and name != "lists" and name != "sent" else 1)
                        for (what, phase), many in store.counts.items() if what == name))
        for name in FIGURES[:4]
    }  # fmt: skip
    figures["verify"] = sum(
        store.counts["envelopes", phase] * (job.share if phase == "seen" else 1) * each / 1e6
        for phase, each in microseconds.items()
    )
    for index, (name, first) in enumerate((("cpu", marks["begin"][0]), ("memory", base))):
        seen, end, over = (marks[each][index] for each in ("seen", "end", "over"))
        figures[name] = whole(first, seen, end, over, job.share)
    decided, beacon = (gathered.decision, gathered.beacon) if gathered else (None, None)
    return Played(figures, microseconds, decided, beacon, tuple(store.unknown))


def whole(begin: float, seen: float, end: float, over: float, share: float) -> float:
    """What a meter would have moved by if the inventories, read from ``seen`` to ``end``, had been all of them."""
    return over - begin + (end - seen) * (share - 1)


def checked(store: Store, phase: Phase, members: tuple[bytes, ...]) -> float:
    """Microseconds of processor time to check and decode an envelope of a phase, over up to 400 of them."""
    limits = Limits(members=len(members))
    most = max(4, min(400, MOST_ENTRIES // 8 // len(members) if phase == "seen" else 400))
    names = store.names(Place(SWARM, ROUND, phase).prefix, most)
    frames = [(name, data) for name in names if (data := store.get(name, 1 << 30)) is not None]
    done, started = 0, time.process_time()
    while not done or time.process_time() - started < 0.2:
        gate = Gate(limits, members, SWARM)
        for name, data in frames:
            decoded(PAYLOADS[phase], gate.take(name, data).payload)
            done += 1
    return (time.process_time() - started) / done * 1e6


def rounds_of(
    members: int, size: int, folder: Path, nodes: int, followers: int = 0, entries: int = MOST_ENTRIES
) -> tuple[list[Job], list[Job], Sequence[bytes]]:
    """Fills a store with a round; the jobs of a few of those who send, and of a few who follow.

    Args:
        members: Nodes of the swarm m.
        size: Members of the panel; ``members`` for all.
        folder: Where the store will lie.
        nodes: How many of those who send are played.
        followers: How many of the others are.
        entries: The most that all inventories in the store have together.
    """
    seeds = [seed_of(number) for number in range(members)]
    keys = {Identity.of_seed(seed).key: seed for seed in seeds}
    chosen = panel(tuple(keys), size, SEED, ROUND) if size < members else tuple(keys)
    inventories = min(len(chosen), max(1, entries // len(chosen)))
    sent, decision = spoken(FolderStore(folder), [keys[key] for key in chosen], inventories)
    share = len(chosen) / inventories
    few = [chosen[index * (inventories - 1) // max(1, nodes - 1)] for index in range(nodes)]
    others = [key for key in keys if key not in sent][:followers]
    playing = [Job(folder, chosen, keys[key], sent[key], decision, share) for key in few]
    return playing, [Job(folder, chosen, keys[key], None, decision, share) for key in others], chosen


def measured(
    members: int, size: int, nodes: int, followers: int, kind: str, entries: int
) -> list[dict[str, float | int | str]]:
    """Rows of the table for one size of the swarm: what it costs a node that sends, and one that follows."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        playing, following, chosen = rounds_of(members, size, Path(folder) / "store", nodes, followers, entries)
        rows = []
        decisions = set()
        for name, jobs in ((kind, playing), ("follower", following)):
            results: list[Played] = []
            for job in jobs:  # a process for each, so that memory is that of one node
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    results.append(pool.submit(play, job).result())
            if not results:
                continue
            if any(each.unknown for each in results):
                raise SystemExit("A node sent something else than the process that speaks for all members.")
            decisions |= {(each.decision, each.beacon) for each in results}
            if len(decisions) > 1:
                raise SystemExit(f"Nodes of a swarm of {members} decided differently.")
            mean = {key: sum(each.figures[key] for each in results) / len(results) for key in FIGURES}
            each_us = {
                f"us_{phase}": round(sum(each.microseconds[phase] for each in results) / len(results), 1)
                for phase in PAYLOADS
            }
            scaled = "yes" if jobs[0].share > 1 else "no"
            row: dict[str, float | int | str] = {
                "kind": name, "members": members, "panel": len(chosen), "nodes": len(results), "scaled": scaled,
            }  # fmt: skip
            rows.append({**row, **{key: round(value, 4) for key, value in mean.items()}, **each_us})
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The exponent b of a * m^b through points (m, figure): the slope of a line in logarithms."""
    return linear_regression([log(m) for m, _ in points], [log(max(y, 1e-9)) for _, y in points]).slope


def draw(rows: Sequence[dict[str, float | int | str]], out: Path, size: int) -> None:
    """Draws the figures over m, both in logarithms; hollow marks are multiplied figures."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter

    from hailproof.reports.figures import COLORS, DASHES, INK, LEGEND, MUTED, RULE, STYLE

    panels = (
        ("received", 1e6, "Received, MB a node and round"), ("sent", 1e3, "Sent, kB a node and round"),
        ("envelopes", 1, "Envelopes checked"), ("verify", 1, "Seconds of one core to check them"),
        ("cpu", 1, "Seconds of one core for the round's exchange"), ("memory", 1, "Peak memory of a round, MiB"),
    )  # fmt: skip
    names = {"all": "all members send and list", "panel": f"a panel of {size} does: one of it",
             "follower": "a panel does: one that follows"}  # fmt: skip
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure = Figure(figsize=(11, 6.8))
        grid = figure.subplots(2, 3)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.085, top=0.835, wspace=0.25, hspace=0.42)
        figure.text(0.02, 0.955, "One node, one round, m members", fontsize=15, fontweight="bold", color=INK)
        for (key, unit, title), axes in zip(panels, grid.flat, strict=True):
            axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            for index, kind in enumerate(names):
                found = [row for row in rows if row["kind"] == kind and float(row[key]) > 0]
                m = [float(row["members"]) for row in found]
                y = [float(row[key]) / unit for row in found]
                axes.plot(m, y, color=COLORS[index], linestyle=DASHES[kind == "follower"], zorder=3)
                for row, at, height in zip(found, m, y, strict=True):
                    face = "white" if row["scaled"] == "yes" and key != "sent" else COLORS[index]
                    axes.plot([at], [height], "o", color=COLORS[index], markerfacecolor=face, markersize=5, zorder=4)
            axes.minorticks_off()
            axes.set_axisbelow(True)
            axes.grid(which="major", color=RULE)
            for axis in (axes.xaxis, axes.yaxis):  # the usual labels are formulas, which the style leaves as they are
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        for axes in grid[1]:
            axes.set_xlabel("members m")
        handles = [Line2D([], [], color=COLORS[index], linestyle=DASHES[kind == "follower"], marker="o", markersize=5)
                   for index, kind in enumerate(names)]  # fmt: skip
        handles.append(Line2D([], [], color=MUTED, marker="o", markerfacecolor="white", markersize=5, linestyle=""))
        labels = [*names.values(), "multiplied from a part of the inventories"]
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.015, 0.94), ncols=4, fontsize=10, **LEGEND)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=160, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[4, 16, 64, 256, 1024, 4096, 10_000])
    parser.add_argument("--panel", type=int, default=101, help="members of the panel, odd")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of each kind that are played")
    parser.add_argument("--fit-from", type=int, default=256, help="the smallest m whose growth is fitted")
    parser.add_argument("--entries", type=int, default=MOST_ENTRIES, help="of all inventories that are made")
    parser.add_argument("--out", type=Path, help="a folder for scale.csv and scale.png")
    options = parser.parse_args()
    load, python = os.getloadavg()[0], platform.python_version()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start, Python {python}")
    rows: list[dict[str, float | int | str]] = []
    for members in options.members:
        rows += measured(members, members, options.nodes, 0, "all", options.entries)
        if members > options.panel:
            rows += measured(members, options.panel, options.nodes, options.nodes, "panel", options.entries)
    print(f"\nGrowth with m, as the exponent of m, from m = {options.fit_from}:\n")
    print("| node | " + " | ".join(FIGURES) + " |\n|" + " --- |" * (len(FIGURES) + 1))
    for kind in ("all", "panel", "follower"):
        found = [row for row in rows if row["kind"] == kind and int(row["members"]) >= options.fit_from]
        if len(found) > 1:
            points = [[(float(row["members"]), float(row[key])) for row in found] for key in FIGURES]
            cells = [f"{slope(each):.2f}" if any(y for _, y in each) else "-" for each in points]
            print(f"| {kind} | {' | '.join(cells)} |")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "scale.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draw(rows, options.out / "scale.png", options.panel)


if __name__ == "__main__":
    main()
