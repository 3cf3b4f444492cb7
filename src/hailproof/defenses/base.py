"""What defenses share: the evidence that they look at, and the chain that asks them in turn."""

import time
from collections.abc import Sequence
from typing import final

from hailproof.protocols import Defense, Policy, Sampling, TokenScores
from hailproof.records import Prompt, Submission, Verdict


@final
class Received:
    """Received completions with the receiver's own scores, computed when a defense first asks for them.

    Args:
        round: The round in which they were received.
        prompts: The prompt of each, ``[N]``.
        submissions: What was received, ``[N]``.
        policy: The receiver's policy, which scores the tokens in one pass.
        sampling: How an honest node draws completions in this swarm.
    """

    def __init__(
        self,
        round: int,
        prompts: Sequence[Prompt],
        submissions: Sequence[Submission],
        policy: Policy,
        sampling: Sampling,
    ) -> None:
        self.round = round
        self.prompts = prompts
        self.submissions = submissions
        self.sampling = sampling
        self._policy = policy
        self._scores: Sequence[TokenScores] | None = None

    @property
    def scores(self) -> Sequence[TokenScores]:
        """The receiver's own token scores, ``[N]``."""
        if self._scores is None:
            completions = [submission.completion for submission in self.submissions]
            self._scores = self._policy.score(self.prompts, completions, self.sampling)
        return self._scores

    def subset(self, indices: Sequence[int]) -> "Received":
        """The evidence of some completions; scores that exist already are taken along."""
        prompts, submissions = [self.prompts[i] for i in indices], [self.submissions[i] for i in indices]
        part = Received(self.round, prompts, submissions, self._policy, self.sampling)
        if self._scores is not None:
            part._scores = [self._scores[i] for i in indices]
        return part


@final
class Chain:
    """Asks defenses in turn and fails closed.

    A completion that one defense rejected is not shown to the next. A defense that raises, or gives a wrong number of
    verdicts, rejects everything that it was shown, with ``error`` set: an attacker must not gain from breaking it.

    Args:
        defenses: In the order in which they are asked; put cheap ones first.
    """

    def __init__(self, defenses: Sequence[Defense]) -> None:
        self.defenses = tuple(defenses)
        self.seconds = {defense.name: 0.0 for defense in defenses}

    @property
    def only_drops(self) -> bool:
        """Whether every defense drops what it rejects, so that no rejection can create variance in a group."""
        return all(defense.admission == "drop" for defense in self.defenses)

    def screen(self, evidence: Received) -> list[tuple[Verdict, ...]]:
        """Gives each completion its verdicts; the last one is a rejection if it is rejected."""
        verdicts: list[tuple[Verdict, ...]] = [()] * len(evidence.submissions)
        alive = list(range(len(evidence.submissions)))
        for defense in self.defenses:
            if not alive:
                break
            started = time.perf_counter()
            evidence_left = evidence if len(alive) == len(evidence.submissions) else evidence.subset(alive)
            for index, verdict in zip(alive, _ask(defense, evidence_left), strict=True):
                verdicts[index] += (verdict,)
            self.seconds[defense.name] += time.perf_counter() - started
            alive = [index for index in alive if verdicts[index][-1].decision != "reject"]
        return verdicts

    def admission(self, verdicts: Sequence[Verdict]) -> str:
        """What becomes of a completion with these verdicts: ``accept``, ``drop`` or ``zero_reward``."""
        for verdict in verdicts:
            if verdict.decision == "reject":
                return next(defense.admission for defense in self.defenses if defense.name == verdict.defense)
        return "accept"


def _ask(defense: Defense, evidence: Received) -> list[Verdict]:
    try:
        verdicts = defense.screen(evidence)
        if len(verdicts) == len(evidence.submissions):
            return verdicts
        reason = f"{len(verdicts)} verdicts for {len(evidence.submissions)} completions"
    except Exception as error:  # a defense is third-party code that reads hostile text: whatever it raises is a verdict
        reason = f"{type(error).__name__}: {error}"
    failure = Verdict(defense.name, "reject", f"the defense failed: {reason}", error=True)
    return [failure] * len(evidence.submissions)
