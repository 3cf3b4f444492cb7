"""BULK: wrong answers that are much longer than the limit, so that whoever reads them works for nothing (sabotage).

Threat: the receiver loses the time that it takes to decode, judge or train on texts that earn nothing.

There is no behavior to count: the measure is the seconds of a round.

Limits: completions beyond the length limit are not read.

Source: hailproof's own.
"""

import math
from collections.abc import Sequence

from hailproof.attacks.base import FILLER, BaseAttack, Forgery
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView
from hailproof.records import Problem

CHARACTERS = 4
"""Characters of the filler for each token, at most."""


class BulkAttack(BaseAttack):
    """Sends long wrong answers.

    Args:
        tokens: About how many tokens each has; those of four times the nano limit by default.
    """

    name = "bulk"

    def __init__(self, tokens: int = 384) -> None:
        if tokens < 1:
            raise ConfigError(f"Attack option tokens = {tokens} is below 1; give the length of a forgery.")
        self.tokens = tokens

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Writes filler of the wanted length into every slot, another number in each."""
        filler = " ".join([FILLER] * math.ceil(CHARACTERS * self.tokens / len(FILLER)))
        return [view.task.format(f"{slot}. {filler}", "") for slot in view.slots]

    def success(self, problem: Problem, text: str) -> bool | None:
        """Undefined: the measure of this attack is time."""
        return None
