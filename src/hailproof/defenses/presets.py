"""The defenses that we recommend, by the kind of swarm; ``docs/defenses.md`` has the measurements that chose them.

A preset stands where a defense is named and is replaced by its chain when a run is built. It also sets what a chain
cannot: rules of the swarm and terms of the learner. What a configuration says itself is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """A chain of defenses with the settings that belong to it.

    Attributes:
        about: One line for ``hailproof list``.
        chain: The defenses by name, each with its options, in the order in which they are asked.
        settings: By section of the configuration, what else is set.
    """

    about: str
    chain: tuple[tuple[str, Mapping[str, Any]], ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "homogeneous": Preset(
        "For swarms of equal weights: completions must be the draws of their slots, of which 3 in 10 are checked.",
        (("replay", {"check": 0.3}),),
        {"swarm": {"prompt_choice": "assigned"}},
    ),
    "heterogeneous": Preset(
        "For swarms of any models: exact checks, then bound and test what each sender does to the weights.",
        (
            ("equations", {"unit": "sentence"}),
            ("imports", {}),
            ("influence", {}),
        ),
    ),
    "texts": Preset(
        "Where senders are unknown: exact checks, then learn nothing that is foreign to the own model.",
        (
            ("equations", {"unit": "sentence"}),
            ("imports", {}),
            ("token_credit", {}),
        ),
        {"learner": {"length_neutral": True}},
    ),
}
