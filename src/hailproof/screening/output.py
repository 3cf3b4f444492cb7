"""What ``hailproof screen`` says: text for people, a table a line for programs, annotations for GitHub; and a page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from hailproof.parsing import printable
from hailproof.records import Span
from hailproof.reports.pages import cut, render
from hailproof.screening.screen import Finding, Tally

Form = Literal["text", "json", "github"]

REASON = 160
"""Characters of a reason."""
PATH = 1000
"""Characters of a path."""
TEXT = 4000
"""Characters of a text on the page."""
LISTED = 20
"""Senders that are listed."""


def line_of(finding: Finding, form: Form) -> str | None:
    """What is said of a completion at once; ``None`` for nothing."""
    if form == "json":
        return _json(finding.record())
    rejection = finding.row.rejection
    if rejection is None:
        return None
    reason = printable(rejection.reason, REASON)
    path = printable(finding.path, PATH)
    place = f"{'./' if path.startswith(':') else ''}{path}:{finding.place}"
    if form == "github":
        file, title = _property(str(finding.path)), _property(f"hailproof {rejection.defense}")
        return f"::error file={file},line={finding.place},title={title}::{_data(reason)}"
    sender = "" if finding.row.sender is None else f" from {printable(finding.row.sender, 40)}"
    return f"{place}{sender}: {rejection.defense}: {reason}"


def summary_of(tally: Tally, form: Form) -> str:
    """What is said in the end."""
    if form == "json":
        return _json({"summary": tally.record()})
    head = f"{tally.rows} completions, {tally.rejected} rejected ({100 * tally.share:.1f} %)"
    lines = [f"{head}, {tally.muted} with muted tokens" if tally.muted else head]
    lines += [f"  {name} rejected {count}" for name, count in tally.by_defense.most_common()]
    if form == "github":
        return f"::notice title=hailproof screen::{_data('; '.join(line.strip() for line in lines))}"
    worst = sorted(tally.sent, key=lambda name: (-tally.refused[name], -tally.sent[name], str(name)))
    lines += [
        f"  sender {printable(name, 40)}: {tally.refused[name]} of {tally.sent[name]} rejected"
        for name in worst[:LISTED]
    ]
    return "\n".join([*lines, f"  and {len(worst) - LISTED} more senders"] if len(worst) > LISTED else lines)


def _json(record: Mapping[str, Any]) -> str:
    """A table on a line, in which GitHub's runner finds no command."""
    return json.dumps(record).replace("##[", "#\\u0023[")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def page_of(tally: Tally, files: Sequence[str], defenses: Sequence[str]) -> str:
    """The report as one self-contained HTML file.

    Args:
        tally: What was found.
        files: The files' names.
        defenses: The chain's.
    """
    senders = sorted(tally.sent, key=lambda name: (-tally.refused[name], -tally.sent[name], str(name)))
    return render(
        "screen",
        name="Screened completions",
        files=files,
        defenses=defenses,
        tally=tally,
        by_defense=tally.by_defense.most_common(),
        senders=[(str(name), tally.refused[name], tally.sent[name]) for name in senders[:LISTED]],
        samples=[_sample(finding) for finding in tally.samples],
    )


def _sample(finding: Finding) -> dict[str, Any]:
    row, rejection = finding.row, finding.row.rejection
    assert rejection is not None
    return {
        "place": f"{finding.path}:{finding.place}",
        "sender": row.sender,
        "defense": rejection.defense,
        "reason": cut(rejection.reason, REASON),
        "parts": parts_of(cut(row.text, TEXT), rejection.spans),
    }


def parts_of(text: str, spans: Sequence[Span]) -> list[tuple[str, str, bool]]:
    """A text in stretches: content, note, and whether the verdict rests on it."""
    parts: list[tuple[str, str, bool]] = []
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        start, end = max(at, span.start), min(span.end, len(text))
        if start >= end:
            continue
        parts += [(text[at:start], "", False)] if start > at else []
        parts.append((text[start:end], cut(span.note, REASON), True))
        at = end
    return [*parts, (text[at:], "", False)] if at < len(text) else parts
