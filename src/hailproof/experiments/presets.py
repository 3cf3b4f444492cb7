"""The defenses that we recommend, by the kind of swarm; ``docs/defenses.md`` has the measurements that chose them.

A preset stands where a defense is named and is replaced by its chain when a run is built. It also sets what a chain
cannot: rules of the swarm and terms of the learner. What a configuration says itself is left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hailproof.errors import ConfigError
from hailproof.experiments.config import Plugin, RunConfig, Section, validated


@dataclass(frozen=True, slots=True)
class Preset:
    """A chain of defenses with the settings that belong to it.

    Attributes:
        about: One line for ``hailproof list``.
        chain: The defenses, in the order in which they are asked.
        settings: By section of the configuration, what else is set.
    """

    about: str
    chain: tuple[Plugin, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "homogeneous": Preset(
        "For swarms of equal weights: completions must be the draws of their slots, of which 3 in 10 are checked.",
        (Plugin(name="replay", options={"check": 0.3}),),
        {"swarm": {"prompt_choice": "assigned"}},
    ),
    "heterogeneous": Preset(
        "For swarms of different models: exact checks, then learn nothing that is foreign to the own model.",
        (
            Plugin(name="equations", options={"unit": "sentence"}),
            Plugin(name="imports"),
            Plugin(name="token_credit"),
        ),
        {"learner": {"length_neutral": True}},
    ),
}


def expanded(config: RunConfig) -> RunConfig:
    """Replaces presets among the defenses by their chains and settings.

    Raises:
        ConfigError: If a preset has options, or a setting of it does not fit the rest of the configuration.
    """
    named = [PRESETS[plugin.name] for plugin in config.defense if plugin.name in PRESETS]
    if not named:
        return config
    chain: list[Plugin] = []
    for plugin in config.defense:
        if plugin.name in PRESETS and plugin.options:
            raise ConfigError(f"The preset '{plugin.name}' takes no options; name its defenses one by one instead.")
        chain += PRESETS[plugin.name].chain if plugin.name in PRESETS else (plugin,)
    update: dict[str, Any] = {"defense": tuple(chain)}
    for preset in named:
        for name, values in preset.settings.items():
            section: Section = update.get(name, getattr(config, name))
            missing = {key: value for key, value in values.items() if key not in section.model_fields_set}
            update[name] = validated(type(section), {**section.model_dump(exclude_unset=True), **missing})
    return config.model_copy(update=update)
