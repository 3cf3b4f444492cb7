"""One optimizer step on the admitted completions of a round."""

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from hailproof.errors import ModelError, RunError
from hailproof.learner.breaker import Breaker
from hailproof.learner.by_sender import Aggregation
from hailproof.learner.config import LearnerConfig
from hailproof.learner.gradients import Gradients
from hailproof.policies.scoring import batches
from hailproof.policies.trainable import Trainable
from hailproof.records import Group, Row, UpdateStats

SAMPLED = 16
"""Rows by which a breaker sees how many tokens a step moves much."""


class Learner:
    """GRPO on one model: keeps the optimizer, and the frozen reference if there is a KL term.

    Args:
        trainable: The weights to be trained, in place.
        config: Settings.
        max_new_tokens: Length limit of completions, for ``dr_grpo``.
        rounds: Length of the run, for ``linear``.
        aggregation: Makes one gradient of those of the senders; ``None`` adds them up without telling them apart.

    Raises:
        ModelError: If the weights are not float32.
    """

    def __init__(
        self,
        trainable: Trainable,
        config: LearnerConfig,
        max_new_tokens: int,
        rounds: int,
        aggregation: Aggregation | None = None,
    ) -> None:
        types = {parameter.dtype for parameter in trainable.parameters()}
        if types != {torch.float32}:
            raise ModelError(
                f"The weights to be trained are {', '.join(sorted(map(str, types))) or 'none'}; load them as float32, "
                "since small steps vanish in lower precision (passes over them may still be bfloat16)."
            )
        self.trainable = trainable
        self.config = config
        self.rounds = rounds
        self.steps = 0
        self.gradients = Gradients(trainable, config, max_new_tokens, aggregation)
        self.optimizer = torch.optim.Adam(
            trainable.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )
        self.breaker = Breaker(config.breaker) if config.breaker else None

    @property
    def hears_all(self) -> bool:
        """Whether groups without variance in their rewards change the update too: with a KL term they do."""
        return bool(self.config.beta)

    def update(self, groups: Sequence[Group]) -> UpdateStats:
        """Makes one step.

        A step whose gradient is no number is not made, so that no text on which a model overflows can destroy the
        weights; the statistics count it.

        Raises:
            RunError: If the weights are not finite afterwards.
        """
        self.steps += 1
        passes = self.gradients.compute(groups, self.steps)
        norm, held = 0.0, ""
        if any(each.grad is not None for each in self.trainable.parameters()):
            norm, held = self._step(passes.rows, _rejected(groups))
        return UpdateStats(
            loss=passes.loss,
            grad_norm=norm,
            kl=passes.divergence / passes.tokens if passes.tokens else None,
            trained=passes.trained,
            passes=len(passes.rows),
            skipped=int(bool(held) or not math.isfinite(norm)),
            held=held,
            senders=passes.senders,
        )

    def _step(self, rows: Sequence[Row], rejected: float) -> tuple[float, str]:
        """Goes by the gradient that the parameters have, unless it is no number or out of line with the last ones.

        Args:
            rows: What was learned from.
            rejected: Share of the completions that were rejected.

        Returns:
            The norm of the gradient before clipping, and what was out of line, if anything was.
        """
        limit = self.config.max_grad_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.trainable.parameters(), limit))
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.learning_rate(self.steps)
        if not math.isfinite(norm):
            return norm, ""
        held = ""
        if self.breaker is None:
            self.optimizer.step()
        else:
            held = self._held_back(self.breaker, norm, rows, rejected)
        self._require_finite()
        return norm, held

    def _held_back(self, breaker: Breaker, norm: float, rows: Sequence[Row], rejected: float) -> str:
        """Makes the step and takes it back if it is out of line; returns what was out of line."""
        settings, measures = breaker.config, {"norm": norm}
        if settings.rejected < 1:
            measures["rejected"] = rejected
        weights = [each.detach().clone() for each in self.trainable.parameters()]
        optimizer = deepcopy(self.optimizer.state_dict())
        some = rows[:: math.ceil(len(rows) / SAMPLED)] if settings.moved < 1 else []
        before = self._logprobs(some)
        self.optimizer.step()
        if some:
            measures["moved"] = float(((self._logprobs(some) - before).abs() > settings.nats).float().mean())
        held = breaker.out_of_line(measures)
        if held:
            with torch.no_grad():
                for parameter, old in zip(self.trainable.parameters(), weights, strict=True):
                    parameter.copy_(old)
            self.optimizer.load_state_dict(optimizer)
        return held

    def _logprobs(self, rows: Sequence[Row]) -> Tensor:
        """``[T]`` log-probabilities of all completion tokens of some rows."""
        with torch.no_grad():
            runs = (self.trainable.forward(rows, indices) for indices in batches(rows, self.config.token_budget))
            return torch.cat([run.logprobs[run.mask] for run in runs] or [torch.zeros(0)])

    def _require_finite(self) -> None:
        """Stops what can only go wrong from here on, by one number of all weights."""
        with torch.no_grad():
            size = float(torch.nn.utils.get_total_norm(self.trainable.parameters()))
        if not math.isfinite(size):
            raise RunError(
                f"The weights are no longer finite after the update of round {self.steps}; "
                "lower learner.learning_rate, or set learner.max_grad_norm."
            )

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        warmup = self.config.warmup_rounds
        rate = self.config.learning_rate * (min(1.0, step / warmup) if warmup else 1.0)
        if self.config.lr_scheduler_type == "linear" and step > warmup:
            rate *= max(0.0, (self.rounds - step + 1) / (self.rounds - warmup))
        return rate

    def state_dict(self) -> dict[str, object]:
        """Weights, and everything else that the next step depends on."""
        return {
            "weights": self.trainable.state_dict(),
            "steps": self.steps,
            "optimizer": self.optimizer.state_dict(),
            "length_neutral": self.gradients.length_neutral.state_dict(),
            "breaker": self.breaker.state_dict() if self.breaker else None,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes up a saved state."""
        self.trainable.load_state_dict(state["weights"])
        self.steps = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.gradients.length_neutral.load_state_dict(state["length_neutral"])
        if self.breaker:
            self.breaker.load_state_dict(state["breaker"])


def _rejected(groups: Sequence[Group]) -> float:
    """Share of the completions that a defense rejected."""
    spoken = [scored.verdicts for group in groups for scored in group.completions]
    return sum(any(each.decision == "reject" for each in verdicts) for verdicts in spoken) / max(1, len(spoken))
