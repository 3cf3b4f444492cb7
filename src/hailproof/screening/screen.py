"""Screens files: rows stream in, batches of whole groups go through a shield, verdicts stream out; memory is constant.

A batch ends where a group ends, once it has ``BATCH`` rows or ``CHARACTERS`` characters, and where the round changes.
Rewards are those that the file holds; a row without one counts as rewarded, so that it is looked at.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hailproof.defenses.chain import with_option
from hailproof.errors import ConfigError, DataError
from hailproof.protocols import Need, Sampling, Variant
from hailproof.records import Verdict
from hailproof.screening.formats import Format, detected, format_named, refuse_pickle
from hailproof.screening.rows import Columns, StoredRow
from hailproof.screening.stream import first_bytes
from hailproof.shield.results import ScreenedRow, Sender
from hailproof.shield.shield import Named, Shield, chain_of

BATCH = 512
"""Rows after which a batch ends with its group."""
CHARACTERS = 32 * 2**20
"""Characters after which it does."""
LARGEST = 8
"""A group is cut after so many times as much."""

UNNAMED = "unnamed"
"""Who sent a row that does not say, in a file whose other rows do."""

KEPT = 200
"""Rejected rows that are kept for a report."""
SENDERS = 10_000
"""Senders that are counted one by one."""

READER = "file"
"""Whose verdict it is that a row cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was said of one completion in a file.

    Attributes:
        path: The file.
        place: Number of the line or row.
        row: The verdicts.
    """

    path: Path
    place: int
    row: ScreenedRow

    @property
    def rejected(self) -> bool:
        """Whether a defense rejected it, or it cannot be read."""
        return self.row.rejection is not None

    def record(self) -> dict[str, Any]:
        """It as a table for JSON; texts and spans are left out."""
        row, rejection = self.row, self.row.rejection
        return {
            "file": str(self.path),
            "row": self.place,
            "sender": row.sender,
            "group": row.group,
            "decision": "reject" if rejection else "accept",
            "defense": rejection.defense if rejection else None,
            "reason": rejection.reason if rejection else None,
            "weight": row.weight,
            "muted": row.muted,
            "verdicts": [[each.defense, each.decision, each.reason] for each in row.verdicts],
        }


@dataclass(slots=True)
class Tally:
    """What was found in all files; bounded, however large they are.

    Attributes:
        rows: Completions.
        rejected: Those that a defense rejected, or that cannot be read.
        muted: Those that are kept with muted tokens.
        by_defense: Rejected ones by defense.
        sent: Completions by sender; the first ``SENDERS`` only.
        refused: Rejected ones by sender.
        samples: The first rejected ones, at most ``KEPT``.
    """

    rows: int = 0
    rejected: int = 0
    muted: int = 0
    by_defense: Counter[str] = field(default_factory=Counter)
    sent: Counter[Sender] = field(default_factory=Counter)
    refused: Counter[Sender] = field(default_factory=Counter)
    samples: list[Finding] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of completions that were rejected; 0 of none."""
        return self.rejected / self.rows if self.rows else 0.0

    def add(self, finding: Finding) -> None:
        """Counts a completion."""
        self.rows += 1
        self.muted += finding.row.muted > 0
        rejection, sender = finding.row.rejection, finding.row.sender
        counted = sender is not None and (sender in self.sent or len(self.sent) < SENDERS)
        if counted and sender is not None:
            self.sent[sender] += 1
        if rejection is None:
            return
        self.rejected += 1
        self.by_defense[rejection.defense] += 1
        if counted and sender is not None:
            self.refused[sender] += 1
        if len(self.samples) < KEPT:
            self.samples.append(finding)

    def record(self) -> dict[str, Any]:
        """It as a table for JSON."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            "share": self.share,
            "muted": self.muted,
            "by_defense": dict(self.by_defense),
            "by_sender": {str(name): [self.refused[name], count] for name, count in self.sent.items()},
        }


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be screened, and how.

    Attributes:
        files: The files.
        defenses: The chain.
        columns: Where the parts of a row are.
        form: Name of the files' form; empty: each is detected.
        model: Name or folder of a model to read with; empty: none.
        sampling: How honest completions are drawn, for defenses that check it.
        variant: The kind of answers; ``None``: what the chain reads.
        own_ids: Whether the token ids in the files are those of the model; else texts are tokenized anew.
        state: A file of the shield's memory, read before if it is there and written afterwards; ``None``: none.
    """

    files: Sequence[Path]
    defenses: Sequence[Named]
    columns: Columns = field(default_factory=Columns)
    form: str = ""
    model: str = ""
    sampling: Sampling | None = None
    variant: Variant | None = None
    own_ids: bool = False
    state: Path | None = None


def opened(order: Order) -> "tuple[Shield, list[tuple[Path, Format]]]":
    """The shield for some files, each with its format; everything that is missing is said here.

    Raises:
        HailproofError: If a file has no known form, or the chain lacks something.
    """
    if not order.files:
        raise ConfigError("There is nothing to screen; name a file.")
    formats = [(path, _format(path, order.form)) for path in order.files]
    path, form = formats[0]
    first = next((row for row in form.rows(path, order.columns) if not row.fault), None)
    there: dict[Need, bool] = {
        "senders": first is not None and first.sender is not None,
        "groups": first is not None and (first.group is not None or first.prompt is not None),
        "tokens": bool(order.model) or (first is not None and first.token_ids is not None),
    }
    chain = chain_of(order.defenses)
    if chain.aggregation is not None:
        raise ConfigError(
            f"Defense {chain.aggregation.name} looks at what senders do to a model while it is trained, which files do "
            "not show; leave it out, or take the preset texts."
        )
    advice = {
        "senders": "name their column with --column sender=NAME",
        "groups": "name their column with --column group=NAME",
        "tokens": "give --model", "model": "give --model", "anchor": "give --model",
    }  # fmt: skip
    for defense in chain.defenses:
        for need in sorted(defense.needs):
            if not there.get(need, need in ("model", "anchor") and bool(order.model)):
                remedy = advice.get(need, "leave it out")
                who = with_option(defense, [need])
                raise ConfigError(f"Defense {who} needs {need}, which {path} does not hold; {remedy}.")
        if getattr(defense, "reads_sampling", False) and order.sampling is None:
            raise ConfigError(
                f"Defense {defense.name} checks how completions are drawn; say it with --sampling temperature=1 "
                "--sampling top_k=50 --sampling max_new_tokens=256."
            )
    named: list[Any] = [need for need in ("senders", "groups") if need in chain.needs]
    if "tokens" in chain.needs and not order.model:
        named.append("ids")
    shield = Shield(
        *chain.defenses, model=order.model or None, sampling=order.sampling, variant=order.variant, brings=named,
        multi_turn=any(form.multi_turn for _, form in formats),
    )  # fmt: skip
    return shield, formats


def _format(path: Path, name: str) -> Format:
    if name:
        refuse_pickle(path, first_bytes(path))
        return format_named(name)
    return format_named(detected(path))


def screened(
    shield: Shield,
    formats: Iterable[tuple[Path, Format]],
    columns: Columns,
    own_ids: bool = False,
    batch: int = BATCH,
) -> Iterator[Finding]:
    """Yields what is said of each completion, in the order of the files.

    Args:
        shield: The shield; it remembers senders from file to file.
        formats: The files, each with its format.
        columns: Where the parts of a row are.
        own_ids: Whether token ids in the files are those of the shield's model.
        batch: Rows after which a batch ends with its group.

    Raises:
        HailproofError: If a file is damaged.
    """
    for path, form in formats:
        for rows in batches(form.rows(path, columns), batch):
            yield from _batch(shield, path, rows, own_ids)


def batches(rows: Iterable[StoredRow], size: int = BATCH, characters: int = CHARACTERS) -> Iterator[list[StoredRow]]:
    """Cuts rows into batches of whole groups of one round, as far as groups are not too large."""
    batch: list[StoredRow] = []
    held = 0
    for row in rows:
        last = batch[-1] if batch else row
        full = len(batch) >= size or held >= characters
        too_full = len(batch) >= LARGEST * size or held >= LARGEST * characters
        if batch and ((full and _group(row) != _group(last)) or too_full or row.round != last.round):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += row.size
    if batch:
        yield batch


def _group(row: StoredRow) -> Any:
    return row.prompt if row.group is None else row.group


def _batch(shield: Shield, path: Path, rows: Sequence[StoredRow], own_ids: bool) -> Iterator[Finding]:
    """Screens the rows of a batch that can be read, and yields all of them in order."""
    sound = [row for row in rows if not row.fault]
    given = _given(shield, sound, own_ids)
    if shield.policy is not None and "tokens" in shield.chain.needs and "prompts" not in given and sound:
        raise DataError(f"{path} holds no prompts, which a model must read first; name them: --column prompt=NAME.")
    found = iter(shield.screen(**given).rows if sound else ())
    for row in rows:
        if not row.fault:
            yield Finding(path, row.place, next(found))
            continue
        verdict = Verdict(READER, "reject", row.fault)
        empty = ScreenedRow(None, 0.0, None, (verdict,), "", None, row.sender, row.group or "")
        yield Finding(path, row.place, empty)


def _given(shield: Shield, rows: Sequence[StoredRow], own_ids: bool) -> dict[str, Any]:
    """What a shield is given of some rows."""
    given: dict[str, Any] = {
        "completions": [row.completion for row in rows],
        "rewards": [1.0 if row.reward is None else row.reward for row in rows],
    }
    if any(row.sender is not None for row in rows) or "senders" in shield.brings:
        given["senders"] = [UNNAMED if row.sender is None else row.sender for row in rows]
    if any(row.prompt is not None for row in rows):
        given["prompts"] = [row.prompt or "" for row in rows]
    if any(row.group is not None for row in rows) or ("prompts" not in given and "groups" in shield.brings):
        given["groups"] = [str(place) if row.group is None else row.group for place, row in enumerate(rows)]
    if "ids" in shield.brings or (own_ids and shield.codec is not None):
        if rows and all(row.token_ids for row in rows):
            given["completion_ids"] = [row.token_ids for row in rows]
            if shield.policy is not None and all(row.prompt_ids for row in rows):
                given["prompt_ids"] = [row.prompt_ids for row in rows]
        elif "ids" in shield.brings and rows:
            lacking = next(row.place for row in rows if not row.token_ids)
            raise DataError(f"Row {lacking} holds no token ids, which the chain counts; give --model.")
    return given


def screen_files(order: Order, say: Callable[[Finding], None]) -> Tally:
    """Screens files and counts what was found.

    Args:
        order: What, and how.
        say: Is told each completion.

    Raises:
        HailproofError: If a file has no known form or is damaged, the chain lacks something, or no row has a column
            that was named.
    """
    shield, formats = opened(order)
    if order.state is not None and order.state.exists():
        shield.load(order.state)
    tally = Tally()
    for finding in screened(shield, formats, order.columns, order.own_ids):
        tally.add(finding)
        say(finding)
    for part, name in order.columns.named.items():
        if part not in order.columns.seen:
            raise ConfigError(
                f"--column {part}={name} names a column that no row has, or that this form does not read; "
                "check the name, or leave it out."
            )
    if order.state is not None:
        shield.save(order.state)
    return tally


def parts_of(assignments: Iterable[str]) -> Columns:
    """Columns from ``part=NAME`` of ``--column``.

    Raises:
        ConfigError: If one is not of that form, or no part of a row.
    """
    from hailproof.screening.formats.table import NAMES

    named: dict[str, str] = {}
    for text in assignments:
        part, mark, name = text.partition("=")
        if not mark or part not in NAMES or not name:
            raise ConfigError(f"--column {text!r:.80} is not PART=NAME; parts are {', '.join(NAMES)}.")
        named[part] = name
    return Columns(named)


def counts_of(tallied: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts, the largest first."""
    return sorted(tallied.items(), key=lambda pair: (-pair[1], pair[0]))


