"""What has been seen of a run so far: per sender for the live view, and as flat figures for trackers.

Names of senders come from strangers. What is kept, shown and logged of them is bounded: after so many names, further
ones are counted together under :data:`OTHERS`.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from hailproof.parsing import printable
from hailproof.tracking.learning import Answer, Evaluation, is_learning
from hailproof.tracking.seen import SeenRound, SeenRow

OTHERS = "others"
MOST_NAMES = 1000
"""Senders that are counted apart."""
MOST_KEYS = 20
"""Senders that have a figure of their own."""
NAME = 32
"""Characters of a sender's or a defense's name that the name of a figure has."""
REASON = 200
"""Characters of a reason that are kept."""
_MADE_UP = re.compile(r"-[0-9a-f]{8}$")


@dataclass(slots=True)
class SenderTally:
    """What one sender has done so far.

    Attributes:
        sent: Completions of it that were read.
        kept: Those that are learned from with the reward that they earned.
        tokens: Tokens of those whose tokens are known.
        learned: Tokens that the update could learn from.
        caught: Rejections by defense.
        reasons: The last reason that each defense gave, as it may be printed.
        excluded_since: The round from which on it is excluded; ``None`` if it is not.
        note: What is known of it.
    """

    sent: int = 0
    kept: int = 0
    tokens: int = 0
    learned: float = 0.0
    caught: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    excluded_since: int | None = None
    note: str = ""

    def add(self, row: SeenRow) -> None:
        """Counts one completion."""
        self.sent += 1
        self.kept += row.kept
        if row.tokens is not None:
            self.tokens += row.tokens
            self.learned += row.learned
        if row.rejection is not None:
            self.caught[row.rejection.defense] += 1
            self.reasons[row.rejection.defense] = printable(row.rejection.reason, REASON)

    def join(self, other: "SenderTally") -> None:
        """Adds what another sender did, to speak of both together."""
        self.sent += other.sent
        self.kept += other.kept
        self.tokens += other.tokens
        self.learned += other.learned
        self.caught.update(other.caught)
        self.reasons |= other.reasons

    @property
    def kept_share(self) -> float | None:
        """Share of its completions that are kept; ``None`` if it sent none."""
        return self.kept / self.sent if self.sent else None

    @property
    def learned_share(self) -> float | None:
        """Share of its tokens that the update could learn from; ``None`` if no tokens are known."""
        return self.learned / self.tokens if self.tokens else None


@final
class Tally:
    """Counts rounds.

    Attributes:
        last: The round that was counted last; ``None`` before the first.
        senders: What each sender has done so far, in the order in which they were first seen.
        others: What those beyond :data:`MOST_NAMES` have done together.
    """

    def __init__(self) -> None:
        self.last: SeenRound | None = None
        self.senders: dict[str, SenderTally] = {}
        self.others = SenderTally()
        self._rewards: dict[int, float] = {}
        self._held_out: dict[int, Evaluation] = {}
        self._keys: dict[str, str] = {}

    def remember(
        self, round: int, reward: float | None, held_out: float | None = None, held_out_problems: int = 0
    ) -> None:
        """Takes up what a round earned, such as one that was played before this program began."""
        if reward is not None and math.isfinite(reward):
            self._rewards[round] = reward
        if held_out is not None and math.isfinite(held_out) and held_out_problems:
            self._held_out[round] = Evaluation(held_out, held_out_problems)

    def add(self, seen: SeenRound) -> None:
        """Counts a round."""
        self.last = seen
        self.remember(seen.round, seen.reward, seen.held_out, seen.held_out_problems)
        for name, note in seen.notes.items():  # before strangers take all places
            self._of(name).note = note
        for row in seen.rows:
            if row.sender is not None:
                self._of(row.sender).add(row)
        for name in sorted(seen.excluded):
            self._of(name)
        for name, sender in self.senders.items():
            if name not in seen.excluded:
                sender.excluded_since = None
            elif sender.excluded_since is None:
                sender.excluded_since = seen.round

    def _of(self, name: str) -> SenderTally:
        if name not in self.senders and len(self.senders) >= MOST_NAMES:
            return self.others
        return self.senders.setdefault(name, SenderTally())

    def answer(self) -> Answer:
        """Whether the node learns."""
        return is_learning(self._rewards, self._held_out)

    def shown(self, most: int) -> tuple[list[tuple[str, SenderTally]], int, SenderTally]:
        """The senders that say most: those of whom something is known, then the excluded, the most caught, the busiest.

        Args:
            most: How many.

        Returns:
            Their names and what they did; how many others there are, or more; and what those did together.
        """
        order = sorted(
            self.senders.items(),
            key=lambda each: (
                not each[1].note, each[1].excluded_since is None, -each[1].caught.total(), -each[1].sent
            ),
        )
        rest = SenderTally()
        rest.join(self.others)
        for _, sender in order[most:]:
            rest.join(sender)
        return order[:most], max(0, len(order) - most), rest

    def figures(self) -> dict[str, float]:
        """The figures of the last round by name, as ``docs/tracking.md`` lists them; what is unknown is left out."""
        seen = self.last
        if seen is None:
            return {}
        rows = seen.rows
        known = [row for row in rows if row.tokens is not None]
        found: dict[str, float | None] = {
            "reward": seen.reward,
            "held_out_reward": seen.held_out,
            "attack_success": seen.attack_success,
            "completion_tokens": seen.completion_tokens,
            "left_out": _share(sum(row.left_out for row in rows), len(rows)),
            "muted_tokens": _share(
                sum(row.muted for row in known if not row.left_out),
                sum(row.tokens or 0 for row in known if not row.left_out),
            ),
            "learned_tokens": _share(sum(row.learned for row in known), sum(row.tokens or 0 for row in known)),
            "excluded": float(len(seen.excluded)),
            "seconds": seen.defense_seconds,
        }
        if rows:
            rejected = Counter(row.rejection.defense for row in rows if row.rejection is not None)
            for name in dict.fromkeys((*seen.defenses, *sorted(rejected))):
                found[f"rejected/{safe(name)}"] = rejected[name] / len(rows)
        found |= self._kept(rows)
        finite = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
        return {f"hailproof/{name}": value for name, value in finite.items()}

    def _kept(self, rows: tuple[SeenRow, ...]) -> Mapping[str, float]:
        """What is kept of each sender; those that come when no key is left share one."""
        sent = Counter(row.sender for row in rows if row.sender is not None)
        notes = self.last.notes if self.last else {}
        for name, _ in sorted(sent.items(), key=lambda each: (each[0] not in notes, -each[1], each[0])):
            if name not in self._keys and len(self._keys) < MOST_KEYS:
                self._keys[name] = safe(name)
        together: dict[str, SenderTally] = {}
        for row in rows:
            if row.sender is not None:
                together.setdefault(self._keys.get(row.sender, OTHERS), SenderTally()).add(row)
        return {f"kept/{key}": tally.kept / tally.sent for key, tally in together.items()}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def safe(name: str) -> str:
    """A name of a stranger as part of the name of a figure: letters, digits, ``.``, ``_`` and ``-`` of ASCII.

    Names that differ stay different: one that cannot be kept as it is ends with a hash, and so does one that looks as
    if it did.
    """
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", name[:NAME])
    if clean == name and clean not in ("", OTHERS, ".", "..") and not _MADE_UP.search(clean):
        return clean
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{clean[: NAME - 9]}-{digest}"
