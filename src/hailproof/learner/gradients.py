"""The gradients of a round's completions: what each adds to the objective, whole or told apart by sender."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hailproof.learner.advantages import advantages
from hailproof.learner.by_sender import Aggregation, blocks_by_group
from hailproof.learner.config import LearnerConfig
from hailproof.learner.length_neutral import LengthNeutral
from hailproof.learner.loss import k3_divergence, objective, token_weights
from hailproof.policies.scoring import Batch
from hailproof.policies.trainable import Trainable
from hailproof.records import Group, Row, ScoredCompletion, SenderUpdate


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
class Passes:
    """What adds up over the passes of an update.

    Attributes:
        loss: Value of the objective.
        divergence: Sum of the KL estimates of all tokens.
        tokens: How many those are.
        rows: The rows that went through the model.
        trained: Completions with an advantage.
        senders: What became of each sender, if they were told apart.
    """

    loss: float = 0.0
    divergence: float = 0.0
    tokens: int = 0
    rows: Sequence[Row] = ()
    trained: int = 0
    senders: dict[int, SenderUpdate] = field(default_factory=dict)


class Gradients:
    """Goes through the completions of a round and leaves their gradient in the parameters.

    Identical completions of a group go through the model once, with their weights added; completions without weight do
    not go through it at all. Both leave the gradient as it is.

    Args:
        trainable: The weights.
        config: The settings of the objective.
        max_new_tokens: Length limit of completions, for ``dr_grpo``.
        aggregation: Makes one gradient of those of the senders; ``None`` adds them up without telling them apart.
    """

    def __init__(
        self, trainable: Trainable, config: LearnerConfig, max_new_tokens: int, aggregation: Aggregation | None = None
    ) -> None:
        self.trainable, self.config, self.max_new_tokens = trainable, config, max_new_tokens
        self.length_neutral = LengthNeutral()
        self.reference = trainable.frozen() if config.beta else None
        self.aggregation = aggregation
        if aggregation is not None:
            aggregation.bind(trainable.parameters())

    def compute(self, groups: Sequence[Group], round: int) -> Passes:
        """Leaves the gradient in the parameters; those have none where there is nothing to learn.

        Args:
            groups: The groups of the round.
            round: Number of the update, from 1.
        """
        pulls, passes = self._pulls(groups), Passes()
        passes.trained = sum(pull.policy != 0 for pull in pulls)
        for parameter in self.trainable.parameters():
            parameter.grad = None
        if self.aggregation is None:
            self._together(pulls, passes)
        else:
            self._by_sender(self.aggregation, groups, pulls, passes, round)
        return passes

    def _together(self, pulls: Sequence[_Pull], passes: Passes) -> None:
        """Goes through all rows and leaves the sum of their gradients in the parameters."""
        weighted = _Weighted.of(pulls)
        passes.rows = weighted.rows
        for batch in self.trainable.batches(weighted.rows, self.config.token_budget):
            self._backward(batch, weighted, passes)

    def _by_sender(
        self, aggregation: Aggregation, groups: Sequence[Group], pulls: Sequence[_Pull], passes: Passes, round: int
    ) -> None:
        """Goes through all rows, sender by sender, and leaves what the aggregation makes of it in the parameters."""
        parameters = self.trainable.parameters()
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
        aggregation.begin(round, sent, {sender: live[sender] for sender in sent})
        rows = [[some.rows for some in mine] for mine in weighted]
        for place, runs in self.trainable.parts(rows, self.config.token_budget):
            sender = senders[place]
            _lay_out(parameters, gradients[sender])
            for block, batch in runs:
                self._backward(batch, weighted[place][block], passes)
                aggregation.look(sender, block, gradients[sender])
            aggregation.look(sender, len(blocks), gradients[sender])
        combined, passes.senders = aggregation.combine(gradients)
        for parameter in parameters:
            parameter.grad = None
        if combined is not None:
            _lay_out(parameters, combined)
        passes.rows = [row for mine in weighted for some in mine for row in some.rows]

    def _backward(self, batch: Batch, weighted: _Weighted, passes: Passes) -> None:
        """Adds the gradient of a batch to that of the parameters."""
        indices, logprobs, reference = batch.indices, batch.logprobs, None
        if self.reference is not None:
            with torch.no_grad():
                reference = self.reference.forward(weighted.rows, indices).logprobs
            copies = torch.tensor([weighted.copies[index] for index in indices], device=batch.mask.device)
            counted = batch.mask * copies[:, None]
            passes.divergence += float((k3_divergence(logprobs.detach(), reference) * counted).sum())
            passes.tokens += int(counted.sum())
        heard = _heard(batch.mask, [weighted.muted[index] for index in indices])
        pulls = logprobs.new_tensor([weighted.policy[index] for index in indices])
        kl_weights = logprobs.new_tensor([weighted.kl[index] for index in indices])
        part = objective(logprobs, batch.mask, heard, pulls, kl_weights, reference)
        part.backward()
        passes.loss += part.item()

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
