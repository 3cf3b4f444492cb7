"""What a shield says of a batch: per row a reward or none, a weight, a token mask, and the verdicts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hailproof.metrics.rates import mean
from hailproof.parsing import printable
from hailproof.records import Verdict
from hailproof.tracking.seen import SeenRound, SeenRow

Sender = str | int
"""Who sent a completion: whatever name the trainer has for it."""

MAX_REASON = 160
"""Characters of a reason that a summary shows; reasons may quote what strangers wrote."""

MAX_LISTED = 20
"""Senders that a summary lists."""


@dataclass(frozen=True, slots=True)
class ScreenedRow:
    """What is to be learned from one completion.

    Attributes:
        reward: Its reward; ``None`` if it is left out: it must leave its group before mean and standard deviation.
        weight: What it counts for in the update, in [0, 1]; 0 if it is left out.
        mask: ``[T]`` 1 for each token that is learned, else 0; ``None`` if its tokens are not known.
        verdicts: What each defense said, in the order of the chain. Own completions have none.
        text: The text that was screened. Spans of the verdicts index it.
        token_ids: ``[T]`` the ids that the mask belongs to; ``None`` if its tokens are not known.
        sender: Who sent it; ``None`` if that was not given.
        group: The label of its group.
        place: What it counts for in the baseline of its group, in [0, 1]. It is the weight, but for what its sender was
            bounded to: that is bounded in the update alone.
    """

    reward: float | None
    weight: float
    mask: tuple[int, ...] | None
    verdicts: tuple[Verdict, ...]
    text: str
    token_ids: tuple[int, ...] | None
    sender: Sender | None
    group: str
    place: float = 1.0

    @property
    def rejection(self) -> Verdict | None:
        """The verdict that rejected it, if one did."""
        return next((verdict for verdict in self.verdicts if verdict.decision == "reject"), None)

    @property
    def left_out(self) -> bool:
        """Whether nothing is learned from it, and it has no place in the baseline of its group."""
        return self.reward is None

    @property
    def muted(self) -> int:
        """Tokens of a row that is kept from which nothing is learned."""
        return 0 if self.mask is None or self.left_out else self.mask.count(0)


@dataclass(frozen=True, slots=True)
class Screened:
    """What a shield says of a batch of N completions; ``print`` shows a summary.

    Attributes:
        round: Number of the batch, from 1.
        rows: One for each completion, in the order in which they were given.
        suspended: Senders that some defense wants to send nothing in the next round.
        seconds: What each defense took.
        notes: What the shield noticed and no defense can decide by, a sentence each that is safe to print.
    """

    round: int
    rows: tuple[ScreenedRow, ...]
    suspended: frozenset[Sender] = frozenset()
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ScreenedRow]:
        return iter(self.rows)

    @property
    def rewards(self) -> list[float | None]:
        """``[N]`` rewards to train on; ``None`` for rows that are left out."""
        return [row.reward for row in self.rows]

    @property
    def weights(self) -> list[float]:
        """``[N]`` what each row counts for, in [0, 1]."""
        return [row.weight for row in self.rows]

    @property
    def masks(self) -> list[tuple[int, ...] | None]:
        """``[N]`` token masks ``[T]``; ``None`` for rows whose tokens are not known."""
        return [row.mask for row in self.rows]

    @property
    def verdicts(self) -> list[tuple[Verdict, ...]]:
        """``[N]`` the verdicts on each row."""
        return [row.verdicts for row in self.rows]

    @property
    def left_out(self) -> list[int]:
        """Indices of the rows that are left out."""
        return [index for index, row in enumerate(self.rows) if row.left_out]

    def counts(self) -> dict[str, int]:
        """How many rows were rejected, by the defense that rejected them."""
        return dict(Counter(row.rejection.defense for row in self.rows if row.rejection))

    def metrics(self, defenses: Sequence[str] = ()) -> dict[str, float]:
        """Figures of the batch for a tracker: shares of rows left out, and rejected by defense; seconds by defense.

        Args:
            defenses: Names that are to have a figure even if they rejected nothing.
        """
        rows = len(self.rows)
        if not rows:
            return {}
        kept = [row for row in self.rows if not row.left_out and row.mask is not None]
        tokens = sum(len(row.mask or ()) for row in kept)
        counts = self.counts()
        figures = {"hailproof/left_out": len(self.left_out) / rows}
        if tokens:
            figures["hailproof/muted_tokens"] = sum(row.muted for row in kept) / tokens
        for name in dict.fromkeys((*defenses, *sorted(counts))):
            figures[f"hailproof/rejected/{name}"] = counts.get(name, 0) / rows
        return figures | {"hailproof/seconds": sum(self.seconds.values())}

    def seen(
        self, rewards: Sequence[float | None] = (), own: Sender | None = None, defenses: tuple[str, ...] = ()
    ) -> SeenRound:
        """The batch as trackers and the live view take it.

        Args:
            rewards: ``[N]`` rewards before screening; unknown without them.
            own: The receiver's own name; reward and length are of its rows then, else of all.
            defenses: Names of the defenses that were asked.
        """
        written = [index for index, row in enumerate(self.rows) if own is None or row.sender == own]
        return SeenRound(
            round=self.round,
            rows=tuple(_seen(row) for row in self.rows),
            reward=mean(rewards[index] for index in written) if rewards else None,
            completion_tokens=mean(len(ids) for ids in (self.rows[at].token_ids for at in written) if ids is not None),
            excluded=frozenset(str(name) for name in self.suspended),
            defenses=defenses,
            defense_seconds=sum(self.seconds.values()),
            notes={} if own is None else {str(own): "own"},
        )

    def summary(self) -> str:
        """What became of the batch, in a few lines that are safe to print."""
        muted = sum(row.muted > 0 for row in self.rows)
        left = len(self.left_out)
        head = f"round {self.round}: {len(self)} completions, {len(self) - left} kept, {left} left out"
        lines = [f"{head}, {muted} with muted tokens" if muted else head]
        for defense, count in sorted(self.counts().items()):
            first = next(row.rejection for row in self.rows if row.rejection and row.rejection.defense == defense)
            lines.append(f"  {defense} rejected {count}, the first since {printable(first.reason, MAX_REASON)}")
        lines += self._by_sender()
        if self.suspended:
            names = ", ".join(sorted(printable(name, 40) for name in self.suspended))
            lines.append(f"  suspended: {names}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _by_sender(self) -> list[str]:
        sent = Counter(row.sender for row in self.rows if row.sender is not None)
        left = Counter(row.sender for row in self.rows if row.sender is not None and row.left_out)
        order = sorted(sent, key=lambda sender: (-left[sender], -sent[sender], str(sender)))
        lines = [
            f"  sender {printable(sender, 40)}: {sent[sender] - left[sender]} of {sent[sender]} kept"
            for sender in order[:MAX_LISTED]
        ]
        rest = len(order) - MAX_LISTED
        return [*lines, f"  and {rest} more senders"] if rest > 0 else lines

    def __str__(self) -> str:
        return self.summary()


def _seen(row: ScreenedRow) -> SeenRow:
    return SeenRow(
        sender=None if row.sender is None else str(row.sender),
        tokens=None if row.mask is None else len(row.mask),
        learned=0.0 if row.mask is None else sum(row.mask) * row.weight,
        muted=row.muted,
        left_out=row.left_out,
        rejection=row.rejection,
    )
