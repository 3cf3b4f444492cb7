"""REPLAY: every token must be the one that the slot's public randomness draws, so that nobody can choose.

Idea: all nodes sample by the Gumbel-max trick with noise that is a hash of public labels (round, problem, slot,
position, token; ``policies/sampling.py``). So each slot has exactly one honest draw, and anybody with the same weights
can check it in one teacher-forced pass. Nothing can be forged, and nothing can be selected: best-of-80 has one
candidate. That stops the DoS attack, which cannot be seen in a single text.

What is tested in each completion:

* **margin**: no token lies more than ``margin`` nats below the drawn one. A forced token of probability p passes with
  probability ``p e^d / (1 - p + p e^d)`` for margin d. Cached generation and teacher forcing sum in different orders,
  so a margin of 0 would reject honest work; ``docs/archive`` has the share of honest tokens beyond each margin.
  A candidate within the margin of the border of the top-k or top-p need not be the draw.
* **count**: no more tokens miss the draw at all, by however little, than honest rounding explains.
* **end**: the end token is a token like any other, and a completion without one has exactly as many tokens as allowed,
  counted in the tokens that are replayed and learned from, not in those that the sender claims.
* **mandatory**: a sender that withholds one of its slots, or sends something else in it, loses the round. Otherwise it
  could choose by leaving draws out.

A sender that is caught is suspended: in the following rounds its slots go to others. They make the same draws as an
honest node in its place, so the swarm learns what it would have learned from one. The sender comes back after
``suspend`` rounds, and after twice as many each time that it is caught again. ``memory`` rounds without fault make up
for one offense. A false alarm costs one sender's completions of a round, and the others some work.

Labels hold no identity, so more identities buy no more draws. In vertical swarms prompts must be assigned as well
(``swarm.prompt_choice = "assigned"``), or an attacker can choose prompts.

``check`` is the share of completions that are checked. A beacon picks them: randomness that all nodes share and that
nobody knew before all had sent (``Exchange.beacon``). A hash of what was sent is no beacon: anybody can compute honest
draws, so an attacker could try forgeries until none of them is picked. Without a beacon everything is checked. If a
sender forges n completions, at least one is found with probability ``1 - (1 - check)^n``. Then all its others are
dropped unread, and it is checked in full until it has made up for it. So on average a sender gets at most
``(1 - check) / check`` forgeries in before it is caught, however it spreads them. That is little where a sender has
many slots a round, and too much where it has one or two and names are free.

Limits: all nodes must hold the same weights. An attacker can still know the public labels early, choose identities
whose slots draw well, and come back under a new name.

Sources: Token-DiFR (arXiv 2511.20621) for the margin test, Reliquary and GRAIL for what must not be left to the sender.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import binom

from hailproof.defenses.base import BaseDefense, token_spans
from hailproof.draws import shortfalls, wanted
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Evidence
from hailproof.records import Submission, Verdict
from hailproof.seeds import derive

FALSE_ALARM = 1e-6
"""Probability with which the count test rejects an honest completion, if ``mismatch_rate`` is true."""
MOST_DOUBLINGS = 20
"""The longest suspension is the first one doubled so many times."""


class ReplayDefense(BaseDefense):
    """Rejects completions that are not the draw of their slot.

    Args:
        margin: Nats over the temperature that a token may lie below the drawn one; ``None``: what the precision of the
            receiver's engine asks for, 0.001 in float32 and 0.2 in bfloat16.
        mismatch_rate: Share of honest tokens that are not exactly the drawn one, by rounding; for the count test.
        check: Share of completions that are checked.
        memory: Rounds with slots in which a sender that was caught makes up for it; until then it is checked in full.
        mandatory: Whether a sender that withholds or forges a completion loses its others of that round.
        suspend: Rounds without slots for a sender that was caught, doubled for each time before that it has not made
            up for; 0 leaves it its slots.
        admission: What happens to rejected completions.
    """

    name = "replay"
    needs = frozenset({"tokens", "model", "keys", "senders"})
    before_rewards = True
    same_weights = True
    reads_sampling = True

    def __init__(
        self,
        margin: float | None = None,
        mismatch_rate: float = 1e-3,
        check: float = 1.0,
        memory: int = 10,
        mandatory: bool = True,
        suspend: int = 2,
        admission: Admission = "drop",
    ) -> None:
        super().__init__(admission)
        if (margin or 0) < 0 or memory < 0 or suspend < 0:
            raise ConfigError("Defense replay takes a margin, a memory and a suspend of 0 or more.")
        if not 0 < check <= 1 or not 0 <= mismatch_rate < 1:
            raise ConfigError("Defense replay takes a check in (0, 1] and a mismatch_rate in [0, 1); both are shares.")
        self.margin = margin
        self.mismatch_rate = mismatch_rate
        self.check = check
        self.memory = memory
        self.mandatory = mandatory
        self.suspend = suspend
        self._offenses: dict[int, int] = {}
        self._suspended_until: dict[int, int] = {}
        self._suspect_until: dict[int, int] = {}

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is the largest shortfall in nats."""
        submissions = evidence.submissions
        verdicts = [
            self._before_replay(each, len(row.completion), evidence)
            for each, row in zip(submissions, evidence.rows, strict=True)
        ]
        open_cases = [index for index, verdict in enumerate(verdicts) if verdict is None]
        picked = self._picked(evidence, open_cases)
        verdicts = self._replay(evidence, verdicts, picked)
        caught = Counter(s.sender for s, v in zip(submissions, verdicts, strict=True) if v and v.decision == "reject")
        if self.mandatory:
            verdicts = [
                verdict if not caught[each.sender] or (verdict and verdict.decision == "reject")
                else Verdict(self.name, "reject", f"its sender forged {caught[each.sender]} others of this round")
                for each, verdict in zip(submissions, verdicts, strict=True)
            ]  # fmt: skip
        else:
            rest = [index for index in open_cases if verdicts[index] is None and caught[submissions[index].sender]]
            verdicts = self._replay(evidence, verdicts, rest)
        self._remember(evidence, verdicts)
        unchecked = Verdict(self.name, "abstain", "not among those that were checked")
        return [verdict or unchecked for verdict in verdicts]

    def suspended(self, round: int) -> frozenset[int]:
        """Senders whose slots go to others in a round."""
        return frozenset(sender for sender, last in self._suspended_until.items() if round <= last)

    def state(self) -> dict[str, Any]:
        """Which senders were caught how often, are suspended, and are checked in full, and until which round."""
        return {
            "offenses": dict(self._offenses),
            "suspended_until": dict(self._suspended_until),
            "suspect_until": dict(self._suspect_until),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._offenses = dict(state["offenses"])
        self._suspended_until = dict(state["suspended_until"])
        self._suspect_until = dict(state["suspect_until"])

    def _remember(self, evidence: Evidence, verdicts: Sequence[Verdict | None]) -> None:
        """Suspends who was caught, and takes one offense back from those who have made up for one."""
        read = {s.sender for s, verdict in zip(evidence.submissions, verdicts, strict=True) if verdict}
        caught = {
            submission.sender
            for submission, verdict in zip(evidence.submissions, verdicts, strict=True)
            if verdict and verdict.decision == "reject"
        }
        if self.mandatory:
            caught |= {sender for sender, count in evidence.missing.items() if count}
        for sender in caught:
            offenses = self._offenses.get(sender, 0)
            last = evidence.round + self.suspend * 2 ** min(offenses, MOST_DOUBLINGS)
            self._offenses[sender] = offenses + 1
            self._suspended_until[sender] = last
            self._suspect_until[sender] = last + self.memory
        for sender in read - caught:
            if self._offenses.get(sender) and evidence.round >= self._suspect_until[sender]:
                self._offenses[sender] -= 1
                self._suspect_until[sender] = evidence.round + (self.memory if self._offenses[sender] else 0)

    def _before_replay(self, submission: Submission, size: int, evidence: Evidence) -> Verdict | None:
        """What can be said without the model; ``None`` if the draws must be repeated."""
        limit = evidence.sampling.max_new_tokens
        withheld = evidence.missing.get(submission.sender, 0)
        if self.mandatory and withheld:
            return Verdict(self.name, "reject", f"its sender withheld {withheld} completions of this round")
        if size > limit or (not submission.completion.finished and size != limit):
            return Verdict(self.name, "reject", f"{size} tokens, where the limit is {limit}")
        return None

    def _picked(self, evidence: Evidence, open_cases: Sequence[int]) -> list[int]:
        """The completions that are checked first: a public random share, and all of senders under suspicion."""
        beacon, submissions = evidence.beacon, evidence.submissions
        if self.check == 1 or beacon is None:
            return list(open_cases)
        return [
            index
            for index in open_cases
            if self._suspect_until.get(submissions[index].sender, 0) >= evidence.round
            or derive(beacon, submissions[index].problem_id, submissions[index].slot) < self.check * 2**63
        ]

    def _replay(
        self, evidence: Evidence, verdicts: Sequence[Verdict | None], indices: Sequence[int]
    ) -> list[Verdict | None]:
        """The verdicts, with those of some completions filled in by repeating their draws."""
        result = list(verdicts)
        rows = evidence.subset(indices).rows
        engine, sampling = evidence.policy.engine, evidence.sampling
        for place, found in engine.candidates(rows, wanted(sampling)):
            index = indices[place]
            claimed = np.array(rows[place].completion)
            keys, positions = np.full(len(claimed), evidence.keys[index]), np.arange(len(claimed))
            short = shortfalls(found, claimed, keys, positions, sampling)
            result[index] = self._judge(evidence, index, short)
        return result

    def _judge(self, evidence: Evidence, index: int, short: np.ndarray) -> Verdict:
        worst = float(short.max(initial=0.0))
        margin = evidence.policy.engine.rounding if self.margin is None else self.margin
        beyond = np.flatnonzero(~(short <= margin))  # what is no number is beyond
        missed = np.flatnonzero(~(short <= 0))
        allowed = most_mismatches(len(short), self.mismatch_rate)
        if not len(beyond) and len(missed) <= allowed:
            return Verdict(self.name, "accept", "every token is the one that its key draws", worst)
        marked = beyond if len(beyond) else missed
        notes = [f"{short[token]:.3g} nats below the draw" for token in marked]
        spans = token_spans(evidence.ends(index), marked.tolist(), notes)
        if len(beyond):
            reason = f"{len(beyond)} of {len(short)} tokens are not the draw of this slot, first at {beyond[0]}"
        else:
            reason = f"{len(missed)} of {len(short)} tokens miss the draw narrowly, where {allowed} may"
        return Verdict(self.name, "reject", reason, worst, spans)


@lru_cache(maxsize=4096)
def most_mismatches(tokens: int, rate: float, false_alarm: float = FALSE_ALARM) -> int:
    """The most mismatches that an honest completion has, but for a small probability.

    Args:
        tokens: Length of the completion T.
        rate: Share of honest tokens that miss their draw.
        false_alarm: The probability.

    Returns:
        The smallest b with P(Binomial(T, rate) > b) at most ``false_alarm``.
    """
    return int(binom.isf(false_alarm, tokens, rate)) if tokens and rate else 0
