"""What defenses did to honest and to malicious completions, counted apart."""

from collections.abc import Collection, Iterable

from hailproof.metrics.rates import Rate
from hailproof.records import ScoredCompletion

SIDES = ("honest", "malicious")


def _side(scored: ScoredCompletion, malicious: Collection[int]) -> str:
    return "malicious" if scored.submission.sender in malicious else "honest"


def acceptance(completions: Iterable[ScoredCompletion], malicious: Collection[int]) -> dict[str, Rate]:
    """Share of *screened* completions that no defense rejected, by side.

    Args:
        completions: Scored completions; those without a verdict were not screened and do not count.
        malicious: Indices of the malicious nodes.
    """
    counts = {side: [0, 0] for side in SIDES}
    for scored in completions:
        if scored.verdicts:
            count = counts[_side(scored, malicious)]
            count[0] += all(verdict.decision != "reject" for verdict in scored.verdicts)
            count[1] += 1
    return {side: Rate(*count) for side, count in counts.items()}


def decisions(
    completions: Iterable[ScoredCompletion], malicious: Collection[int]
) -> dict[str, dict[str, dict[str, int]]]:
    """Number of verdicts by defense, side and decision; rejections because a defense failed count as ``error``."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for scored in completions:
        side = _side(scored, malicious)
        for verdict in scored.verdicts:
            empty = {side: dict.fromkeys(("accept", "reject", "abstain", "error"), 0) for side in SIDES}
            kind = "error" if verdict.error else verdict.decision
            counts.setdefault(verdict.defense, empty)[side][kind] += 1
    return counts
