"""What defenses did to honest and to malicious completions, counted apart."""

from collections.abc import Collection, Iterable

from hailproof.metrics.rates import Rate
from hailproof.records import ScoredCompletion

SIDES = ("honest", "malicious")
KINDS: tuple[str, ...] = ("accept", "reject", "abstain", "error")


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
            if verdict.defense not in counts:
                counts[verdict.defense] = {each: dict.fromkeys(KINDS, 0) for each in SIDES}
            counts[verdict.defense][side]["error" if verdict.error else verdict.decision] += 1
    return counts
