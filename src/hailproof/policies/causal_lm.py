"""A ``transformers`` causal language model with its tokenizer, as codec, trainable weights and engine."""

import copy
from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hailproof.policies.checks import cascades, check_model, rows_of, shares_prompts
from hailproof.policies.codec import TokenizerCodec
from hailproof.policies.engine import TransformersEngine
from hailproof.policies.trainable import Trainable
from hailproof.protocols import Codec, Engine

EngineFactory = Callable[[Trainable, Codec], Engine]
"""Makes an engine that runs the weights of a trainable model; what ``hailproof.engines`` registers."""


class CausalLM:
    """A model in its three parts; implements ``Policy``.

    Args:
        name: What records call it.
        model: The model, already on its device.
        tokenizer: Its tokenizer; if it has a chat template, prompts are rendered with it.
        dtype: What passes compute in; the weights are float32 whatever it is.
        engine: Makes the engine; by default the one in this process.

    Raises:
        ModelError: If model and tokenizer do not fit together, or the swarm cannot work with the model.

    Attributes:
        codec: Text to token ids and back.
        trainable: The weights, and passes with gradient over them.
        engine: Draws and scores.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype = torch.float32,
        engine: EngineFactory = TransformersEngine,
    ) -> None:
        check_model(name, model, tokenizer)
        self.name = name
        rows = rows_of(model)
        self.codec = TokenizerCodec(name, tokenizer, _listed_ends(model), rows)
        barred = set(self.codec.barred(rows))
        usable = [token for token in range(rows) if token not in barred] or [self.codec.end_ids[0]]
        shares = shares_prompts(name, model, usable)
        self.trainable = Trainable(model, dtype, shares, shares and cascades(model, dtype, usable))
        self.engine = engine(self.trainable, self.codec)
        self._engine_factory = engine

    @property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        return self.trainable.model

    def copied(self) -> "CausalLM":
        """The same policy on weights of its own."""
        return self.on(self.trainable.copied())

    def on(self, trainable: Trainable) -> "CausalLM":
        """The same policy on other weights of the same shape."""
        twin = copy.copy(self)
        twin.trainable = trainable
        twin.engine = self._engine_factory(twin.trainable, twin.codec)
        return twin


def _listed_ends(model: PreTrainedModel) -> list[int]:
    """The tokens that end a completion by a model's generation settings."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return [token for token in listed if isinstance(token, int)]
