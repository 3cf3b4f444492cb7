"""Plays a run from its configuration to its summary, and goes on with one that was interrupted."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hailproof.errors import ConfigError, HailproofError, RunError
from hailproof.runs.build import Experiment, build
from hailproof.runs.check import check
from hailproof.runs.checkpoint import ANEW
from hailproof.runs.config import RunConfig, load_config
from hailproof.runs.files import known
from hailproof.runs.header import header
from hailproof.runs.learned import learned
from hailproof.runs.measure import completion_rows, held_out, round_line, summarize
from hailproof.runs.seen import remember, seen
from hailproof.runs.store import RunFolder, read_rounds
from hailproof.tracking.watch import Watch

CHECKPOINT_EVERY = 5
"""Rounds between checkpoints; at most so many are played again after an interruption."""

Progress = Callable[[dict[str, Any]], None]
"""Called with the line of every round."""


def start(
    config: RunConfig,
    path: Path,
    progress: Progress = lambda line: None,
    announce: Callable[[RunConfig], None] = lambda config: None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Plays a new run.

    Args:
        config: What to play.
        path: The run folder; must not exist, or be empty.
        progress: Called after every round.
        announce: Called with the resolved configuration before the first round.
        watch: Trackers and a live view, which are shown every round; the run is the same with and without.

    Returns:
        The summary.

    Raises:
        HailproofError: One sentence; unless a round was finished by then, nothing was written.
    """
    RunFolder.require_vacant(path)
    _check_threads(config)
    _set_threads(config)
    experiment = build(config)
    check(experiment)
    with RunFolder.create(path, experiment.config, header()) as folder:
        try:
            announce(experiment.config)
            return _play(experiment, folder, 0, progress, watch)
        except Exception:
            folder.discard()  # so that the corrected command does not find it in use
            raise


def resume(
    path: Path, progress: Progress = lambda line: None, watch: Watch | None = None
) -> dict[str, Any]:
    """Goes on with an interrupted run; a run that is complete is left as it is.

    Args:
        path: The run folder.
        progress: Called after every round.
        watch: Trackers and a live view, as of :func:`start`.

    Returns:
        The summary, bitwise that of a run that was never interrupted, but for the seconds.

    Raises:
        HailproofError: One sentence; if the folder is not what the run wrote, it names the file.
    """
    with RunFolder.reopen(path) as folder:
        config = load_config(path / "config.toml")
        summary = folder.verify(config)
        if summary is not None:
            return summary
        _set_threads(config)
        experiment = build(config)
        state = folder.load_state()
        if state is not None:
            _restore(experiment, state)
        if watch is not None:
            remember(watch.tally, read_rounds(path))
        return _play(experiment, folder, folder.checkpoint.round, progress, watch)


def _play(
    experiment: Experiment, folder: RunFolder, done: int, progress: Progress, watch: Watch | None
) -> dict[str, Any]:
    rounds, every = experiment.config.rounds, experiment.config.evaluation.every
    recording = 0.0
    for round in range(done + 1, rounds + 1):
        record = experiment.swarm.play(round)
        started = time.perf_counter()
        line = known(round_line(experiment, record))
        if every and round % every == 0:
            line["held_out"] = held_out(experiment)
        line["seconds"]["record"] = recording  # of the round before: this one's is not known until it is written
        folder.write_round(round, line, completion_rows(experiment, record))
        if round % CHECKPOINT_EVERY == 0 or round == rounds:
            folder.save_state(round, _state(experiment))
        recording = time.perf_counter() - started
        progress(line)
        if watch is not None:
            watch.see(seen(experiment, record, line))
    heard = learned(folder.path) if experiment.config.defense else None
    summary = known(summarize(experiment, read_rounds(folder.path), heard))
    folder.finish(summary)
    return summary


def _state(experiment: Experiment) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "learner": node.learner.state_dict(),
                "defenses": node.chain.state(),
            }
            for node in experiment.swarm.honest
        ],
    }


def _restore(experiment: Experiment, state: dict[str, Any]) -> None:
    try:
        for node, saved in zip(experiment.swarm.honest, state["nodes"], strict=True):
            node.learner.load_state_dict(saved["learner"])
            node.chain.restore(saved["defenses"])
    except HailproofError:
        raise
    except Exception as error:  # whatever models, optimizers and defenses make of a state of another shape
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"The checkpoint does not fit, as those of other versions ({reason}); {ANEW}.") from error


def _check_threads(config: RunConfig) -> None:
    cores = os.cpu_count() or 1
    if config.threads > cores:
        raise ConfigError(f"threads = {config.threads} is more than the {cores} cores of this machine; lower it.")


def _set_threads(config: RunConfig) -> None:
    """Sets the threads of torch; a run that was begun on a larger machine goes on with all cores of this one."""
    if config.threads:
        torch.set_num_threads(min(config.threads, os.cpu_count() or 1))
