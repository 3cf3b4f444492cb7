"""TOKEN_CREDIT: learn from a poisoned completion without learning the poison.

Idea: what an attacker wants to teach is, by definition, what the receiver would not say. Tokens of a rewarded foreign
completion that are improbable under the receiver's policy *and* under a frozen copy of the initial one get no
gradient; the rest, often a correct solution, is learned from as usual. Needs no equal weights and no equal tokenizers,
and rejects nothing, so that honest work is not lost.

The frozen anchor is there because a mask that looks only at the current model can be walked: each small step makes the
next one probable. A token that has become probable by honest learning is heard, however improbable it once was; that
is the way that remains open, and the reason for ``threshold`` to be small. Muted are tokens of completions with more
than the mean reward of their group only: what is pushed down may be as odd as it likes.

Sources: Lopti (arXiv 2505.12929: improbable tokens dominate gradients), STAPO (arXiv 2602.15620: mutes improbable
tokens with positive advantage).
"""

import math
import statistics

import numpy as np

from hailproof.defenses.base import BaseDefense, token_spans
from hailproof.errors import ConfigError
from hailproof.protocols import Evidence
from hailproof.records import Verdict

THRESHOLD = 1e-3


class TokenCreditDefense(BaseDefense):
    """Accepts every completion and mutes the tokens that neither the policy nor its anchor would say.

    Args:
        threshold: Probability below which a token is muted.
        anchored: Whether the frozen initial policy must find a token improbable too; without, the current policy
            alone decides, which honest learning of new words feels.
    """

    name = "token_credit"

    def __init__(self, threshold: float = THRESHOLD, anchored: bool = True) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ConfigError(f"Defense option threshold = {threshold} is outside (0, 1); it is a probability.")
        self.threshold = threshold
        self.anchored = anchored
        self.needs_anchor = anchored

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the number of muted tokens."""
        by_group: dict[str, list[float]] = {}
        for submission, reward in zip(evidence.submissions, evidence.rewards, strict=True):
            by_group.setdefault(submission.problem_id, []).append(reward)
        means = {key: statistics.fmean(rewards) for key, rewards in by_group.items()}
        verdicts = [Verdict(self.name, "abstain", "not above its group's mean, or my own")] * len(evidence.submissions)
        asked = [
            index
            for index, (submission, reward) in enumerate(zip(evidence.submissions, evidence.rewards, strict=True))
            if reward > means[submission.problem_id] and submission.sender not in evidence.own
        ]
        for index, verdict in zip(asked, self._judge(evidence.subset(asked)), strict=True):
            verdicts[index] = verdict
        return verdicts

    def _judge(self, evidence: Evidence) -> list[Verdict]:
        """Verdicts on rewarded foreign completions; the anchor reads only those with something improbable."""
        limit = math.log(self.threshold)
        scores = evidence.scores
        improbable = [score.logprobs < limit for score in scores]
        odd = [index for index, tokens in enumerate(improbable) if tokens.any()]
        if self.anchored and odd:
            part = evidence.subset(odd)
            completions = [submission.completion for submission in part.submissions]
            anchored = evidence.anchor.score(part.prompts, completions, evidence.sampling)
            for index, score in zip(odd, anchored, strict=True):
                improbable[index] &= score.logprobs < limit
        verdicts = []
        for score, tokens in zip(scores, improbable, strict=True):
            muted = np.flatnonzero(tokens).tolist()
            notes = [f"probability {math.exp(score.logprobs[token]):.1g}" for token in muted]
            verdicts.append(
                Verdict(
                    self.name, "accept", f"{len(muted)} of {len(tokens)} tokens are not learned", float(len(muted)),
                    token_spans(score.ends, muted, notes), muted=tuple(muted),
                )
            )  # fmt: skip
        return verdicts
