"""How far honest tokens fall outside the receiver's own top-k, and how often batches change what is drawn.

    .venv/bin/python benchmarks/bench_tolerance.py [--rounds 5] [--seeds 0 1] [--json FILE] [--check]

The logit defense rests on a receiver with equal weights finding every honest token inside its own top-k (50). Cached
generation and teacher forcing sum in different orders, so a token at the border may fall on the other side. Counted
here, over completions that nano-a samples as in a run (B=16, G=12): tokens by their gap in nats below the lowest
allowed token, the largest gap, and the completions affected; scored all together as a node does, each completion
alone, and in random batches of 12. "moved" is the largest difference of a token's log-probability from what it was
when the token was drawn: about what a gap can reach, should a drawn token lie at the border. All in float32 and in
bfloat16 (`swarm.dtype`: float32 weights, passes under autocast), with the initial weights and after some rounds of
honest training.

The second table draws the same keys alone, in batches of 12 and in batches of 192, in random order, and counts the
completions that come out different, their share of first different draws among all draws, and the tokens that differ
in all (after the first, the texts go their own ways). The claim: in float32 no honest token has a gap above the
defense's tolerance.
"""

import argparse
import copy
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import torch
from common import begin, make, options, plan_under, play, policy_of, table, verdict
from torch import Tensor

from hailproof.policies import engine
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.engine import ROUNDING
from hailproof.policies.sampling import draw
from hailproof.protocols import SampleRequest, Sampling, TokenScores
from hailproof.records import Completion, Row
from hailproof.rollouts import completion_key, sample
from hailproof.runs.build import Experiment

BORDERS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
T = TypeVar("T")
NAMES = [">0", ">1e-6", ">1e-5", ">1e-4", ">1e-3", ">1e-2"]


@dataclass
class Gaps:
    """Gaps of many honest tokens under one way of scoring."""

    weights: str
    dtype: str
    scored: str
    tokens: int
    completions: int
    beyond: list[int]
    largest: float
    moved: float
    outside: int
    rejected: int

    def row(self) -> list[str]:
        """A row of the table."""
        counts = [str(count) for count in (self.tokens, *self.beyond)]
        extremes = [f"{self.largest:.1e}", f"{self.moved:.1e}"]
        affected = [str(count) for count in (self.completions, self.outside, self.rejected)]
        return [f"{self.weights}, {self.dtype}, {self.scored}", *counts, *extremes, *affected]


@dataclass
class Draws:
    """How draws of the same keys differ between two batch compositions."""

    weights: str
    dtype: str
    compared: str
    completions: int
    different: int
    draws: int
    tokens: int
    tokens_different: int

    def row(self) -> list[str]:
        """A row of the table."""
        counts = (self.completions, self.different, self.draws, self.tokens, self.tokens_different)
        rate = f"{self.different / self.draws:.1e}"
        return [f"{self.weights}, {self.dtype}, {self.compared}", *map(str, counts), rate]


def cut(size: int, count: int, rng: random.Random) -> list[list[int]]:
    """Deals indices into batches of a size, in random order."""
    order = rng.sample(range(count), count)
    return [order[start : start + size] for start in range(0, count, size)]


def by_batches(work: Callable[[list[int]], list[T]], batches: list[list[int]]) -> list[T]:
    """Does work batch by batch; results in the order of the indices."""
    found = {index: result for batch in batches for index, result in zip(batch, work(batch), strict=True)}
    return [found[index] for index in sorted(found)]


@contextmanager
def watched() -> Iterator[dict[int, list[float]]]:
    """Yields what will hold, by completion key, the log-probability of each token when it was drawn."""
    seen: dict[int, list[float]] = defaultdict(list)

    def watching(logits: Tensor, keys: Tensor, position: Tensor, sampling: Sampling, steer: None) -> Tensor:
        tokens = draw(logits, keys, position, sampling, steer)
        logprobs = logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(dim=-1)
        for key, value in zip(keys.tolist(), logprobs.tolist(), strict=True):
            seen[key].append(value)
        return tokens

    with patch.object(engine, "draw", watching):
        yield seen


def count_gaps(weights: str, dtype: str, scored: str, scores: list[TokenScores], drawn: list[list[float]]) -> Gaps:
    """Counts gaps; ``drawn`` holds the log-probability that each token was drawn with."""
    gaps = np.concatenate([one.gaps for one in scores]).astype(np.float64)
    worst = np.array([one.gaps.max() for one in scores])
    beyond = [int((gaps > border).sum()) for border in BORDERS]
    outside, rejected = int((worst > 0).sum()), int((worst > ROUNDING).sum())
    moved = max(
        float(np.abs(one.logprobs - np.array(then[: len(one.logprobs)])).max())
        for one, then in zip(scores, drawn, strict=True)
    )
    largest = float(gaps.max())
    return Gaps(weights, dtype, scored, len(gaps), len(scores), beyond, largest, moved, outside, rejected)


def count_draws(weights: str, dtype: str, compared: str, one: list[Completion], other: list[Completion]) -> Draws:
    pairs = [(a.token_ids, b.token_ids) for a, b in zip(one, other, strict=True)]
    unequal = [[x != y for x, y in zip_longest(a, b)] for a, b in pairs]
    draws = sum(flags.index(True) + 1 if any(flags) else len(flags) for flags in unequal)
    return Draws(
        weights, dtype, compared, len(pairs), sum(map(any, unequal)), draws, sum(map(len, unequal)),
        sum(map(sum, unequal)),
    )  # fmt: skip


def requests_of(experiment: Experiment, round: int, seed: int) -> list[SampleRequest]:
    """What honest nodes draw in a round."""
    plan = plan_under(experiment, round, seed)
    prompts = {key: experiment.swarm.task.prompt(problem) for key, problem in plan.problems.items()}
    return [
        SampleRequest(prompts[slot.problem_id], completion_key(seed, round, slot.problem_id, slot.index))
        for slot in plan.slots
    ]


def measure(
    experiment: Experiment,
    policy: CausalLM,
    weights: str,
    dtype: str,
    sampling: Sampling,
    arguments: argparse.Namespace,
) -> Iterator[Gaps | Draws]:
    """Everything about one set of weights in one dtype."""
    rng = random.Random(0)
    scores: dict[str, list[TokenScores]] = {"together": [], "by 12": [], "alone": []}
    drawn: dict[str, list[list[float]]] = {name: [] for name in scores}
    for seed in arguments.seeds:
        for round in range(1, arguments.rounds + 1):
            requests = requests_of(experiment, round, seed)
            with watched() as seen:
                sent = sample(policy, requests, sampling)
            rows = [
                Row(policy.codec.render(request.prompt), policy.codec.received_ids(completion))
                for request, completion in zip(requests, sent, strict=True)
            ]

            def score(batch: list[int], rows=rows) -> list[TokenScores]:
                return policy.engine.score([rows[index] for index in batch], sampling)

            everyone = [list(range(len(rows)))]
            alone = cut(1, len(rows), rng)[: arguments.alone]
            for name, batches in {"together": everyone, "by 12": cut(12, len(rows), rng), "alone": alone}.items():
                scores[name] += by_batches(score, batches)
                drawn[name] += [seen[requests[index].key] for index in sorted(chain.from_iterable(batches))]
    for name, found in scores.items():
        yield count_gaps(weights, dtype, name, found, drawn[name])
    yield from measure_draws(experiment, policy, weights, dtype, sampling, arguments)


def measure_draws(
    experiment: Experiment,
    policy: CausalLM,
    weights: str,
    dtype: str,
    sampling: Sampling,
    arguments: argparse.Namespace,
) -> Iterator[Draws]:
    """Draws the keys of one round a seed in batches of several sizes."""
    rng = random.Random(1)
    drawn: dict[str, list[Completion]] = {"alone": [], "by 12": [], "by 192": []}
    picked: list[int] = []
    for seed in arguments.seeds:
        requests = requests_of(experiment, 1, seed)

        def draws(batch: list[int], requests=requests) -> list[Completion]:
            return sample(policy, [requests[index] for index in batch], sampling)

        few = sorted(rng.sample(range(len(requests)), min(arguments.alone, len(requests))))
        picked += [len(drawn["by 12"]) + index for index in few]
        drawn["alone"] += by_batches(draws, [[index] for index in few])
        drawn["by 12"] += by_batches(draws, cut(12, len(requests), rng))
        drawn["by 192"] += by_batches(draws, cut(192, len(requests), rng))
    yield count_draws(weights, dtype, "by 12 / by 192", drawn["by 12"], drawn["by 192"])
    for name in ("by 12", "by 192"):
        yield count_draws(weights, dtype, f"alone / {name}", drawn["alone"], [drawn[name][index] for index in picked])


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of rollouts for each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--train", type=int, default=10, help="rounds of training before the second measurement")
    parser.add_argument("--alone", type=int, default=24, help="completions a round to score and draw one at a time")
    parser.add_argument("--prompts", type=int, default=16, help="B")
    parser.add_argument("--group-size", type=int, default=12, help="G")
    parser.add_argument("--tokens", type=int, default=96, help="length limit of completions")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="of the training in between")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path, help="where to write the counts")
    arguments = parser.parse_args()
    begin(arguments)
    experiment = make(
        swarm__prompts=arguments.prompts, swarm__group_size=arguments.group_size,
        sampling__max_new_tokens=arguments.tokens, learner__learning_rate=arguments.learning_rate,
    )  # fmt: skip
    trained, sampling = policy_of(experiment), experiment.config.sampling.build()
    found: list[Gaps | Draws] = []
    for after in (0, arguments.train) if arguments.train else (0,):
        for round in range(1, after + 1):
            play(experiment, round)
        weights = f"after {after} rounds" if after else "initial"
        for dtype in arguments.dtypes:
            model = copy.deepcopy(trained.model)
            policy = CausalLM(trained.name, model, trained.codec.tokenizer, getattr(torch, dtype))
            found += measure(experiment, policy, weights, dtype, sampling, arguments)
    gaps, draws = [one for one in found if isinstance(one, Gaps)], [one for one in found if isinstance(one, Draws)]
    print("\nhonest tokens by gap in nats below the receiver's top-k:")
    last = ["largest", "moved", "completions", "any gap", f">{ROUNDING:g}"]
    table([["weights, dtype, scored", "tokens", *NAMES, *last], *(one.row() for one in gaps)])
    print("\nthe same keys drawn in different batches:")
    head = ["weights, dtype, batches", "completions", "different", "draws", "tokens", "different", "rate per draw"]
    table([head, *(one.row() for one in draws)])
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "check")}
        settings |= {"tolerance": ROUNDING, "borders": BORDERS, "threads": torch.get_num_threads()}
        content = {"settings": settings, "gaps": [asdict(g) for g in gaps], "draws": [asdict(d) for d in draws]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    largest = max((one.largest for one in gaps if one.dtype == "float32"), default=0.0)
    claim = f"the largest gap of an honest float32 token is {largest:.1e} nats (tolerance: {ROUNDING:g})"
    return verdict(claim, largest <= ROUNDING, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
