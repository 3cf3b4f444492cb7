"""Models and tokenizers as trainers have them: wrappers are taken off for reading, and everything is left as it was."""

import copy
import hashlib
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hailproof.errors import ConfigError
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.codec import TokenizerCodec
from hailproof.policies.load import load
from hailproof.policies.trainable import Trainable

SAMPLED = 1024
"""Values of each tensor that a fingerprint reads."""

INNER = ("_orig_mod", "module", "pretrained_model")
"""Where wrappers keep the model that they wrap: torch.compile, DDP and its like, value heads."""


def unwrapped(model: Any) -> PreTrainedModel:
    """The ``transformers`` model inside whatever a trainer wrapped around it; adapters stay in it.

    Raises:
        ConfigError: If there is none inside, or its weights are not whole in this process.
    """
    found: Any = model
    while not isinstance(found, PreTrainedModel):
        if isinstance(found, FullyShardedDataParallel):
            raise _sharded()
        if hasattr(found, "get_base_model"):
            if getattr(getattr(found, "active_peft_config", None), "is_prompt_learning", False):
                raise ConfigError("The model learns a prompt (peft), which is in none of its layers; use LoRA.")
            found = found.get_base_model()
            continue
        inner = next((each for name in INNER if isinstance(each := getattr(found, name, None), nn.Module)), None)
        if inner is None:
            raise ConfigError(
                f"model is a {type(found).__name__}; give a transformers causal language model, wrapped or not, or the "
                "name of a model."
            )
        found = inner
    if any(hasattr(each, "ds_id") or hasattr(each, "device_mesh") for each in found.parameters()):
        raise _sharded()
    return found


def _sharded() -> ConfigError:
    return ConfigError(
        "The model's weights are sharded over processes, so that none can read with it; give an unsharded copy, or "
        "choose defenses that need no model."
    )


def policy_of(model: Any, tokenizer: Any) -> CausalLM:
    """A policy that reads with a model in its present weights.

    Args:
        model: A model, wrapped or not; a policy of ours; or the name of one, which is loaded to be read only.
        tokenizer: Its tokenizer, or a processor that holds one.

    Raises:
        HailproofError: If they do not fit, or the model cannot be read.
    """
    if isinstance(model, CausalLM):
        return model
    if isinstance(model, str):
        return load(model, trained=False)
    inner = unwrapped(model)
    dtype = inner.dtype if inner.dtype in (torch.bfloat16, torch.float16) else torch.float32
    name = getattr(inner.config, "_name_or_path", "") or type(inner).__name__
    return CausalLM(name, inner, tokenizer_of(tokenizer), dtype)


def tokenizer_of(tokenizer: Any) -> PreTrainedTokenizerBase:
    """A tokenizer, which may be inside a processor.

    Raises:
        ConfigError: If there is none.
    """
    found = getattr(tokenizer, "tokenizer", None) if not isinstance(tokenizer, PreTrainedTokenizerBase) else tokenizer
    if not isinstance(found, PreTrainedTokenizerBase):
        raise ConfigError(f"tokenizer is a {type(tokenizer).__name__}; give the model's transformers tokenizer.")
    return found


def codec_of(tokenizer: Any) -> TokenizerCodec:
    """A codec without a model."""
    found = tokenizer_of(tokenizer)
    return TokenizerCodec(found.name_or_path or type(found).__name__, found)


def frozen_copy(policy: CausalLM) -> CausalLM:
    """The policy as it is now, on weights that nobody trains.

    Weights that are frozen beside others that are trained, as under an adapter, are shared. Where nothing is trained
    yet, nobody knows what will be, and all are copied.
    """
    model, trained = policy.model, policy.trainable.parameters()
    shared = {id(each): each for each in model.parameters() if trained and not each.requires_grad}
    copied = cast(PreTrainedModel, copy.deepcopy(model, {**shared}))
    for parameter in copied.parameters():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
    old = policy.trainable
    return policy.on(Trainable(copied, old.dtype, old.shares_prompts, old.cascades))


def fingerprint(policy: CausalLM) -> str:
    """SHA-256 of a sample of a model's weights: which weights it holds, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, each in sorted(policy.model.named_parameters()):
        values = each.detach().flatten()
        values = values[:: max(1, len(values) // SAMPLED)]
        digest.update(f"{name} {tuple(each.shape)}".encode())
        digest.update(values.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Any) -> tuple[int, ...]:
    """Token ids of a prompt as trainers make them: a text as it stands, messages by the chat template.

    Returns:
        The ids; none if the prompt cannot be written, as one with a message without a role.

    Raises:
        ConfigError: If there is no chat template for messages.
    """
    if not isinstance(prompt, str) and not tokenizer.chat_template:
        raise ConfigError("The prompts are messages, but the tokenizer has no chat template; give prompt_ids.")
    try:
        if isinstance(prompt, str):
            return tuple(tokenizer(prompt)["input_ids"])
        messages = [prompt] if isinstance(prompt, dict) else list(prompt)
        ids: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
        return tuple(ids["input_ids"])
    except Exception:  # templates are programs, and prompts may be a stranger's: they fail by any type
        return ()
