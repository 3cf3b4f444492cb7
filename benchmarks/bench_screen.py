"""What a defense that reads tokens adds to a round, and where the time of a round goes.

    .venv/bin/python benchmarks/bench_screen.py [--defense replay] [--option check=0.3] [--check]

The same swarm of 4 with TEXT and a quarter of malicious nodes (--malicious), with and without the defense; both play
the same rounds in turn. The learning rate changes no weight, so that both see the same completions in every round. Two
costs are given: that of the screening itself, and the difference of whole rounds, which is smaller where rejected
completions need no update, and larger where others draw what a suspended sender owed (replay, but for suspend=0).

Time is compared with arithmetic: 2 FLOP per weight and token in a forward pass, 6 when training, over the tokens that
really went through the model (padding included; the output layer counts only where logits were computed, attention
over the context is left out). The machine's own rate is that of a large float32 matrix product, and of one with the
shapes of the model, measured here. The claim: screening takes at most --max-share of an undefended round, and is one
pass over what was received at most.
"""

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from common import HOLD_STILL, begin, make, options, play, policy_of, spread, table, verdict

from hailproof.policies.causal_lm import CausalLM
from hailproof.protocols import Candidates, Sampling, TokenScores
from hailproof.records import RoundRecord, Row
from hailproof.runs.config import parse_assignment

STAGES = ["sample", "forge", "exchange", "screen", "update"]


class Meter:
    """Counts what goes through a policy's model, by stage: passes, tokens, positions with logits, FLOP.

    Args:
        policy: The policy; its model gets a hook, and its engine's ``score`` and ``candidates`` are wrapped to tell
            screening from sampling.
    """

    def __init__(self, policy: CausalLM) -> None:
        self.counts: dict[str, Counter[str]] = {stage: Counter() for stage in STAGES}
        config = policy.model.config
        self.head = config.vocab_size * config.hidden_size
        everything = sum(parameter.numel() for parameter in policy.model.parameters())
        self.body = everything - self.head * (1 if config.tie_word_embeddings else 2)  # a look-up is no arithmetic
        self._stage = "sample"
        policy.model.register_forward_hook(self._count, with_kwargs=True)
        engine: Any = policy.engine
        score, candidates = engine.score, engine.candidates

        def counted_score(rows: Sequence[Row], sampling: Sampling) -> list[TokenScores]:
            with self._screening(rows):
                return score(rows, sampling)

        def counted_candidates(rows: Sequence[Row], count: int) -> Iterator[tuple[int, Candidates]]:
            with self._screening(rows):
                yield from candidates(rows, count)

        engine.score, engine.candidates = counted_score, counted_candidates

    @contextmanager
    def _screening(self, rows: Sequence[Row]) -> Iterator[None]:
        self._stage = "screen"
        self.counts["screen"]["asked"] += len(rows)
        try:
            yield
        finally:
            self._stage = "sample"

    def _count(self, _model: Any, _inputs: Any, keywords: dict[str, Any], output: Any) -> None:
        training = torch.is_grad_enabled()
        tokens, positions = keywords["input_ids"].numel(), output.logits.shape[:-1].numel()
        count = self.counts["update" if training else self._stage]
        count["passes"] += 1
        count["tokens"] += tokens
        count["flop"] += (6 if training else 2) * (self.body * tokens + self.head * positions)


def product_rate(rows: int, inner: int, columns: int, seconds: float = 0.5) -> float:
    """FLOP/s of a float32 matrix product, best of as many as fit the time."""
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    output = torch.empty(rows, columns)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(left, right, out=output)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def received(records: Sequence[RoundRecord]) -> tuple[int, int]:
    """Completions received, and their tokens without prompts."""
    sent = [one.submission.completion for r in records for group in r.views[0].groups for one in group.completions]
    return len(sent), sum(len(completion.token_ids) for completion in sent)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--prompts", type=int, default=16, help="B")
    parser.add_argument("--group-size", type=int, default=12, help="G")
    parser.add_argument("--tokens", type=int, default=96, help="length limit of completions")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--max-share", type=float, default=0.25, help="what --check asks for")
    parser.add_argument("--malicious", type=int, default=1, help="nodes of the 4")
    parser.add_argument("--defense", default="logit")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the defense")
    arguments = parser.parse_args()
    guard = arguments.defense
    defense = {"name": guard, "options": dict(parse_assignment(text) for text in arguments.option)}
    begin(arguments)
    common: dict[str, Any] = {
        "swarm__prompts": arguments.prompts, "swarm__group_size": arguments.group_size, "attack__name": "text",
        "attack__malicious": arguments.malicious,
        "sampling__max_new_tokens": arguments.tokens, "learner__learning_rate": HOLD_STILL,
    }  # fmt: skip
    swarms = {"none": make(**common), guard: make(**common, defense=[defense])}
    rounds: dict[str, list[tuple[float, RoundRecord]]] = {name: [] for name in swarms}
    for experiment in swarms.values():
        play(experiment, 1)
    meters = {name: Meter(policy_of(experiment)) for name, experiment in swarms.items()}
    for round in range(2, arguments.repeats + 2):
        for name in swarms if round % 2 else reversed(swarms):
            rounds[name].append(play(swarms[name], round))
    seconds = {name: [second for second, _ in played] for name, played in rounds.items()}
    records = {name: [record for _, record in played] for name, played in rounds.items()}

    swarm = f"{arguments.malicious} of 4 malicious"
    print(f"B={arguments.prompts} G={arguments.group_size}, at most {arguments.tokens} tokens, {swarm}")
    rows: list[list[str]] = [["", "seconds a round, median (min..max)", "trained", "rows passed"]]
    for name, played in records.items():
        updates = [record.views[0].update for record in played]
        trained = statistics.fmean(update.trained for update in updates)
        passes = statistics.fmean(update.passes for update in updates)
        rows.append([f"defense: {name}", spread(seconds[name]), f"{trained:.1f}", f"{passes:.1f}"])
    table(rows)

    large, shaped = product_rate(1024, 1024, 1024), product_rate(4096, 160, 432)
    print(f"\nfloat32 matrix product: {large / 1e9:.0f} GFLOP/s (1024 x 1024 x 1024), "
          f"{shaped / 1e9:.0f} GFLOP/s (4096 x 160 x 432); floor: arithmetic at the first rate")  # fmt: skip
    rows = [[f"with {guard}", "seconds", "share", "passes", "tokens", "GFLOP", "GFLOP/s", "floor", "times the floor"]]
    meter, whole = meters[guard], statistics.median(seconds[guard])
    for stage in STAGES:
        spent = statistics.median(record.seconds[stage] for record in records[guard])
        count = meter.counts[stage]
        passes, tokens, flop = (count[key] / arguments.repeats for key in ("passes", "tokens", "flop"))
        numbers = ["-"] * 4
        if flop:
            floor = flop / large
            numbers = [f"{flop / 1e9:.1f}", f"{flop / 1e9 / spent:.0f}", f"{floor:.3f}", f"{spent / floor:.1f}"]
        spending = [f"{spent:.4f}", f"{spent / whole:.1%}", f"{passes:.0f}", f"{tokens:.0f}"]
        rows.append([stage, *spending, *numbers])
    table(rows)

    base = statistics.median(seconds["none"])
    screening = statistics.median(record.seconds["screen"] for record in records[guard])
    rewarding = statistics.median(record.seconds["screen"] for record in records["none"])
    asked = meter.counts["screen"]["asked"] / arguments.repeats
    count, tokens = (part / arguments.repeats for part in received(records[guard]))
    print(f"\nreceived a round: {count:.0f} completions, {tokens:.0f} tokens; screened as able to matter: {asked:.0f}")
    print(f"whole round with {guard} against without: {whole - base:+.3f} s, {whole / base - 1:+.1%}")
    share = (screening - rewarding) / base
    claim = f"screening adds {screening - rewarding:.3f} s, {share:.1%} of an undefended round"
    claim += f" (asked: at most {arguments.max_share:.0%})"
    status = verdict(claim, share <= arguments.max_share, arguments.check)
    once = asked <= count
    return status | verdict("screening is at most one pass over what was received", once, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
