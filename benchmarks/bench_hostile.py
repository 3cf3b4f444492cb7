"""What a hostile sender adds to a round: endless programs (`spin`), and wrong answers of four times the limit (`bulk`).

    .venv/bin/python benchmarks/bench_hostile.py [--defense heterogeneous] [--check]

A clean round and an attacked one alternate (A B A B) in one process, on equal weights and prompts; learning is held
still. One node of four attacks, in a homogeneous horizontal swarm with B = 16 and G = 12: it sends 48 completions a
round. Seconds are those of `Swarm.play`, the attacker's own included.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

from common import HOLD_STILL, begin, make, options, spread, table, verdict

from hailproof.attacks.base import BaseAttack, Forger
from hailproof.protocols import AttackView
from hailproof.records import Problem
from hailproof.runs.build import Experiment

SPIN_SECONDS = 2.0
BULK_SHARE = 0.1


class Spin(BaseAttack):
    """Programs that never end, all different."""

    name = "spin"
    variant = "code"

    def forge(self, view: AttackView) -> Sequence[str]:
        """One for each slot."""
        return [f"<code>x = '{view.problem.id}-{slot}'\nwhile True: pass</code>" for slot in view.slots]

    def success(self, problem: Problem, text: str) -> bool | None:
        """Not measured."""
        return None


class Bulk(BaseAttack):
    """Wrong answers that go on and on."""

    name = "bulk"

    def forge(self, view: AttackView) -> Sequence[str]:
        """One for each slot."""
        words = 4 * 128
        return [f"<think>{f'Then {slot} pens. ' * (words // 4)}</think><answer>no</answer>" for slot in view.slots]

    def success(self, problem: Problem, text: str) -> bool | None:
        """Not measured."""
        return None


def attacked(experiment: Experiment, attack: BaseAttack) -> Experiment:
    """The experiment with another attack in its malicious nodes."""
    swarm = experiment.swarm
    malicious = tuple(replace(node, forger=Forger(attack)) for node in swarm.malicious)
    return replace(experiment, swarm=replace(swarm, malicious=malicious))


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--defense", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    begin(arguments)
    defense = [{"name": name} for name in arguments.defense]
    rows, fine = [["attack", "clean round, s", "attacked round, s", "added"]], True
    for attack, stand_in, variant in ((Spin(), "code", "code"), (Bulk(), "text", "math")):
        common = {"learner__learning_rate": HOLD_STILL, "task__options__variant": variant, "defense": defense}
        clean = make(**common)
        hostile = attacked(make(attack__name=stand_in, **common), attack)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for round in range(1, arguments.repeats + 2):
            for is_hostile, experiment in ((False, clean), (True, hostile)):
                record = experiment.swarm.play(round)
                seconds[is_hostile].append(sum(record.seconds.values()))
        before, after = (statistics.median(seconds[key][1:]) for key in (False, True))
        fine &= after - before <= SPIN_SECONDS if attack.name == "spin" else after <= (1 + BULK_SHARE) * before
        added = f"{after - before:+.2f} s ({after / before - 1:+.1%})"
        rows.append([attack.name, spread(seconds[False][1:]), spread(seconds[True][1:]), added])
    table(rows)
    claim = f"spin adds at most {SPIN_SECONDS:g} s, bulk at most {BULK_SHARE:.0%}"
    return verdict(claim, fine, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
