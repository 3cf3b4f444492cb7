"""The engines by name."""

import os

from hailproof.campaigns.sweep import Engine, LocalEngine
from hailproof.errors import ConfigError


def engine_named(name: str, workers: int = 0, gpus_per_run: float = 0.0) -> Engine:
    """Makes an engine.

    Args:
        name: ``local`` or ``ray``.
        workers: Runs at a time; 0 leaves it to the engine.
        gpus_per_run: Share of a GPU that each run gets, with Ray.

    Raises:
        ConfigError: If the name is unknown, Ray is not installed, or a number is out of range.
    """
    if workers < 0:
        raise ConfigError(f"--workers {workers} is not a number of runs; give 0 or more.")
    if name == "local":
        return LocalEngine(workers or os.cpu_count() or 1)
    if name == "ray":
        from hailproof.campaigns.ray_engine import RayEngine

        return RayEngine(workers, gpus_per_run)
    raise ConfigError(f"Unknown engine '{name}'; choose local or ray.")
