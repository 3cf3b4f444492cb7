"""Runs over seeds, each in a process and a folder of its own, resumed if interrupted; and figures over them."""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LONG = ("sampling.max_new_tokens=256", "learner.learning_rate=1.2e-3", "learner.lr_scheduler_type=constant")
"""Settings with room to ramble, for the length attack: at the nano settings, a limit of 128 tokens cuts a fifth of the
long answers, which the reward then punishes, and the fast learning rate narrows the policy until there is nothing long
left to choose."""


def options(doc: str | None, out: str) -> argparse.ArgumentParser:
    """A parser with the options of every measurement over seeds; its help is the script's own docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim does not hold")
    return parser


def play(folder: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Plays a run in a process of its own, or goes on with it, and returns its summary."""
    if not (folder / "summary.json").is_file():
        command = [sys.executable, "-m", "hailproof"]
        if (folder / "config.toml").is_file():
            command += ["resume", str(folder)]
        else:
            command += ["run", f"--out={folder}", *(f"--set={setting}" for setting in settings)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
        print(f"{folder} done", flush=True)
    return json.loads((folder / "summary.json").read_text())


def play_all(runs: Mapping[Path, Sequence[str]], workers: int) -> dict[Path, dict[str, Any]]:
    """Plays runs side by side, one thread each, and returns their summaries."""
    with ThreadPoolExecutor(workers) as pool:
        pending = {folder: pool.submit(play, folder, ["threads=1", *settings]) for folder, settings in runs.items()}
        return {folder: future.result() for folder, future in pending.items()}


def spread(values: Sequence[float | None], scale: float = 100.0) -> str:
    """Mean and range, in percent unless told otherwise; undefined values are left out."""
    defined = [scale * value for value in values if value is not None]
    if not defined:
        return "-"
    return f"{statistics.fmean(defined):.1f} ({min(defined):.1f} to {max(defined):.1f})"


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's rounds."""
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def first_round_above(folder: Path, threshold: float) -> int | None:
    """The first round whose attack success is at least the threshold."""
    return next((line["round"] for line in lines(folder) if (line["attack_success"] or 0) >= threshold), None)


def at_round(folder: Path, round: int) -> float | None:
    """Attack success in a round."""
    found = lines(folder)
    return found[round - 1]["attack_success"] if len(found) >= round else None


def finish(failed: Sequence[str], check: bool) -> None:
    """Prints which claims failed, and ends the script."""
    print("\n" + ("\n".join(failed) or "Every claim holds."))
    sys.exit(bool(failed and check))
