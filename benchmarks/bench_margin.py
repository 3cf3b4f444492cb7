"""What a margin of `replay` means: honest tokens beyond it, and what else it lets in.

    .venv/bin/python benchmarks/bench_margin.py [--rounds 2] [--seeds 0 1] [--check]

Completions are drawn by nano-a as in a run (B=16, G=12), in float32 and in bfloat16 (`swarm.dtype`: float32 weights,
passes under autocast), and repeated by a receiver: all together, in random batches of 12, alone (a part), and in the
other precision. For every margin, in nats: the share of honest tokens that lie beyond it, and of honest completions
with such a token. Below them, at the same margins, the share of completions accepted that are *not* the draw of their
slot: drawn with another key (those that come out as the same text are left out), with the end token held back, and the
TEXT attack. The claim: in float32, at the default margin, every honest completion is accepted and none of the others.
"""

import random
import sys
from collections.abc import Sequence

import numpy as np
from common import begin, make, options, plan_under, table, verdict

from hailproof import draws
from hailproof.attacks.grinding import EndSuppressor
from hailproof.attacks.text import PHRASE
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.engine import ROUNDING
from hailproof.policies.load import load
from hailproof.protocols import SampleRequest, Sampling
from hailproof.records import Completion, Row
from hailproof.rollouts import completion_key, sample
from hailproof.runs.build import Experiment
from hailproof.seeds import derive

MARGINS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)


def requests_of(experiment: Experiment, rounds: int, seeds: Sequence[int]) -> list[SampleRequest]:
    """What honest nodes draw in the first rounds."""
    found = []
    for seed in seeds:
        for round in range(1, rounds + 1):
            plan = plan_under(experiment, round, seed)
            found += [
                SampleRequest(
                    experiment.swarm.task.prompt(plan.problems[slot.problem_id]),
                    completion_key(seed, round, slot.problem_id, slot.index),
                )
                for slot in plan.slots
            ]
    return found


def shortfalls(
    policy: CausalLM, requests: Sequence[SampleRequest], sent: Sequence[Completion], size: int, sampling: Sampling
) -> list[np.ndarray]:
    """Shortfalls ``[T]`` of each completion, repeated in batches of a size in random order."""
    order = random.Random(0).sample(range(len(sent)), len(sent))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        rows = [Row(policy.codec.render(requests[i].prompt), policy.codec.received_ids(sent[i])) for i in batch]
        for place, candidates in policy.engine.candidates(rows, draws.wanted(sampling)):
            claimed = np.array(rows[place].completion)
            keys, positions = np.full(len(claimed), requests[batch[place]].key), np.arange(len(claimed))
            found[batch[place]] = draws.shortfalls(candidates, claimed, keys, positions, sampling)
    return [found[index] for index in range(len(sent))]


def beyond(label: str, found: Sequence[np.ndarray]) -> list[list[str]]:
    """Two rows: shares of tokens, and of completions, beyond each margin."""
    tokens = np.concatenate(found)
    worst = np.array([each.max() for each in found])
    shares = [f"{(tokens > margin).mean():.2%}" for margin in MARGINS]
    completions = [f"{(worst > margin).mean():.2%}" for margin in MARGINS]
    return [
        [f"{label}: tokens", str(len(tokens)), *shares, f"{tokens.max():.1e}"],
        [f"{label}: completions", str(len(worst)), *completions, ""],
    ]


def accepted(label: str, found: Sequence[np.ndarray]) -> list[str]:
    """The share of completions without a token beyond each margin."""
    worst = np.array([each.max() for each in found])
    return [label, str(len(worst)), *(f"{(worst <= margin).mean():.2%}" for margin in MARGINS), f"{worst.min():.1e}"]


def forged(
    policy: CausalLM, requests: Sequence[SampleRequest], sent: Sequence[Completion], sampling: Sampling
) -> dict[str, list[tuple[SampleRequest, Completion]]]:
    """What is not the draw of its slot, by kind."""
    other = sample(policy, [SampleRequest(each.prompt, derive(each.key, "other")) for each in requests], sampling)
    endless = sample(policy, requests, sampling, EndSuppressor(policy.codec.end_ids, 64))
    said = [policy.codec.as_completion(each.text.replace("<think>", f"<think>{PHRASE}. ", 1)) for each in sent]
    kinds = {"another key": other, "end held back": endless, "TEXT": said}
    return {
        kind: [(r, made) for r, made, true in zip(requests, completions, sent, strict=True) if made != true]
        for kind, completions in kinds.items()
    }


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of rollouts for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--alone", type=int, default=48, help="completions to repeat one at a time")
    arguments = parser.parse_args()
    begin(arguments)
    experiment = make(sampling__max_new_tokens=96)
    sampling = experiment.config.sampling.build()
    requests = requests_of(experiment, arguments.rounds, arguments.seeds)
    policies = {dtype: load("nano-a", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    honest: list[list[str]] = []
    others: list[list[str]] = []
    claimed: list[bool] = []
    for dtype, policy in policies.items():
        sent = sample(policy, requests, sampling)
        ways = {"together": len(sent), "by 12": 12}
        found = {way: shortfalls(policy, requests, sent, size, sampling) for way, size in ways.items()}
        found["alone"] = shortfalls(policy, requests[: arguments.alone], sent[: arguments.alone], 1, sampling)
        foreign = next(name for name in policies if name != dtype)
        found[f"in {foreign}"] = shortfalls(policies[foreign], requests, sent, len(sent), sampling)
        for way, each in found.items():
            honest += beyond(f"{dtype}, {way}", each)
        if dtype == "float32":
            claimed += [max(map(np.max, found[way])) <= ROUNDING for way in ("together", "by 12", "alone")]
        for kind, pairs in forged(policy, requests, sent, sampling).items():
            each = shortfalls(policy, [r for r, _ in pairs], [c for _, c in pairs], len(pairs), sampling)
            others.append(accepted(f"{dtype}, {kind}", each))
            if dtype == "float32":
                claimed.append(min(map(np.max, each)) > ROUNDING)
    names = [f">{margin:g}" for margin in MARGINS]
    print("\nhonest tokens and completions beyond a margin, in nats:")
    table([["drawn in, repeated", "number", *names, "largest"], *honest])
    print("\ncompletions that are not the draw of their slot and are accepted at a margin:")
    table([["drawn in, kind", "number", *(f"{margin:g}" for margin in MARGINS), "least"], *others])
    claim = f"float32, margin {ROUNDING:g}: all honest completions are accepted and nothing else"
    return verdict(claim, all(claimed), arguments.check)


if __name__ == "__main__":
    sys.exit(main())
