"""Teacher-forced passes over prompt and completion, batched by length: for screening, for learning, for measuring."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class _Read:
    """Prompts that went through the model: their cache, logits of the token after each, attention mask, and places."""

    cache: DynamicCache
    logits: Float[Tensor, "P V"]
    mask: Int[Tensor, "P L"]
    place: dict[tuple[int, ...], int]


def _read_prompts(model: PreTrainedModel, rows: Sequence[Row]) -> _Read:
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    place = {prompt: index for index, prompt in enumerate(prompts)}
    return _Read(*prefill(model, prompts, DynamicCache(config=model.config)), place)


def forward(model: PreTrainedModel, rows: Sequence[Row], indices: list[int]) -> Batch:
    """Runs one batch; prompts are padded on the left, completions on the right.

    A prompt goes through the model once, however many completions it has: its keys and values are handed to all of
    them, gradients included. The logits of a completion's first token come from the end of its prompt.
    """
    return _go_on(model, _read_prompts(model, [rows[index] for index in indices]), rows, indices)


def _go_on(model: PreTrainedModel, read: _Read, rows: Sequence[Row], indices: list[int]) -> Batch:
    """Runs the completions of some rows behind their prompts; uses up the prompts' cache."""
    device = model.device
    chosen = [rows[index] for index in indices]
    owner = torch.tensor([read.place[row.prompt] for row in chosen], device=device)
    read.cache.batch_select_indices(owner)
    targets = pad_sequence([torch.tensor(row.completion) for row in chosen], batch_first=True).to(device)
    lengths = torch.tensor([len(row.completion) for row in chosen], device=device)
    mask = torch.arange(targets.shape[1], device=device) < lengths[:, None]
    logits = read.logits[owner, None]
    if targets.shape[1] > 1:
        attention = torch.cat([read.mask[owner], mask[:, :-1].long()], dim=1)
        rest = model(
            input_ids=targets[:, :-1],
            attention_mask=attention,
            position_ids=(attention.cumsum(dim=1) - 1)[:, read.mask.shape[1] :],
            use_cache=True,
            **{cache_argument(model): read.cache},
        ).logits.float()
        logits = torch.cat([logits, rest], dim=1)
    return Batch(indices, logits, targets, mask)


def training_parts(
    passes: Callable[[], AbstractContextManager[PreTrainedModel]],
    parts: Sequence[Sequence[Sequence[Row]]],
    token_budget: int,
) -> Iterator[tuple[int, Iterator[tuple[int, Batch]]]]:
    """Runs rows with gradient, part by part, so that the gradient of each part can be told apart.

    The caller goes backward through every batch of a part before it asks for the next batch, and uses up a part before
    it asks for the next part. Prompts are read once for all parts. The batches of a part go backward to the prompts'
    keys, values and last logits, where their gradients add up; after the last of them the part goes on from there.

    Args:
        passes: Gives the model, ready for a pass.
        parts: The rows of each part, in blocks; no batch holds rows of two blocks.
        token_budget: Padded tokens of one pass, over prompts or over rows.

    Yields:
        Index of the part, and its batches, each with the index of its block; indices of rows count within the block. A
        part comes more than once if its prompts take more than one pass.
    """
    prompts = list(dict.fromkeys(row.prompt for part in parts for rows in part for row in rows))
    for places in batches([Row(prompt, ()) for prompt in prompts], token_budget):
        some = {prompts[place] for place in places}
        chosen = [[[i for i, row in enumerate(rows) if row.prompt in some] for rows in part] for part in parts]
        with passes() as model:
            cut = _Cut(_read_prompts(model, [Row(prompts[place], ()) for place in sorted(places)]))
        present = [place for place, blocks in enumerate(chosen) if any(blocks)]
        for place in present:
            more = place != present[-1]
            yield place, _part(passes, cut, parts[place], chosen[place], token_budget, more)


def _part(
    passes: Callable[[], AbstractContextManager[PreTrainedModel]],
    cut: "_Cut",
    blocks: Sequence[Sequence[Row]],
    chosen: Sequence[list[int]],
    token_budget: int,
    more: bool,
) -> Iterator[tuple[int, Batch]]:
    """The batches of those rows of a part whose prompts were read; goes on to the prompts after the last of them."""
    for block, (rows, origin) in enumerate(zip(blocks, chosen, strict=True)):
        group = [rows[index] for index in origin]
        for indices in batches(group, token_budget):
            with passes() as model:
                batch = _go_on(model, cut.read(), group, indices)
            yield block, replace(batch, indices=[origin[index] for index in indices])
    cut.backward(more)


class _Cut:
    """A place at which backward passes stop and their gradients add up, behind prompts."""

    def __init__(self, read: _Read) -> None:
        self._read = read
        self._outputs: list[Tensor] = []
        self._leaves: list[Tensor] = []
        self._logits = self._behind(read.logits)
        self._layers = [copy.copy(layer) for layer in read.cache.layers]
        for layer in self._layers:
            for name in ("keys", "values"):
                setattr(layer, name, self._behind(getattr(layer, name)))

    def _behind(self, output: Tensor) -> Tensor:
        if not output.requires_grad:
            return output
        self._outputs.append(output)
        self._leaves.append(output.detach().requires_grad_())
        return self._leaves[-1]

    def read(self) -> _Read:
        """The prompts once more, for another batch."""
        cache = copy.copy(self._read.cache)
        cache.layers = [copy.copy(layer) for layer in self._layers]
        return replace(self._read, cache=cache, logits=self._logits)

    def backward(self, more: bool) -> None:
        """Goes on with what has added up, and forgets it.

        Args:
            more: Whether the prompts will be gone backward through again.
        """
        reached = [place for place, leaf in enumerate(self._leaves) if leaf.grad is not None]
        if reached:
            outputs = [self._outputs[place] for place in reached]
            gradients = [self._leaves[place].grad for place in reached]
            torch.autograd.backward(outputs, gradients, retain_graph=more)
        for leaf in self._leaves:
            leaf.grad = None


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
