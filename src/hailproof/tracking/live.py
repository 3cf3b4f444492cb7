"""The live view in the terminal: a table of the senders, and whether the node learns.

Where the output is no terminal, there is one line a round, and the table once at the end.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, final

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hailproof.parsing import printable
from hailproof.tracking.tally import SenderTally, Tally

ROWS = 12
"""Senders that are shown."""
NAME = 20
"""Characters of a name that are shown."""
REASON = 60
"""Characters of a reason that are shown."""
QUESTION = "Is my node learning? "


@final
class LiveView:
    """Shows a tally that grows, while it is open.

    Args:
        rounds: Rounds that will be played; ``None`` if nobody knows.
        console: Where it is shown; by default the terminal.
        doing: What goes on between two rounds, in a few words.
    """

    def __init__(
        self, rounds: int | None = None, console: Console | None = None, doing: Callable[[], str] = lambda: ""
    ) -> None:
        self._rounds, self._doing = rounds, doing
        self._console = console or Console(highlight=False, markup=False)
        self._body: Group | None = None
        self._live: Live | None = None
        self._open = False

    def __enter__(self) -> "LiveView":
        self._open = True
        if self._console.is_terminal and self._live is None:
            self._live = Live(get_renderable=self._now, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, tally: Tally) -> None:
        """Shows what has been seen so far, if the view is open."""
        if not self._open:
            return
        self._body = body_of(tally, self._rounds)
        if self._live is not None:
            self._live.refresh()
        elif not self._console.is_terminal:
            self._console.print(Text(line_of(tally, self._rounds)), soft_wrap=True)

    def close(self) -> None:
        """Leaves the last picture where it is."""
        self._open = False
        if self._live is not None:
            self._doing = lambda: ""
            self._live.stop()
            self._live = None
        elif self._body is not None and not self._console.is_terminal:
            self._console.print(self._body)
        self._body = None

    def _now(self) -> Any:
        parts = [self._body] if self._body is not None else []
        doing = printable(self._doing(), 80)
        return Group(*parts, *([Text(doing, style="dim")] if doing else []))


def body_of(tally: Tally, rounds: int | None = None) -> Group:
    """The picture: figures of the last round, the table of the senders, and whether the node learns."""
    answer = tally.answer()
    color = {"yes": "green", "no": "red", "not yet": "yellow"}[answer.word]
    verdict = Text.assemble((QUESTION, "bold"), (answer.word, f"bold {color}"), f": {answer.evidence}")
    return Group(Text(head_of(tally, rounds), style="bold"), table_of(tally), verdict)


def head_of(tally: Tally, rounds: int | None = None) -> str:
    """The figures of the last round, in one line."""
    seen = tally.last
    if seen is None:
        return "no round yet"
    parts = [f"round {seen.round}" + (f" of {rounds}" if rounds else "")]
    shares = {"reward": seen.reward, "held-out": seen.held_out, "attack success": seen.attack_success}
    parts += [f"{name} {_level(value)}" for name, value in shares.items() if value is not None]
    if seen.completion_tokens is not None:
        parts.append(f"{seen.completion_tokens:.1f} tokens")
    if seen.excluded:
        parts.append(f"{len(seen.excluded)} excluded")
    return "  ".join(parts)


def line_of(tally: Tally, rounds: int | None = None) -> str:
    """One line a round, where there is no terminal."""
    seen = tally.last
    kept = "" if seen is None or not seen.rows else f"  kept {sum(row.kept for row in seen.rows)} of {len(seen.rows)}"
    return f"{head_of(tally, rounds)}{kept}  learning: {tally.answer()}"


def table_of(tally: Tally, most: int = ROWS) -> Table:
    """What each sender sent, keeps, is learned from, and was caught for; names are texts, never markup."""
    shown, beyond, rest = tally.shown(most)
    table = Table(box=SIMPLE, pad_edge=False)
    noted = any(sender.note for _, sender in shown)
    table.add_column("sender", no_wrap=True, max_width=NAME)
    if noted:  # beside the names and not in them, since a stranger may call itself anything
        table.add_column("is", no_wrap=True)
    for name in ("sent", "kept", "learned", "excluded"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("caught for", min_width=REASON // 3)  # the only one that gives way where a terminal is narrow
    for name, sender in shown:
        called = Text(printable(name, NAME), style="red" if sender.excluded_since is not None else "")
        note = [Text(printable(sender.note, NAME))] if noted else []
        table.add_row(called, *note, *_cells(sender))
    if rest.sent or beyond:
        least = "over " if tally.others.sent else ""
        table.add_row(Text(f"{least}{beyond:,} others", style="dim"), *[Text("")] * noted, *_cells(rest))
    return table


def _cells(sender: SenderTally) -> tuple[Text, Text, Text, Text, Text]:
    since = "" if sender.excluded_since is None else f"since {sender.excluded_since}"
    caught = ", ".join(f"{printable(name, NAME)} {count:,}" for name, count in sender.caught.most_common(3))
    if sender.caught:
        first = sender.caught.most_common(1)[0][0]
        caught += f"; last: {printable(sender.reasons[first], REASON)}"
    shares = Text(_level(sender.kept_share)), Text(_level(sender.learned_share))
    said = Text(caught, no_wrap=True, overflow="ellipsis")
    return Text(f"{sender.sent:,}"), *shares, Text(since, style="red"), said


def _level(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if 0 <= value <= 1 else f"{value:.3g}"
