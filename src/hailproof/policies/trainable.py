"""The weights that a learner trains, and the passes over them, with gradient or without."""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from hailproof.errors import RunError
from hailproof.policies.scoring import Batch, batches, forward, forward_whole, training_parts
from hailproof.records import Row


class Trainable:
    """A model whose weights are trained in float32 and whose passes may run in lower precision.

    Args:
        model: The model, already on its device. Its weights stay the caller's: passes leave its mode as it was.
        dtype: What passes compute in; anything but float32 runs under autocast.
        shares_prompts: Whether a prompt is read once for all its completions; not all architectures can
            (:func:`hailproof.policies.checks.shares_prompts`).
        cascades: Whether completions that are drawn may attend to a prompt that lies in memory once
            (:func:`hailproof.policies.checks.cascades`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dtype: torch.dtype = torch.float32,
        shares_prompts: bool = True,
        cascades: bool = False,
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.shares_prompts = shares_prompts
        self.cascades = cascades

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def parameters(self) -> list[nn.Parameter]:
        """What an optimizer trains."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def passes(self) -> Iterator[PreTrainedModel]:
        """The model in evaluation mode and in the precision of passes; its mode is put back afterwards."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        lower = self.dtype != torch.float32
        try:
            with torch.autocast(self.device.type, self.dtype, enabled=lower):
                yield self.model
        finally:
            for module in training:
                module.training = True

    def forward(self, rows: Sequence[Row], indices: list[int]) -> Batch:
        """Runs some rows in one batch, with gradient if it is switched on."""
        with self.passes() as model:
            return (forward if self.shares_prompts else forward_whole)(model, rows, indices)

    def batches(self, rows: Sequence[Row], token_budget: int) -> Iterator[Batch]:
        """Runs rows with gradient; the caller goes backward through each batch before it asks for the next.

        Args:
            rows: The rows; each is in one batch.
            token_budget: Padded tokens of one pass.
        """
        for _, some in self.parts([[rows]], token_budget):
            for _, batch in some:
                yield batch

    def parts(
        self, parts: Sequence[Sequence[Sequence[Row]]], token_budget: int
    ) -> Iterator[tuple[int, Iterator[tuple[int, Batch]]]]:
        """Runs rows with gradient, part by part (:func:`hailproof.policies.scoring.training_parts`).

        Args:
            parts: The rows of each part, in blocks.
            token_budget: Padded tokens of one pass.

        Yields:
            Index of the part, and its batches with the index of their block; once these are used up, the parameters
            have the part's gradient.
        """
        if self.keeps_prompts:
            yield from training_parts(self.passes, parts, token_budget)
            return
        for place, blocks in enumerate(parts):
            if any(blocks):
                yield place, self._whole(blocks, token_budget)

    def _whole(self, blocks: Sequence[Sequence[Row]], token_budget: int) -> Iterator[tuple[int, Batch]]:
        for block, rows in enumerate(blocks):
            for indices in batches(rows, token_budget):
                yield block, self.forward(rows, indices)

    @property
    def keeps_prompts(self) -> bool:
        """Whether a prompt that was read is keys and values alone, which many passes can go on from."""
        layers = DynamicCache(config=self.model.config).layers
        return self.shares_prompts and all(isinstance(layer, DynamicLayer) for layer in layers)

    def copied(self) -> "Trainable":
        """The same weights once more; those that are not trained are shared."""
        shared = {id(parameter): parameter for parameter in self.model.parameters() if not parameter.requires_grad}
        return Trainable(copy.deepcopy(self.model, shared), self.dtype, self.shares_prompts, self.cascades)

    def frozen(self) -> "Trainable":
        """A copy that is not trained."""
        copied = self.copied()
        copied.model.requires_grad_(False)
        return copied

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights by name, those that are not trained left out."""
        fixed = {name for name, each in self.model.named_parameters(remove_duplicate=False) if not each.requires_grad}
        return {name: tensor for name, tensor in self.model.state_dict().items() if name not in fixed}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes up saved weights.

        Raises:
            RunError: If they are not those of this model; nothing has changed then.
        """
        own = self.state_dict()
        for name in sorted(own.keys() | state.keys()):
            if name not in own or name not in state or own[name].shape != state[name].shape:
                raise RunError(
                    f"The checkpoint is that of another model (tensor '{name}' differs); start the run anew."
                )
        self.model.load_state_dict(state, strict=False)
