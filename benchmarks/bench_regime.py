"""Clean swarms under candidates for the learner regime: when they rise, how far they fall back, where they end.

    .venv/bin/python benchmarks/bench_regime.py --candidates adam-2 damped-1.2 --seeds 0 [--picture out.png]

The rules are `docs/regime.md`, which was written before the first run. Runs are resumable: the same command goes on
where it was, and plays nothing twice. No run has an attacker.
"""

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

from common import table

from hailproof.campaigns.scales import load_scale
from hailproof.campaigns.sweep import Job, LocalEngine, merged, sweep
from hailproof.reports.curves import SeedPanel
from hailproof.reports.figures import draw_panels
from hailproof.runs.store import read_rounds

ADAM = {"adam_beta2": 0.99, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "warmup_rounds": 5}
DAMPED = {"adam_beta2": 0.95, "adam_epsilon": 1e-3, "max_grad_norm": 0.5, "warmup_rounds": 5}
SMOL = {key: value for key, value in load_scale("smollm2").settings.items() if key != "learner"}
LORA = {**ADAM, "lora": {"r": 8, "alpha": 16}}
CANDIDATES: dict[str, dict[str, Any]] = {
    # The regime until now, on 50 rounds for prose (4.6e-3) and programs (2.4e-3).
    "before": {"rounds": 50, "learner": {**DAMPED, "warmup_rounds": 2, "learning_rate": 4.6e-3}},
    "before-programs": {"rounds": 50, "learner": {**DAMPED, "warmup_rounds": 2, "learning_rate": 2.4e-3}},
    "damped-1.2": {"learner": {**DAMPED, "learning_rate": 1.2e-3}},
    "damped-2.4": {"learner": {**DAMPED, "learning_rate": 2.4e-3}},
    "adam-1": {"learner": {**ADAM, "learning_rate": 1e-4}},
    "adam-2": {"learner": {**ADAM, "learning_rate": 2e-4}},
    "adam-4": {"learner": {**ADAM, "learning_rate": 4e-4}},
    # Added after the clean runs of seed 0: the reward of adam-2 hardly rises after round 60, and hours are short.
    "adam-2-60": {"rounds": 60, "learner": {**ADAM, "learning_rate": 2e-4}},
    # For SmolLM2, in the size of the bench's scale: an adapter at two rates, and all weights at a small one.
    "smol-lora-1": {**SMOL, "learner": {**LORA, "learning_rate": 1e-4}},
    "smol-lora-3": {**SMOL, "learner": {**LORA, "learning_rate": 3e-4}},
    "smol-full": {**SMOL, "learner": {**ADAM, "learning_rate": 5e-6}},
}
SHARED: dict[str, Any] = {
    "rounds": 100,
    "threads": 1,
    "attack": {"malicious": 0},
    "evaluation": {"problems": 512, "every": 5},
    "learner": {"lr_scheduler_type": "linear"},
}
CONTROLS = {("math", "horizontal"): "text", ("math", "vertical"): "equation"}
"""Attacks whose clean controls the runs are, so that the bench and this script share them; programs: ``code``."""
RISE, FALL = 0.90, 0.05


def evaluations(job: Job) -> list[tuple[int, float]]:
    """Round and held-out reward of each evaluation so far."""
    if not (job.folder / "rounds.jsonl").is_file():
        return []
    lines = read_rounds(job.folder)
    return [(line["round"], line["held_out"]["reward"]) for line in lines if line.get("held_out")]


def rise_and_fall(found: list[tuple[int, float]]) -> tuple[int | None, float]:
    """The round of the first evaluation of at least 90 %, and the largest distance below the best so far after it."""
    rise = next((round for round, reward in found if reward >= RISE), None)
    if rise is None:
        return None, float("nan")
    best = list(itertools.accumulate((reward for _, reward in found), max))
    return rise, max(top - reward for top, (round, reward) in zip(best, found, strict=True) if round >= rise)


def last_fifth(found: list[tuple[int, float]]) -> float:
    """Mean of the evaluations of the last fifth of the run."""
    last = found[-1][0]
    return statistics.fmean(reward for round, reward in found if round > 0.8 * last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in CANDIDATES if not name.startswith("smol")]
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=usual)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=["math", "code"], default=["math", "code"])
    parser.add_argument("--topologies", nargs="+", choices=["horizontal", "vertical"], default=["horizontal"])
    parser.add_argument("--model", default="nano-a")
    parser.add_argument("--runs", type=Path, default=Path("runs/regime"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="draw all curves into this file")
    parser.add_argument("--only-finished", action="store_true", help="play nothing; show what there is")
    arguments = parser.parse_args()
    jobs: dict[tuple[str, str, str], list[Job]] = {}
    for name in arguments.candidates:
        for variant, topology in itertools.product(arguments.variants, arguments.topologies):
            own = {
                "attack": {"name": CONTROLS.get((variant, topology), "code")},
                "swarm": {"topology": topology, "models": [arguments.model]},
            }
            settings = merged(SHARED, own, CANDIDATES[name])
            jobs[name, variant, topology] = [Job({**settings, "seed": s}, arguments.runs) for s in arguments.seeds]
    if not arguments.only_finished:
        order = [job for each in itertools.zip_longest(*jobs.values()) for job in each if job is not None]
        sweep(order, LocalEngine(arguments.workers), lambda line: print(line, flush=True))
    rows = [["candidate", "task", "topology", "seed", "round", "first", "rise", "best", "fall", "last fifth", "passes"]]
    for (name, variant, topology), each in jobs.items():
        for job in each:
            found = evaluations(job)
            if not found:
                continue
            rise, fall = rise_and_fall(found)
            rows.append([
                name, variant, topology, str(job.seed), str(found[-1][0]), f"{found[0][1]:.1%}", str(rise or "-"),
                f"{max(reward for _, reward in found):.1%}", f"{100 * fall:.1f}", f"{last_fifth(found):.1%}",
                "yes" if rise and fall <= FALL else "no",
            ])  # fmt: skip
    table(rows)
    for key, each in jobs.items():
        ends = [last_fifth(found) for job in each if (found := evaluations(job))]
        if len(ends) > 1:
            mean, deviation = statistics.fmean(ends), 100 * statistics.stdev(ends)
            print(f"{' '.join(key)}: last fifth {mean:.1%}, deviation {deviation:.1f} points")
    if arguments.picture:
        draw(jobs, arguments.picture)


def draw(jobs: dict[tuple[str, str, str], list[Job]], picture: Path) -> None:
    """Held-out reward over rounds, one panel for each candidate and task, one line a seed."""
    panels, last = [], 1
    for (name, variant, topology), each in jobs.items():
        curves = [dict(evaluations(job)) for job in each]
        last = max([last, *(max(curve, default=1) for curve in curves)])
        panels.append((f"{name}, {variant}, {topology}", curves))
    rounds = list(range(1, last + 1))
    draw_panels(
        [
            SeedPanel(title, "%", {"held-out reward": [
                [None if r not in curve else 100 * curve[r] for r in rounds] for curve in curves if curve
            ]}, True)
            for title, curves in panels
        ],
        rounds, picture, "Clean swarms, held-out reward",
    )  # fmt: skip


if __name__ == "__main__":
    main()
