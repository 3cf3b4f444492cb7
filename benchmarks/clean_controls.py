"""Whether every attack's measure is at zero where nobody attacks, and how many seeds a difference of 5 points needs.

    .venv/bin/python benchmarks/clean_controls.py --runs runs/cells --seeds 3

For every attack its measure is taken of the honest completions of the clean controls that ``hailproof bench`` played:
of all rounds, with a one-sided 95 % bound, and of the last five rounds against the first five, in which training cannot
have taught anything, by a permutation test over runs. The second table takes the spread over seeds of the cells that
are finished and says how many seeds on each side a two-sided t test at 5 % with power 0.8 needs.
"""

import argparse
import statistics
from pathlib import Path

from common import table

from hailproof.campaigns.cells import measured
from hailproof.campaigns.matrix import cells_of, load_matrix
from hailproof.campaigns.posthoc import counted
from hailproof.metrics.intervals import exchange_p, seeds_needed, upper_bound
from hailproof.runs.settle import settle

DIFFERENCE = 0.05
MEASURES = ("attack_success", "held_out_reward", "reward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/cells"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    matrix = load_matrix()
    cells = cells_of(
        list(matrix.attacks), list(matrix.defenses), list(range(arguments.seeds)), "nano", arguments.runs
    )
    rows = [("measure of", "clean runs", "eligible completions", "successes", "95 % bound", "last against first, p")]
    for cell in cells:
        finished = [job for job in cell.controls if job.summary is not None]
        if cell.defense != "none" or cell.attack == "clean" or not finished:
            continue
        settled = settle(cell.jobs[0].config)
        measure, rounds = settled.measure, settled.config.rounds
        rates = [counted(job.folder, measure, 1, rounds) for job in finished]
        successes, trials = sum(rate.successes for rate in rates), sum(rate.trials for rate in rates)
        if not trials:
            continue
        ends = [
            (counted(job.folder, measure, 1, 5).value, counted(job.folder, measure, rounds - 4, rounds).value)
            for job in finished
        ]
        known = [(early, late) for early, late in ends if early is not None and late is not None]
        p = f"{exchange_p([late for _, late in known], [early for early, _ in known]):.2f}" if len(known) > 1 else "-"
        bound = f"{upper_bound(successes, trials):.3%}"
        rows.append((cell.attack, str(len(finished)), f"{trials:,}", str(successes), bound, p))
    table(rows)
    rows = [("attack", "defense", "measure", "seeds", "standard deviation, points", "seeds for 5 points")]
    for cell in cells:
        record = measured(cell)
        if record is None or len(record["seeds"]) < 3:
            continue
        for measure in MEASURES:
            values = record[f"{measure}_seeds"]
            if None not in values:
                deviation = statistics.stdev(values)
                needed = str(seeds_needed(DIFFERENCE, deviation)) if deviation else "any"
                row = (cell.attack, cell.defense, measure, str(len(values)), f"{100 * deviation:.1f}", needed)
                rows.append(row)
    table(rows)


if __name__ == "__main__":
    main()
