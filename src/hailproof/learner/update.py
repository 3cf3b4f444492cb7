"""One optimizer step on the admitted completions of a round."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hailproof.errors import ModelError, RunError
from hailproof.learner.advantages import advantages
from hailproof.learner.breaker import Breaker
from hailproof.learner.by_sender import Aggregation, blocks_by_group
from hailproof.learner.config import LearnerConfig
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.learner.loss import k3_divergence, objective, token_weights
from hailproof.policies.scoring import Batch, batches
from hailproof.policies.trainable import Trainable
from hailproof.records import Group, Row, ScoredCompletion, SenderUpdate, UpdateStats


@dataclass(frozen=True, slots=True)
class _Pull:
    """What one completion adds to the objective; its sender and block of prompts."""

    sender: int
    block: int
    row: Row
    muted: frozenset[int]
    policy: float
    kl: float


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Distinct rows with number and summed weights of the completions that they stand for, and their muted tokens."""

    rows: list[Row]
    copies: list[int]
    muted: list[frozenset[int]]
    policy: list[float]
    kl: list[float]

    @classmethod
    def of(cls, pulls: Iterable[_Pull]) -> "_Weighted":
        """Merges identical completions."""
        merged: dict[tuple[Row, frozenset[int]], list[_Pull]] = {}
        for pull in pulls:
            merged.setdefault((pull.row, pull.muted), []).append(pull)
        return cls(
            rows=[row for row, _ in merged],
            copies=[len(some) for some in merged.values()],
            muted=[muted for _, muted in merged],
            policy=[sum(pull.policy for pull in some) for some in merged.values()],
            kl=[sum(pull.kl for pull in some) for some in merged.values()],
        )


@dataclass(slots=True)
class _Totals:
    """What adds up over the passes of an update."""

    loss: float = 0.0
    divergence: float = 0.0
    tokens: int = 0


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
        self.breaker = Breaker(config.breaker) if config.breaker else None
        self.aggregation = aggregation
        if aggregation is not None:
            aggregation.bind(trainable.parameters())

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
        pulls = self._pulls(groups)
        self.steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.aggregation is None:
            weighted = [_Weighted.of(pulls)]
            totals, senders = self._add_up(weighted[0]), {}
        else:
            weighted, totals, senders = self._by_sender(self.aggregation, groups, pulls)
        norm, held = 0.0, ""
        if any(each.grad is not None for each in self.trainable.parameters()):
            norm, held = self._step([row for some in weighted for row in some.rows], _rejected(groups))
        return UpdateStats(
            loss=totals.loss,
            grad_norm=norm,
            kl=totals.divergence / totals.tokens if totals.tokens else None,
            trained=sum(pull.policy != 0 for pull in pulls),
            passes=sum(len(some.rows) for some in weighted),
            skipped=int(bool(held) or not math.isfinite(norm)),
            held=held,
            senders=senders,
        )

    def _add_up(self, weighted: _Weighted) -> _Totals:
        """Goes through all rows and leaves the sum of their gradients in the parameters."""
        totals = _Totals()
        for batch in self.trainable.batches(weighted.rows, self.config.token_budget):
            self._backward(batch, weighted, totals)
        return totals

    def _by_sender(
        self, aggregation: Aggregation, groups: Sequence[Group], pulls: Sequence[_Pull]
    ) -> tuple[list[_Weighted], _Totals, dict[int, SenderUpdate]]:
        """Goes through all rows, sender by sender, and leaves what the aggregation makes of it in the parameters."""
        totals, parameters = _Totals(), self.trainable.parameters()
        blocks = range(aggregation.blocks)
        senders = sorted({pull.sender for pull in pulls})
        weighted = [
            [_Weighted.of(pull for pull in pulls if (pull.sender, pull.block) == (sender, block)) for block in blocks]
            for sender in senders
        ]
        sent = Counter(s.submission.sender for group in groups for s in group.completions if s.admitted)
        live = Counter(pull.sender for pull in pulls if pull.policy)
        size, device = sum(each.numel() for each in parameters), self.trainable.device
        gradients = {sender: torch.zeros(size, device=device) for sender in senders}
        aggregation.begin(self.steps, sent, {sender: live[sender] for sender in sent})
        rows = [[some.rows for some in mine] for mine in weighted]
        for place, runs in self.trainable.parts(rows, self.config.token_budget):
            sender = senders[place]
            _lay_out(parameters, gradients[sender])
            for block, batch in runs:
                self._backward(batch, weighted[place][block], totals)
                aggregation.look(sender, block, gradients[sender])
            aggregation.look(sender, len(blocks), gradients[sender])
        combined, updates = aggregation.combine(gradients)
        self.optimizer.zero_grad(set_to_none=True)
        if combined is not None:
            _lay_out(parameters, combined)
        return [some for mine in weighted for some in mine], totals, updates

    def _backward(self, batch: Batch, weighted: _Weighted, totals: _Totals) -> None:
        """Adds the gradient of a batch to that of the parameters."""
        indices, logprobs, reference = batch.indices, batch.logprobs, None
        if self.reference is not None:
            with torch.no_grad():
                reference = self.reference.forward(weighted.rows, indices).logprobs
            copies = torch.tensor([weighted.copies[index] for index in indices], device=batch.mask.device)
            counted = batch.mask * copies[:, None]
            totals.divergence += float((k3_divergence(logprobs.detach(), reference) * counted).sum())
            totals.tokens += int(counted.sum())
        heard = _heard(batch.mask, [weighted.muted[index] for index in indices])
        pulls = logprobs.new_tensor([weighted.policy[index] for index in indices])
        kl_weights = logprobs.new_tensor([weighted.kl[index] for index in indices])
        part = objective(logprobs, batch.mask, heard, pulls, kl_weights, reference)
        part.backward()
        totals.loss += part.item()

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

    def _pulls(self, groups: Sequence[Group]) -> list[_Pull]:
        """What each admitted completion that counts adds to the objective."""
        admitted = [[scored for scored in group.completions if scored.admitted] for group in groups]
        lengths_BG = [[len(scored.row.completion) for scored in kept] for kept in admitted]
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
        blocks_B = blocks_by_group(groups, self.aggregation.blocks if self.aggregation else 1)
        pulls = []
        for kept, advantages_G, weights_G, blocks in zip(admitted, advantages_BG, weights_BG, blocks_B, strict=True):
            for scored, advantage, weight in zip(kept, advantages_G, weights_G, strict=True):
                policy, kl = weight * scored.weight * advantage, weight * self.config.beta
                if policy or kl:
                    sender = scored.submission.sender
                    pulls.append(_Pull(sender, blocks[sender], scored.row, scored.muted, policy, kl))
        return pulls

    def state_dict(self) -> dict[str, object]:
        """Weights, and everything else that the next step depends on."""
        return {
            "weights": self.trainable.state_dict(),
            "steps": self.steps,
            "optimizer": self.optimizer.state_dict(),
            "length_neutral": self.length_neutral.state_dict(),
            "breaker": self.breaker.state_dict() if self.breaker else None,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes up a saved state."""
        self.trainable.load_state_dict(state["weights"])
        self.steps = state["steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.length_neutral.load_state_dict(state["length_neutral"])
        if self.breaker:
            self.breaker.load_state_dict(state["breaker"])


def _rejected(groups: Sequence[Group]) -> float:
    """Share of the completions that a defense rejected."""
    spoken = [scored.verdicts for group in groups for scored in group.completions]
    return sum(any(each.decision == "reject" for each in verdicts) for verdicts in spoken) / max(1, len(spoken))


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


def _lay_out(parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
    """Makes the gradients of parameters views of one vector ``[P]``."""
    for parameter, part in zip(parameters, gradient.split([each.numel() for each in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
