"""How often `influence` excludes an honest sender: short clean swarms of many shapes, and the evidence in each.

    .venv/bin/python benchmarks/bench_false_alarms.py --seeds 10 --out docs/influence/false-alarms.csv

Nobody attacks. Each run is a line of the file, so that the same command goes on where it was. The largest evidence is
that against any sender in any round, by any receiver; 1,000 excludes (`alpha` = 0.001).
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from common import table
from statsmodels.stats.proportion import proportion_confint

from hailproof.runs.build import build
from hailproof.runs.config import RunConfig
from hailproof.settings import validated

ROUNDS, PROMPTS, GROUP = 20, 8, 12
FIRST_SEED = 6001
SHAPES: dict[str, dict[str, Any]] = {
    "3 nodes": {"nodes": 3},
    "4 nodes": {"nodes": 4},
    "5 nodes, unequal shares": {"nodes": 5},
    "8 nodes, unequal shares": {"nodes": 8},
    "16 nodes": {"nodes": 16, "group_size": 16},
    "4 nodes, vertical": {"nodes": 4, "topology": "vertical"},
    "8 nodes, vertical": {"nodes": 8, "topology": "vertical"},
    "3 nodes, vertical, unequal shares": {"nodes": 3, "topology": "vertical"},
    "4 nodes, programs": {"nodes": 4, "variant": "code"},
    "4 nodes, two models": {"nodes": 4, "models": ("nano-a", "nano-b")},
}
FIELDS: list[str] = ["shape", "seed", "senders", "excluded", "largest_evidence", "smallest_weight", "mean_weight"]


def played(shape: str, seed: int, tolerance: float) -> dict[str, Any]:
    """One clean run, as a line of the file."""
    swarm = {"prompts": PROMPTS, "group_size": GROUP, **SHAPES[shape]}
    task = {"name": "word_problems", "options": {"variant": swarm.pop("variant", "math")}}
    defense = {"name": "influence", "options": {"tolerance": tolerance}}
    tree = {"seed": seed, "rounds": ROUNDS, "threads": 1, "swarm": swarm, "task": task, "defense": (defense,)}
    experiment = build(validated(RunConfig, tree))
    evidence, weights, excluded = [0.0], [], set()
    for round in range(1, ROUNDS + 1):
        for view in experiment.swarm.play(round).views:
            for sender, update in view.update.senders.items():
                evidence.append(update.evidence or 0.0)
                weights.append(update.weight)
                if update.excluded:
                    excluded.add((view.node, sender))
    return {
        "shape": shape, "seed": seed, "senders": swarm["nodes"], "excluded": len(excluded),
        "largest_evidence": f"{max(evidence):.4g}", "smallest_weight": f"{min(weights):.3f}",
        "mean_weight": f"{sum(weights) / len(weights):.3f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--seeds", type=int, default=10, help=f"how many, from {FIRST_SEED} on")
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=Path("runs/false-alarms.csv"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, str]] = []
    if arguments.out.is_file():
        with arguments.out.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    else:
        with arguments.out.open("w", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, FIELDS, lineterminator="\n").writeheader()
    known = {(line["shape"], int(line["seed"])) for line in lines}
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for shape in arguments.shapes:
            if (shape, seed) not in known:
                line = played(shape, seed, arguments.tolerance)
                with arguments.out.open("a", encoding="utf-8", newline="") as file:
                    csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
                lines.append({key: str(value) for key, value in line.items()})
    rows = []
    for shape in (*arguments.shapes, "all"):
        mine = [line for line in lines if shape in ("all", line["shape"])]
        alarms = sum(int(line["excluded"]) > 0 for line in mine)
        _, upper = proportion_confint(alarms, len(mine), alpha=0.1, method="beta")  # one-sided, 95 %
        rows.append([
            shape, len(mine), sum(int(line["senders"]) for line in mine), alarms, f"{upper:.1%}",
            max(float(line["largest_evidence"]) for line in mine),
            f"{sum(float(line['mean_weight']) for line in mine) / len(mine):.2f}",
        ])  # fmt: skip
    head = ["shape", "runs", "senders", "runs with an exclusion", "at most (95 %)", "largest evidence", "mean weight"]
    table([head, *rows])


if __name__ == "__main__":
    main()
