"""LoRA: a low-rank addition to a model's linear layers, which is trained in the place of its weights."""

import warnings
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from hailproof.errors import ModelError
from hailproof.policies.extras import require
from hailproof.settings import Count, Section

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Section):
    """A LoRA adapter that is to be trained; needs the extra ``peft``.

    Attributes:
        r: Its rank.
        alpha: What it adds is multiplied by ``alpha / r``.
        targets: Names of the layers that get one, such as ``q_proj``; empty: all linear layers but the output.
    """

    r: Count
    alpha: Annotated[float, Field(gt=0)]
    targets: tuple[str, ...] = ()


def add_lora(name: str, model: "PreTrainedModel", lora: Lora, seed: int) -> None:
    """Adds an adapter that changes nothing yet, with float32 weights, and freezes all others; in place.

    Args:
        name: What messages call the model.
        model: The model.
        lora: The adapter.
        seed: Of its first weights; all nodes of a swarm take the same.

    Raises:
        ModelError: If the extra ``peft`` is not installed, or the model has none of the layers.
    """
    require("peft", f"LoRA on model {name}")
    import torch  # the settings above are read without it
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - any number divides
        target_modules=list(lora.targets) or "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings(), torch.random.fork_rng([]):
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers has renamed
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, model)
    except ValueError as error:
        layers = ", ".join(lora.targets)
        raise ModelError(f"Model {name} has no layers named {layers} for LoRA; set learner.lora.targets.") from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
