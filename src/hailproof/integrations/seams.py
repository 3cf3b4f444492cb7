"""What the adapters share: a row that a trainer can neither weigh nor mute is left out, for a reason of one phrase."""

from hailproof.parsing import printable
from hailproof.shield.results import ScreenedRow

LEAST_WEIGHT = 0.5
"""A trainer without weights of rows leaves out what has earned less than this, and counts the rest fully."""

REASON = 160
"""Characters of a reason in a trainer's logs."""


def unfit(row: ScreenedRow, mutes: bool, least_weight: float = LEAST_WEIGHT) -> str:
    """Why a trainer must leave out a row that the shield keeps; empty if it need not.

    Args:
        row: The row.
        mutes: Whether the trainer can mute tokens.
        least_weight: A row that weighs less is left out.
    """
    if row.weight < least_weight:
        return f"a weight of {row.weight:.2g}, below {least_weight:g}"
    if row.muted and not mutes:
        return f"{row.muted} tokens cannot be muted here"
    return "all tokens are muted" if row.mask and row.muted == len(row.mask) else ""


def reason_of(row: ScreenedRow, mutes: bool, least_weight: float = LEAST_WEIGHT) -> str:
    """Why nothing may be learned from a row; empty if something may."""
    if row.left_out:
        rejection = row.rejection
        said = "no reward" if rejection is None else f"{rejection.defense}: {rejection.reason}"
        return printable(said, REASON)
    return unfit(row, mutes, least_weight)
