"""Run folders that nobody played, and the report of one."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pyarrow.parquet
from page_reader import Page

from hailproof.reports.report import write_report
from hailproof.runs.store import SCHEMA


def line(number: int, attack_success: float | None = 0.25, defended: bool = True, **changes: Any) -> dict[str, Any]:
    honest = {"accept": 90, "reject": 6, "abstain": 3, "error": 1}
    malicious = {"accept": 2, "reject": 17, "abstain": 0, "error": 1}
    return {
        "round": number,
        "reward": 0.5,
        "attack_success": attack_success,
        "eligible": 10,
        "completion_tokens": 50.0,
        "finished": 1.0,
        "malicious_reward": None,
        "screened": {"honest": 100, "malicious": 20} if defended else {"honest": 0, "malicious": 0},
        "honest_acceptance": 0.93 if defended else None,
        "malicious_acceptance": 0.1 if defended else None,
        "defenses": {"logit": {"honest": honest, "malicious": malicious}} if defended else {},
        "update": {"loss": 0.0, "grad_norm": 1.0, "kl": None, "trained": 3, "passes": 3},
        "models": {"nano": {"reward": 0.5, "attack_success": attack_success, "eligible": 10, "completion_tokens": 50}},
        "seconds": {"sample": 3.0, "update": 1.0},
        **changes,
    }


def verdict(decision: str = "reject", spans: tuple[tuple[int, int], ...] = (), **changes: Any) -> dict[str, Any]:
    marks = [{"start": start, "end": end, "note": "rank 1,204"} for start, end in spans]
    fixed = {"defense": "logit", "reason": "low rank", "score": 3.0, "error": False}
    return {**fixed, "decision": decision, "spans": marks, **changes}


def row(number: int, text: str, malicious: bool = False, **changes: Any) -> dict[str, Any]:
    return {
        "round": number,
        "view": 0,
        "sender": 3 if malicious else 0,
        "malicious": malicious,
        "problem_id": "wp-1",
        "question": "How many?",
        "slot": 0,
        "text": text,
        "tokens": 9,
        "token_ids": [1, 2],
        "finished": True,
        "raw_reward": 1.0,
        "reward": 1.0,
        "admitted": True,
        "success": malicious,
        "verdicts": [],
        **changes,
    }


def run(
    folder: Path,
    lines: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    summary: dict[str, Any] | None = None,
    config: str = "rounds = 3\n",
) -> Path:
    folder.mkdir(parents=True)
    (folder / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    (folder / "config.toml").write_text(config)
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, SCHEMA), folder / "completions.parquet")
    return folder


def page_of(folder: Path, surprise: bool = False) -> Page:
    # The picture takes most of the time, and has tests of its own.
    with patch("hailproof.reports.report.draw_run"):
        return Page(write_report(folder, surprise).read_text(encoding="utf-8"))
