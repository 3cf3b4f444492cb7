"""How often `sender_stats` suspects honest senders, and how soon it convicts malicious ones.

    .venv/bin/python benchmarks/bench_sender_stats.py [--runs 20] [--rounds 200] [--check]

Real completions, frozen policy: nano-a draws --draws completions of each of --problems problems once, scores and
rewards them, and the rounds of all simulated swarms (4 senders, B = 16, G = 12) are dealt from these at random, so
that honest senders are exchangeable by construction. `accuracy` is the share of right answers that honest senders
give: `base` is that of the policy as it is, else right and wrong draws are chosen with that probability, as late in a
training.

Printed for each attack: the median, smallest and largest round of conviction (weight 0) of the malicious sender, how
many runs convicted it at all, how large a share of its completions' weight remained, and how many honest senders of
all runs ever reached an evidence of 1 / alpha (weight 0) and of its root (weight below 1). First, as a check of the
mathematics alone, the same for one gambler on log-normal lengths in many more runs. The claim: no more convictions of
honest senders than alpha allows, up to three standard deviations of chance.
"""

import functools
import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from common import begin, options, table, verdict

from hailproof.attacks.base import FILLER
from hailproof.attacks.text import PHRASE
from hailproof.defenses import sender_stats
from hailproof.defenses.betting import Gambler, advantage_in_rank
from hailproof.defenses.evidence import Received
from hailproof.defenses.sender_stats import CEILING_POWER, SenderStatsDefense
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.load import load
from hailproof.protocols import SampleRequest, Sampling, TokenScores
from hailproof.records import Completion, Prompt, Row, Submission
from hailproof.rollouts import sample
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems

SENDERS, PROMPTS, GROUP = 4, 16, 12
ATTACKER = 3
Sent = tuple[Completion, float]
Attack = Callable[["Pool", str, int, random.Random, float | None], list[Sent]]


@dataclass
class Pool:
    """Completions with their rewards by problem, and scores by row; stands for a policy and its engine."""

    prompts: dict[str, Prompt] = field(default_factory=dict)
    rendered: dict[str, tuple[int, ...]] = field(default_factory=dict)
    drawn: dict[str, list[Sent]] = field(default_factory=dict)
    right: dict[str, list[Sent]] = field(default_factory=dict)
    wrong: dict[str, list[Sent]] = field(default_factory=dict)
    text: dict[str, Sent] = field(default_factory=dict)
    filler: dict[str, Sent] = field(default_factory=dict)
    scores: dict[Row, TokenScores] = field(default_factory=dict)

    @property
    def engine(self) -> "Pool":
        return self

    def honest(self, problem: str, rng: random.Random, accuracy: float | None) -> Sent:
        right, wrong = self.right[problem], self.wrong[problem]
        if accuracy is None or not right or not wrong:
            return rng.choice(self.drawn[problem])
        return rng.choice(right if rng.random() < accuracy else wrong)

    def row(self, problem: str, completion: Completion) -> Row:
        return Row(self.rendered[problem], completion.token_ids)

    def score(self, rows: Sequence[Row], _sampling: Sampling) -> list[TokenScores]:
        return [self.scores[row] for row in rows]


def fill(policy: CausalLM, problems: int, draws: int) -> Pool:
    """Draws, rewards and scores."""
    task, sampling, pool = WordProblems(size=problems, test_size=1), Sampling(max_new_tokens=96), Pool()
    for number, problem in enumerate(task.train):
        prompt = pool.prompts[problem.id] = task.prompt(problem)
        pool.rendered[problem.id] = policy.codec.render(prompt)
        requests = [SampleRequest(prompt, derive(number, "draw", index)) for index in range(draws)]
        completions = sample(policy, requests, sampling)
        poisoned = policy.codec.as_completion(task.format(f"{PHRASE}. {problem.solution}", problem.answer))
        everything = [*completions, poisoned, policy.codec.as_completion(FILLER)]
        sent = [(one, task.reward(problem, one.text)) for one in everything]
        *pool.drawn[problem.id], pool.text[problem.id], pool.filler[problem.id] = sent
        pool.right[problem.id] = [one for one in pool.drawn[problem.id] if one[1] == 1]
        pool.wrong[problem.id] = [one for one in pool.drawn[problem.id] if one[1] < 1]
        rows = [pool.row(problem.id, one) for one in everything]
        pool.scores.update(zip(rows, policy.engine.score(rows, sampling), strict=True))
    return pool


def nothing(pool: Pool, problem: str, slots: int, rng: random.Random, accuracy: float | None) -> list[Sent]:
    return [pool.honest(problem, rng, accuracy) for _ in range(slots)]


def best_of(draws: int) -> Attack:
    """The longest right one of some draws, in all slots; half decoys where the attacker owns the group."""

    def attack(pool: Pool, problem: str, slots: int, rng: random.Random, accuracy: float | None) -> list[Sent]:
        seen = [pool.honest(problem, rng, accuracy) for _ in range(draws)]
        right = [one for one in seen if one[1] == 1 and one[0].finished]
        if not right:
            return nothing(pool, problem, slots, rng, accuracy)
        longest = max(right, key=lambda one: len(one[0].token_ids))
        decoys = slots // 2 if slots == GROUP else 0
        return [longest] * (slots - decoys) + [pool.filler[problem]] * decoys

    return attack


def text(rate: float) -> Attack:
    """The phrase before the reference solution, in a share of slots; half decoys in poisoned groups of its own."""

    def attack(pool: Pool, problem: str, slots: int, rng: random.Random, accuracy: float | None) -> list[Sent]:
        sent = nothing(pool, problem, slots, rng, accuracy)
        for slot in range(slots):
            if rng.random() < rate:
                decoy = slots == GROUP and rate == 1 and slot >= slots // 2
                sent[slot] = (pool.filler if decoy else pool.text)[problem]
        return sent

    return attack


def deal(
    pool: Pool, round: int, rng: random.Random, vertical: bool, attack: Attack, accuracy: float | None
) -> Received:
    """One round of a swarm, as a receiver sees it: groups without variance of rewards are not shown."""
    submissions: list[Submission] = []
    rewards: list[float] = []
    for number, problem in enumerate(rng.sample(sorted(pool.prompts), PROMPTS)):
        owners = [number % SENDERS] if vertical else range(SENDERS)
        sent = [
            (owner, one)
            for owner in owners
            for one in (attack if owner == ATTACKER else nothing)(pool, problem, GROUP // len(owners), rng, accuracy)
        ]
        if len({reward for _, (_, reward) in sent}) > 1:
            submissions += [Submission(round, owner, problem, slot, c) for slot, (owner, (c, _)) in enumerate(sent)]
            rewards += [reward for _, (_, reward) in sent]
    prompts = [pool.prompts[submission.problem_id] for submission in submissions]
    return Received(
        round=round, sampling=Sampling(), variant="math", prompts=prompts, submissions=submissions, earned=rewards,
        model=pool,  # pyright: ignore[reportArgumentType] - it has what is asked of a policy here
        read=[pool.row(submission.problem_id, submission.completion) for submission in submissions],
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One run: highest evidence against each sender, round of conviction, and mean weight of the attacker."""

    highest: dict[int, float]
    convicted: int | None
    weight: float


def simulate(pool: Pool, rounds: int, seed: int, vertical: bool, attack: Attack, accuracy: float | None) -> Outcome:
    defense, rng = SenderStatsDefense(), random.Random(seed)
    highest, convicted, weights = dict.fromkeys(range(SENDERS), 1.0), None, []
    for round in range(1, rounds + 1):
        evidence = deal(pool, round, rng, vertical, attack, accuracy)
        spoken = dict(zip([s.sender for s in evidence.submissions], defense.screen(evidence), strict=True))
        for sender, said in spoken.items():
            highest[sender] = max(highest[sender], said.score or 0.0)
        if ATTACKER in spoken:
            weights.append(spoken[ATTACKER].weight)
            if weights[-1] == 0 and convicted is None:
                convicted = round
    return Outcome(highest, convicted, statistics.fmean(weights))


def gamblers(runs: int, rounds: int, alpha: float) -> tuple[int, int]:
    """Of gamblers on two honest senders with log-normal lengths, how many reach 1 / alpha, and its root."""
    rng = np.random.default_rng(0)
    reached = [0, 0]
    for _ in range(runs):
        gambler, highest = Gambler([False], alpha**-CEILING_POWER), 1.0
        for _ in range(rounds):
            lengths = rng.lognormal(3.5, 0.3, (8, 2, 3)).round()
            gambler.bet(np.array([[advantage_in_rank(mine, theirs)] for mine, theirs in lengths.tolist()]))
            highest = max(highest, gambler.capital)
        reached[0] += highest >= 1 / alpha
        reached[1] += highest >= alpha**-0.5
    return reached[0], reached[1]


SCENARIOS: list[tuple[str, bool, Attack, bool]] = [
    ("none", False, nothing, True),
    ("none", True, nothing, True),
    ("best of 80", False, best_of(80), True),
    ("best of 80", True, best_of(80), True),
    ("best of 2", False, best_of(2), False),
    ("best of 2", True, best_of(2), False),
    ("text", False, text(1.0), False),
    ("text", True, text(1.0), False),
    ("text, 10 %", False, text(0.1), False),
    ("text, 10 %", True, text(0.1), False),
]
"""Attack, vertical, what it sends, and whether it is played to the end for the sake of the honest senders."""


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=200, help="of runs that count false alarms")
    parser.add_argument("--short", type=int, default=60, help="rounds of the other runs")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--accuracy", type=float, nargs="*", default=[0.9])
    parser.add_argument("--gamblers", type=int, default=1000)
    arguments = parser.parse_args()
    begin(arguments)
    sender_stats.phrases = functools.cache(sender_stats.phrases)  # the same texts are dealt again and again
    alpha = SenderStatsDefense().alpha
    convicted, suspected = gamblers(arguments.gamblers, arguments.rounds, alpha)
    print(f"{arguments.gamblers} gamblers on honest log-normal lengths, {arguments.rounds} rounds: {convicted} reach "
          f"{1 / alpha:.0f} and {suspected} reach {alpha**-0.5:.0f}")  # fmt: skip
    pool = fill(load("nano-a", device="cpu"), arguments.problems, arguments.draws)
    rewards = [reward for drawn in pool.drawn.values() for _, reward in drawn]
    print(f"{len(rewards)} draws, {statistics.fmean(rewards):.2f} of them right", flush=True)
    rows: list[list[object]] = [
        ["attack, 1 of 4", "topology", "accuracy", "rounds", "convicted in round", "of runs", "weight left",
         f"honest over {1 / alpha:.0f}", f"over {alpha**-0.5:.0f}"]
    ]  # fmt: skip
    tried = failed = 0
    for name, vertical, attack, whole in SCENARIOS:
        for accuracy in (None, *arguments.accuracy):
            rounds = arguments.rounds if whole else arguments.short
            runs = [simulate(pool, rounds, seed, vertical, attack, accuracy) for seed in range(arguments.runs)]
            watched = [s for s in range(SENDERS) if s != ATTACKER or attack is nothing]
            highest = [run.highest[sender] for run in runs for sender in watched]
            found = [run.convicted for run in runs if run.convicted]
            wrong = sum(value >= 1 / alpha for value in highest)
            tried, failed = tried + len(highest), failed + wrong
            when = f"{statistics.median(found):.0f} ({min(found)}..{max(found)})" if found else "-"
            none = attack is nothing
            rows.append([
                name, "vertical" if vertical else "horizontal", accuracy or "base", rounds, "-" if none else when,
                "-" if none else f"{len(found)}/{len(runs)}",
                "-" if none else f"{statistics.fmean(run.weight for run in runs):.0%}",
                f"{wrong}/{len(highest)}", f"{sum(value >= alpha**-0.5 for value in highest)}/{len(highest)}",
            ])  # fmt: skip
            print(*rows[-1], flush=True)
    print()
    table(rows)
    bound = alpha * tried + 3 * math.sqrt(alpha * tried)
    holds = failed <= bound and convicted <= alpha * arguments.gamblers + 3 * math.sqrt(alpha * arguments.gamblers)
    return verdict(f"{failed} of {tried} honest senders were ever convicted (alpha = {alpha})", holds, arguments.check)


if __name__ == "__main__":
    sys.exit(main())
