"""Teacher-forced passes over prompt and completion, batched by length: for screening, for learning, for measuring."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from hailproof.policies.budget import TOKEN_BUDGET
from hailproof.policies.cache import cache_argument
from hailproof.records import Row


@dataclass(frozen=True, slots=True)
class Batch:
    """One pass over some rows.

    Attributes:
        indices: ``[N]`` positions of the rows in the caller's list.
        logits: ``[N, C, V]`` the logits that predict each completion token.
        targets: ``[N, C]`` the completion tokens, padded with 0.
        mask: ``[N, C]`` which of them are real. Padding is known by position, never by token id, so that an
            end token is scored and trained like any other.
    """

    indices: list[int]
    logits: Float[Tensor, "N C V"]
    targets: Int[Tensor, "N C"]
    mask: Bool[Tensor, "N C"]

    @property
    def logprobs(self) -> Float[Tensor, "N C"]:
        """Natural log-probability of each completion token; 0 at padding."""
        surprise = cross_entropy(self.logits.flatten(0, 1), self.targets.flatten(), reduction="none")
        return -surprise.view_as(self.targets).masked_fill(~self.mask, 0.0)


def padded_left(prompts: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
    """Prompts as one batch, padded on the left with 0, and its attention mask."""
    padded = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True, padding_side="left")
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return padded, (torch.arange(padded.shape[1]) >= padded.shape[1] - lengths[:, None]).long()


def padded_right(rows: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "N L"], Int[Tensor, "N L"]]:
    """Rows as one batch, padded on the right with 0, and its attention mask."""
    padded = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).long()


def prefill(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], cache: DynamicCache
) -> tuple[DynamicCache, Float[Tensor, "P V"], Int[Tensor, "P L"]]:
    """Reads prompts, padded on the left.

    Args:
        model: The model.
        prompts: Token ids of each prompt.
        cache: An empty cache, which is filled.

    Returns:
        The cache, the logits that predict the token after each prompt, and the attention mask.
    """
    padded, mask = (part.to(model.device) for part in padded_left(prompts))
    output = model(
        input_ids=padded,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
        **{cache_argument(model): cache},
    )
    return cache, output.logits[:, -1].float(), mask


def batches(rows: Sequence[Row], token_budget: int = TOKEN_BUDGET) -> list[list[int]]:
    """Cuts rows into batches of similar length within a budget of padded tokens; every row is in exactly one."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].completion), len(rows[index].prompt), index))
    result: list[list[int]] = []
    width = 0
    for index in order:
        grown = max(width, len(rows[index]))
        if result and grown * (len(result[-1]) + 1) <= token_budget:
            result[-1].append(index)
            width = grown
        else:
            result.append([index])
            width = len(rows[index])
    return result


def forward(model: PreTrainedModel, rows: Sequence[Row], indices: list[int]) -> Batch:
    """Runs one batch; prompts are padded on the left, completions on the right.

    A prompt goes through the model once, however many completions it has: its keys and values are handed to all of
    them, gradients included. The logits of a completion's first token come from the end of its prompt.
    """
    device = model.device
    chosen = [rows[index] for index in indices]
    prompts = list(dict.fromkeys(row.prompt for row in chosen))
    place = {prompt: index for index, prompt in enumerate(prompts)}
    owner = torch.tensor([place[row.prompt] for row in chosen], device=device)
    cache, first, prompt_mask = prefill(model, prompts, DynamicCache(config=model.config))
    cache.batch_select_indices(owner)
    targets = pad_sequence([torch.tensor(row.completion) for row in chosen], batch_first=True).to(device)
    lengths = torch.tensor([len(row.completion) for row in chosen], device=device)
    mask = torch.arange(targets.shape[1], device=device) < lengths[:, None]
    logits = first[owner, None]
    if targets.shape[1] > 1:
        attention = torch.cat([prompt_mask[owner], mask[:, :-1].long()], dim=1)
        rest = model(
            input_ids=targets[:, :-1],
            attention_mask=attention,
            position_ids=(attention.cumsum(dim=1) - 1)[:, prompt_mask.shape[1] :],
            use_cache=True,
            **{cache_argument(model): cache},
        ).logits.float()
        logits = torch.cat([logits, rest], dim=1)
    return Batch(indices, logits, targets, mask)


def forward_whole(model: PreTrainedModel, rows: Sequence[Row], indices: list[int]) -> Batch:
    """Runs one batch without a cache, every row from its first token; for models whose prompts cannot be shared.

    Rows are padded on the right, so that a model which reads from left to right meets padding after all that counts.
    """
    device = model.device
    chosen = [rows[index] for index in indices]
    ids, attention = padded_right([(*row.prompt, *row.completion[:-1]) for row in chosen])
    output = model(input_ids=ids.to(device), attention_mask=attention.to(device), use_cache=False)
    targets = pad_sequence([torch.tensor(row.completion) for row in chosen], batch_first=True).to(device)
    starts, lengths = (
        torch.tensor([len(part) for part in parts], device=device)[:, None]
        for parts in ([row.prompt for row in chosen], [row.completion for row in chosen])
    )
    steps = torch.arange(targets.shape[1], device=device)
    places = (starts - 1 + steps).clamp(max=ids.shape[1] - 1)
    logits = output.logits[torch.arange(len(chosen), device=device)[:, None], places].float()
    return Batch(indices, logits, targets, steps < lengths)
