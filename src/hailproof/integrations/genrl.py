"""genrl (0.3): what peers sent is screened before the data manager takes it, so that a rejected tree is never rewarded.

    class Manager(CodeGenerationDataManager):
        def transplant_trees(self, current_state, swarm_states, num_transplants):
            return super().transplant_trees(current_state, kept(shield, swarm_states), num_transplants)

and name ``Manager`` as the ``_target_`` of the data manager in Hydra. This is a true drop: what is left out is neither
rewarded nor in any baseline. genrl takes a payload's answers as one group of a fixed size, so a payload with one
rejected answer goes as a whole. It can neither weigh answers nor mute tokens, so that a shield whose verdicts may ask
for that is refused.
"""

from collections.abc import Mapping
from typing import Any

from hailproof.integrations.seams import check, reason_of
from hailproof.shield import Shield

QUESTIONS = ("question", "prompt", "proposal_question")


def kept(shield: Shield, swarm_states: Mapping[Any, Any], coarse: bool = False) -> dict[Any, Any]:
    """What a shield leaves of what came from the swarm: agents, to batches, to lists of payloads.

    Args:
        shield: The shield. Senders are the agents' names, groups the batches, each answer counts as rewarded.
        swarm_states: As the backend gathered it. What has not this form is left out.
        coarse: Whether a payload is left out for an answer with muted tokens or a weight below 0.5, and answers that
            weigh more count fully.

    Raises:
        ConfigError: If verdicts of the shield may ask for weights or muted tokens, unless ``coarse`` is set.
    """
    check(shield, "genrl", weighs=False, mutes=False, coarse=coarse)
    found = [
        (agent, batch, payload)
        for agent, batches in swarm_states.items() if isinstance(batches, Mapping)
        for batch, payloads in batches.items() if isinstance(payloads, list)
        for payload in payloads if _answers(payload) is not None
    ]  # fmt: skip
    rows = [(place, text) for place, (_, _, payload) in enumerate(found) for text in _answers(payload) or ()]
    result = shield.screen(
        completions=[text for _, text in rows],
        prompts=[_question(found[place][2]) for place, _ in rows],
        senders=[str(found[place][0]) for place, _ in rows],
        groups=[str(found[place][1]) for place, _ in rows],
    )
    refused = {
        place for (place, _), row in zip(rows, result, strict=True)
        if reason_of(row, weighs=False, mutes=False, coarse=coarse)
    }  # fmt: skip
    states: dict[Any, Any] = {}
    for place, (agent, batch, payload) in enumerate(found):
        if place not in refused:
            states.setdefault(agent, {}).setdefault(batch, []).append(payload)
    return states


def _answers(payload: Any) -> list[str] | None:
    """The texts of a payload; ``None`` if its actions are no texts."""
    actions = getattr(payload, "actions", None)
    answers = [actions] if isinstance(actions, str) else actions
    return answers if isinstance(answers, list) and answers and all(isinstance(each, str) for each in answers) else None


def _question(payload: Any) -> str:
    environment = getattr(getattr(payload, "world_state", None), "environment_states", None)
    if not isinstance(environment, Mapping):
        return ""
    return next((str(environment[name]) for name in QUESTIONS if isinstance(environment.get(name), str)), "")
