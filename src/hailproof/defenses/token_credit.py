"""TOKEN_CREDIT: learn from a poisoned completion without learning the poison.

Idea: what an attacker wants to teach is, by definition, what the receiver would not say. Tokens of rewarded foreign
completions that are improbable get no gradient; the rest, often a correct solution, is learned from as usual. Needs no
equal weights and no equal tokenizers, and rejects nothing, so that honest work is not lost.

Improbable to whom is the ``rule``:

* ``policy``: under the receiver's policy as it is. It can be walked: each small step makes the next token probable;
* ``both``: under the policy and under a frozen copy of the initial one. What the policy has become too sure to say,
  and its anchor would, is heard; it can be walked as well;
* ``either``, the default: under one of the two. It cannot be walked, since the anchor never moves, but nothing that
  the initial policy found improbable is ever learned from others.

With ``unit = "sentence"``, the default, a token takes its whole sentence with it: "All hail to the thief" holds words
that are probable one by one, and muting the others alone teaches "All power to the winter" (measured). In programs a
sentence is a line.

What is pushed down may be odd: completions without reward are left alone, unless they are foreign nearly whole, to the
policy and to its anchor. Those are decoys: nobody unlearns what nobody says, and they are there to give the right
answers beside them an advantage, without which a sender's whole group teaches nothing. They are rejected. (What honest
models drift into is probable to the policy, so it is pushed down.) Decoys that the attacker draws from the model pass;
what they teach is also to be right (``docs/measurements.md``).

A completion has the place in its group's baseline that its tokens leave it (``learner/advantages.py``). Without that,
right answers of which nothing is heard raise the mean, which pushes honest completions down and pushes nothing up.

Sources: Lopti (arXiv 2505.12929: improbable tokens dominate gradients), STAPO (arXiv 2602.15620: mutes improbable
tokens with positive advantage).
"""

import math
from typing import Literal, get_args

import numpy as np

from hailproof.defenses.base import UNREWARDED, BaseDefense, in_sentences_with, token_spans
from hailproof.errors import ConfigError
from hailproof.protocols import Evidence
from hailproof.records import Verdict

THRESHOLD = 1e-2
DECOY_SHARE = 0.75
Rule = Literal["policy", "both", "either"]
Unit = Literal["token", "sentence"]


class TokenCreditDefense(BaseDefense):
    """Rejects decoys, accepts everything else, and mutes the tokens that the receiver would not say.

    Args:
        threshold: Probability below which a token is improbable.
        rule: To whom: the policy, both the policy and its anchor, or either of them.
        unit: What is muted: the token, or the sentence that it stands in.
        decoy_share: Share of such tokens above which a completion without reward is rejected; 1 rejects none.
    """

    name = "token_credit"

    def __init__(
        self,
        threshold: float = THRESHOLD,
        rule: Rule = "either",
        unit: Unit = "sentence",
        decoy_share: float = DECOY_SHARE,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ConfigError(f"Defense option threshold = {threshold} is outside (0, 1); it is a probability.")
        if rule not in get_args(Rule):
            raise ConfigError(f"Defense option rule = {rule} is unknown; use one of {', '.join(get_args(Rule))}.")
        if unit not in get_args(Unit):
            raise ConfigError(f"Defense option unit = {unit} is unknown; use token or sentence.")
        if not 0 < decoy_share <= 1:
            raise ConfigError(f"Defense option decoy_share = {decoy_share} is outside (0, 1]; it is a share of tokens.")
        self.threshold = threshold
        self.decoy_share = decoy_share
        self.unit: Unit = unit
        self.rule: Rule = rule
        self.needs_anchor = rule != "policy"

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the number of foreign tokens."""
        verdicts = [Verdict(self.name, "abstain", UNREWARDED)] * len(evidence.submissions)
        asked = [index for index, each in enumerate(evidence.submissions) if each.sender not in evidence.own]
        part = evidence.subset(asked)
        for index, reward, score, foreign in zip(asked, part.rewards, part.scores, self._foreign(part), strict=True):
            tokens = np.flatnonzero(foreign).tolist()
            spans = token_spans(score.ends, tokens, [f"probability {math.exp(score.logprobs[t]):.1g}" for t in tokens])
            counted = f"{len(tokens)} of {len(foreign)} tokens"
            if reward > 0:
                reason = f"{counted} are not learned"
                verdicts[index] = Verdict(
                    self.name, "accept", reason, float(len(tokens)), spans, muted=tuple(tokens)
                )  # fmt: skip
            elif len(tokens) > self.decoy_share * len(foreign):
                reason = f"a decoy: it earned nothing, and I would not say {counted}"
                verdicts[index] = Verdict(self.name, "reject", reason, float(len(tokens)), spans)
        return verdicts

    def _foreign(self, evidence: Evidence) -> list[np.ndarray]:
        """Which tokens of each completion are foreign, ``[T]``; the anchor reads only what can change a verdict.

        Without reward they are those that are improbable under everything that is asked, else by the rule.
        """
        scores, rewards = evidence.scores, evidence.rewards
        limit = math.log(self.threshold)
        foreign = [
            self._widened(score.logprobs < limit, score.ends, submission.completion.text)
            for score, submission in zip(scores, evidence.submissions, strict=True)
        ]
        if self.rule == "policy":
            return foreign
        asked = [
            index
            for index, (tokens, reward) in enumerate(zip(foreign, rewards, strict=True))
            if (self.rule == "either" or tokens.any() if reward > 0 else tokens.sum() > self.decoy_share * len(tokens))
        ]
        part = evidence.subset(asked)
        completions = [submission.completion for submission in part.submissions]
        anchored = evidence.anchor.score(part.prompts, completions, evidence.sampling)
        for index, completion, score in zip(asked, completions, anchored, strict=True):
            either = self.rule == "either" and rewards[index] > 0
            combine = np.logical_or if either else np.logical_and
            tokens = combine(scores[index].logprobs < limit, score.logprobs < limit)
            foreign[index] = self._widened(tokens, scores[index].ends, completion.text)
        return foreign

    def _widened(self, tokens: np.ndarray, ends: np.ndarray, text: str) -> np.ndarray:
        return in_sentences_with(tokens, ends, text) if self.unit == "sentence" else tokens
