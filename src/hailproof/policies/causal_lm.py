"""A ``transformers`` causal language model with its tokenizer, as codec, trainable weights and engine."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
        self.name = name
        self.codec = TokenizerCodec(name, tokenizer, end_ids_of(model, tokenizer))
        self.trainable = Trainable(model, dtype)
        self.engine = engine(self.trainable, self.codec)
        self._engine_factory = engine

    @property
    def model(self) -> PreTrainedModel:
        """The model itself."""
        return self.trainable.model

    def copied(self) -> "CausalLM":
        """The same policy on weights of its own."""
        trainable = self.trainable.copied()
        return CausalLM(self.name, trainable.model, self.codec.tokenizer, trainable.dtype, self._engine_factory)


def end_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end a completion: the tokenizer's end token, then those that the generation settings list."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *listed) if isinstance(i, int)))
