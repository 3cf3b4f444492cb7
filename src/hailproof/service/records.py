"""What a node writes for people and programs: log, a line a round, its status, and the archive of completions."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, final

from hailproof.errors import RunError
from hailproof.metrics.rates import mean
from hailproof.records import NodeRound
from hailproof.runs.files import as_json, known, make_folder, replacing, writing

STATUS = "status.json"
ROUNDS = "rounds.jsonl"


@final
class Log:
    """Structured log lines: JSON, one an event.

    Args:
        stream: Where they go.
        fields: What every line holds, such as the node's name.
    """

    def __init__(self, stream: TextIO | None = None, **fields: Any) -> None:
        self._stream = stream or sys.stderr
        self._fields = fields

    def into(self, path: Path) -> "Log":
        """A log of the same fields that is appended to a file.

        Raises:
            RunError: If the file cannot be written.
        """
        with writing(path):
            return Log(path.open("a", encoding="utf-8"), **self._fields)

    def __call__(self, event: str, **fields: Any) -> None:
        """Writes one event; a stream that is gone is no reason to stop."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps(known({"time": now, "event": event, **self._fields, **fields}), default=str)
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


def round_line(view: NodeRound, extra: Mapping[str, Any]) -> dict[str, Any]:
    """One round of a node: what came, what was caught, what was learned.

    Args:
        view: What the node made of the round.
        extra: What the exchange and the states say of it.
    """
    seen = [scored for group in view.groups for scored in group.completions]
    senders: dict[int, Counter[str]] = {}
    for scored in seen:
        decision = scored.verdicts[-1].decision if scored.verdicts else "abstain"
        senders.setdefault(scored.submission.sender, Counter())[decision] += 1
    raw = [scored.raw_reward for scored in seen if scored.raw_reward is not None and scored.admitted]
    return {
        **extra,
        "reward": mean(raw),
        "completion_tokens": mean(len(scored.submission.completion.token_ids) for scored in seen),
        "senders": {str(sender): dict(counts) for sender, counts in sorted(senders.items())},
        "missing": {str(sender): count for sender, count in sorted(view.missing.items())},
        "unread": view.unread,
        "update": asdict(view.update),
        "seconds": {**view.seconds, **dict(extra.get("seconds", {}))},
        "defense_seconds": view.defense_seconds,
    }


@final
class Records:
    """The files of a node's folder.

    Args:
        folder: The folder; it is made if there is none.
        retention: Rounds of completions that are kept.
    """

    def __init__(self, folder: Path, retention: int) -> None:
        self.folder, self.retention = folder, retention
        self.status: dict[str, Any] = {}
        make_folder(folder / "archive")

    def tell(self, **fields: Any) -> None:
        """Changes the status, which ``hailproof status`` shows."""
        self.status = {**self.status, **fields, "at": time.time()}
        path = self.folder / STATUS
        temporary = path.with_suffix(".new")
        with writing(path):
            temporary.write_text(as_json(self.status), encoding="utf-8")
            temporary.replace(path)

    def last_round(self) -> int:
        """The last round that has a line."""
        path = self.folder / ROUNDS
        if not path.is_file():
            return 0
        lines = path.read_bytes().splitlines()
        try:
            return max((json.loads(line)["round"] for line in lines[-3:] if line.endswith(b"}")), default=0)
        except (ValueError, LookupError) as error:
            raise RunError(f"{path} is damaged ({error}); move it away.") from error

    def lines(self) -> list[dict[str, Any]]:
        """The lines of all rounds; what cannot be read is left out."""
        path = self.folder / ROUNDS
        found = []
        for text in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict) and type(line.get("round")) is int:
                found.append(line)
        return found

    def add(self, line: Mapping[str, Any], view: NodeRound) -> None:
        """Writes the line of a round, and its completions into the archive, which keeps so many rounds."""
        path = self.folder / ROUNDS
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(f"{as_json(line)}\n")
        archived = self.folder / "archive" / f"{line['round']:08d}.jsonl"
        with replacing(archived) as temporary, temporary.open("w", encoding="utf-8") as file:
            for row in completion_rows(line["round"], view):
                file.write(f"{json.dumps(row, ensure_ascii=False)}\n")
        for old in sorted((self.folder / "archive").glob("*.jsonl"))[: -self.retention]:
            old.unlink(missing_ok=True)

    def evidence(self, sender: str, proof: tuple[bytes, bytes]) -> None:
        """Keeps the proof that a sender said two things."""
        make_folder(self.folder / "evidence")
        path = self.folder / "evidence" / f"{sender}.json"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(as_json({"sender": sender, "heads": [head.hex() for head in proof]}))

    def prune(self, folder: Path, before: int) -> None:
        """Removes the rounds of a journal that are older than what is kept."""
        for old in folder.glob("*/[0-9]*"):
            if old.name.isdecimal() and 0 < int(old.name) < before:
                shutil.rmtree(old, ignore_errors=True)


def completion_rows(round: int, view: NodeRound) -> list[dict[str, Any]]:
    """The completions of a round with what became of them, one a line of the archive."""
    return [
        {
            "round": round,
            "sender": scored.submission.sender,
            "problem_id": group.prompt.problem_id,
            "slot": scored.submission.slot,
            "prompt": group.prompt.user,
            "completion": scored.submission.completion.text,
            "token_ids": list(scored.submission.completion.token_ids),
            "finished": scored.submission.completion.finished,
            "reward": scored.raw_reward,
            "admitted": scored.admitted,
            "verdicts": [
                {"defense": verdict.defense, "decision": verdict.decision, "reason": verdict.reason}
                for verdict in scored.verdicts
            ],
        }
        for group in view.groups
        for scored in group.completions
    ]


