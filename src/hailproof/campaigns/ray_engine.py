"""Plays the runs of a sweep on a Ray cluster, each as a task in a fresh process.

The folder of the runs must lie on a file system that all machines of the cluster share under one path, with locks that
hold between them (NFS 4 has such), and hailproof must be installed on all of them. A task whose process dies is played
again by Ray, on any machine; it finds the run folder, free again since its lock died with the process, and goes on
from the checkpoint.

Ray is the extra ``ray`` and is imported only when an engine is made.
"""

import importlib
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hailproof.campaigns.sweep import Job, attempt
from hailproof.errors import ConfigError

RETRIES = 3
"""How often a run is played again because its process died; what goes wrong inside a run is not tried again."""


class RayEngine:
    """Plays runs on the cluster that ``RAY_ADDRESS`` names, else on one that it starts on this machine and ends.

    Each run has one CPU. Ray is left alone if the program has joined a cluster already.

    Args:
        workers: Runs at a time; 0 for as many as the machines that have joined have room for.
        gpus_per_run: GPUs that each run is given: a share of one, or a whole number; 0 hides them from the runs.

    Raises:
        ConfigError: If Ray is not installed, the cluster cannot be joined or has no room for a run, or a number is out
            of range.
    """

    def __init__(self, workers: int, gpus_per_run: float) -> None:
        if workers < 0:
            raise ConfigError(f"RayEngine takes 0 or more workers; {workers} is less.")
        whole = gpus_per_run == math.floor(gpus_per_run) if math.isfinite(gpus_per_run) else False
        if gpus_per_run < 0 or not (whole or 0.0001 <= gpus_per_run < 1):  # Ray counts in ten-thousandths
            raise ConfigError(f"--gpus-per-run {gpus_per_run} is no share of a GPU; give 0 to 1, or a whole number.")
        self._ray = _installed()
        self._limit, self._gpus = workers, gpus_per_run
        if not workers:
            with self._joined():
                workers = self._room()
        self.workers = workers

    def play(self, jobs: Sequence[Job], done: Callable[[Job, str], None]) -> None:
        """See :class:`~hailproof.campaigns.sweep.Engine`.

        Raises:
            ConfigError: If the cluster cannot be joined, or no machine of it has room for a run.
        """
        with self._joined():
            self._room()
            # A run that has ended gives its process back, and with it all that torch has set up there.
            options = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": RETRIES, "max_calls": 1}
            task = self._ray.remote(**options)(_attempt)
            waiting, running = deque(jobs), {}
            try:
                while waiting or running:
                    while waiting and (not self._limit or len(running) < self._limit):
                        job = waiting.popleft()
                        shared = replace(job, root=job.root.resolve())
                        running[task.remote(shared, Path.cwd(), self._gpus > 0)] = job
                    ready, _ = self._ray.wait(list(running), num_returns=1)
                    done(running.pop(ready[0]), self._failure(ready[0]))
            finally:
                for reference in running:
                    self._ray.cancel(reference, force=True)

    @contextmanager
    def _joined(self) -> Iterator[None]:
        if self._ray.is_initialized():
            yield
            return
        address = os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a lab reports to nobody
            quiet["include_dashboard"] = False
        try:
            self._ray.init(address=address or "local", **quiet)
        except Exception as error:  # Ray raises what its parts raise: values, connections, run time
            what = f"The Ray cluster at {address} cannot be joined" if address else "Ray does not start here"
            raise ConfigError(f"{what} ({_first_line(error)}); check RAY_ADDRESS and the cluster.") from error
        try:
            yield
        finally:
            self._ray.shutdown()

    def _room(self) -> int:
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        room = sum(room_of(each, self._gpus) for each in resources)
        if not room:
            raise ConfigError(
                f"No machine of the Ray cluster has 1 CPU and {self._gpus:g} GPUs for a run; lower --gpus-per-run."
            )
        return room

    def _failure(self, reference: Any) -> str:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.WorkerCrashedError:
            return f"its process died, and {RETRIES} times again"
        except self._ray.exceptions.RayError as error:
            return f"Ray could not play it ({type(error).__name__}: {_first_line(error)})"


def room_of(resources: Mapping[str, float], gpus_per_run: float) -> int:
    """How many runs a machine has room for.

    Args:
        resources: What it has, by Ray's names.
        gpus_per_run: GPUs of each run; a share is never split between two GPUs.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not gpus_per_run:
        return cpus
    # 1 / 0.1 may lie below 10 by a rounding
    fitting = gpus * int(1 / gpus_per_run + 1e-9) if gpus_per_run < 1 else gpus // int(gpus_per_run)
    return min(cpus, fitting)


def _attempt(job: Job, folder: Path, sees_gpus: bool) -> str:
    if not sees_gpus:  # some versions of Ray hide them then and some do not
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if folder.is_dir():  # relative paths in a configuration mean what they meant where it was written
        os.chdir(folder)
    return attempt(job)


def _installed() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(
            "The engine 'ray' needs Ray, which is not installed; install it with: pip install 'hailproof[ray]'."
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
