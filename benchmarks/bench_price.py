"""What a forged completion costs an untrained receiver: nats of its tokens, and tokens outside the top 50.

    .venv/bin/python benchmarks/bench_price.py --threads 1

The first problems of the train split that an attack wants, each forged as for a round of its own, scored by a shipped
model before any training. The dearer a completion, the longer an honest model takes to write it.
"""

import itertools
import statistics

from common import begin, options, table

from hailproof.attacks import ATTACKS
from hailproof.policies.load import load
from hailproof.protocols import AttackView, Sampling
from hailproof.records import Row
from hailproof.tasks.word_problems import WordProblems

NAMES = ("text", "sentence", "equation", "code")


def price(model: str, name: str, number: int) -> tuple[float, float]:
    """Mean nats of a forged completion, and mean number of its tokens outside the top 50."""
    policy, attack = load(model, device="cpu"), ATTACKS[name]()
    task = WordProblems(variant=attack.variant, libraries=attack.libraries)
    wanted = list(itertools.islice(filter(attack.wants, task.train), number))
    sent = []
    for round, problem in enumerate(wanted):
        (content, *_) = attack.forge(AttackView(round, problem, task, (0,)))
        sent.append(policy.codec.as_completion(str(content)))
    rows = [
        Row(policy.codec.render(task.prompt(problem)), completion.token_ids)
        for problem, completion in zip(wanted, sent, strict=True)
    ]
    scores = policy.engine.score(rows, Sampling())
    nats = [-float(score.logprobs.sum()) for score in scores]
    return statistics.fmean(nats), statistics.fmean(int((score.ranks >= 50).sum()) for score in scores)


def main() -> None:
    parser = options(__doc__, claims=False)
    parser.add_argument("--models", nargs="+", default=["nano-a", "nano-b"])
    parser.add_argument("--number", type=int, default=40, help="completions of each attack")
    arguments = parser.parse_args()
    begin(arguments)
    rows = [("model", "attack", "nats", "tokens outside the top 50")]
    for model, name in itertools.product(arguments.models, NAMES):
        nats, outside = price(model, name, arguments.number)
        rows.append((model, name, f"{nats:.1f}", f"{outside:.1f}"))
    table(rows)


if __name__ == "__main__":
    main()
