"""LENGTH: a cap on tokens, fixed or taken from the receiver's own completions.

Threat: attackers teach honest models to ramble, with completions that are right and could all have been drawn
(``attacks/length.py``). Each training round then costs more.

Idea: a cap bounds what one completion may cost. It does not stop the push toward length below it; the learner's
``length_neutral`` does, to first order.

A cap from own completions is ``slack`` times their ``quantile`` over the last ``window`` rounds. An attacker can raise
it only indirectly: completions just below the cap lengthen the receiver's own completions, which raise the cap. So the
cap moves by at most ``growth`` a round, up or down. In N rounds it cannot exceed ``(1 + growth) ** N`` times its first
value. Until ``calibration`` own completions were seen there is no such cap, and the defense abstains.

The defense counts the tokens that the learner would train on (``Codec.received_ids``). These are the sender's ids if
they decode to the text, however they split it, and otherwise the receiver's own. Only own completions of groups that
can change the update are shown to it.

Limits: completions below the cap are not changed.

Source: hailproof's own.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from hailproof.defenses.base import BaseDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Evidence
from hailproof.records import Verdict


class LengthDefense(BaseDefense):
    """Rejects completions of more tokens than a cap.

    Args:
        cap: Fixed largest number of tokens, end token included; ``None``: none.
        quantile: Which quantile of the own token counts a cap is taken from, in (0, 1]; ``None``: none. With it,
            nodes decide differently.
        slack: What the quantile is multiplied with.
        window: Rounds that own token counts are remembered.
        calibration: Own completions without which there is no cap from them.
        growth: Largest relative change of that cap per round; 0 keeps its first value.
        admission: What happens to rejected completions.
    """

    name = "length"

    def __init__(
        self,
        cap: int | None = None,
        quantile: float | None = None,
        slack: float = 1.25,
        window: int = 10,
        calibration: int = 48,
        growth: float = 0.01,
        admission: Admission = "drop",
    ) -> None:
        if cap is None and quantile is None:
            raise ConfigError("Defense length has no limit; give it cap (tokens) or quantile (of own completions).")
        if cap is not None and cap < 1:
            raise ConfigError(f"Defense option cap = {cap} leaves no completion; use at least 1 token.")
        if quantile is not None and not 0 < quantile <= 1:
            raise ConfigError(f"Defense option quantile = {quantile} is outside (0, 1].")
        if slack <= 0 or growth < 0 or window < 1 or calibration < 1:
            raise ConfigError(
                "Defense length takes a slack above 0, a growth of 0 or more, and a window and a calibration of at "
                "least 1."
            )
        super().__init__(admission)
        self.cap, self.quantile, self.slack = cap, quantile, slack
        self.calibration, self.growth = calibration, growth
        self.needs = frozenset({"tokens"} if quantile is None else {"tokens", "senders", "own"})
        self._counts: deque[list[int]] = deque(maxlen=window)
        self._walked: float | None = None

    def check_limit(self, longest: int) -> None:
        """Makes sure that completions can be longer than the fixed cap.

        Raises:
            ConfigError: If none can.
        """
        if self.cap is not None and self.cap >= longest:
            raise ConfigError(
                f"Defense option cap = {self.cap} rejects nothing, since no completion of more than {longest} tokens "
                "is read; lower it, or raise sampling.max_new_tokens."
            )

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; its score is tokens less cap."""
        tokens = [len(row.completion) for row in evidence.rows]
        if self.quantile is not None:
            senders = [submission.sender for submission in evidence.submissions]
            own = [count for count, sender in zip(tokens, senders, strict=True) if sender in evidence.own]
            self._learn(own, self.quantile)
        caps = [cap for cap in (self.cap, self._walked) if cap is not None]
        return [self._verdict(count, min(caps, default=None)) for count in tokens]

    def _verdict(self, tokens: int, cap: float | None) -> Verdict:
        if cap is None:
            return Verdict(self.name, "abstain", f"fewer than {self.calibration} own completions to compare with")
        if tokens > cap:
            return Verdict(self.name, "reject", f"{tokens} tokens, over the cap of {cap:.1f}", tokens - cap)
        return Verdict(self.name, "accept", "not over the cap", tokens - cap)

    def _learn(self, own: list[int], quantile: float) -> None:
        """Takes in a round's own token counts and moves the cap toward what they say."""
        self._counts.append(own)
        counts = [count for round in self._counts for count in round]
        if len(counts) < self.calibration:
            return
        target = self.slack * float(np.quantile(counts, quantile))
        if self._walked is None:
            self._walked = target
        step = 1 + self.growth
        self._walked = float(np.clip(target, self._walked / step, self._walked * step))

    def state(self) -> dict[str, Any]:
        """Own token counts of the last rounds, and the cap taken from them."""
        return {"counts": list(self._counts), "walked": self._walked}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._counts.clear()
        self._counts.extend(list(counts) for counts in state["counts"])
        self._walked = state["walked"]
