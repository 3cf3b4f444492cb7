"""What a configuration leaves open is written down: presets, the attack's own settings, what suits the models.

Two configurations that mean the same run become the same, and one stays what it is when a default changes later. The
order is that in which one decides for the next: preset, attack, task, learner, options.
"""

import inspect
from dataclasses import dataclass
from typing import Any, get_args

from hailproof import registry
from hailproof.attacks import ATTACKS
from hailproof.attacks.base import Triggered
from hailproof.defenses import DEFENSES
from hailproof.defenses.presets import PRESETS
from hailproof.errors import ConfigError, MismatchError
from hailproof.learner.config import NANO
from hailproof.plugins import checked, make, with_defaults
from hailproof.policies.shipped import shipped_models
from hailproof.protocols import Attack, AttackMeasure, Task, Variant
from hailproof.runs.config import Plugin, RunConfig, SwarmConfig
from hailproof.runs.roster import make_roster
from hailproof.settings import Section, validated
from hailproof.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Settled:
    """A configuration without anything left open but what only the data can tell.

    Attributes:
        config: The configuration.
        attack: The attack that it names; ``None`` without one.
    """

    config: RunConfig
    attack: Attack | None

    @property
    def measure(self) -> AttackMeasure | None:
        """The measure of success of the attack; ``None`` without one."""
        if self.attack is not None and self.config.attack.trigger:
            return Triggered(self.attack, self.config.attack)
        return self.attack

    def task(self) -> Task:
        """Builds the task, with the attacker's libraries installed where its programs run.

        Raises:
            ConfigError: If the attack works on the other variant, or a defense reads nothing of this one.
        """
        attack, named = self.attack, self.config.task
        factory = registry.lookup("tasks", TASKS, named.name)
        takes_libraries = "libraries" in inspect.signature(factory).parameters
        installed = {"libraries": attack.libraries} if attack and attack.libraries and takes_libraries else {}
        task: Task = make("tasks", TASKS, named.model_copy(update={"options": {**named.options, **installed}}))
        if attack and attack.variant != task.variant:
            raise ConfigError(
                f"The attack '{attack.name}' works on {attack.variant} tasks, but '{named.name}' asks for "
                f"{task.variant}; choose another task, or set task.options.variant."
            )
        _check_defenses(self.config, task.variant)
        return task


def settle(config: RunConfig) -> Settled:
    """Writes down what a configuration leaves open, as far as that can be known without data and models.

    Raises:
        ConfigError: If a name is unknown, or what was left open does not fit the rest.
    """
    config = expanded(config)
    for plugin in config.defense:
        checked("defenses", {**DEFENSES, **PRESETS}, plugin)
    attack = None if config.attack.name == "none" else make("attacks", ATTACKS, config.attack)
    config = _with_attack_defaults(config, attack)
    learner, shipped = config.learner, set(config.swarm.models) <= set(shipped_models())
    if shipped:
        suits = {**NANO, "warmup_rounds": min(NANO["warmup_rounds"], config.rounds)}
        learner = learner.model_copy(update={k: v for k, v in suits.items() if k not in learner.model_fields_set})
    if attack is not None and config.malicious:
        _check_schedule(config)
        roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
        attack.check_swarm(config.swarm.topology, roster.honest)
    malicious = config.attack.model_copy(update={"malicious": config.malicious})
    settled = config.model_copy(
        update={
            "learner": learner,
            "attack": malicious if attack is None else with_defaults("attacks", ATTACKS, malicious),
            "task": with_defaults("tasks", TASKS, config.task),
            "defense": tuple(with_defaults("defenses", DEFENSES, plugin) for plugin in config.defense),
        }
    )
    _check_defenses(settled, _variant(settled.task))
    return Settled(settled, attack)


def _check_schedule(config: RunConfig) -> None:
    """Makes sure that there are rounds to attack in, for every malicious node.

    Raises:
        ConfigError: If there are not.
    """
    attack, rounds, malicious = config.attack, range(1, config.rounds + 1), config.malicious
    if not any(map(attack.share, rounds)):
        raise ConfigError(
            f"attack.start_after = {attack.start_after} leaves none of {config.rounds} rounds to attack in; "
            "lower it, or set attack.malicious = 0 for a clean swarm."
        )
    if attack.turns and malicious == 1:
        raise ConfigError(
            f"attack.turns = {attack.turns} is for malicious nodes that take turns, but attack.malicious = 1; raise "
            "attack.malicious, or set pull and rest, with which one node attacks now and then."
        )
    for place in range(malicious):
        if not any(attack.share(round) and attack.dares(round, place, malicious, 0.0) for round in rounds):
            raise ConfigError(
                f"attack.turns = {attack.turns} leaves none of {config.rounds} rounds for the turn of malicious node "
                f"{place + 1} of {malicious}; lower it, or raise rounds."
            )


def _check_defenses(config: RunConfig, variant: Variant | None) -> None:
    """Makes sure that every defense has something to do in this swarm and on this kind of task.

    A defense that reads the other kind of answers may stand beside one that reads this kind alone: such a chain is
    made for both, as the preset ``heterogeneous``.

    Raises:
        MismatchError: If one has not.
    """
    classes = {each.name: registry.lookup("defenses", DEFENSES, each.name) for each in config.defense}
    roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
    models = list(dict.fromkeys(roster.models[node] for node in roster.honest))
    parting = ""
    if len(models) > 1:
        parting = f"honest nodes hold {' and '.join(models)}; use one model"
    elif config.swarm.sharing == "sampled":
        parting = "with swarm.sharing = sampled honest nodes differ; set it to all"
    for name, defense in classes.items():
        if parting and getattr(defense, "same_weights", False):
            raise MismatchError(
                f"The defense '{name}' rejects completions of nodes with other weights, and {parting}, or choose "
                "another defense, such as the preset 'heterogeneous'."
            )
    read = {name: tuple(getattr(defense, "variants", get_args(Variant))) for name, defense in classes.items()}
    if variant is None or (variant,) in read.values():
        return
    for name, variants in read.items():
        if variant not in variants:
            raise MismatchError(
                f"The defense '{name}' reads {' and '.join(variants)} answers, but the task '{config.task.name}' asks "
                f"for {variant}; leave it out, or choose another task."
            )


def _variant(task: Plugin) -> Variant | None:
    """The variant that a task's options choose; ``None`` if the task cannot tell before it is built."""
    variant_of = getattr(registry.lookup("tasks", TASKS, task.name), "variant_of", None)
    return variant_of(task.options) if variant_of else None


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
        if plugin.name in PRESETS:
            chain += [Plugin(name=name, options=dict(options)) for name, options in PRESETS[plugin.name].chain]
        else:
            chain.append(plugin)
    update: dict[str, Any] = {"defense": tuple(chain)}
    for preset in named:
        for name, values in preset.settings.items():
            section: Section = update.get(name, getattr(config, name))
            missing = {key: value for key, value in values.items() if key not in section.model_fields_set}
            update[name] = validated(type(section), {**section.model_dump(exclude_unset=True), **missing})
    return config.model_copy(update=update)


def _with_attack_defaults(config: RunConfig, attack: Attack | None) -> RunConfig:
    """Writes down what the configuration leaves to the attack: topology, variant of the task, and composition."""
    swarm, task, composed = config.swarm, config.task, config.attack
    if "topology" not in swarm.model_fields_set:
        topology = attack.topology if attack else swarm.topology
        swarm = validated(SwarmConfig, {**swarm.model_dump(exclude_unset=True), "topology": topology})
    if attack is None:
        return config.model_copy(update={"swarm": swarm})
    if _chooses_variant(task) and _variant(task) != attack.variant:
        task = task.model_copy(update={"options": {**task.options, "variant": attack.variant}})
    left_out = {key: value for key, value in attack.composition.items() if key not in composed.model_fields_set}
    composed = composed.model_copy(update=left_out)
    return config.model_copy(update={"swarm": swarm, "task": task, "attack": composed})


def _chooses_variant(task: Plugin) -> bool:
    """Whether a task takes its variant as an option, and the configuration leaves it out."""
    accepted = inspect.signature(registry.lookup("tasks", TASKS, task.name)).parameters
    return "variant" in accepted and "variant" not in task.options
