"""From a configuration to a swarm that can be played."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hailproof import registry
from hailproof.attacks import ATTACKS
from hailproof.attacks.base import Forger
from hailproof.defenses import DEFENSES
from hailproof.defenses.base import Chain
from hailproof.errors import ConfigError
from hailproof.exchange import LocalExchange
from hailproof.experiments.config import Plugin, RunConfig
from hailproof.experiments.roster import Roster, make_roster
from hailproof.learner.update import NANO, Learner
from hailproof.node import HonestNode, MaliciousNode
from hailproof.policies.causal_lm import CausalLM, load, shipped_models
from hailproof.protocols import Attack, Defense, Task
from hailproof.records import Problem
from hailproof.swarm import Swarm
from hailproof.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Experiment:
    """A swarm, and what only the experiment knows of it.

    Attributes:
        config: The configuration it was built from.
        swarm: The swarm.
        roster: Who is malicious.
        attack: The measure of success; ``None`` in a run without an attack to measure.
        problems: The train problems by id.
    """

    config: RunConfig
    swarm: Swarm
    roster: Roster
    attack: Attack | None
    problems: Mapping[str, Problem]


def make(kind: str, builtin: Mapping[str, Any], plugin: Plugin) -> Any:
    """Builds a registered thing from its name and options.

    Raises:
        ConfigError: If the name is unknown or an option is not one of its parameters.
    """
    factory = registry.lookup(kind, builtin, plugin.name)
    accepted = [name for name in inspect.signature(factory).parameters if name not in ("args", "kwargs")]
    for option in plugin.options:
        if option not in accepted:
            raise ConfigError(
                f"The {kind.removesuffix('s')} '{plugin.name}' has no option '{option}'; "
                f"its options are: {', '.join(accepted) or 'none'}."
            )
    missing = [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.default is parameter.empty and name in accepted and name not in plugin.options
    ]
    if missing:
        raise ConfigError(f"The {kind.removesuffix('s')} '{plugin.name}' needs the option '{missing[0]}'.")
    return factory(**plugin.options)


def build(config: RunConfig) -> Experiment:
    """Builds everything that a configuration names.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """
    attack: Attack | None = None if config.attack.name == "none" else make("attacks", ATTACKS, config.attack)
    for plugin in config.defense:
        make("defenses", DEFENSES, plugin)
    task: Task = make("tasks", TASKS, config.task)
    config = _resolve(config, task)
    roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
    policies = {
        name: load(name, config.swarm.device, config.swarm.dtype) for name in dict.fromkeys(config.swarm.models)
    }
    honest = tuple(_honest(config, task, nodes, policies[roster.models[nodes[0]]]) for nodes in _alike(config, roster))
    own = {node.policy.name: node.policy for node in reversed(honest)}
    malicious = tuple(
        MaliciousNode(
            index,
            Forger(attack, config.attack.decoys),
            own.get(roster.models[index], policies[roster.models[index]]),
            task,
            tuple(plugin.name for plugin in config.defense),
        )
        for index in sorted(roster.malicious)
        if attack is not None
    )
    swarm = Swarm(
        honest, malicious, task, config.swarm.topology, config.swarm.prompts, config.swarm.group_size, config.seed,
        LocalExchange(), attack.wants if attack else bool,
    )  # fmt: skip
    return Experiment(config, swarm, roster, attack, {problem.id: problem for problem in task.train})


def _resolve(config: RunConfig, task: Task) -> RunConfig:
    """Writes down what was left to the task, the models and the number of nodes."""
    sampling = config.sampling
    if sampling.max_new_tokens is None:
        sampling = sampling.model_copy(update={"max_new_tokens": task.completion_tokens})
    attack = config.attack.model_copy(update={"malicious": config.malicious})
    learner = config.learner
    if set(config.swarm.models) <= set(shipped_models()):
        learner = learner.model_copy(update={k: v for k, v in NANO.items() if k not in learner.model_fields_set})
    return config.model_copy(update={"sampling": sampling, "attack": attack, "learner": learner})


def _alike(config: RunConfig, roster: Roster) -> list[tuple[int, ...]]:
    """Honest nodes that will stay bitwise alike, together.

    Nodes of one model are alike for ever if they decide alike: in a homogeneous swarm, where all screen everything,
    or where there is no defense. A heterogeneous node trusts its own completions, so it may part from its twin.
    """
    if config.swarm.separate or (config.defense and not config.swarm.homogeneous):
        return [(index,) for index in roster.honest]
    by_model: dict[str, list[int]] = {}
    for index in roster.honest:
        by_model.setdefault(roster.models[index], []).append(index)
    return [tuple(nodes) for nodes in by_model.values()]


def _honest(config: RunConfig, task: Task, nodes: tuple[int, ...], original: CausalLM) -> HonestNode:
    """A node on its own copy of the model."""
    policy = CausalLM(original.name, copy.deepcopy(original.model), original.tokenizer)
    defenses: list[Defense] = [make("defenses", DEFENSES, plugin) for plugin in config.defense]
    sampling = config.sampling.build()
    learner = Learner(policy, config.learner.build(), sampling.max_new_tokens, config.rounds)
    return HonestNode(
        nodes, policy, learner, Chain(defenses), task, sampling, config.seed, screens_own=config.swarm.homogeneous
    )
