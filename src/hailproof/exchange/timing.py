"""How long each phase of a round may take."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that each phase has at most, counted from the start of the round.

    Attributes:
        commit: To draw completions and commit to them.
        reveal: To show them.
        seal: To show the nonce.
        seen: To list what was there.
        state: To learn, and to say what came of it.
        lobby: To wait for all members before the first round.
        poll: Between two looks at the store.
    """

    commit: float = 120.0
    reveal: float = 30.0
    seal: float = 15.0
    seen: float = 15.0
    state: float = 120.0
    lobby: float = 300.0
    poll: float = 0.05

    def until(self, phase: str) -> float:
        """Seconds from the start of a round to the deadline of a phase."""
        total = 0.0
        for each in fields(self):
            total += getattr(self, each.name)
            if each.name == phase:
                break
        return total
