"""What the update of a run could learn from: shares of the tokens that were right, by side."""

from dataclasses import dataclass
from pathlib import Path

from pyarrow.parquet import ParquetFile

from hailproof.metrics.detection import SIDES
from hailproof.runs.checkpoint import ANEW
from hailproof.runs.files import reading


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned of one side.

    Attributes:
        share: Share of the tokens of its right, screened completions; ``None`` if there are none.
        completions: How many such completions there are, over all rounds and views.
    """

    share: float | None
    completions: int


def learned(folder: Path) -> dict[str, Learned]:
    """Share of the tokens of right, screened completions that the update could learn from, by side, over a whole run.

    What was rejected is lost, and so are muted tokens and what a weight takes away. A completion of another tokenizer
    is muted in tokens of the receiver and counted in those of its sender, so the share is approximate there.

    Args:
        folder: A run folder whose last round is played: its completions are in one file or still in one a round.

    Raises:
        RunError: If a file of completions is missing or damaged.
    """
    names = ["malicious", "raw_reward", "admitted", "weight", "tokens", "verdicts.list.element.muted"]
    heard, whole, number = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0), dict.fromkeys(SIDES, 0)
    joined = folder / "completions.parquet"
    parts = [] if joined.is_file() else sorted((folder / "completions").glob("round-*.parquet"))
    for path in parts or [joined]:
        with reading(path, ANEW):
            table = ParquetFile(path, page_checksum_verification=True).read(columns=names)
            rows = table.select([name.partition(".")[0] for name in names]).to_pylist()
        for row in rows:
            if row["raw_reward"] and row["verdicts"]:  # what was refused unrewarded is not known to be right
                side = "malicious" if row["malicious"] else "honest"
                muted = len({token for verdict in row["verdicts"] for token in verdict["muted"]})
                heard[side] += max(0, row["tokens"] - muted) * row["weight"] if row["admitted"] else 0.0
                whole[side] += row["tokens"]
                number[side] += 1
    return {side: Learned(heard[side] / whole[side] if whole[side] else None, number[side]) for side in SIDES}
