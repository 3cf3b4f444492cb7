"""Loads models: a shipped one by name, a local folder, or a hub id."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hailproof.errors import ModelError
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.shipped import shipped_models


def load(name: str, device: str = "auto", dtype: str = "auto") -> CausalLM:
    """Loads a shipped model by name, a local folder, or a hub id.

    Args:
        name: ``nano-a``, a folder with ``config.json``, or a hub id such as ``Qwen/Qwen2.5-1.5B``.
        device: A torch device, or ``auto`` for the first accelerator, else the CPU.
        dtype: What passes compute in: ``float32``, ``bfloat16``, or ``auto`` for the checkpoint's own. The weights are
            float32 whatever it is.

    Raises:
        ModelError: If the model or its tokenizer does not load.
    """
    source = shipped_models().get(name, name)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source)
        model.to(torch.device(device))  # pyright: ignore[reportArgumentType] - the library's decorator hides self
        passes = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        return CausalLM(name, model, tokenizer, passes)
    except ModelError:
        raise
    except Exception as error:  # the library raises many types, all of which mean "does not load"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"Model '{name}' does not load ({reason}); give a shipped name ({', '.join(shipped_models())}), "
            "a folder with config.json, or a hub id."
        ) from error
