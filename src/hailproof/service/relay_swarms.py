"""Which swarms a relay serves: their ids, and a gate for each."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import msgspec

from hailproof.errors import ConfigError
from hailproof.exchange.gate import Gate
from hailproof.exchange.standing import Standing, watched
from hailproof.exchange.stores import Store
from hailproof.service.config import SwarmFile
from hailproof.service.relay import load_roll
from hailproof.wire import SwarmId


def ids_of(files: Sequence[SwarmFile], given: Sequence[str]) -> list[str]:
    """The ids of some swarms.

    Args:
        files: The files that their nodes share.
        given: Their ids, in the same order, where the relay's machine lacks what a run needs; else none.

    Raises:
        ConfigError: If a file cannot be used, or what is given are no ids of these files.
    """
    if given and len(given) != len(files):
        raise ConfigError(f"{len(given)} times --swarm-id for {len(files)} files; give one for each, in their order.")
    for file, name in zip(files, given, strict=False):
        try:
            msgspec.convert(name, SwarmId)
        except msgspec.ValidationError:
            name = ""
        if not name.startswith(f"{file.name}-"):
            raise ConfigError(
                f"--swarm-id {name!r:.80} is no id of the swarm '{file.name}'; give what 'hailproof node --check' says."
            )
    found = list(given)
    if not found:  # in a process of its own: a relay needs no model library in its memory
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(swarm_id, files))
    if len(set(found)) < len(found):
        raise ConfigError("Two files are those of one swarm; give each once.")
    return found


def swarm_id(file: SwarmFile) -> str:
    """The id of a swarm, which depends on its settled run."""
    from hailproof.runs.build import shared

    return file.id_of(shared(file.run_config()))


def gates_of(files: Sequence[SwarmFile], ids: Sequence[str]) -> list[Gate]:
    """What is let in of each swarm."""
    return [
        Gate(file.limits_of(), file.keys, name, strangers=file.admission.seats > 0)
        for file, name in zip(files, ids, strict=True)
    ]


def standings_of(
    store: Store, folder: Path, files: Sequence[SwarmFile], ids: Sequence[str], gates: Sequence[Gate]
) -> dict[Path, Standing]:
    """Where those swarms stand whose members change, by the file beside the relay's folder in which that is kept.

    Raises:
        RunError: If such a file is damaged.
    """
    found = {}
    for file, name, gate in zip(files, ids, gates, strict=True):
        if file.admission.seats:
            path = folder.with_name(f"{folder.name}.members") / f"{name}.json"
            standing = watched(store, name, file.rolls(file.run_config().seed), gate)
            roll = load_roll(path, file.keys)
            if roll is not None:
                standing.rolls.add(roll)
                standing.admit()
            found[path] = standing
    return found
