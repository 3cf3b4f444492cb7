"""Plays a run from its configuration to its summary, and goes on with one that was interrupted."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hailproof.errors import RunError
from hailproof.runs.build import Experiment, build
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.measure import completion_rows, held_out, round_line, summarize
from hailproof.runs.store import RunFolder

CHECKPOINT_EVERY = 5
"""Rounds between checkpoints; at most so many are played again after an interruption."""

Progress = Callable[[dict[str, Any]], None]
"""Called with the line of every round."""


def start(
    config: RunConfig,
    path: Path,
    progress: Progress = lambda line: None,
    announce: Callable[[RunConfig], None] = lambda config: None,
) -> dict[str, Any]:
    """Plays a new run.

    Args:
        config: What to play.
        path: The run folder; must not exist, or be empty.
        progress: Called after every round.
        announce: Called with the resolved configuration before the first round.

    Returns:
        The summary.

    Raises:
        HailproofError: One sentence; if the configuration is wrong, nothing was written.
    """
    _set_threads(config)
    experiment = build(config)
    experiment.swarm.plan(1)
    with RunFolder.create(path, _header() + experiment.config.to_toml()) as folder:
        announce(experiment.config)
        return _play(experiment, folder, 0, progress)


def resume(path: Path, progress: Progress = lambda line: None) -> dict[str, Any]:
    """Goes on with an interrupted run; a run that is complete is left as it is.

    Returns:
        The summary, bitwise that of a run that was never interrupted, but for the seconds.
    """
    with RunFolder.reopen(path) as folder:
        if folder.summary is not None:
            folder.finish(folder.summary)
            return folder.summary
        config = load_config(path / "config.toml")
        _set_threads(config)
        experiment = build(config)
        state = folder.load_state()
        if state is not None:
            _restore(experiment, state)
        done = state["round"] if state else 0
        (path / "completions").mkdir(exist_ok=True)
        (path / "checkpoint").mkdir(exist_ok=True)
        folder.cut_after(done)
        return _play(experiment, folder, done, progress)


def _play(experiment: Experiment, folder: RunFolder, done: int, progress: Progress) -> dict[str, Any]:
    rounds, every = experiment.config.rounds, experiment.config.evaluation.every
    recording = 0.0
    for round in range(done + 1, rounds + 1):
        record = experiment.swarm.play(round)
        started = time.perf_counter()
        line = round_line(experiment, record)
        if every and round % every == 0:
            line["held_out"] = held_out(experiment)
        line["seconds"]["record"] = recording  # of the round before: this one's is not known until it is written
        folder.write_round(round, line, completion_rows(experiment, record))
        if round % CHECKPOINT_EVERY == 0 or round == rounds:
            folder.save_state(_state(experiment, round))
        recording = time.perf_counter() - started
        progress(line)
    summary = summarize(experiment, folder.rounds())
    folder.finish(summary)
    return summary


def _state(experiment: Experiment, round: int) -> dict[str, Any]:
    return {
        "round": round,
        "nodes": [
            {
                "learner": node.learner.state_dict(),
                "defenses": node.chain.state(),
            }
            for node in experiment.swarm.honest
        ],
    }


def _restore(experiment: Experiment, state: dict[str, Any]) -> None:
    if len(state["nodes"]) != len(experiment.swarm.honest):
        raise RunError("The checkpoint has another number of models than config.toml asks for; start the run anew.")
    try:
        for node, saved in zip(experiment.swarm.honest, state["nodes"], strict=True):
            node.learner.load_state_dict(saved["learner"])
            node.chain.restore(saved["defenses"])
    except KeyError as error:
        raise RunError(f"The checkpoint lacks {error}, as those of other versions do; start the run anew.") from error


def _set_threads(config: RunConfig) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)


def _header() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("hailproof", "torch", "transformers"))
    return f"# {versions}, Python {platform.python_version()}\n"


def versions_of(path: Path) -> dict[str, str]:
    """What a run was begun with: versions by name, as the first line of its configuration says."""
    with (path / "config.toml").open(encoding="utf-8") as file:
        first = file.readline()
    named = first.removeprefix("#").strip().split(",") if first.startswith("#") else []
    return dict(part.split(maxsplit=1) for part in named)
