"""The in-process exchange: the reference that every transport must agree with."""

from collections.abc import Sequence

from hailproof.records import Submission


class LocalExchange:
    """Gathers the submissions of nodes that live in one process."""

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Returns the submissions of the round in the order of (problem, slot, sender), as every node sees them."""
        current = (submission for submission in submissions if submission.round == round)
        return sorted(current, key=lambda submission: (submission.problem_id, submission.slot, submission.sender))
