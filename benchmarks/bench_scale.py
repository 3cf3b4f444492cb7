"""Seconds of a round of a swarm of 4 against one of 256 nodes: identical nodes are computed once.

    .venv/bin/python benchmarks/bench_scale.py [--defense logit] [--check]

TEXT attack, a quarter of the nodes malicious, homogeneous; same B and G on both sides. Horizontal takes B=2, G=256
(every node answers every prompt), vertical B=256, G=2 (every node brings a prompt). Rounds alternate between the two
sizes. The learning rate changes no weight, so that every round is the same amount of work; what a round computes is
all computed. The claim: 256 nodes cost at most 1.1 times what 4 cost.
"""

import statistics
import sys
from itertools import chain

from common import HOLD_STILL, begin, make, options, play, spread, table, verdict

from hailproof.records import RoundRecord
from hailproof.runs.build import Experiment

STAGES = ["sample", "forge", "exchange", "screen", "update"]
HEAD = ["", "seconds, median (min..max)", *STAGES, "sampled", "tokens"]


def sampled(experiment: Experiment, record: RoundRecord) -> list[int]:
    """Token counts of the completions that were sampled, as opposed to forged."""
    malicious = experiment.roster.malicious
    scored = [one.submission for group in record.views[0].groups for one in group.completions]
    return [len(one.completion.token_ids) for one in scored if one.sender not in malicious]


def compare(
    topology: str, B: int, G: int, sizes: list[int], repeats: int, defense: list[str]
) -> tuple[list[list[str]], float]:
    """Rows of the table, and how many times as long as the first size the last one takes."""
    swarms = {
        nodes: make(
            swarm__nodes=nodes, swarm__topology=topology, swarm__prompts=B, swarm__group_size=G, attack__name="text",
            defense=[{"name": name} for name in defense], learner__learning_rate=HOLD_STILL,
        )
        for nodes in sizes
    }  # fmt: skip
    rounds: dict[int, list[tuple[float, RoundRecord]]] = {nodes: [] for nodes in sizes}
    for round in range(1, repeats + 2):
        for nodes in sizes if round % 2 else reversed(sizes):
            rounds[nodes].append(play(swarms[nodes], round))
    rows = []
    for nodes in sizes:
        seconds, records = zip(*rounds[nodes][1:], strict=True)
        stages = [statistics.median(record.seconds[stage] for record in records) for stage in STAGES]
        lengths = [sampled(swarms[nodes], record) for record in records]
        rows.append([
            f"{topology}, {nodes} nodes", spread(seconds), *(f"{stage:.3f}" for stage in stages),
            f"{statistics.fmean(map(len, lengths)):.0f}", f"{statistics.fmean(chain.from_iterable(lengths)):.1f}",
        ])  # fmt: skip
    medians = [statistics.median(second for second, _ in rounds[nodes][1:]) for nodes in sizes]
    return rows, medians[-1] / medians[0]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=[4, 256])
    parser.add_argument("--horizontal", type=int, nargs=2, default=[2, 256], metavar=("B", "G"))
    parser.add_argument("--vertical", type=int, nargs=2, default=[256, 2], metavar=("B", "G"))
    parser.add_argument("--only", choices=("horizontal", "vertical"))
    parser.add_argument("--defense", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-ratio", type=float, default=1.1, help="what --check asks for")
    arguments = parser.parse_args()
    begin(arguments)
    rows: list[list[str]] = [HEAD]
    ratios: dict[str, float] = {}
    for topology in [arguments.only] if arguments.only else ("horizontal", "vertical"):
        B, G = getattr(arguments, topology)
        found, ratio = compare(topology, B, G, arguments.sizes, arguments.repeats, arguments.defense)
        rows += found
        ratios[f"{topology} (B={B}, G={G})"] = ratio
    table(rows)
    small, large = arguments.sizes
    status = 0
    for name, ratio in ratios.items():
        claim = f"{name}: {large} nodes cost {ratio:.3f} times what {small} cost (asked: at most {arguments.max_ratio})"
        status |= verdict(claim, ratio <= arguments.max_ratio, arguments.check)
    return status


if __name__ == "__main__":
    sys.exit(main())
