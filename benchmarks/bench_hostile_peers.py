"""Hostile peers: mutated envelopes at a node's gate, and a flood at a relay, with the memory that they cost.

    python benchmarks/bench_hostile_peers.py [--envelopes 100000] [--seconds 20]

The first part changes sound envelopes of every phase at random and gives them to a gate: each must be refused with a
reason, and none may raise anything else. The second runs ``hailproof relay`` as a process and floods it over its socket
from several threads, with what a stranger, a member with a forged signature, a member that sends too much, and a member
that repeats itself can send; meanwhile an honest member's envelopes must come through.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import tomli_w
from msgspec import Struct

from hailproof.errors import PeerError, StoreError
from hailproof.exchange.gate import Gate, Limits
from hailproof.exchange.relay import RelayStore
from hailproof.identity import Identity
from hailproof.records import Completion, Submission
from hailproof.wire import (
    REASONS,
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

SWARM = "swarm-0123456789abcdef"
MEMBERS = [Identity.of_seed(bytes([number + 1]) * 32) for number in range(4)]
STRANGER = Identity.of_seed(b"s" * 32)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A frame with a few bytes changed, cut out, doubled or added."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        place, kind, length = rng.randrange(len(changed) or 1), rng.randrange(4), rng.randrange(1, 40)
        if kind == 0 and changed:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + length]
        else:
            changed[place:place] = changed[place : place + length] if kind == 2 else rng.randbytes(length)
    return bytes(changed)


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def mutations(count: int) -> None:
    """Mutated envelopes and mutated payloads under sound signatures."""
    rng = random.Random(0)
    items = [Submission(1, 0, f"p{slot}", slot, Completion("text " * 20, (1, 2, 3) * 9, True)) for slot in range(8)]
    payloads: dict[Phase, tuple[type, Struct]] = {
        "commit": (Commit, Commit(5, bytes(32), bytes(32))), "reveal": (Batch, batch_of(items)),
        "seal": (Seal, Seal(bytes(32))), "seen": (Seen, Seen((Entry(bytes(32), bytes(32), bytes(32)),))),
        "state": (State, State(bytes(32), bytes(32), bytes(32), 5)),
    }  # fmt: skip
    sound: dict[Phase, tuple[type, bytes, bytes]] = {
        phase: (kind, encoded(payload), sealed(MEMBERS[0], Place(SWARM, 1, phase), encoded(payload)))
        for phase, (kind, payload) in payloads.items()
    }
    reasons: Counter[str] = Counter()
    before, started = resident(os.getpid()), time.perf_counter()
    gate = Gate(Limits(members=4), [each.key for each in MEMBERS], SWARM)
    for number in range(count):
        phase = rng.choice(list(sound))
        kind, payload, frame = sound[phase]
        place = Place(SWARM, 1 + number, phase, MEMBERS[0].key)
        if number % 2:
            data = mutated(frame, rng)
            place = Place(SWARM, 1, phase, MEMBERS[0].key)
        else:
            data = sealed(MEMBERS[0], place, mutated(payload, rng))
        try:
            found = decoded(kind, gate.take(place.name(data), data).payload)
            reasons["sound by chance" if encoded(found) else ""] += 1
        except PeerError as error:
            assert error.reason in REASONS
            reasons[error.reason] += 1
    seconds = time.perf_counter() - started
    grown = resident(os.getpid()) - before
    print(f"{count:,} mutated envelopes in {seconds:.0f} s ({count / seconds:,.0f} a second): {dict(reasons)}")
    print(f"No other exception; memory grew by {grown:.0f} MiB, of which the gate's memory of places is most.\n")


def flood(url: str, seconds: float, pid: int) -> None:
    """Floods a relay from four threads, while an honest member sends."""
    until = time.monotonic() + seconds
    counts: Counter[str] = Counter()

    def attack(kind: str) -> None:
        store, rng = RelayStore(url, timeout=5), random.Random(kind)
        number = 0
        while time.monotonic() < until:
            number += 1
            place = Place(SWARM, number, "seal", MEMBERS[3].key)
            if kind == "stranger":
                place = Place(SWARM, number, "seal", STRANGER.key)
                data = sealed(STRANGER, place, encoded(Seal(bytes(32))))
            elif kind == "forged":
                data = bytearray(sealed(MEMBERS[3], place, encoded(Seal(bytes(32)))))
                data[50] ^= 1
                data = bytes(data)
            elif kind == "oversized":
                place = Place(SWARM, number, "reveal", MEMBERS[3].key)
                data = sealed(MEMBERS[3], place, rng.randbytes(64)) + bytes(12 << 20)
            else:
                place = Place(SWARM, 1, "seal", MEMBERS[3].key)
                data = sealed(MEMBERS[3], place, encoded(Seal(rng.randbytes(32))))
            try:
                store.put(place.name(data), data)
                counts[f"{kind}: kept"] += 1
            except (StoreError, PeerError):
                counts[f"{kind}: refused"] += 1

    kinds = ("stranger", "forged", "oversized", "repeated")
    threads = [threading.Thread(target=attack, args=(kind,)) for kind in kinds]
    base, most, honest, slowest = resident(pid), 0.0, 0, 0.0
    for thread in threads:
        thread.start()
    store = RelayStore(url)
    while time.monotonic() < until:
        place = Place(SWARM, honest + 1, "seal", MEMBERS[0].key)
        data = sealed(MEMBERS[0], place, encoded(Seal(bytes(32))))
        started = time.monotonic()
        try:
            store.put(place.name(data), data)
            assert store.get(place.name(data), 10_000) == data
            honest, slowest = honest + 1, max(slowest, time.monotonic() - started)
        except StoreError:
            counts["honest: refused"] += 1
        most = max(most, resident(pid))
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    print(f"Flood of {seconds:.0f} s over sockets: {dict(sorted(counts.items()))}")
    print(f"The relay held {base:.0f} MiB before and at most {most:.0f} MiB; {honest} honest envelopes came through, "
          f"the slowest put and get took {slowest:.2f} s.")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--envelopes", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--port", type=int, default=18470)
    options = parser.parse_args()
    mutations(options.envelopes)
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "swarm.toml"
        shared.write_text(tomli_w.dumps({"members": [each.name for each in MEMBERS]}))
        command = [
            sys.executable, "-m", "hailproof", "relay", str(shared), "--folder", f"{folder}/kept",
            "--port", str(options.port), "--requests-per-second", "10000",
        ]  # fmt: skip
        relay = subprocess.Popen(command)
        try:
            store = RelayStore(f"http://127.0.0.1:{options.port}")
            for _ in range(600):
                try:
                    store.names(f"{SWARM}/", 1)
                    break
                except StoreError:
                    time.sleep(0.1)
            flood(f"http://127.0.0.1:{options.port}", options.seconds, relay.pid)
        finally:
            relay.kill()
            relay.wait()


if __name__ == "__main__":
    main()
