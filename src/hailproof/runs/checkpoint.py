"""``checkpoint/state.json``: where a run stands, the configuration it was begun with, and what its files must hold."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hailproof.errors import ConfigError, RunError
from hailproof.runs.config import RunConfig
from hailproof.runs.files import Digest, read_json
from hailproof.settings import Section, validated

FORMAT = 2
"""Version of the format of run folders; those of version 1 have no ``checkpoint/state.json``."""

ANEW = "play the run again in another folder"


class Checkpoint(Section):
    """What ``checkpoint/state.json`` holds: where a run stands, and what its files must hold.

    Attributes:
        format: Version of the format of the folder.
        round: The round after which the run goes on.
        config: The resolved configuration of the run.
        rounds: The lines of ``rounds.jsonl`` up to that round.
        state: ``state-ROUND.pt``; ``None`` before the first checkpoint.
        completions: ``completions.parquet``; ``None`` until it is written.
        summary: ``summary.json``; ``None`` until the run is finished.
    """

    format: Literal[2] = FORMAT
    round: Annotated[int, Field(ge=0)]
    config: dict[str, Any]
    rounds: Digest
    state: Digest | None
    completions: Digest | None
    summary: Digest | None

    @classmethod
    def of_new_run(cls, config: RunConfig) -> "Checkpoint":
        """Where a run stands before its first round."""
        nothing = Digest.of(b"")
        return cls(
            round=0, config=_tree(config), rounds=nothing, state=None, completions=None, summary=None
        )


def _tree(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_none=True)


def pointer_of(folder: Path) -> Path:
    """The file of a run folder that says where the run stands."""
    return folder / "checkpoint" / "state.json"


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Where a run stands; ``None`` if its folder was written by a version that did not say so.

    Raises:
        RunError: If the file is damaged, or of a later version.
    """
    path = pointer_of(folder)
    found = read_json(path, ANEW, RunError)
    if found is None:
        return None
    if isinstance(found, Mapping) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
        raise RunError(
            f"{folder} has the run folder format {found['format']}, and this version of hailproof reads {FORMAT}; "
            "use the version that wrote it."
        )
    try:
        return Checkpoint.model_validate(found)
    except ValidationError as error:
        raise RunError(f"{path} is damaged ({error.errors()[0]['msg']}); {ANEW}.") from error


def check_config(path: Path, config: RunConfig, checkpoint: Checkpoint) -> None:
    """Makes sure that a run goes on with the configuration that it was begun with."""
    try:
        begun = validated(RunConfig, checkpoint.config)
    except ConfigError as error:
        raise RunError(f"{path.parent} was begun by another version of hailproof ({error}); {ANEW}.") from error
    now, then = dict(_leaves(_tree(config))), dict(_leaves(_tree(begun)))
    changed = [key for key in {**then, **now} if now.get(key) != then.get(key)]
    if changed:
        key, more = changed[0], len(changed) - 1
        others = f" (and {more} more {'key' if more == 1 else 'keys'})" if more else ""
        raise RunError(
            f"{path} was changed since the run began: {key} was {then.get(key, 'not set')!r:.60} and is "
            f"{now.get(key, 'not set')!r:.60}{others}; put it back, or play the run in another folder."
        )


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a tree."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) and tree else None
    if items is None:
        yield prefix, tree
        return
    for key, value in items:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
