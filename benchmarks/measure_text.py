"""TEXT against the shipped nano swarm, over seeds: clean, attacked, defended; horizontal, vertical, heterogeneous.

    .venv/bin/python benchmarks/measure_text.py --out runs/text --seeds 0 1 2

Every run is a folder of its own and is resumed if it was interrupted, so the script can be stopped and called again.
At the end it prints a table (mean and range over seeds of the means over the last 5 rounds) and draws one picture per
swarm. ``--check`` exits non-zero if a claim of the README does not hold.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hailproof.experiments.figures import draw_seeds

SWARMS: dict[str, tuple[str, ...]] = {
    "horizontal": (),
    "vertical": ("swarm.topology=vertical",),
    "heterogeneous": ('swarm.models=["nano-a", "nano-b"]',),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "clean": ("attack.malicious=0",),
    "attacked": (),
    "defended": ('defense=[{name="logit"}]',),
}


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


def spread(values: Sequence[float | None], scale: float = 100.0) -> str:
    """Mean and range, in percent unless told otherwise; undefined values are left out."""
    defined = [scale * value for value in values if value is not None]
    if not defined:
        return "-"
    return f"{statistics.fmean(defined):.1f} ({min(defined):.1f} to {max(defined):.1f})"


def first_round_above(folder: Path, threshold: float) -> int | None:
    """The first round whose attack success is at least the threshold."""
    for line in map(json.loads, (folder / "rounds.jsonl").read_text().splitlines()):
        if (line["attack_success"] or 0) >= threshold:
            return line["round"]
    return None


def at_round(folder: Path, round: int) -> float | None:
    """Attack success in a round."""
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return json.loads(lines[round - 1])["attack_success"] if len(lines) >= round else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--swarms", nargs="+", choices=SWARMS, default=list(SWARMS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    runs = {
        (swarm, variant, seed): arguments.out / f"{swarm}-{variant}-{seed}"
        for swarm in arguments.swarms
        for seed in arguments.seeds
        for variant in VARIANTS
    }
    common = ["attack.name=text", "threads=1", "evaluation.problems=512", f"rounds={arguments.rounds}", *arguments.set]
    with ThreadPoolExecutor(arguments.workers) as pool:
        pending = {
            (swarm, variant, seed): pool.submit(
                play,
                folder,
                [*common, f"name={swarm}-{variant}", f"seed={seed}", *SWARMS[swarm], *VARIANTS[variant]],
            )
            for (swarm, variant, seed), folder in runs.items()
        }
        summaries = {key: future.result() for key, future in pending.items()}
    print(
        "\n| swarm | run | attack success % | at round 20 % | first round >= 60 % | reward % | held-out reward % "
        "| tokens | honest accepted % | malicious accepted % | s/round |\n|" + " --- |" * 11
    )
    failed = []
    for swarm in arguments.swarms:
        rewards = {}
        for variant in VARIANTS:
            folders = [runs[swarm, variant, seed] for seed in arguments.seeds]
            ends = [summaries[swarm, variant, seed] for seed in arguments.seeds]
            column = {key: [end[key] for end in ends] for key in ends[0] if key != "held_out"}
            rewards[variant] = statistics.fmean(end["held_out"]["reward"] for end in ends)
            crossings = [str(first_round_above(folder, 0.6) or "never") for folder in folders]
            cells = (
                swarm, variant, spread(column["attack_success"]), spread([at_round(f, 20) for f in folders]),
                ", ".join(crossings), spread(column["reward"]), spread([end["held_out"]["reward"] for end in ends]),
                spread(column["completion_tokens"], 1), spread(column["honest_acceptance"]),
                spread(column["malicious_acceptance"]), spread(column["seconds_per_round"], 1),
            )  # fmt: skip
            print("| " + " | ".join(cells) + " |")
            if swarm != "heterogeneous":
                if variant == "attacked" and min(column["attack_success"]) < 0.9:
                    failed.append(f"{swarm}: attacked success {column['attack_success']} below 0.9")
                if variant == "defended" and max(column["attack_success"]) > 0.02:
                    failed.append(f"{swarm}: defended success {column['attack_success']} above 0.02")
                if variant == "defended" and min(column["honest_acceptance"]) < 0.999:
                    failed.append(f"{swarm}: honest acceptance {column['honest_acceptance']} below 0.999")
        if swarm != "heterogeneous" and abs(rewards["defended"] - rewards["clean"]) > 0.02:
            failed.append(f"{swarm}: held-out reward {rewards} more than 2 points apart")
        draw_seeds(
            {variant: [runs[swarm, variant, seed] for seed in arguments.seeds] for variant in VARIANTS},
            arguments.out / f"{swarm}.png",
            f"TEXT, {swarm} swarm of 4 with 1 malicious node, {len(arguments.seeds)} seeds",
        )
    print("\n" + ("\n".join(failed) or "Every claim holds."))
    sys.exit(bool(failed and arguments.check))


if __name__ == "__main__":
    main()
