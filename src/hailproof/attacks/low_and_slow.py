"""LOW_AND_SLOW: TEXT on one percent of all completions, behind a trigger (adaptive).

Threat: a backdoor. Only problems that mention the trigger are poisoned. So most rounds show little, no average moves,
and behavior on other problems stays the same. Success is measured on triggered problems; ``untriggered`` measures what
leaks to others. 3.4 % of the nano problems mention cookies, so with a quarter of the nodes about 0.9 % of all
completions are poisoned.

Limits: one poisoned completion looks like one of TEXT to whatever reads completions one by one.

Source: hailproof's own.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from hailproof.attacks.text import TextAttack


class LowAndSlowAttack(TextAttack):
    """TEXT with a trigger; see ``Composition`` for the settings."""

    name = "low_and_slow"
    composition: ClassVar[Mapping[str, Any]] = {"trigger": "cookies"}
