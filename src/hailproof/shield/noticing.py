"""What a shield notices about the senders of a batch and no defense can decide by: names that are free, idle rows."""

from collections import Counter
from collections.abc import Collection, Sequence
from statistics import median_low

from hailproof.parsing import printable
from hailproof.shield.results import ScreenedRow, Sender

FEWEST = 4
"""Senders of a first batch from which on one row each is worth a word."""

MANY = 4
"""A sender with more than this many times the rows of the lower median sender may hide what it does among them."""

MAX_NAME = 40
"""Characters of a name."""


def names_noticed(rows: Sequence[ScreenedRow], new: Collection[Sender], first: bool, own: Sender | None) -> str:
    """Whether the names of a batch look as if they cost nothing; empty if they do not.

    Args:
        rows: The rows of the batch.
        new: Its senders that were in no batch before.
        first: Whether it is the first batch.
        own: The receiver's own name.
    """
    sent = _sent(rows, own)
    unknown = [sender for sender in sent if sender in new]
    if first:
        if len(sent) < FEWEST or max(sent.values()) > 1:
            return ""
        found = f"each of {len(sent)} senders has sent one row"
    else:
        if len(unknown) < 2 or 2 * len(unknown) < len(sent):
            return ""
        found = f"{len(unknown)} of {len(sent)} senders are new"
    return f"{found}; where names are free, senders cannot be compared: authenticate them"


def idle_noticed(rows: Sequence[ScreenedRow], own: Sender | None) -> list[str]:
    """Senders whose rows are many, and mostly without an advantage: they thin out what is held against it.

    A row has no advantage where all kept rows of its group have the same reward.

    Args:
        rows: The rows of the batch.
        own: The receiver's own name.
    """
    earned: dict[str, set[float]] = {}
    for row in rows:
        if row.reward is not None:
            earned.setdefault(row.group, set()).add(row.reward)
    kept = [row for row in rows if row.reward is not None]
    sent = _sent(kept, own)
    idle = Counter(row.sender for row in kept if len(earned[row.group]) == 1)
    usual = median_low(sent.values()) if sent else 0
    return [
        f"{printable(sender, MAX_NAME)} sent {count} rows, {idle[sender]} of them without an advantage, where {usual} "
        "are usual; such rows hide what a sender does: bound the rows of each"
        for sender, count in sent.items() if count > MANY * usual and 2 * idle[sender] > count
    ]  # fmt: skip


def _sent(rows: Sequence[ScreenedRow], own: Sender | None) -> Counter[Sender]:
    """How many rows each other sender has."""
    return Counter(row.sender for row in rows if row.sender is not None and row.sender != own)
