"""What the wire costs: envelopes a second on one core, and bytes of a round against the text in it.

    python benchmarks/bench_wire.py [--nodes 4] [--seconds 2]

B = 32 prompts, G = 12 completions each, 512 tokens a completion; text of 4 characters a token, as is usual for English,
and token ids drawn evenly below 151,936, which is the worst case for their length.
"""

import argparse
import random
import time
from collections.abc import Callable

from msgspec import Struct
from synthetic import GROUP, PROMPTS, completion

from hailproof.identity import Identity
from hailproof.records import Submission
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
    opened,
    sealed,
)


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls a second of processor time, so that other work on the machine does not count."""
    calls, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        call()
        calls += 1
    return calls / (time.process_time() - started)


def batch(slots: int, rng: random.Random) -> tuple[Batch, int]:
    """A sender's batch, and the bytes of the texts in it."""
    sent = [Submission(1, 0, f"problem-{slot // GROUP}", slot % GROUP, completion(rng)) for slot in range(slots)]
    return batch_of(sent), sum(len(each.completion.text.encode()) for each in sent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    rng, identity, nodes = random.Random(0), Identity.of_seed(bytes(32)), options.nodes
    slots = PROMPTS * GROUP // nodes
    content, text_bytes = batch(slots, rng)
    payloads: dict[Phase, Struct] = {
        "commit": Commit(2**20, bytes(32), bytes(32)), "reveal": content, "seal": Seal(bytes(32)),
        "seen": Seen(tuple(Entry(bytes(32), bytes(32), bytes(32)) for _ in range(nodes))),
        "state": State(bytes(32), bytes(32), bytes(32), 2**40),
    }  # fmt: skip
    frames: dict[Phase, bytes] = {
        phase: sealed(identity, Place("swarm-0123456789abcdef", 1, phase), encoded(payload))
        for phase, payload in payloads.items()
    }
    print(f"{nodes} nodes, {slots} completions each; one core\n")
    print("| envelope | bytes | checked a second | checked and decoded a second | forged refused a second |")
    print("| --- | --- | --- | --- | --- |")
    for phase, frame in frames.items():
        kind = type(payloads[phase])
        forged = bytearray(frame)
        forged[60] ^= 1

        def refused(data: bytes = bytes(forged)) -> None:
            try:
                opened(data, 1 << 30)
            except Exception:
                return
            raise AssertionError("a forged envelope was taken")

        checked = rate(lambda f=frame: opened(f, 1 << 30), options.seconds)
        read = rate(lambda f=frame, k=kind: decoded(k, opened(f, 1 << 30).payload), options.seconds)
        print(f"| {phase} | {len(frame):,} | {checked:,.0f} | {read:,.0f} | {rate(refused, options.seconds):,.0f} |")
    sent = sum(map(len, frames.values()))
    print(f"\nA node sends {sent / 1e6:.3f} MB a round and receives {sent * (nodes - 1) / 1e6:.3f} MB.")
    print(f"The round's text is {text_bytes * nodes / 1e6:.3f} MB, all its envelopes {sent * nodes / 1e6:.3f} MB: "
          f"{sent / text_bytes:.2f} times the text, of which token ids are most of the rest.")  # fmt: skip


if __name__ == "__main__":
    main()
