"""From a GGUF file to a ``transformers`` folder, and from that and an adapter to one with the adapter merged."""

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hailproof.policies.load import load, merged


def convert(gguf: Path, folder: Path) -> None:
    """Writes what a GGUF file of the SmolLM family holds as safetensors in float32, which is exact.

    ``transformers`` reads its tokenizer without the rule that every digit is a token of its own: it is put back, as
    the file's pre-tokenizer ``smollm`` asks for.

    Raises:
        ModelError: If the file does not load.
    """
    policy = load(str(gguf), "cpu", "float32")
    model: Any = policy.model
    tokenizer: Any = policy.codec.tokenizer
    model.hf_quantizer = None  # the weights are plain tensors by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.model_max_length = model.config.max_position_embeddings
    _save(model, tokenizer, folder)


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Writes a model with a LoRA adapter added to its weights, in float32.

    Raises:
        ModelError: If the model does not load, or the adapter is another model's.
    """
    policy = load(str(base), "cpu", "float32")
    _save(merged(adapter.name, policy.model, str(adapter)), policy.codec.tokenizer, folder)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.config.name_or_path = ""  # of the machine that it was made on
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
