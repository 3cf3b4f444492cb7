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

What is pushed down may be as odd as it likes: completions without reward are left alone.

``most_muted`` rejects a completion with hardly a token left to learn from. It still raises the group's mean, which
pushes honest completions down without pushing anything up: ``sentence`` ruins the reward that way (measured). It is off
by default, since a swarm that it was measured in collapsed (``docs/measurements.md``).

Sources: Lopti (arXiv 2505.12929: improbable tokens dominate gradients), STAPO (arXiv 2602.15620: mutes improbable
tokens with positive advantage).
"""

import math
from typing import Literal, get_args

import numpy as np

from hailproof.defenses.base import UNREWARDED, BaseDefense, token_spans
from hailproof.errors import ConfigError
from hailproof.parsing import sentence_borders
from hailproof.protocols import Evidence
from hailproof.records import Verdict

THRESHOLD = 1e-2
Rule = Literal["policy", "both", "either"]
Unit = Literal["token", "sentence"]


class TokenCreditDefense(BaseDefense):
    """Mutes the tokens that the receiver would not say, and accepts the completion if enough are left.

    Args:
        threshold: Probability below which a token is improbable.
        rule: To whom: the policy, both the policy and its anchor, or either of them.
        unit: What is muted: the token, or the sentence that it stands in.
        most_muted: Share of muted tokens above which a completion is rejected; at 1, the default, none is.
    """

    name = "token_credit"

    def __init__(
        self,
        threshold: float = THRESHOLD,
        rule: Rule = "either",
        unit: Unit = "sentence",
        most_muted: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ConfigError(f"Defense option threshold = {threshold} is outside (0, 1); it is a probability.")
        if rule not in get_args(Rule):
            raise ConfigError(f"Defense option rule = {rule} is unknown; use one of {', '.join(get_args(Rule))}.")
        if unit not in get_args(Unit):
            raise ConfigError(f"Defense option unit = {unit} is unknown; use token or sentence.")
        if not 0 < most_muted <= 1:
            raise ConfigError(f"Defense option most_muted = {most_muted} is outside (0, 1]; it is a share of tokens.")
        self.threshold = threshold
        self.most_muted = most_muted
        self.unit: Unit = unit
        self.rule: Rule = rule
        self.needs_anchor = rule != "policy"

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the number of muted tokens."""
        verdicts = [Verdict(self.name, "abstain", UNREWARDED)] * len(evidence.submissions)
        asked = [
            index
            for index, (submission, reward) in enumerate(zip(evidence.submissions, evidence.rewards, strict=True))
            if reward > 0 and submission.sender not in evidence.own
        ]
        for index, verdict in zip(asked, self._judge(evidence.subset(asked)), strict=True):
            verdicts[index] = verdict
        return verdicts

    def _judge(self, evidence: Evidence) -> list[Verdict]:
        """Verdicts on rewarded foreign completions."""
        scores = evidence.scores
        improbable = self._improbable(evidence)
        verdicts = []
        for submission, score, tokens in zip(evidence.submissions, scores, improbable, strict=True):
            if self.unit == "sentence":
                tokens = in_sentences_with(tokens, score.ends, submission.completion.text)
            muted = np.flatnonzero(tokens).tolist()
            notes = [f"probability {math.exp(score.logprobs[token]):.1g}" for token in muted]
            enough = len(muted) <= self.most_muted * len(tokens)
            reason = f"{len(muted)} of {len(tokens)} tokens are not learned{'' if enough else ': too little is left'}"
            verdicts.append(
                Verdict(
                    self.name, "accept" if enough else "reject", reason, float(len(muted)),
                    token_spans(score.ends, muted, notes), muted=tuple(muted),
                )
            )  # fmt: skip
        return verdicts

    def _improbable(self, evidence: Evidence) -> list[np.ndarray]:
        """Which tokens of each completion are improbable, ``[T]``; the anchor reads only what can change that."""
        limit = math.log(self.threshold)
        improbable = [score.logprobs < limit for score in evidence.scores]
        if self.rule == "policy":
            return improbable
        asked = [index for index, tokens in enumerate(improbable) if self.rule == "either" or tokens.any()]
        part = evidence.subset(asked)
        completions = [submission.completion for submission in part.submissions]
        anchored = evidence.anchor.score(part.prompts, completions, evidence.sampling)
        combine = np.logical_and if self.rule == "both" else np.logical_or
        for index, score in zip(asked, anchored, strict=True):
            improbable[index] = combine(improbable[index], score.logprobs < limit)
        return improbable


def in_sentences_with(tokens: np.ndarray, ends: np.ndarray, text: str) -> np.ndarray:
    """Which tokens stand in a sentence that holds a given token.

    Args:
        tokens: ``[T]`` which tokens are given.
        ends: ``[T]`` index of the character at which each token ends.
        text: The completion's text.

    Returns:
        ``[T]``. The end token, which has no character, goes with the last sentence only if it is given itself.
    """
    borders = np.array(sentence_borders(text))
    starts = np.concatenate([[0], ends[:-1]])
    sentence = np.searchsorted(borders, starts, side="right")
    spelled = starts < ends
    return tokens | (np.isin(sentence, sentence[tokens & spelled]) & spelled)
