"""The demo: one swarm clean, attacked and defended, side by side, each in its own process on one thread."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty
from typing import Any

from hailproof.campaigns.sweep import fresh_processes, interrupts_held
from hailproof.errors import RunError
from hailproof.reports.figures import draw_comparison
from hailproof.reports.report import write_report
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.quiet import quiet_libraries
from hailproof.runs.store import is_run_folder
from hailproof.runs.words import round_text

PATIENCE = 5.0
"""Seconds between looks at whether a process has died."""

COMMON: tuple[tuple[str, Any], ...] = (
    ("threads", 1),
    ("attack.name", "equation"),
    ("swarm.prompts", 12),
    ("task.options.two_two_share", 0.3),  # more problems on which the attack shows than the usual tenth
)
RUNS: dict[str, tuple[tuple[str, Any], ...]] = {
    "clean": (("attack.malicious", 0),),
    "attacked": (),
    "defended": (("defense", [{"name": "homogeneous"}]),),
}
"""What tells the three runs apart; the clean one measures attack success without an attacker."""


def configurations(rounds: int) -> dict[str, RunConfig]:
    """The configurations of the three runs."""
    return {
        label: load_config(None, (("name", label), ("rounds", rounds), *COMMON, *changes))
        for label, changes in RUNS.items()
    }


def _play_one(config: RunConfig, path: Path, queue: Any) -> None:
    from hailproof.runs.run import start

    quiet_libraries()
    try:
        queue.put((config.name, "done", start(config, path, lambda line: queue.put((config.name, "round", line)))))
    except BaseException as error:
        queue.put((config.name, "failed", f"{type(error).__name__}: {error}"))
        raise


def _stop(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.terminate()


def _clear(out: Path, labels: Iterable[str]) -> None:
    """Removes an earlier demo from a folder, and nothing else."""
    ours = {out / "demo.png", *(out / label for label in labels if is_run_folder(out / label))}
    if out.is_symlink() or (out.exists() and (not out.is_dir() or set(out.iterdir()) - ours)):
        raise RunError(f"Folder {out} holds something that is not an earlier demo; choose another with --out.")
    for path in ours:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def play(out: Path, rounds: int, say: Callable[[str], None]) -> tuple[dict[str, dict[str, Any]], Path]:
    """Plays the three runs at the same time.

    Args:
        out: Folder for the three run folders and the picture; an earlier demo there is replaced.
        rounds: Rounds of each run.
        say: Prints one line of progress.

    Returns:
        The summary of each run, and the path of the picture.

    Raises:
        RunError: If a run fails, or the folder holds something that is not an earlier demo.
    """
    configs = configurations(rounds)
    _clear(out, configs)
    context = fresh_processes()
    queue = context.Queue()
    workers = [
        context.Process(target=_play_one, args=(config, out / label, queue)) for label, config in configs.items()
    ]
    try:
        with interrupts_held():
            for worker in workers:
                worker.start()
        summaries = _gather(workers, queue, rounds, say)
    finally:
        _stop(workers)
    for label in configs:
        write_report(out / label)
    picture = out / "demo.png"
    title = "MATH attack (2 + 2 = 5) on a swarm of 4 with 1 malicious node"
    draw_comparison({label: out / label for label in configs}, picture, title)
    return {label: summaries[label] for label in configs}, picture


def _gather(workers: list[Any], queue: Any, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Prints what the runs say until all have ended; returns their summaries."""
    summaries: dict[str, dict[str, Any]] = {}
    while len(summaries) < len(workers):
        try:
            label, kind, content = queue.get(timeout=PATIENCE)
        except Empty:
            dead = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]
            if dead:
                raise RunError(f"A run of the demo ended with exit status {dead[0]}; is there enough memory?") from None
            continue
        if kind == "failed":
            raise RunError(f"The {label} run of the demo failed: {content}.")
        if kind == "done":
            summaries[label] = content
        else:
            say(f"{label:<8} {content['round']:>2}/{rounds}  {round_text(content)}")
    for worker in workers:
        worker.join()
    return summaries
