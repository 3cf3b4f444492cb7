"""What the cells of one table establish: the p value of each claim, corrected over the rows, and a word for it.

A row is *established* only if the corrected test passes at 5 %. Rows are corrected together if they stand in one table
(one scale) and make the same claim; cells that do not make it, such as controls, do not count.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hailproof.metrics.established import CLAIMS, CONFIDENCE, Claim, holm


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim about a cell with what its test says.

    Attributes:
        claim: Which claim.
        margin: What the measure is held against.
        p: The p value; ``None`` if it was not tested: one seed, or a seed on which the measure is undefined.
        corrected: That after Holm's correction.
        rows: How many rows were corrected together.
    """

    claim: Claim
    margin: float
    p: float | None
    corrected: float | None
    rows: int

    @property
    def established(self) -> bool:
        """Whether it may be said of the cell."""
        return self.corrected is not None and self.corrected < 1 - CONFIDENCE

    @property
    def word(self) -> str:
        """The verdict in words."""
        if self.p is None:
            return "not tested"
        return "established" if self.established else "not established"


def number_of(value: object) -> float | None:
    """A finite number, or nothing: whatever else stands in a cell is not a measurement."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def claimed(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Claimed]]:
    """What each cell claims, by the key of the claim; a claim that a cell does not make is left out.

    Args:
        cells: Cells of the bench: ``scale``, and for claims K ``K_p`` and ``K_margin``.
    """
    found: list[dict[str, Claimed]] = [{} for _ in cells]
    for claim in CLAIMS:
        tested = {
            index: (number_of(cell.get(f"{claim.key}_p")), margin)
            for index, cell in enumerate(cells)
            if (margin := number_of(cell.get(f"{claim.key}_margin"))) is not None
        }
        for rows in _by_scale(cells, tested):
            corrected = holm({index: p for index in rows if (p := tested[index][0]) is not None and 0 <= p <= 1})
            for index in rows:
                p, margin = tested[index]
                found[index][claim.key] = Claimed(claim, margin, p, corrected.get(index), len(corrected))
    return found


def _by_scale(cells: Sequence[Mapping[str, Any]], indices: Iterable[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(str(cells[index].get("scale")), []).append(index)
    return list(groups.values())


def p_text(p: float | None) -> str:
    """A p value as tables show it."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
