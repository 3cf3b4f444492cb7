"""SENDER_STATS: evidence per sender over prompts and rounds, as a sequential test; convicted senders lose weight.

Idea: where no single completion looks wrong, as with the longest right one of 80 draws, the sender still does. Honest
senders draw alike, so over many prompts none of them ranks above another. For each two senders the completions that are
learned from (reward above the mean of the two) are compared by

* ``length``: tokens;
* ``likelihood``: mean log-probability of a token under the receiver's own policy, and ``lowest``: the smallest one;
* ``phrases``: how much they repeat what this sender, but not the others, said in the rounds before.

On shared prompts, completions are ranked within the prompt. Where each sender has its own prompts, groups are matched
at random. ``defenses/betting.py`` turns ranks into capital, round by round. The capital against a sender is the average
over the others, without the ``malicious`` largest. The sender's weight is 1 up to a capital of the root of
``1 / alpha``, falls with the logarithm, and is 0 from ``1 / alpha`` on. It comes back as honest rounds reduce the
capital again.

Guaranteed: in a run of any length an honest sender gets weight 0 with probability at most ``alpha``, and loses any
weight with probability at most ``sqrt(alpha)``. Conditions:

* at most ``malicious`` others are malicious; they may know everything, including the round's honest draws;
* honest senders are exchangeable: equal weights, independent draws, and prompts that all answer or that each picks at
  random;
* earlier defenses in the chain judge completions one by one;
* all senders are there from the first round that is screened. One that comes later starts with a capital of 1 and
  dilutes the average; ``probation`` lets it start with little weight.

Limits: where honest senders differ (other models, other data, or one of them being the receiver), harmless differences
are found too; use at most ``phrases`` there. An attacker that poisons little, or only in what is not compared, is not
found. One that stops is cleared, and may begin again.

Sources: hailproof's own; those of the bets are in ``defenses/betting.py``.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from hailproof.defenses.base import BaseDefense
from hailproof.defenses.betting import Gambler, advantage_in_rank, evidence_against, trust
from hailproof.defenses.phrases import Counts, marked, phrases, remembered
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Effect, Evidence, Need
from hailproof.records import Verdict
from hailproof.seeds import derive

STATISTICS = ("length", "likelihood", "lowest", "phrases")
CEILING_POWER = 1.5
"""Capital is cut to ``alpha ** -CEILING_POWER``: how long a conviction outlives its cause."""

Groups = dict[str, list[int]]
"""Indices of one sender's completions by problem."""


class SenderStatsDefense(BaseDefense):
    """Accepts every completion, with the weight that its sender has earned.

    Args:
        alpha: Probability with which an honest sender may ever be convicted.
        statistics: What senders are compared by; without ``likelihood`` and ``lowest`` no model is needed.
        malicious: Malicious senders that there may be; ``None``: as many as are a minority, at least one.
        probation: Weight with which an identity starts that was not there in the first round.
        probation_rounds: Unsuspected rounds in which it rises to 1.
        admission: For uniformity; nothing is rejected.
    """

    name = "sender_stats"
    gives: frozenset[Effect] = frozenset({"weights"})

    def __init__(
        self,
        alpha: float = 0.01,
        statistics: Sequence[str] = STATISTICS,
        malicious: int | None = None,
        probation: float = 1.0,
        probation_rounds: int = 10,
        admission: Admission = "drop",
    ) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"Defense option alpha = {alpha} is outside (0, 1); it is a probability.")
        if not statistics or len(set(statistics)) < len(statistics) or not set(statistics) <= set(STATISTICS):
            raise ConfigError(f"Defense option statistics takes some of {', '.join(STATISTICS)}, each once.")
        if (malicious is not None and malicious < 0) or not 0 <= probation <= 1 or probation_rounds < 1:
            raise ConfigError(
                "Defense sender_stats takes malicious of 0 or more, a probation in [0, 1] and at least 1 of "
                "probation_rounds."
            )
        super().__init__(admission)
        self.alpha, self.statistics, self.malicious = alpha, tuple(statistics), malicious
        needs: set[Need] = {"senders", "groups"}
        needs |= {"tokens"} if "length" in statistics else set()
        needs |= {"tokens", "model"} if {"likelihood", "lowest"} & set(statistics) else set()
        self.needs = frozenset(needs)
        self.probation, self.probation_rounds = probation, probation_rounds
        self._good: dict[int, int] = {}  # rounds of probation served, by sender
        self._counts: dict[int, Counts] = {}
        self._gamblers: dict[tuple[int, int], Gambler] = {}

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the capital against its sender."""
        senders: dict[int, Groups] = {}
        for index, submission in enumerate(evidence.submissions):
            senders.setdefault(submission.sender, {}).setdefault(submission.problem_id, []).append(index)
        for sender in senders:
            self._good.setdefault(sender, 0 if self._gamblers else self.probation_rounds)
        values = self._values(evidence)
        used = [phrases(submission.completion.text) for submission in evidence.submissions]
        repeats = {sender: self._repeats(sender, used) for sender in senders}
        for first, second in combinations(sorted(senders), 2):
            matches = matched(senders[first], senders[second], evidence.rewards)
            self._play(first, second, matches, {**values, "phrases": repeats[first]})
            self._play(second, first, [(b, a) for a, b in matches], {**values, "phrases": repeats[second]})
        for sender, groups in senders.items():
            texts = [[used[index] for index in indices] for indices in groups.values()]
            self._counts[sender] = remembered(self._counts.get(sender, {}), texts)
        spoken = {sender: self._verdict(sender) for sender in senders}
        return [spoken[submission.sender] for submission in evidence.submissions]

    def _values(self, evidence: Evidence) -> dict[str, list[float]]:
        """The statistics that are the same for every sender, ``[N]`` each."""
        values: dict[str, list[float]] = {}
        if "length" in self.statistics:
            values["length"] = [float(len(row.completion)) for row in evidence.rows]
        if "likelihood" in self.statistics:
            values["likelihood"] = [float(scores.logprobs.mean()) for scores in evidence.scores]
        if "lowest" in self.statistics:
            values["lowest"] = [float(scores.logprobs.min()) for scores in evidence.scores]
        return values

    def _repeats(self, sender: int, used: Sequence[set[str]]) -> list[float]:
        """How much each completion, ``[N]``, says of what this sender and no other said in the rounds before."""
        others = [counts for known, counts in self._counts.items() if known != sender]
        own = marked(self._counts.get(sender, {}), others)
        return [sum(own[phrase] for phrase in sorted(own.keys() & said)) for said in used]

    def _play(
        self,
        sender: int,
        other: int,
        matches: Sequence[tuple[list[int], list[int]]],
        values: Mapping[str, Sequence[float]],
    ) -> None:
        """Bets on a sender against another with what both sent in a round."""
        ranks = [
            [
                advantage_in_rank([values[name][i] for i in mine], [values[name][i] for i in theirs])
                for name in self.statistics
            ]
            for mine, theirs in matches
        ]
        self._gambler(sender, other).bet(np.array(ranks))

    def _gambler(self, sender: int, other: int) -> Gambler:
        if (sender, other) not in self._gamblers:
            one_sided = [name == "phrases" for name in self.statistics]
            self._gamblers[sender, other] = Gambler(one_sided, self.alpha**-CEILING_POWER)
        return self._gamblers[sender, other]

    def _verdict(self, sender: int) -> Verdict:
        """What is said of all completions of a sender; serves a round of its probation."""
        capitals = [gambler.capital for (judged, _), gambler in self._gamblers.items() if judged == sender]
        malicious = max(1, len(capitals) // 2) if self.malicious is None else self.malicious
        capital = evidence_against(capitals, malicious)
        served = min(1.0, self._good[sender] / self.probation_rounds)
        start = self.probation + (1 - self.probation) * served
        if capital is None:
            return Verdict(self.name, "abstain", "too few senders to compare with", weight=start)
        earned = trust(capital, self.alpha)
        self._good[sender] += earned == 1
        reason = f"evidence {capital:.3g} of {1 / self.alpha:.3g} against its sender"
        return Verdict(self.name, "accept", reason, capital, weight=start * earned)

    def state(self) -> dict[str, Any]:
        """Probation, counts of phrases and capital, with string keys as JSON has them."""
        return {
            "good": {str(sender): rounds for sender, rounds in self._good.items()},
            "counts": {str(sender): counts for sender, counts in self._counts.items()},
            "gamblers": {f"{one} {other}": gambler.state() for (one, other), gambler in self._gamblers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._good = {int(sender): rounds for sender, rounds in state["good"].items()}
        self._counts = {int(sender): dict(counts) for sender, counts in state["counts"].items()}
        self._gamblers = {}
        for pair, saved in state["gamblers"].items():
            one, other = map(int, pair.split())
            self._gambler(one, other).restore(saved)


def matched(first: Groups, second: Groups, rewards: Sequence[float]) -> list[tuple[list[int], list[int]]]:
    """Completions of two senders to be compared: prompt by prompt, or group by group where they share no prompt.

    Only those with a reward above the mean of the two are taken, and only where both have some: what others send can
    neither add a comparison nor remove one.
    """
    shared = first.keys() & second.keys()
    if shared:
        pairs = [(first[problem], second[problem]) for problem in sorted(shared)]
        taken = [(_above(a, a + b, rewards), _above(b, a + b, rewards)) for a, b in pairs]
        return [(a, b) for a, b in taken if a and b]
    queues = []
    for groups in (first, second):
        shuffled = sorted(groups, key=lambda problem: derive(0, "matched", problem))  # names may tell of difficulty
        queues.append([kept for p in shuffled if (kept := _above(groups[p], groups[p], rewards))])
    return list(zip(*queues, strict=False))


def _above(indices: Sequence[int], among: Sequence[int], rewards: Sequence[float]) -> list[int]:
    mean = sum(rewards[index] for index in among) / len(among)
    return [index for index in indices if rewards[index] > mean]
