"""Rows a second and memory of ``hailproof screen``, for each form and by the size of a file.

    .venv/bin/python benchmarks/bench_files.py [--megabytes 64]

The larger file of a form has about that many megabytes, the smaller one a quarter. The slope between both is what ten
gigabytes would add. The defense is `imports`, which finds no program here: what is measured is reading.
"""

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from common import begin, options, table

TEXT = "<think>" + "Ann has 4 pens and buys 12 more, so she has 16 pens. " * 12 + "</think><answer>16</answer>"
ROW = 700
"""Bytes of a row, about."""

SCREEN = r"""
import re, sys, time
from hailproof.screening.screen import Order, screen_files
from pathlib import Path
started = time.perf_counter()
found = screen_files(Order([Path(sys.argv[1])], ["imports"]), lambda finding: None)
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
print(found.rows, time.perf_counter() - started, peak[1])
"""


def jsonl(path: Path, rows: int, row: Callable[[int], object]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for place in range(rows):
            file.write(json.dumps(row(place)) + "\n")


def trace(place: int) -> object:
    nodes = [
        {"parent": None, "message": {"role": "user", "content": "How many?"}, "sampled": False},
        {"parent": 0, "message": {"role": "assistant", "content": TEXT}, "sampled": True},
    ]
    return {"traces": [{"nodes": nodes, "rewards": {"right": {"score": 1.0}}}], "group": {"id": str(place // 8)}}


def parquet(path: Path, rows: int) -> None:
    def tables() -> Iterator[pa.Table]:
        for start in range(0, rows, 1024):
            yield pa.Table.from_pylist([
                {"step": 1, "prompt": f"{place // 8}", "completion": TEXT, "reward": 1.0, "advantage": 0.0}
                for place in range(start, min(rows, start + 1024))
            ])  # fmt: skip

    writer = None
    for piece in tables():
        writer = writer or pq.ParquetWriter(path, piece.schema)
        writer.write_table(piece)
    assert writer is not None
    writer.close()


def genrl(path: Path, rows: int) -> None:
    state = {"__type__": "WorldState", "environment_states": {"question": "How many?"}}
    payload = {"__type__": "Payload", "world_state": state, "actions": [TEXT] * 8, "metadata": None}
    path.write_bytes(msgspec.msgpack.encode({batch: [payload] for batch in range(rows // 8)}))


def reliquary(path: Path, rows: int) -> None:
    rollouts = [{"completion_text": TEXT, "reward": 1.0}] * 8
    batch = [{"hotkey": f"5{place % 9}", "prompt_idx": place, "rollouts": rollouts} for place in range(rows // 8)]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"window_start": 1, "environment": "math", "batch": batch}, file)


WRITE: dict[str, Callable[[Path, int], None]] = {
    "trl": parquet,
    "traces": lambda path, rows: jsonl(path, rows, trace),
    "verl": lambda path, rows: jsonl(path, rows, lambda place: {
        "input": str(place // 8), "output": TEXT, "gts": "16", "score": 1.0, "step": 1}),
    "areal": lambda path, rows: jsonl(path, rows, lambda place: {
        "task_id": place // 8, "sample_idx": place % 8, "prompt": "How many?", "completion": TEXT, "reward": 1.0}),
    "genrl": genrl,
    "reliquary": reliquary,
    "table": lambda path, rows: jsonl(path, rows, lambda place: {"text": TEXT, "peer": f"p{place % 9}"}),
}  # fmt: skip


def measured(path: Path) -> tuple[int, float, float]:
    """Rows, seconds, and the largest memory in MiB of a process that screens a file."""
    done = subprocess.run([sys.executable, "-c", SCREEN, str(path)], capture_output=True, text=True, check=True)
    rows, seconds, memory = done.stdout.split()
    return int(rows), float(seconds), int(memory) / 1024


def main() -> None:
    parser = options(__doc__, claims=False)
    parser.add_argument("--megabytes", type=float, default=64, help="size of the larger file of each form")
    arguments = parser.parse_args()
    begin(arguments)
    rows_of_table = [["form", "rows", "rows a second", "MiB, a quarter", "MiB, all", "MiB for 10 GB more"]]
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITE.items():
            figures = []
            for share in (1 / 4, 1):
                path = Path(folder) / name
                rows = int(share * arguments.megabytes * 1e6 / ROW) // 8 * 8
                write(path, rows)
                figures.append((rows, *measured(path)))
                path.unlink()
            (few, _, _, small), (rows, screened, seconds, large) = figures
            slope = (large - small) / ((rows - few) * ROW) * 1e10
            more = "read whole" if name in ("genrl", "reliquary") else f"{slope:,.0f}"
            memory = f"{small:.0f}", f"{large:.0f}", more
            rows_of_table.append([name, f"{screened:,}", f"{screened / seconds:,.0f}", *memory])
    table(rows_of_table)


if __name__ == "__main__":
    main()
