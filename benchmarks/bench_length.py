"""What a cap from own completions and length-neutral advantages do to the longest of 80 draws, on real completions.

    .venv/bin/python benchmarks/bench_length.py [--check]

nano-a draws --draws completions of each of --problems problems; groups of 12 are dealt from these at random, by four
senders (horizontal) or by one (vertical). First table: shares of honest and of poisoned completions that a cap of
`slack` times the quantile of honest ones rejects, and the tokens of the poison that is left. Second table, over groups
with variance of rewards, eight of a sender a round: the push on length, `sum A (L - mean L) / (G * mean L)`, of
plain and of length-neutral advantages; the same with the loss's 1 / L (`loss_type = "grpo"`) after it; the cosine
between both advantages of all but the poison, which is what is left of honest learning; and the mean advantage of
poisoned completions. The claims: hardly anything is left of a push toward longer answers, and nothing of the poison in
groups of decoys; honest groups keep their own push; decoys as long as the poison get round it. The rows from "best of
2" on show what an attacker keeps that is content with less than the test can see.
"""

import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from bench_sender_stats import GROUP, Pool, Sent, best_of, fill
from common import begin, options, table, verdict

from hailproof.learner.advantages import advantages
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.policies.load import load

NODES = 4

SENDER_GROUPS = 8
"""Groups of one sender in a round; a vertical swarm of the nano defaults has four, a horizontal one sixteen, of which
about half have variance."""

Member = tuple[int, float, bool]
"""Tokens, reward, and whether it is poison."""


def members(sent: Sequence[Sent], poison: bool = False) -> list[Member]:
    return [(len(completion.token_ids), reward, poison) for completion, reward in sent]


def honest(pool: Pool, problem: str, rng: random.Random) -> list[Member]:
    return members([pool.honest(problem, rng, None) for _ in range(GROUP)])


def horizontal(pool: Pool, problem: str, rng: random.Random, samples: int = 80) -> list[Member]:
    return [*honest(pool, problem, rng)[3:], *members(best_of(samples)(pool, problem, 3, rng, None), poison=True)]


def vertical(pool: Pool, problem: str, rng: random.Random) -> list[Member]:
    poison = best_of(80)(pool, problem, GROUP // 2, rng, None)
    return [*members(poison, poison=True), *members([pool.filler[problem]] * (GROUP // 2))]


def padded(pool: Pool, problem: str, rng: random.Random) -> list[Member]:
    """Decoys as long as the poison."""
    group = vertical(pool, problem, rng)
    return [(group[0][0], reward, poison) for _, reward, poison in group]


def push(values: Sequence[float], lengths: Sequence[int], divide: bool) -> float:
    mean = statistics.fmean(lengths)
    weights = [mean / length if divide else 1.0 for length in lengths]
    total = math.fsum(w * a * (length - mean) for w, a, length in zip(weights, values, lengths, strict=True))
    return total / (len(values) * mean)


def row(name: str, groups: Sequence[Sequence[Member]], nodes: int) -> tuple[list[str], tuple[float, float], float]:
    """A row of the second table, the push before and after, and the mean advantage of the poison."""
    lengths = [[tokens for tokens, _, _ in group] for group in groups]
    plain = advantages([[reward for _, reward, _ in group] for group in groups])
    nodes_G = [slot * nodes // GROUP for slot in range(GROUP)]
    correct, neutral = LengthNeutral(), []
    for start in range(0, len(groups), SENDER_GROUPS):
        part = slice(start, start + SENDER_GROUPS)
        shares = [[1.0] * len(each) for each in lengths[part]]
        neutral += correct(plain[part], lengths[part], shares, [nodes_G] * len(shares))
    pushes = [
        statistics.fmean(push(a, length, divide) for a, length in zip(values, lengths, strict=True))
        for values, divide in ((plain, False), (neutral, False), (plain, True), (neutral, True))
    ]

    def of(values: Sequence[Sequence[float]], poison: bool) -> list[float]:
        return [a for vs, group in zip(values, groups, strict=True)
                for a, (_, _, bad) in zip(vs, group, strict=True) if bad == poison]  # fmt: skip

    one, other = np.array(of(plain, False)), np.array(of(neutral, False))
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = f"{one @ other / size:.2f}" if size else "-"
    poison = [statistics.fmean(of(values, True)) if of(values, True) else None for values in (plain, neutral)]
    shown = ["-" if value is None else f"{value:+.2f}" for value in poison]
    return [name, *(f"{value:+.3f}" for value in pushes), cosine, *shown], (pushes[0], pushes[1]), poison[1] or 0.0


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--groups", type=int, default=400)
    arguments = parser.parse_args()
    begin(arguments)
    pool, rng = fill(load("nano-a", device="cpu"), arguments.problems, arguments.draws), random.Random(0)
    own = [len(c.token_ids) for drawn in pool.drawn.values() for c, _ in drawn]
    longest = [t for p in sorted(pool.prompts) if pool.right[p] for t, _, _ in horizontal(pool, p, rng)[-1:]]
    print(f"tokens: honest {statistics.fmean(own):.1f}, best of 80 {statistics.fmean(longest):.1f}\n")
    rows: list[list[str]] = [["quantile", "slack", "cap", "honest rejected", "poison rejected", "tokens of the rest"]]
    for quantile in (0.5, 0.9, 0.95):
        for slack in (1.0, 1.25, 1.5):
            cap = slack * float(np.quantile(own, quantile))
            left = [tokens for tokens in longest if tokens <= cap]
            rejected = [f"{statistics.fmean(t > cap for t in tokens):.1%}" for tokens in (own, longest)]
            mean = f"{statistics.fmean(left):.1f}" if left else "-"
            rows.append([f"{quantile}", f"{slack}", f"{cap:.1f}", *rejected, mean])
    table(rows)
    print()
    kinds: dict[str, Callable[[Pool, str, random.Random], list[Member]]] = {
        "honest, vertical": honest, "honest, horizontal": honest, "horizontal, 3 of 12": horizontal,
        "vertical, 6 decoys": vertical, "long decoys": padded,
        **{f"horizontal, best of {samples}": partial(horizontal, samples=samples) for samples in (2, 4, 8, 16)},
    }  # fmt: skip
    problems = [problem for problem in sorted(pool.prompts) if pool.right[problem]]
    rows = [["group", "push", "neutral", "push, 1/L", "neutral, 1/L", "cosine", "poison", "neutral"]]
    pushed, poison = {}, {}
    for name, kind in kinds.items():
        drawn = [kind(pool, rng.choice(problems), rng) for _ in range(arguments.groups)]
        groups = [group for group in drawn if len({reward for _, reward, _ in group}) > 1]
        cells, pushed[name], poison[name] = row(name, groups, NODES if "horizontal" in name else 1)
        rows.append(cells)
    table(rows)
    plain, left = pushed["horizontal, 3 of 12"]
    honestly = [pushed[name] for name in pushed if "honest" in name]
    small = left < plain / 3 and abs(pushed["vertical, 6 decoys"][1]) < 1e-9
    small = small and all(abs(kept - own) < plain / 5 for own, kept in honestly)
    holds = small and abs(poison["vertical, 6 decoys"]) < 1e-9 < poison["long decoys"]
    said = "little of a push toward longer answers is left, and no poison but with long decoys"
    return verdict(said, holds, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
