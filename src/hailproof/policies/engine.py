"""The engine on a ``transformers`` model in this process: draws, scores and candidates, batched across prompts."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hailproof.policies.reading import CachedReader, CascadeMemory, Reader, RowMemory, WholeReader
from hailproof.policies.sampling import draw, gap_below_allowed, top
from hailproof.policies.scoring import Batch, batches
from hailproof.policies.trainable import Trainable
from hailproof.protocols import Candidates, Codec, Guide, Sampling, TokenScores
from hailproof.records import Row

ROWS_AT_ONCE = 512
"""Completions drawn side by side; bounds the memory of the key-value cache."""

ROUNDING = 1e-3
"""Nats by which logits of two float32 passes may differ: more than was ever seen, for other machines."""
ROUGH_ROUNDING = 0.2
"""The same in bfloat16: the largest seen is 0.06 in four layers, and deeper models round more often."""


class TransformersEngine:
    """Draws and scores with a model in this process.

    Args:
        trainable: The model; the engine always reads its present weights.
        codec: Says which tokens end a completion and which are barred.
    """

    def __init__(self, trainable: Trainable, codec: Codec) -> None:
        self.trainable = trainable
        self.codec = codec
        self._undrawable: Tensor | None = None

    @property
    def context(self) -> int:
        """Tokens that the model can read at once, prompt and completion together."""
        return getattr(self.trainable.model.config, "max_position_embeddings", None) or 1 << 30

    @property
    def rounding(self) -> float:
        """Nats by which a logit may differ between two passes over the same tokens; ``docs/archive``."""
        return ROUNDING if self.trainable.dtype == torch.float32 else ROUGH_ROUNDING

    def refresh(self) -> None:
        """Does nothing: the weights are read where they are trained."""

    @torch.no_grad()  # in inference mode autocast would cast the weights anew for every token
    def draw(
        self,
        prompts: Sequence[tuple[int, ...]],
        keys: Sequence[int],
        sampling: Sampling,
        guide: Guide | None = None,
    ) -> list[tuple[int, ...]]:
        """Draws one completion per prompt.

        What completions have in common at their beginning is read once, the prompt above all; rows that have ended
        leave the batch. What is drawn depends on weights, prompt and key only, as far as floating-point sums of
        different batch shapes agree.
        """
        drawn: list[tuple[int, ...]] = []
        with self.trainable.passes() as model:
            for start in range(0, len(prompts), ROWS_AT_ONCE):
                end = start + ROWS_AT_ONCE
                drawn += self._draw(model, prompts[start:end], keys[start:end], sampling, guide)
        return drawn

    def _draw(
        self,
        model: PreTrainedModel,
        prompts: Sequence[tuple[int, ...]],
        keys_N: Sequence[int],
        sampling: Sampling,
        guide: Guide | None,
    ) -> list[tuple[int, ...]]:
        device = model.device
        reader = self._reader(model, prompts)
        keys = torch.tensor(keys_N, device=device)
        rows = torch.arange(len(prompts), device=device)
        ends = torch.tensor(self.codec.end_ids, device=device)
        drawn = torch.full((len(prompts), sampling.max_new_tokens), -1, dtype=torch.long, device=device)
        for position in range(sampling.max_new_tokens):
            self._bar(reader.logits)
            steer = None if guide is None else _steering(guide, drawn[rows, :position])
            tokens = draw(reader.logits, keys, torch.full_like(keys, position), sampling, steer, reader.branch)
            drawn[rows, position] = tokens
            kept = (~torch.isin(tokens, ends)).nonzero().squeeze(-1)
            if not len(kept) or position + 1 == sampling.max_new_tokens:
                break
            rows, keys = rows[kept], keys[kept]
            reader.feed(kept, tokens[kept])
        return [tuple(token for token in row if token >= 0) for row in drawn.tolist()]

    def _reader(self, model: PreTrainedModel, prompts: Sequence[tuple[int, ...]]) -> Reader:
        if not self.trainable.shares_prompts:
            return WholeReader(model, prompts)
        return CachedReader(model, prompts, CascadeMemory if self.trainable.cascades else RowMemory)

    def _bar(self, logits: Tensor) -> None:
        """Keeps the tokens that the codec bars out of the draw, in place."""
        if self._undrawable is None or self._undrawable.device != logits.device:
            self._undrawable = torch.tensor(self.codec.barred(logits.shape[-1]), device=logits.device).long()
        logits.index_fill_(-1, self._undrawable, -torch.inf)

    def _read(self, rows: Sequence[Row]) -> Iterator[Batch]:
        """Runs rows without gradient, batch by batch, the longest last."""
        for indices in batches(rows):
            with torch.inference_mode():
                batch = self.trainable.forward(rows, indices)
            yield batch

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], sampling: Sampling) -> list[TokenScores]:
        """Scores every completion token of every row; identical rows are computed once."""
        distinct = list(dict.fromkeys(rows))
        scored: dict[Row, TokenScores] = {}
        for batch in self._read(distinct):
            for index, parts in zip(batch.indices, self._token_scores(batch, sampling), strict=True):
                scored[distinct[index]] = TokenScores(*parts)
        return [scored[row] for row in rows]

    def candidates(self, rows: Sequence[Row], count: int) -> Iterator[tuple[int, Candidates]]:
        """Yields the most probable tokens at the places of each row; identical rows go through the model once."""
        asked: dict[Row, list[int]] = {}
        for index, row in enumerate(rows):
            asked.setdefault(row, []).append(index)
        distinct = list(asked)
        for batch in self._read(distinct):
            for index, found in zip(batch.indices, self._candidates(batch, count), strict=True):
                yield from ((each, found) for each in asked[distinct[index]])

    @torch.inference_mode()
    def _candidates(self, batch: Batch, count: int) -> list[Candidates]:
        logits = batch.logits[batch.mask]
        self._bar(logits)
        own = logits.gather(-1, batch.targets[batch.mask][:, None]).squeeze(-1)
        values, ids = top(logits, min(count, logits.shape[-1]))
        parts = (_split(part, batch) for part in (ids, values, own))
        return [Candidates(*each) for each in zip(*parts, strict=True)]

    def _token_scores(self, batch: Batch, sampling: Sampling) -> list[tuple[np.ndarray, ...]]:
        """Ids, log-probabilities, ranks and gaps of each row of a batch, as numpy arrays without padding."""
        logits, targets = batch.logits[batch.mask], batch.targets[batch.mask]
        own = logits.gather(-1, targets[:, None])
        logprobs = own.squeeze(-1) - logits.logsumexp(dim=-1)
        self._bar(logits)
        ranks = (logits > own).sum(dim=-1)
        gaps = gap_below_allowed(logits, targets, ranks, sampling)
        gaps = gaps.masked_fill(logprobs.isnan(), torch.inf)  # what is no number lies outside all limits
        return list(zip(*(_split(part, batch) for part in (targets, logprobs, ranks, gaps)), strict=True))


def _split(values: Tensor, batch: Batch) -> list[np.ndarray]:
    """The values of a batch's real tokens, ``[M, ...]``, row by row."""
    return np.split(values.cpu().numpy(), np.cumsum(batch.mask.sum(dim=1).tolist())[:-1])


def _steering(guide: Guide, drawn: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A guide as the sampler takes it."""

    def steer(ids: Tensor, values: Tensor) -> Tensor:
        adjusted = guide.adjust(drawn.cpu().numpy(), ids.cpu().numpy(), values.cpu().numpy())
        return torch.as_tensor(adjusted, device=values.device)

    return steer
