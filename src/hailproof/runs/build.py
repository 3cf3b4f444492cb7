"""From a configuration to a swarm that can be played."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hailproof import registry
from hailproof.adversary import MaliciousNode
from hailproof.attacks.base import Forger
from hailproof.defenses import DEFENSES
from hailproof.defenses.base import BaseDefense
from hailproof.defenses.chain import Chain
from hailproof.errors import ConfigError, MismatchError
from hailproof.exchange import LocalExchange
from hailproof.learner.update import Learner
from hailproof.node import HonestNode, SampledSharing
from hailproof.plugins import make
from hailproof.policies.causal_lm import CausalLM, EngineFactory
from hailproof.policies.engine import TransformersEngine
from hailproof.policies.load import load
from hailproof.protocols import AttackMeasure, Sampling, Task
from hailproof.records import Problem
from hailproof.rewards import Rewarder
from hailproof.runs.config import AttackConfig, RunConfig
from hailproof.runs.roster import Roster, make_roster
from hailproof.runs.settle import settle
from hailproof.seeds import Seeds, derive
from hailproof.settings import validated
from hailproof.swarm import Swarm
from hailproof.topology import Planner, Rules

ENGINES: Mapping[str, EngineFactory] = {"transformers": TransformersEngine}
"""What draws and scores, by name; other packages add theirs under ``hailproof.engines``."""

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


def build(config: RunConfig) -> Experiment:
    """Builds everything that a configuration names.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """
    settled = settle(config)
    task = settled.task()
    config = _resolved(settled.config, task, settled.measure)
    sampling, seeds = config.sampling.build(), Seeds.of_run(config.seed)
    roster = make_roster(config.swarm.nodes, config.swarm.models, config.malicious)
    planner, rewarder = Planner(_rules(config), task.train), Rewarder(task)
    first = _chain(config)
    _check_chain(first, config)
    policies = {name: _loaded(config, name) for name in dict.fromkeys(config.swarm.models)}
    honest = tuple(
        _honest(
            config,
            nodes,
            policies[roster.models[nodes[0]]],
            _chain(config) if place else first,
            planner=planner,
            rewarder=rewarder,
            sampling=sampling,
            private_seed=derive(seeds.private, nodes[0]),
        )
        for place, nodes in enumerate(_alike(config, roster, "own" in first.needs))
    )
    own = {node.policy.name: node.policy for node in reversed(honest)}
    attack, measure = settled.attack, settled.measure
    malicious = tuple(
        MaliciousNode(
            node=index,
            forger=Forger(attack, config.attack),
            wants=measure.wants if measure else bool,
            policy=own.get(roster.models[index], policies[roster.models[index]]),
            planner=planner,
            rewarder=rewarder,
            sampling=sampling,
            private_seed=derive(seeds.private, index),
            defenses=tuple(plugin.name for plugin in config.defense),
            place=place,
            attackers=len(roster.malicious),
        )
        for place, index in enumerate(sorted(roster.malicious))
        if attack is not None
    )
    swarm = Swarm(
        honest=honest,
        malicious=malicious,
        planner=planner,
        task=task,
        exchange=LocalExchange(seeds.beacon),
    )
    return Experiment(config, swarm, roster, measure, {problem.id: problem for problem in task.train})


@dataclass(frozen=True, slots=True)
class Participant:
    """One node of a real swarm.

    Attributes:
        config: The settled configuration that all nodes share.
        node: The node, which learns.
        malicious: What sends in its place, in an experiment with an attacker; ``None`` for an honest node.
        problems: The train problems by id.
    """

    config: RunConfig
    node: HonestNode
    malicious: MaliciousNode | None
    problems: Mapping[str, Problem]

    def seated(self, index: int, seats: tuple[int, ...]) -> "Participant":
        """The same node in a round in which others have slots.

        Args:
            index: Its own index.
            seats: The nodes that have slots in the round.

        Raises:
            ConfigError: If there are more of them than the run deals slots to.
        """
        if self.node.nodes == (index,) and self.node.planner.present == seats:
            return self
        planner = replace(self.node.planner, seats=seats)
        node = replace(self.node, nodes=(index,), planner=planner)
        malicious = None if self.malicious is None else replace(self.malicious, node=index, planner=planner)
        return replace(self, node=node, malicious=malicious)


def shared(config: RunConfig) -> RunConfig:
    """The settled form of a configuration that the nodes of a real swarm share: whose hash names the swarm.

    Raises:
        ConfigError: If it names an attack, which only the attacker's own file may, or something is wrong with it.
    """
    if config.attack.name != "none":
        raise ConfigError(
            f"The shared configuration names the attack '{config.attack.name}'; set it in the file of the node that "
            "attacks."
        )
    settled = settle(config)
    return _resolved(settled.config, settled.task(), None)


def public_plan(config: RunConfig) -> tuple[Task, Planner]:
    """The task and the plans of a swarm, which all nodes derive alike.

    Args:
        config: What :func:`shared` gave.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """
    task = settle(config).task()
    return task, Planner(_rules(config), task.train)


def build_participant(
    config: RunConfig, index: int, private_seed: int, attack: AttackConfig | None = None, draw_seed: int | None = None
) -> Participant:
    """Builds one node of a real swarm.

    Args:
        config: What :func:`shared` gave, perhaps with another device or number of threads.
        index: The node's place among the members; of more of them than slots are dealt to, all take the same model.
        private_seed: Of the randomness that is its own.
        attack: What it does instead of sending what it should; ``None`` for an honest node.
        draw_seed: Of its draws, if nobody else shall be able to compute or repeat them; ``None``: the public one.

    Raises:
        HailproofError: One sentence about the first thing that is wrong.
    """
    settled = settle(config)
    task, sampling = settled.task(), config.sampling.build()
    planner, rewarder, chain = Planner(_rules(config), task.train), Rewarder(task), _chain(config)
    _check_chain(chain, config)
    repeating = next((each.name for each in chain.defenses if "keys" in each.needs), None)
    if draw_seed is not None and repeating is not None:
        raise MismatchError(
            f"The defense '{repeating}' repeats the draws of others, and draws = private keeps them from that; leave "
            "one of them out."
        )
    policy = _loaded(config, make_roster(config.swarm.nodes, config.swarm.models, 0).models[index % config.swarm.nodes])
    node = _honest(
        config, (index,), policy, chain,
        planner=planner, rewarder=rewarder, sampling=sampling, private_seed=private_seed,
        draw_seed=draw_seed,
    )  # fmt: skip
    malicious = None
    if attack is not None and attack.name != "none":
        tree = {**config.model_dump(exclude_unset=True), "attack": attack.model_dump(exclude_unset=True)}
        armed = settle(validated(RunConfig, tree))
        if armed.attack is not None and armed.measure is not None:
            malicious = MaliciousNode(
                node=index,
                forger=Forger(armed.attack, armed.config.attack),
                wants=armed.measure.wants,
                policy=node.policy,
                planner=planner,
                rewarder=Rewarder(task),
                sampling=sampling,
                private_seed=derive(Seeds.of_run(config.seed).private, index),
                defenses=tuple(plugin.name for plugin in config.defense),
            )
    return Participant(config, node, malicious, {problem.id: problem for problem in task.train})


def _chain(config: RunConfig) -> Chain:
    """The defenses of one node, which remember what that node saw."""
    return Chain([make("defenses", DEFENSES, plugin) for plugin in config.defense])


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


def _check_chain(chain: Chain, config: RunConfig) -> None:
    """Makes sure that the defenses of a chain agree with one another and with the length of completions.

    Raises:
        ConfigError: If they do not.
    """
    sampling = config.sampling.build()
    longest = 1.0 if config.swarm.homogeneous else TOKENIZERS_DIFFER
    parting = next((each.name for each in chain.defenses if "own" in each.needs), None)
    for defense in chain.defenses:
        if parting is not None and getattr(defense, "same_weights", False):
            raise MismatchError(
                f"The defense '{defense.name}' rejects completions of nodes with other weights, and '{parting}' makes "
                "honest nodes differ, since it compares with a node's own completions; leave one of them out."
            )
        if isinstance(defense, BaseDefense):
            defense.check_limit(math.ceil(longest * sampling.max_new_tokens))


def _loaded(config: RunConfig, name: str) -> CausalLM:
    """A model in this configuration's engine, with an adapter if one is trained."""
    swarm, lora = config.swarm, config.learner.lora
    engine: EngineFactory = registry.lookup("engines", ENGINES, swarm.engine)
    return load(
        name, swarm.device, swarm.dtype, lora=lora, lora_seed=derive(config.seed, "lora"), engine=engine
    )


def _resolved(config: RunConfig, task: Task, measure: AttackMeasure | None) -> RunConfig:
    """Writes down what was left to the task: the length of completions, and held-out problems as far as it has any.

    Raises:
        ConfigError: If more held-out problems are asked for than the task has, some on the way and it has none, or more
            targets of the attack.
    """
    sampling, evaluation, held_out = config.sampling, config.evaluation, len(task.test)
    if sampling.max_new_tokens is None:
        sampling = sampling.model_copy(update={"max_new_tokens": task.completion_tokens})
    if "problems" not in evaluation.model_fields_set:
        evaluation = evaluation.model_copy(update={"problems": min(evaluation.problems, held_out)})
    elif evaluation.problems > held_out:
        raise ConfigError(
            f"evaluation.problems = {evaluation.problems} is more than the {held_out} held-out problems of "
            f"'{config.task.name}'; lower it, or give the task more."
        )
    if evaluation.every and not evaluation.problems:
        raise ConfigError(
            f"evaluation.every = {evaluation.every} is set, but '{config.task.name}' has no held-out problems; give it "
            "some (task.options.test_data), or leave evaluation.every out."
        )
    if evaluation.targeted and measure is None:
        raise ConfigError(
            f"evaluation.targeted = {evaluation.targeted} is set, but no attack says which problems those are; set "
            "attack.name, with attack.malicious = 0 for a clean swarm, or leave it out."
        )
    targets = len(first_targets(measure, task, evaluation.targeted))
    if evaluation.targeted > targets:
        raise ConfigError(
            f"evaluation.targeted = {evaluation.targeted} is more than the {targets} held-out problems of "
            f"'{config.task.name}' that the attack can be carried out on; lower it, or give the task more."
        )
    return config.model_copy(update={"sampling": sampling, "evaluation": evaluation})


def first_targets(attack: AttackMeasure | None, task: Task, number: int) -> Sequence[Problem]:
    """The first problems of the test split that an attack can be carried out on, as far as there are so many."""
    return list(islice(filter(attack.wants, task.test), number)) if attack is not None else ()


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
    draw_seed: int | None = None,
) -> HonestNode:
    """A node on its own copy of the model."""
    policy, rules = original.copied(), config.swarm
    sampled = rules.sharing == "sampled"
    return HonestNode(
        nodes=nodes,
        policy=policy,
        learner=Learner(
            policy.trainable, config.learner, sampling.max_new_tokens, config.rounds, chain.aggregation
        ),
        chain=chain,
        planner=planner,
        rewarder=rewarder,
        sampling=sampling,
        private_seed=private_seed,
        draw_seed=draw_seed,
        decides_alike=rules.homogeneous and not sampled and "own" not in chain.needs,
        longest=1.0 if rules.homogeneous else TOKENIZERS_DIFFER,
        sharing=SampledSharing(rules.own_groups, rules.received_groups) if sampled else None,
        anchor=original if "anchor" in chain.needs else None,
    )
