"""One optimizer step on the admitted completions of a round."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hailproof.errors import ModelError, RunError
from hailproof.learner.advantages import advantages
from hailproof.learner.config import LearnerConfig
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.learner.loss import k3_divergence, objective, token_weights
from hailproof.policies.trainable import Trainable
from hailproof.records import Group, Row, ScoredCompletion, UpdateStats


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Distinct rows with number and summed weights of the completions that they stand for, and their muted tokens."""

    rows: list[Row]
    copies: list[int]
    muted: list[frozenset[int]]
    policy: list[float]
    kl: list[float]
    trained: int


class Learner:
    """GRPO on one model: keeps the optimizer, and the frozen reference if there is a KL term.

    Args:
        trainable: The weights to be trained, in place.
        config: Settings.
        max_new_tokens: Length limit of completions, for ``dr_grpo``.
        rounds: Length of the run, for ``linear``.

    Raises:
        ModelError: If the weights are not float32.
    """

    def __init__(self, trainable: Trainable, config: LearnerConfig, max_new_tokens: int, rounds: int) -> None:
        types = {parameter.dtype for parameter in trainable.parameters()}
        if types != {torch.float32}:
            raise ModelError(
                f"The weights to be trained are {', '.join(sorted(map(str, types))) or 'none'}; load them as float32, "
                "since small steps vanish in lower precision (passes over them may still be bfloat16)."
            )
        self.trainable = trainable
        self.config = config
        self.rounds = rounds
        self.max_new_tokens = max_new_tokens
        self.steps = 0
        self.length_neutral = LengthNeutral()
        self.optimizer = torch.optim.Adam(
            trainable.parameters(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )
        self.reference = trainable.frozen() if config.beta else None

    @property
    def hears_all(self) -> bool:
        """Whether groups without variance in their rewards change the update too: with a KL term they do."""
        return bool(self.config.beta)

    def update(self, groups: Sequence[Group]) -> UpdateStats:
        """Makes one step.

        Identical completions of a group go through the model once, with their weights added; completions without
        weight do not go through it at all. Both leave the gradient as it is. A step whose gradient is no number is not
        made, so that no text on which a model overflows can destroy it; the statistics count it.

        Raises:
            RunError: If the weights are not finite afterwards.
        """
        weighted = self._weigh(groups)
        self.steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        loss, divergence, tokens = 0.0, 0.0, 0
        for batch in self.trainable.batches(weighted.rows, self.config.token_budget):
            indices, logprobs, reference = batch.indices, batch.logprobs, None
            if self.reference is not None:
                with torch.no_grad():
                    reference = self.reference.forward(weighted.rows, indices).logprobs
                copies = torch.tensor([weighted.copies[index] for index in indices], device=batch.mask.device)
                counted = batch.mask * copies[:, None]
                divergence += float((k3_divergence(logprobs.detach(), reference) * counted).sum())
                tokens += int(counted.sum())
            heard = _heard(batch.mask, [weighted.muted[index] for index in indices])
            pulls = logprobs.new_tensor([weighted.policy[index] for index in indices])
            kl_weights = logprobs.new_tensor([weighted.kl[index] for index in indices])
            part = objective(logprobs, batch.mask, heard, pulls, kl_weights, reference)
            part.backward()
            loss += part.item()
        norm = 0.0
        if weighted.rows:
            limit = self.config.max_grad_norm or float("inf")
            norm = float(torch.nn.utils.clip_grad_norm_(self.trainable.parameters(), limit))
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = self.learning_rate(self.steps)
            if math.isfinite(norm):
                self.optimizer.step()
                self._require_finite()
        kl = divergence / tokens if tokens else None
        skipped = int(not math.isfinite(norm))
        return UpdateStats(loss, norm, kl, weighted.trained, len(weighted.rows), skipped)

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

    def _weigh(self, groups: Sequence[Group]) -> _Weighted:
        """Turns groups into distinct rows with summed weights."""
        admitted = [[scored for scored in group.completions if scored.admitted] for group in groups]
        rows = [[scored.row for scored in kept] for kept in admitted]
        lengths_BG = [[len(row.completion) for row in rows_G] for rows_G in rows]
        shares_BG = [
            [_share(*pair) for pair in zip(kept, lengths_G, strict=True)]
            for kept, lengths_G in zip(admitted, lengths_BG, strict=True)
        ]
        rewards_BG = [[scored.reward for scored in kept] for kept in admitted]
        advantages_BG = advantages(rewards_BG, self.config.scale_rewards, shares_BG)
        if self.config.length_neutral:
            senders_BG = [[scored.submission.sender for scored in kept] for kept in admitted]
            advantages_BG = self.length_neutral(advantages_BG, lengths_BG, shares_BG, senders_BG)
        weights_BG = token_weights(lengths_BG, self.config.loss_type, self.max_new_tokens)
        copies: Counter[tuple[Row, frozenset[int]]] = Counter()
        policy: dict[tuple[Row, frozenset[int]], float] = {}
        kl: dict[tuple[Row, frozenset[int]], float] = {}
        trained = 0
        for kept, rows_G, advantages_G, weights_G in zip(admitted, rows, advantages_BG, weights_BG, strict=True):
            for scored, row, advantage, weight in zip(kept, rows_G, advantages_G, weights_G, strict=True):
                pull = weight * scored.weight * advantage
                trained += pull != 0
                if pull or self.config.beta:
                    key = (row, scored.muted)
                    copies[key] += 1
                    policy[key] = policy.get(key, 0.0) + pull
                    kl[key] = kl.get(key, 0.0) + weight * self.config.beta
        distinct, muted = [row for row, _ in policy], [tokens for _, tokens in policy]
        return _Weighted(distinct, list(copies.values()), muted, list(policy.values()), list(kl.values()), trained)

    def state_dict(self) -> dict[str, object]:
        """Weights, and everything else that the next step depends on."""
        return {
            "weights": self.trainable.state_dict(),
            "steps": self.steps,
            "optimizer": self.optimizer.state_dict(),
            "length_neutral": self.length_neutral.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes up a saved state."""
        self.trainable.load_state_dict(state["weights"])
        self.steps = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.length_neutral.load_state_dict(state["length_neutral"])


def _share(scored: ScoredCompletion, length: int) -> float:
    """How much of a completion is learned from: its weight, times the share of its tokens that is not muted."""
    muted = sum(0 <= token < length for token in scored.muted)
    return scored.weight * (1 - muted / length) if length else 0.0


def _heard(mask: Tensor, muted: Sequence[frozenset[int]]) -> Tensor:
    """The mask ``[N, C]`` without the tokens from which nothing is learned."""
    heard = mask.clone()
    for row, tokens in enumerate(muted):
        if tokens:
            heard[row, [token for token in tokens if 0 <= token < mask.shape[1]]] = False
    return heard
