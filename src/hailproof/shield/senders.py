"""What each sender does to the weights of a model that somebody else trains, looked at before the trainer's step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hailproof.consequences import consequence
from hailproof.defenses.evidence import Received
from hailproof.errors import ConfigError
from hailproof.learner.by_sender import Aggregation
from hailproof.learner.config import LearnerConfig
from hailproof.learner.gradients import Gradients
from hailproof.policies.causal_lm import CausalLM
from hailproof.protocols import Admission
from hailproof.records import Group, ScoredCompletion, SenderUpdate, Verdict


def groups_of(
    evidence: Received, verdicts: Sequence[tuple[Verdict, ...]], admissions: Mapping[str, Admission]
) -> list[Group]:
    """The groups of a batch, with what becomes of each completion.

    Args:
        evidence: The batch.
        verdicts: ``[N]`` what was said of each completion.
        admissions: What each defense does with what it rejects, by name.
    """
    groups: dict[str, list[ScoredCompletion]] = {}
    for index, submission in enumerate(evidence.submissions):
        earned = evidence.rewards[index]
        fate = consequence(earned, verdicts[index], admissions)
        scored = ScoredCompletion(
            submission, evidence.rows[index], fate.reward or 0.0, earned,
            admitted=fate.reward is not None, weight=fate.weight, muted=fate.muted, verdicts=verdicts[index],
        )  # fmt: skip
        groups.setdefault(submission.problem_id, []).append(scored)
    prompts = {prompt.problem_id: prompt for prompt in evidence.prompts}
    return [Group(prompts[label], tuple(some)) for label, some in groups.items()]


@dataclass
class SenderPasses:
    """Passes over a batch that tell its senders apart.

    It costs what one pass of training costs. The model, its mode and its gradients are left as they were.

    Attributes:
        policy: The model that is trained.
        name: The defense that looks at the senders.
        aggregation: That defense.
    """

    policy: CausalLM
    name: str
    aggregation: Aggregation
    _gradients: Gradients | None = None
    _bound: tuple[int, ...] = ()

    def bind(self) -> Gradients:
        """Hands what is trained now to the defense, if it has not got it yet.

        Raises:
            ConfigError: If nothing of the model is trained, its weights are not float32, or something takes hold of
                gradients as soon as they are there, which would train on what is only looked at.
        """
        parameters = self.policy.trainable.parameters()
        types = {each.dtype for each in parameters}
        if not types:
            raise ConfigError(
                f"Defense {self.name} looks at trained weights, but no weight of the model is trainable; give the "
                "model that the trainer trains."
            )
        if types != {torch.float32}:
            raise ConfigError(
                f"Defense {self.name} adds up gradients in float32, but the trained weights are "
                f"{', '.join(sorted(map(str, types)))}; load the model as float32, or train an adapter."
            )
        if any(getattr(each, "_post_accumulate_grad_hooks", None) for each in parameters):
            raise ConfigError(
                f"Defense {self.name} runs backward passes of its own, and hooks on the model's weights would act on "
                "their gradients; choose an optimizer that steps after the whole batch, or the preset texts."
            )
        bound = tuple(map(id, parameters))
        if self._gradients is None or bound != self._bound:  # an adapter may come after the shield was built
            self._gradients = Gradients(self.policy.trainable, LearnerConfig(), 1, self.aggregation)
            self._bound = bound
        return self._gradients

    def look(self, groups: Sequence[Group], round: int) -> dict[int, SenderUpdate]:
        """Computes the gradient of each sender's completions, and asks the defense what each counts for.

        Args:
            groups: The groups of the batch, with what is admitted of them.
            round: Number of the batch.

        Raises:
            ConfigError: As :meth:`bind`.
        """
        gradients, parameters = self.bind(), self.policy.trainable.parameters()
        kept = [each.grad for each in parameters]
        try:
            with torch.inference_mode(False), torch.enable_grad():
                return gradients.compute(groups, round).senders
        finally:
            for parameter, grad in zip(parameters, kept, strict=True):
                parameter.grad = grad


def verdict_on(name: str, update: SenderUpdate) -> Verdict | None:
    """What a look at a sender says about each of its completions; ``None`` if they count in full.

    Args:
        name: The defense.
        update: What it made of the sender.
    """
    if update.excluded:
        return Verdict(name, "reject", "its sender pulls the weights one way; nothing is learned from it for now")
    if update.weight >= 1:
        return None
    reason = f"its sender's gradient has a length of {update.length:.3g} and counts for {update.weight:.3g} of it"
    return Verdict(name, "accept", reason, update.evidence or 0.0, weight=update.weight)
