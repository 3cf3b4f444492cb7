"""What the adapters share: what a trainer can do with a row, and what is done where it cannot."""

import math
from collections.abc import Collection, Sequence

from hailproof.errors import ConfigError
from hailproof.parsing import printable
from hailproof.protocols import Need
from hailproof.shield import Shield
from hailproof.shield.results import ScreenedRow

LEAST_WEIGHT = 0.5
"""Where a trainer without weights of rows is allowed to be coarse, it leaves out what has earned less than this."""

REASON = 160
"""Characters of a reason in a trainer's logs."""

CENTERED = 1e-5
"""Advantages of a group whose sum is below this share of their lengths were taken relative to their mean."""


def check(shield: Shield, trainer: str, *, weighs: bool, mutes: bool, coarse: bool = False) -> None:
    """Makes sure that a trainer can do what the verdicts of a shield may ask for.

    Args:
        shield: The shield.
        trainer: What messages call the trainer, or the seam.
        weighs: Whether it can weigh rows.
        mutes: Whether it can mute tokens.
        coarse: Whether rows are left out for what it cannot do.

    Raises:
        ConfigError: If it cannot, and is not allowed to be coarse.
    """
    lacks = [
        f"{what} as {' and '.join(names)} {'ask' if len(names) > 1 else 'asks'}"
        for can, what, names in (
            (weighs, "weigh rows", shield.chain.that_give("weights")),
            (mutes, "mute tokens", shield.chain.that_give("masks")),
        )
        if names and not can
    ]
    if lacks and not coarse:
        raise ConfigError(
            f"{trainer} cannot {', or '.join(lacks)}; choose other defenses, or give coarse=True, which leaves a row "
            f"out for what it cannot do: for a muted token, and for a weight below {LEAST_WEIGHT:g}."
        )


def check_alone(shield: Shield, trainer: str, brought: Collection[Need]) -> None:
    """Makes sure that a shield needs nothing that a trainer, which asks for one answer at a time, does not bring.

    Args:
        shield: The shield.
        trainer: What messages call the trainer.
        brought: What it brings besides texts and rewards.

    Raises:
        ConfigError: If the shield needs more.
    """
    needs = sorted(shield.chain.needs.difference(brought))
    if needs:
        raise ConfigError(
            f"{trainer} scores one answer at a time, without {' and '.join(needs)}; choose other defenses."
        )


def unfit(row: ScreenedRow, mutes: bool, least_weight: float) -> str:
    """Why a trainer must leave out a row that the shield keeps; empty if it need not.

    Args:
        row: The row.
        mutes: Whether the trainer can mute tokens.
        least_weight: A row that weighs less is left out: 0 where the trainer weighs rows.
    """
    if row.weight < least_weight:
        return f"a weight of {row.weight:.2g}, below {least_weight:g}"
    if row.muted and not mutes:
        return f"{row.muted} tokens cannot be muted here"
    return "all tokens are muted" if row.mask and row.muted == len(row.mask) else ""


def reason_of(row: ScreenedRow, *, weighs: bool, mutes: bool, coarse: bool = False) -> str:
    """Why nothing may be learned from a row; empty if something may.

    Args:
        row: The row.
        weighs: Whether the trainer can weigh rows. If not, one that weighs less than 1 is left out.
        mutes: Whether it can mute tokens. If not, a row with muted tokens is left out.
        coarse: Whether rows from ``LEAST_WEIGHT`` on count fully where they cannot be weighed.
    """
    if row.left_out:
        rejection = row.rejection
        said = "no reward" if rejection is None else f"{rejection.defense}: {rejection.reason}"
        return printable(said, REASON)
    return unfit(row, mutes, 0.0 if weighs else LEAST_WEIGHT if coarse else 1.0)


def share(row: ScreenedRow) -> float:
    """What a row counts for in its group's baseline: its place there, times the share of its tokens that is kept."""
    kept = 1 - row.muted / len(row.mask) if row.mask else 1.0
    return row.place * kept


def recentered(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Advantages of a group in which each row counts in the baseline for its share.

    A trainer's own formula stays: whatever was subtracted from the rewards, or divided by, the mean of what is left is
    now taken by shares, so that ``sum share * advantage`` is 0. Advantages that did not sum to 0 were not relative to
    the mean of their group and stay as they are.

    Args:
        values: ``[G]`` advantages in which each row counts fully.
        shares: ``[G]`` what each row counts for, in [0, 1].
    """
    total, size = math.fsum(values), math.fsum(map(abs, values))
    if not any(shares) or all(each == 1 for each in shares) or abs(total) > CENTERED * size:
        return list(values)
    mean = math.fsum(value * each for value, each in zip(values, shares, strict=True)) / math.fsum(shares)
    return [value - mean for value in values]
