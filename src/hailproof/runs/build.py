"""From a configuration to a swarm that can be played."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from hailproof import registry
from hailproof.adversary import MaliciousNode
from hailproof.attacks import ATTACKS
from hailproof.attacks.base import Forger, Triggered
from hailproof.defenses import DEFENSES
from hailproof.defenses.chain import Chain
from hailproof.defenses.presets import PRESETS
from hailproof.errors import ConfigError
from hailproof.exchange import LocalExchange
from hailproof.learner.update import NANO, NANO_PROGRAMS, Learner
from hailproof.node import HonestNode, SampledSharing
from hailproof.policies.causal_lm import CausalLM, EngineFactory
from hailproof.policies.engine import TransformersEngine
from hailproof.policies.load import load
from hailproof.policies.lora import Lora
from hailproof.policies.shipped import shipped_models
from hailproof.protocols import Attack, AttackMeasure, Sampling, Task
from hailproof.records import Problem
from hailproof.rewards import Rewarder
from hailproof.runs.config import Plugin, RunConfig, Section, SwarmConfig, validated
from hailproof.runs.roster import Roster, make_roster
from hailproof.seeds import Seeds, derive
from hailproof.swarm import Swarm
from hailproof.tasks import TASKS
from hailproof.topology import Planner, Rules

P = TypeVar("P", bound=Plugin)

ENGINES: Mapping[str, EngineFactory] = {"transformers": TransformersEngine}
"""What draws and scores, by name; other packages add theirs under ``hailproof.engines``."""

TEMPLATE_TOKENS = 512
"""More tokens than a chat template adds to its texts."""

TOKENIZERS_DIFFER = 1.5
"""How many times as many tokens one tokenizer may make of a text as another, in swarms of different models."""


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
    attack: AttackMeasure | None
    problems: Mapping[str, Problem]


def make(kind: str, builtin: Mapping[str, Any], plugin: Plugin) -> Any:
    """Builds a registered thing from its name and options.

    Raises:
        ConfigError: If the name is unknown, or an option is not one of its parameters or not of its type.
    """
    return checked(kind, builtin, plugin)()


def checked(kind: str, builtin: Mapping[str, Any], plugin: Plugin) -> Callable[[], Any]:
    """What a name stands for with its options, once they are found right by name and type; builds nothing.

    Raises:
        ConfigError: If the name is unknown, or an option is not one of its parameters or not of its type.
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
    types = _types_of(factory)
    typed: dict[str, Any] = {}
    for option, value in plugin.options.items():
        try:
            typed[option] = TypeAdapter(types[option]).validate_python(value) if option in types else value
            if isinstance(value, float) and math.isnan(value):  # it would pass every comparison with a limit
                raise ConfigError(f"The option '{option}' of '{plugin.name}' is nan; give it a number.")
        except PydanticSchemaGenerationError:  # a type of somebody's own: its constructor looks at the value
            typed[option] = value
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "it should")
            raise ConfigError(
                f"The option '{option}' of the {kind.removesuffix('s')} '{plugin.name}' is {value!r}; {reason}."
            ) from error
    return functools.partial(factory, **typed)


def _types_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable's or class's parameters; none if they cannot be resolved."""
    try:
        return get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):
        return {}


def build(config: RunConfig) -> Experiment:
    """Builds everything that a configuration names.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """
    config = settled(config)
    attack = _attack(config)
    task = task_of(config)
    config = _resolved(config, task)
    sampling, seeds = config.sampling.build(), Seeds.of_run(config.seed)
    roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
    policies = {name: _loaded(config, name) for name in dict.fromkeys(config.swarm.models)}
    _require_room(config, task, policies, sampling)
    planner, rewarder = Planner(_rules(config), task.train), Rewarder(task)
    chains = [Chain([make("defenses", DEFENSES, plugin) for plugin in config.defense])]
    honest: list[HonestNode] = []
    for nodes in _alike(config, roster, "own" in chains[0].needs):
        chain = chains.pop() if chains else Chain([make("defenses", DEFENSES, plugin) for plugin in config.defense])
        original = policies[roster.models[nodes[0]]]
        honest.append(
            _honest(
                config, nodes, original, chain,
                planner=planner, rewarder=rewarder, sampling=sampling, private_seed=derive(seeds.private, nodes[0]),
            )
        )  # fmt: skip
    own = {node.policy.name: node.policy for node in reversed(honest)}
    measure = measure_of(config)
    malicious = tuple(
        MaliciousNode(
            node=index,
            forger=Forger(attack, config.attack.build()),
            wants=measure.wants if measure else bool,
            policy=own.get(roster.models[index], policies[roster.models[index]]),
            planner=planner,
            rewarder=rewarder,
            sampling=sampling,
            private_seed=derive(seeds.private, index),
            defenses=tuple(plugin.name for plugin in config.defense),
        )
        for index in sorted(roster.malicious)
        if attack is not None
    )
    swarm = Swarm(
        honest=tuple(honest),
        malicious=malicious,
        planner=planner,
        task=task,
        exchange=LocalExchange(seeds.beacon),
    )
    return Experiment(config, swarm, roster, measure, {problem.id: problem for problem in task.train})


def _rules(config: RunConfig) -> Rules:
    """What all nodes know of the rounds."""
    swarm = config.swarm
    return Rules(
        nodes=swarm.nodes,
        topology=swarm.topology,
        prompts=swarm.prompts,
        group_size=swarm.group_size,
        prompt_choice=swarm.prompt_choice,
        seed=config.seed,
    )


def _loaded(config: RunConfig, name: str) -> CausalLM:
    """A model in this configuration's engine, with an adapter if one is trained."""
    wanted = config.learner.lora
    lora = wanted and Lora(wanted.r, wanted.alpha, wanted.targets, derive(config.seed, "lora"))
    engine: EngineFactory = registry.lookup("engines", ENGINES, config.swarm.engine)
    return load(name, config.swarm.device, config.swarm.dtype, lora=lora, engine=engine)


def _require_room(config: RunConfig, task: Task, policies: Mapping[str, CausalLM], sampling: Sampling) -> None:
    """Finds the problem that a later round would stop at: its prompt does not fit into a context.

    A prompt has at most as many tokens as bytes, so few prompts are tokenized here.
    """
    problems = [*task.train, *task.test[: config.evaluation.problems]]
    for name, policy in policies.items():
        room = policy.engine.context - sampling.max_new_tokens
        for problem in problems:
            prompt = task.prompt(problem)
            if len(f"{prompt.system}{prompt.user}".encode()) + TEMPLATE_TOKENS <= room:
                continue
            tokens = len(policy.codec.render(prompt))
            if tokens > room:
                spare = policy.engine.context - tokens
                lower = f", or lower sampling.max_new_tokens to {spare}" if spare > 0 else ""
                raise ConfigError(
                    f"The prompt of problem '{problem.id}' has {tokens:,} tokens, which with sampling.max_new_tokens = "
                    f"{sampling.max_new_tokens:,} do not fit into the context of {name}, {policy.engine.context:,} "
                    f"tokens; leave the problem out, take a model with a longer context{lower}."
                )


def settled(config: RunConfig) -> RunConfig:
    """Writes down what a configuration leaves open, as far as that can be known without data and models.

    Two configurations that mean the same run become the same, and one stays what it is when a default changes later.
    What is left to the task is still open.

    Raises:
        ConfigError: If a name is unknown, or what was left open does not fit the rest.
    """
    config = expanded(config)
    for plugin in config.defense:
        checked("defenses", DEFENSES | PRESETS, plugin)
    attack = _attack(config)
    config = _with_attack_defaults(config, attack)
    learner = config.learner
    if set(config.swarm.models) <= set(shipped_models()):
        programs = config.task.name == "openmath" or config.task.options.get("variant") == "code"
        suits = NANO_PROGRAMS if programs else NANO
        learner = learner.model_copy(update={k: v for k, v in suits.items() if k not in learner.model_fields_set})
    malicious = config.attack.model_copy(update={"malicious": config.malicious})
    plain = malicious if attack is None else _with_options("attacks", ATTACKS, malicious)
    return config.model_copy(
        update={
            "learner": learner,
            "attack": plain,
            "task": _with_options("tasks", TASKS, config.task),
            "defense": tuple(_with_options("defenses", DEFENSES, plugin) for plugin in config.defense),
        }
    )


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


def _with_options(kind: str, builtin: Mapping[str, Any], plugin: P) -> P:
    """A plugin with the defaults of all options that can stand in a file."""
    parameters = inspect.signature(registry.lookup(kind, builtin, plugin.name)).parameters.values()
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, str | bool | int | float)}
    return plugin.model_copy(update={"options": {**defaults, **plugin.options}})


def measure_of(config: RunConfig) -> AttackMeasure | None:
    """The measure of success of a settled configuration's attack; ``None`` without an attack."""
    attack, composition = _attack(config), config.attack.build()
    return Triggered(attack, composition) if attack and composition.trigger else attack


def _attack(config: RunConfig) -> Attack | None:
    return None if config.attack.name == "none" else make("attacks", ATTACKS, config.attack)


def _with_attack_defaults(config: RunConfig, attack: Attack | None) -> RunConfig:
    """Writes down what the configuration leaves to the attack: topology, variant of the task, and composition."""
    swarm, task, composed = config.swarm, config.task, config.attack
    if "topology" not in swarm.model_fields_set:
        topology = attack.topology if attack else swarm.topology
        swarm = validated(SwarmConfig, {**swarm.model_dump(exclude_unset=True), "topology": topology})
    if attack is None:
        return config.model_copy(update={"swarm": swarm})
    if task.name == "word_problems" and "variant" not in task.options and attack.variant != "math":
        task = task.model_copy(update={"options": {**task.options, "variant": attack.variant}})
    left_out = {key: value for key, value in attack.composition.items() if key not in composed.model_fields_set}
    composed = composed.model_copy(update=left_out)
    return config.model_copy(update={"swarm": swarm, "task": task, "attack": composed})


def task_of(config: RunConfig) -> Task:
    """The task of a settled configuration, with the attacker's libraries installed where its programs run.

    Raises:
        ConfigError: If the attack works on the other variant.
    """
    attack = _attack(config)
    factory = registry.lookup("tasks", TASKS, config.task.name)
    takes_libraries = "libraries" in inspect.signature(factory).parameters
    installed = {"libraries": attack.libraries} if attack and attack.libraries and takes_libraries else {}
    plugin = config.task.model_copy(update={"options": {**config.task.options, **installed}})
    task: Task = make("tasks", TASKS, plugin)
    if attack and attack.variant != task.variant:
        raise ConfigError(
            f"The attack '{config.attack.name}' works on {attack.variant} tasks, but '{config.task.name}' asks for "
            f"{task.variant}; choose another task, or set task.options.variant."
        )
    return task


def _resolved(config: RunConfig, task: Task) -> RunConfig:
    """Writes down what was left to the task."""
    if config.sampling.max_new_tokens is not None:
        return config
    sampling = config.sampling.model_copy(update={"max_new_tokens": task.completion_tokens})
    return config.model_copy(update={"sampling": sampling})


def _alike(config: RunConfig, roster: Roster, uses_own: bool) -> list[tuple[int, ...]]:
    """Honest nodes that will stay bitwise alike, together.

    Nodes of one model are alike for ever if they decide alike: in a homogeneous swarm, where all screen everything,
    or where there is no defense. A heterogeneous node trusts its own completions, so it may part from its twin, and so
    does one with a defense that compares with its own completions.
    """
    samples = config.swarm.sharing == "sampled"  # each node draws its own groups to learn from
    if config.swarm.separate or samples or uses_own or (config.defense and not config.swarm.homogeneous):
        return [(index,) for index in roster.honest]
    by_model: dict[str, list[int]] = {}
    for index in roster.honest:
        by_model.setdefault(roster.models[index], []).append(index)
    return [tuple(nodes) for nodes in by_model.values()]


def _honest(
    config: RunConfig,
    nodes: tuple[int, ...],
    original: CausalLM,
    chain: Chain,
    *,
    planner: Planner,
    rewarder: Rewarder,
    sampling: Sampling,
    private_seed: int,
) -> HonestNode:
    """A node on its own copy of the model."""
    policy, rules = original.copied(), config.swarm
    sampled = rules.sharing == "sampled"
    return HonestNode(
        nodes=nodes,
        policy=policy,
        learner=Learner(policy.trainable, config.learner.build(), sampling.max_new_tokens, config.rounds),
        chain=chain,
        planner=planner,
        rewarder=rewarder,
        sampling=sampling,
        private_seed=private_seed,
        decides_alike=rules.homogeneous and not sampled and "own" not in chain.needs,
        longest=1.0 if rules.homogeneous else TOKENIZERS_DIFFER,
        sharing=SampledSharing(rules.own_groups, rules.received_groups) if sampled else None,
        anchor=original if "anchor" in chain.needs else None,
    )
