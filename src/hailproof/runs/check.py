"""What can be known to go wrong before a run folder is made."""

from collections.abc import Iterable

from hailproof.errors import ModelError
from hailproof.protocols import Policy, Task
from hailproof.records import Problem
from hailproof.runs.build import Experiment


def check(experiment: Experiment) -> None:
    """Makes sure that the first round can be planned, and that every prompt leaves room for an answer.

    Raises:
        HailproofError: If the plan cannot be made, or a prompt cannot be rendered or is too long; it names the problem.
    """
    swarm, config = experiment.swarm, experiment.config
    swarm.plan(1)
    asked = [*swarm.task.train, *swarm.task.test[: config.evaluation.problems]]
    nodes = {node.policy.name: node for node in (*swarm.malicious, *swarm.honest)}
    for node in nodes.values():
        _check_lengths(node.policy, swarm.task, asked, node.sampling.max_new_tokens)


def _check_lengths(policy: Policy, task: Task, problems: Iterable[Problem], new_tokens: int) -> None:
    lengths = {problem.id: len(policy.codec.render(task.prompt(problem))) for problem in problems}
    longest = max(lengths, key=lengths.__getitem__)
    context, length = policy.engine.context, lengths[longest]
    room = context - length
    if new_tokens > room:
        lower = f"lower sampling.max_new_tokens to {room}, or " if room > 0 else ""
        raise ModelError(
            f"The prompt of problem '{longest}' has {length} tokens, and with {new_tokens} new ones "
            f"(sampling.max_new_tokens) it does not fit into the context of {policy.name}, {context} tokens; "
            f"{lower}leave the problem out of the data."
        )
