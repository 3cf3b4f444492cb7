"""The in-process exchange: the reference that every transport must agree with."""

from collections.abc import Sequence

from hailproof.records import Submission
from hailproof.seeds import derive


class LocalExchange:
    """Gathers the submissions of nodes that live in one process.

    Args:
        seed: Of the beacon, which no node of the process looks at before it has sent.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Returns the submissions of the round in the order of (problem, slot, sender), as every node sees them."""
        current = (submission for submission in submissions if submission.round == round)
        return sorted(current, key=lambda submission: (submission.problem_id, submission.slot, submission.sender))

    def beacon(self, round: int) -> int:
        """Randomness of a round that is the same in a resumed run."""
        return derive(self.seed, "beacon of round", round)
