"""What can be known to go wrong before a run folder is made."""

from hailproof.rollouts import rendered_with_room
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
        render, prompt = node.policy.codec.render, swarm.task.prompt
        longest = max(asked, key=lambda problem: len(render(prompt(problem))))
        rendered_with_room(node.policy, prompt(longest), node.sampling.max_new_tokens)
