"""LOGIT: every token must be one that the receiver's own policy could have drawn (*Hail to the Thief*, section 5).

Idea: with equal weights, every token of an honest completion, the end token included, is in the receiver's own top-k
(and top-p). A foreign phrase is not. Nodes must hold the same weights; otherwise honest work is rejected.

Cached generation and teacher forcing sum in different orders, so a token at the border of the top-k may fall outside.
``tolerance`` is how far below the lowest allowed token it may lie, in nats. ``docs/archive`` has what honest tokens
need.

Deviations from the paper: the paper states no tolerance. A completion longer than the length limit is rejected. One
that was cut at the limit is accepted only if it has exactly that many tokens.

Limits: it sees neither a choice among honest draws nor a wrong token that the model thinks possible.

Source: *Hail to the Thief* (arXiv 2511.09780), section 5.
"""

import numpy as np

from hailproof.defenses.base import BaseDefense, token_spans
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Evidence, TokenScores
from hailproof.records import Completion, Verdict


class LogitDefense(BaseDefense):
    """Rejects completions with a token outside the receiver's own sampling limits.

    Args:
        tolerance: Nats that a token may lie below the lowest allowed token; ``None``: what the precision of the
            receiver's engine asks for, 0.001 in float32 and 0.2 in bfloat16.
        max_outside: Tokens per completion that may lie outside even so.
        admission: What happens to rejected completions; the paper drops them.
    """

    name = "logit"
    needs = frozenset({"tokens", "model"})
    reads_sampling = True

    def __init__(self, tolerance: float | None = None, max_outside: int = 0, admission: Admission = "drop") -> None:
        if (tolerance or 0) < 0 or max_outside < 0:
            raise ConfigError("Defense logit takes a tolerance and a max_outside of 0 or more.")
        super().__init__(admission)
        self.tolerance = tolerance
        self.max_outside = max_outside

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the largest gap in nats."""
        return [
            self._judge(evidence, index, submission.completion, scores)
            for index, (submission, scores) in enumerate(zip(evidence.submissions, evidence.scores, strict=True))
        ]

    def _judge(self, evidence: Evidence, index: int, completion: Completion, scores: TokenScores) -> Verdict:
        gaps = scores.gaps
        worst = float(gaps.max(initial=0.0))
        tolerance = evidence.policy.engine.rounding if self.tolerance is None else self.tolerance
        outside = np.flatnonzero(~(gaps <= tolerance))  # what is no number is outside
        if len(outside) > self.max_outside:
            first = int(outside[0])
            where = f"first at {first} (rank {scores.ranks[first]})"
            reason = f"{len(outside)} of {len(gaps)} tokens outside my limits, {where}"
            spans = token_spans(evidence.ends(index), outside.tolist(), [f"rank {scores.ranks[i]}" for i in outside])
            return Verdict(self.name, "reject", reason, worst, spans)
        limit = evidence.sampling.max_new_tokens
        if len(gaps) > limit or (not completion.finished and len(gaps) != limit):
            return Verdict(self.name, "reject", f"{len(gaps)} tokens, where the limit is {limit}", worst)
        return Verdict(self.name, "accept", "every token is one that I could have drawn", worst)
