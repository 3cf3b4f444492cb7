"""The settings of the learner, and those that suit the shipped nano models; without torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from hailproof.learner.advantages import ScaleRewards
from hailproof.policies.budget import TOKEN_BUDGET
from hailproof.policies.lora import Lora
from hailproof.settings import SHOWN, Count, Natural, Section

LossType = Literal["grpo", "dapo", "dr_grpo"]


Decay = Annotated[float, Field(ge=0, lt=1)]


class BreakerConfig(Section):
    """When a step is not made, since it is out of line with the last ones (``learner/breaker.py``).

    Attributes:
        times: How many times the median of the last rounds a measure may be.
        rounds: How many rounds those are; in the first half of them nothing is out of line.
        moved: Share of tokens whose probability moves much that is always in line; 1 switches that measure off, and
            what it costs.
        nats: From which change of its log-probability on a token moves much.
        rejected: Share of rejected completions that is always in line; 1 switches that measure off.
    """

    times: Annotated[float, Field(gt=1)] = 5.0
    rounds: Annotated[int, Field(ge=2, le=1000)] = 10
    moved: Annotated[float, Field(ge=0, le=1)] = 0.1
    nats: Annotated[float, Field(gt=0)] = 0.5
    rejected: Annotated[float, Field(ge=0, le=1)] = 0.5


class LearnerConfig(Section):
    """Settings of the learner; the names are TRL's, the defaults are the paper's.

    What the configuration of a swarm of shipped nano models leaves out is the nano setting (:data:`NANO`).

    Attributes:
        learning_rate: Of Adam, after warm-up.
        warmup_rounds: Rounds over which the learning rate rises linearly.
        lr_scheduler_type: ``constant``, or ``linear``: falls to zero at the end of the run.
        loss_type: Normalization of the objective.
        scale_rewards: Divisor of the advantages.
        length_neutral: Whether senders are kept from pushing toward longer answers more than others do: what goes along
            with length is then taken out of the advantages of their groups in which long answers do better. ``grpo``
            divides by each completion's length afterwards, so that what is left of the push is zero for ``dapo`` and
            ``dr_grpo`` exactly, and for ``grpo`` as far as the lengths of a group are alike.
        beta: Weight of the KL term against the frozen initial policy; 0 leaves it out.
        max_grad_norm: Gradients are clipped to this global norm; 0 switches clipping off.
        adam_beta1: Decay of Adam's first moment.
        adam_beta2: Decay of Adam's second moment.
        adam_epsilon: Added to the root of Adam's second moment; of the size of the gradients, it keeps parameters
            that hardly matter from moving as far as those that do.
        token_budget: Padded tokens per micro-batch; changes memory, not the gradient.
        lora: An adapter that is trained in place of the weights.
        breaker: When a step is not made, since it is out of line with the last ones; without, all are made.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    warmup_rounds: Natural = 0
    lr_scheduler_type: Literal["constant", "linear"] = "constant"
    loss_type: LossType = "grpo"
    scale_rewards: ScaleRewards = "group"
    length_neutral: bool = False
    beta: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    adam_beta1: Decay = 0.9
    adam_beta2: Decay = 0.999
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    token_budget: Count = TOKEN_BUDGET
    lora: Lora | None = None
    breaker: BreakerConfig | None = None

    @field_validator("lora", "breaker", mode="before")
    @classmethod
    def _is_a_table(cls, given: Any, info: ValidationInfo) -> Any:
        if given is None or isinstance(given, Mapping | Lora | BreakerConfig):
            return given
        example = "{r = 8, alpha = 16}" if info.field_name == "lora" else "{times = 5.0}"
        raise ValueError(
            f"learner.{info.field_name} = {given!r:.{SHOWN}} is no table of settings; write for example "
            f"learner.{info.field_name} = {example}"
        )


NANO: dict[str, Any] = {
    "learning_rate": 2e-4,
    "warmup_rounds": 5,
    "lr_scheduler_type": "linear",
    "adam_beta2": 0.99,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
}
"""What suits the shipped nano models at B = 16, G = 12 and 60 rounds; ``docs/regime.md`` tells how it was chosen."""
