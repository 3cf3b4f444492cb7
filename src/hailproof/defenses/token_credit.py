"""TOKEN_CREDIT: learn from a poisoned completion without learning the poison.

Idea: what an attacker wants to teach is what the receiver would not say. In rewarded completions of others, improbable
tokens get no gradient. The rest, often a correct solution, is learned as usual. Senders need neither equal weights nor
equal tokenizers. Nothing is rejected, so no honest completion is lost.

``rule`` says under which model a token must be improbable:

* ``policy``: the receiver's policy as it is now. An attacker can shift it step by step: each step makes the next token
  probable;
* ``both``: the policy and its anchor, a frozen copy of the initial policy. A token that either of them would say is
  learned. It can be shifted too;
* ``either``, the default: one of the two. It cannot be shifted, since the anchor never moves. But nothing that the
  initial policy found improbable is ever learned from others.

With ``unit = "sentence"``, the default, one such token mutes its whole sentence. "All hail to the thief" has words that
are probable one by one, and muting only the others teaches "All power to the winter" (measured). In programs a sentence
is a line.

Completions without reward are not screened: what they say is pushed down.

A completion counts in its group's baseline by the share of tokens that it keeps (``learner/advantages.py``). Otherwise
a right answer that is mostly muted raises the mean and pushes honest completions down.

Limits: a phrase that the initial model says now and then is learned (``native``), and so are answers that leave out
steps (``terse``). Wrong answers are not looked at (``spite``).

Sources: Lopti (arXiv 2505.12929: improbable tokens dominate gradients), STAPO (arXiv 2602.15620: mutes improbable
tokens with positive advantage).
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import numpy as np

from hailproof.defenses.base import RewardedDefense, in_sentences_with, token_spans
from hailproof.errors import ConfigError
from hailproof.protocols import Effect, Evidence, Need
from hailproof.records import Verdict

THRESHOLD = 1e-2
Rule = Literal["policy", "both", "either"]
Unit = Literal["token", "sentence"]


class TokenCreditDefense(RewardedDefense):
    """Accepts every completion, and mutes the tokens that the receiver would not say.

    Args:
        threshold: Probability below which a token is improbable.
        rule: To whom: the policy, both the policy and its anchor, or either of them.
        unit: What is muted: the token, or the sentence that it stands in.
    """

    name = "token_credit"
    gives: frozenset[Effect] = frozenset({"masks"})
    needs_by: ClassVar[Mapping[Need, str]] = {"anchor": "rule"}

    def __init__(self, threshold: float = THRESHOLD, rule: Rule = "either", unit: Unit = "sentence") -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ConfigError(f"Defense option threshold = {threshold} is outside (0, 1); it is a probability.")
        if rule not in get_args(Rule):
            raise ConfigError(f"Defense option rule = {rule} is unknown; use one of {', '.join(get_args(Rule))}.")
        if unit not in get_args(Unit):
            raise ConfigError(f"Defense option unit = {unit} is unknown; use token or sentence.")
        self.threshold = threshold
        self.unit: Unit = unit
        self.rule: Rule = rule
        self.needs = frozenset[Need]({"tokens", "model"} if rule == "policy" else {"tokens", "model", "anchor"})

    def asked(self, evidence: Evidence) -> list[int]:
        """The rewarded completions of others."""
        return [index for index in super().asked(evidence) if evidence.submissions[index].sender not in evidence.own]

    def examine(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion, which rests on its improbable tokens; its score is the number of muted ones."""
        verdicts = []
        rows = zip(evidence.submissions, self._likelihoods(evidence), strict=True)
        for index, (submission, likelihoods) in enumerate(rows):
            ends = evidence.ends(index)
            improbable = ~(likelihoods >= math.log(self.threshold))  # what is no number is improbable
            muted = improbable
            if self.unit == "sentence":
                muted = in_sentences_with(improbable, ends, submission.completion.text)
            tokens = np.flatnonzero(improbable).tolist()
            spans = token_spans(ends, tokens, [f"probability {math.exp(likelihoods[t]):.1g}" for t in tokens])
            reason = f"{muted.sum()} of {len(muted)} tokens are not learned"
            indices = tuple(np.flatnonzero(muted).tolist())
            verdicts.append(Verdict(self.name, "accept", reason, float(len(indices)), spans, muted=indices))
        return verdicts

    def _likelihoods(self, evidence: Evidence) -> list[np.ndarray]:
        """Log-probabilities ``[T]`` of each completion's tokens, under those that the rule asks.

        For ``either`` the lower one counts, for ``both`` the higher one; there the anchor reads only completions with a
        token that is improbable to the policy.
        """
        likelihoods = [score.logprobs for score in evidence.scores]
        if self.rule == "policy":
            return likelihoods
        limit = math.log(self.threshold)
        asked = [index for index, own in enumerate(likelihoods) if self.rule == "either" or not (own >= limit).all()]
        part = evidence.subset(asked)
        anchored = evidence.anchor.engine.score(part.rows, evidence.sampling)
        combine = np.maximum if self.rule == "both" else np.minimum
        for index, score in zip(asked, anchored, strict=True):
            likelihoods[index] = combine(likelihoods[index], score.logprobs)
        return likelihoods
