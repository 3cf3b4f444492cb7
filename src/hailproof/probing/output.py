"""What ``hailproof probe-reward`` says."""

import json
from dataclasses import asdict
from typing import get_args

from hailproof.parsing import printable
from hailproof.probing.probe import Report
from hailproof.probing.probes import Kind

WIDTH = 160
"""Characters of what is said of one finding."""

ABOUT: dict[Kind, str] = {
    "right": "right answers",
    "wrong": "wrong answers in the shape of right ones",
    "poison": "right answers forged by attacks",
    "damaged": "damaged answers, which may earn or not",
}


def text_of(report: Report) -> str:
    """A report for people."""
    lines = [
        f"Called as {report.style}, answers in the form '{printable(report.form, 60)}': a right answer earns "
        f"{report.full:g}, a plain wrong one {report.floor:g}."
    ]
    for kind in get_args(Kind):
        earned, asked = report.earned(kind)
        if asked:
            lines.append(f"  {earned:>4} of {asked:>4} earn: {ABOUT[kind]}")
    poisoned = report.earned("poison")[0]
    if poisoned:
        lines.append("  Forged answers are right, so they earn. No reward tells them apart; a shield has to.")
    slowest = report.slowest
    lines.append(f"  slowest: {slowest.seconds:.2f} s for {slowest.probe.name}")
    findings = report.findings()
    lines.append(f"{len(findings)} findings" if len(findings) != 1 else "1 finding")
    for finding in findings:
        times = f" ({finding.times} times)" if finding.times > 1 else ""
        lines.append(f"  {finding.name}: {printable(finding.what, WIDTH)}{times}")
    return "\n".join(lines)


def json_of(report: Report) -> str:
    """A report for programs: one table."""
    answers = [
        {"probe": each.probe.name, "kind": each.probe.kind, "problem": each.probe.problem.id, "outcome": each.outcome,
         "reward": each.reward, "seconds": round(each.seconds, 4), "error": each.error}
        for each in report.answers
    ]  # fmt: skip
    return json.dumps({
        "style": report.style, "form": report.form, "full": report.full, "floor": report.floor,
        "findings": [asdict(finding) for finding in report.findings()], "answers": answers,
    })  # fmt: skip
