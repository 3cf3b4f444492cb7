"""Many runs, each in a process and a folder of its own, shared by all who ask for the same.

A run is known by what it depends on: its folder carries a digest of the configuration, so two figures that need the
same run find the same folder, and a sweep that was killed goes on where it was. An engine says where runs are played;
this module has the one for this machine, ``ray_engine.py`` the one for a cluster.
"""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, Protocol

from hailproof.errors import HailproofError, RunBusyError, RunError
from hailproof.runs.config import RunConfig
from hailproof.runs.quiet import quiet_libraries
from hailproof.runs.store import read_summary
from hailproof.settings import validated

BUSY_WAIT = 2.0
"""Seconds between looks at a run folder that another process holds."""

FAILURE_LETTERS = 2000
"""Longer reasons of a failure are cut: libraries write pages, and a pipe that is full blocks its process."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        settings: The configuration as far as it was chosen, as a tree of sections; defaults are left out.
        root: The folder that holds the runs.
    """

    settings: Mapping[str, Any]
    root: Path

    @property
    def config(self) -> RunConfig:
        """The configuration, validated.

        Raises:
            ConfigError: If a key is unknown or a value is out of range.
        """
        return validated(RunConfig, {**self.settings, "name": self.folder.name})

    @property
    def seed(self) -> int:
        """The root of the run's randomness."""
        return int(self.settings.get("seed", 0))

    @cached_property
    def digest(self) -> str:
        """What the run depends on but for the seed, hashed: 8 hexadecimal digits."""
        from hailproof.runs.settle import settle

        tree = settle(validated(RunConfig, self.settings)).config.model_dump(mode="json", exclude={"name", "seed"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]

    @cached_property
    def folder(self) -> Path:
        """Where the run lies: attack, defenses, digest and seed."""
        digest = self.digest  # first, since it finds what is wrong with the settings
        attack = self.settings.get("attack", {})
        name = "clean" if attack.get("malicious") == 0 else attack.get("name", "none")
        defenses = "+".join(plugin["name"] for plugin in self.settings.get("defense", ())) or "none"
        readable = re.sub(r"[^\w+.-]", "_", f"{name}-{defenses}")[:60]
        return self.root / f"{readable}-{digest}-{self.seed}"

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of the run, if it is finished."""
        return read_summary(self.folder)


class Engine(Protocol):
    """Where runs are played."""

    workers: int

    def play(self, jobs: Sequence[Job], done: Callable[[Job, str], None]) -> None:
        """Plays runs until all are finished or have failed.

        Args:
            jobs: Different runs that are not finished.
            done: Called once for every job when it ends, with the reason of its failure, or an empty text.
        """
        ...


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Lays trees of settings over each other; sections are joined, everything else is replaced by the later one."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def play_job(job: Job) -> dict[str, Any]:
    """Plays a run in this process, or goes on with it; waits while another process has it.

    Returns:
        The summary.

    Raises:
        HailproofError: If the run cannot be played.
    """
    from hailproof.runs.run import resume, start

    quiet_libraries()
    while (summary := job.summary) is None:
        try:
            if (job.folder / "config.toml").is_file():
                return resume(job.folder)
            return start(job.config, job.folder)
        except RunBusyError:
            time.sleep(BUSY_WAIT)
    return summary


def attempt(job: Job) -> str:
    """Plays a run in this process; returns the reason of its failure, or an empty text."""
    try:
        play_job(job)
    except KeyboardInterrupt:
        return "it was stopped"
    except HailproofError as error:
        return str(error)
    except Exception as error:  # whatever ends a run becomes the reason of its failure, once
        return f"{type(error).__name__}: {error}"
    return ""


def _child(job: Job, pipe: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(attempt(job)[:FAILURE_LETTERS])


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone: a run that nobody asks for takes no core."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # as hard as kill -9, which runs survive


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the block, and for good from processes started in it: this one ends them."""
    resource_tracker.ensure_running()  # the first process starts it, and that lets signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fresh_processes() -> SpawnContext | ForkServerContext:
    """The way to start a process in which nothing has happened but imports.

    Without an accelerator, it is forked from a server that has imported what runs need, since that takes seconds each
    time; CUDA does not survive a fork once a library has so much as counted the devices, so with one it is spawned.
    """
    import torch

    if torch.accelerator.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hailproof.runs.run"])
    return context


class LocalEngine:
    """Plays runs on this machine, each in a process of its own, so that one that dies takes no other with it.

    Args:
        workers: Runs at a time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def play(self, jobs: Sequence[Job], done: Callable[[Job, str], None]) -> None:
        """See :class:`Engine`."""
        context = fresh_processes()
        waiting, running = deque(jobs), {}
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    job = waiting.popleft()
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_child, args=(job, sender), daemon=True)
                    with interrupts_held():
                        process.start()
                        sender.close()
                        running[process.sentinel] = (process, receiver, job)
                for sentinel in wait(list(running)):
                    process, receiver, job = running.pop(sentinel)
                    process.join()
                    try:
                        failure = receiver.recv() if receiver.poll() else f"its process ended with {process.exitcode}"
                    except EOFError:
                        failure = f"its process ended with {process.exitcode}"
                    done(job, failure)
        finally:
            for process, _, _ in running.values():
                process.terminate()


def sweep(
    jobs: Sequence[Job], engine: Engine, say: Callable[[str], None], seconds: float | None = None,
    finished: Callable[[Job], None] = lambda job: None,
) -> None:
    """Plays every run that is not finished yet, each once, whoever asked for it.

    Args:
        jobs: The runs; those that are the same are played once.
        engine: Where they are played.
        say: Prints one line of progress.
        seconds: What one run takes, for the first estimate; ``None`` if nobody knows. Runs that finish correct it.
        finished: Called with every run as it finishes, and first with those that are finished already.

    Raises:
        RunError: If some runs failed; the others are finished then.
        ConfigError: If the configuration of one is wrong; nothing was played then.
    """  # fmt: skip
    distinct = {job.folder: job for job in jobs}
    left = {folder: job for folder, job in distinct.items() if job.summary is None}
    for job in left.values():
        _ = job.config
    expected = f"about {_duration(len(left) * seconds / engine.workers)}" if seconds else "how long is not known"
    say(f"{len(distinct)} runs, {len(distinct) - len(left)} of them finished; {expected}, {engine.workers} at a time")
    for folder, job in distinct.items():
        if folder not in left:
            finished(job)
    started, ended, failures = time.monotonic(), 0, []

    def done(job: Job, failure: str) -> None:
        nonlocal ended
        ended += 1
        if failure:
            failures.append(f"{job.folder.name}: {failure}")
        else:
            finished(job)
        elapsed = time.monotonic() - started
        rest = _duration(elapsed / ended * (len(left) - ended)) if ended < len(left) else "nothing"
        state = f"failed ({failure})" if failure else "finished"
        say(f"{ended}/{len(left)}  {job.folder.name} {state}; {rest} left")

    if left:
        engine.play(list(left.values()), done)
    if failures:
        raise RunError(
            f"{len(failures)} of {len(left)} runs failed, the first because: {failures[0]}. "
            "Mend the cause and give the same command again: what is finished is kept; --only-finished shows it."
        )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
