"""Loads models: a shipped or fetched one by name, a local folder, a LoRA folder, a GGUF file, or a hub id."""

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from hailproof.errors import ModelError
from hailproof.policies.causal_lm import CausalLM, EngineFactory
from hailproof.policies.checks import Loaded, check_files, check_tensors, first_line, rows_of
from hailproof.policies.engine import TransformersEngine
from hailproof.policies.extras import require
from hailproof.policies.fetched import fetched_folder
from hailproof.policies.hub import check_hub
from hailproof.policies.lora import Lora, add_lora
from hailproof.policies.shipped import shipped_models

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model's files are.

    Attributes:
        name: What was asked for.
        weights: The folder or hub id of the model; of a LoRA adapter, that of its base.
        tokenizer: The folder or hub id of the tokenizer.
        gguf: The file in that folder, if it is GGUF.
        adapter: The folder or hub id of the LoRA adapter, if there is one.
    """

    name: str
    weights: str
    tokenizer: str
    gguf: str | None = None
    adapter: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What every loader of the library is to be told."""
        return {"trust_remote_code": False, **({"gguf_file": self.gguf} if self.gguf else {})}


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    trained: bool = True,
    lora: Lora | None = None,
    lora_seed: int = 0,
    engine: EngineFactory = TransformersEngine,
) -> CausalLM:
    """Loads a model.

    Args:
        name: A shipped name as ``nano-a``, a fetched one as ``smollm2``, a folder with ``config.json``, a folder with
            ``adapter_config.json`` (LoRA, which is merged into its base; needs the extra ``peft``), a ``.gguf`` file
            (needs the extra ``gguf``), or a hub id such as ``Qwen/Qwen2.5-1.5B``.
        device: A torch device, or ``auto`` for the first accelerator, else the CPU.
        dtype: What passes compute in: ``float32``, ``bfloat16``, or ``auto`` for the checkpoint's own.
        trained: Whether the weights are to be trained; then they are float32 whatever passes compute in, since small
            steps vanish in lower precision. Else they are what passes compute in.
        lora: An adapter to be trained in place of the weights.
        lora_seed: Of the adapter's first weights; all nodes of a swarm take the same.
        engine: Makes the engine.

    Raises:
        ModelError: If the model or its tokenizer does not load, or the swarm cannot work with it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        source = _found(name)
        passes = _pass_type(source, dtype, trained)
        model = _model(source, torch.float32 if trained and lora is None else passes)
        tokenizer = _tokenizer(source, model)
        if lora is not None:
            add_lora(name, model, lora, lora_seed)  # before it is moved: first weights are the same on every device
        elif not trained:
            model.requires_grad_(False)
        place = torch.device(device)
        if place.type == "meta":
            raise ModelError("The device 'meta' holds no numbers; take cpu, cuda or another device that computes.")
        model.to(place)  # pyright: ignore[reportArgumentType] - the library's decorator hides self
    except ModelError:
        raise
    except Exception as error:  # the library raises many types, all of which mean "does not load"
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"Model {name} comes with code of its own (auto_map), which hailproof does not run; take a model whose "
                "architecture and tokenizer transformers has."
            ) from error
        raise ModelError(
            f"Model '{name}' does not load ({first_line(error)}); give a shipped name ({', '.join(shipped_models())}), "
            "a folder with config.json or adapter_config.json, a .gguf file, or a hub id."
        ) from error
    return CausalLM(name, model, tokenizer, passes, engine)


def _found(name: str) -> _Source:
    """Where the files of a model are."""
    if name.endswith(".gguf"):
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"Model {name}: there is no such file; check the path.")
        require("gguf", f"Model {name}")
        return _Source(name, str(path.parent), str(path.parent), gguf=path.name)
    folder = shipped_models().get(name) or fetched_folder(name) or Path(name)
    if folder.is_file():
        raise ModelError(f"Model {name} is a file; give the folder that it lies in, or a .gguf file.")
    if not folder.exists() and (folder.is_absolute() or name.startswith((".", "~"))):
        raise ModelError(f"Model {name}: there is no such folder; check the path.")
    if not folder.exists():
        check_hub(name)
    adapter = find_adapter_config_file(str(folder))
    if adapter is not None:
        return _on_its_base(name, str(folder), Path(adapter))
    if folder.is_dir():
        check_files(name, folder)
    return _Source(name, str(folder), str(folder))


def _on_its_base(name: str, folder: str, settings: Path) -> _Source:
    """A LoRA adapter on the base that its settings name; its own tokenizer, if it has one, is the one that it reads."""
    require("peft", f"Model {name}")
    base = json.loads(settings.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"Model {name}: its adapter_config.json names no base_model_name_or_path; add it.")
    found = _found(base)
    if found.adapter:
        raise ModelError(f"Model {name} is an adapter on an adapter; merge {base} into its base first.")
    own = (settings.parent / "tokenizer_config.json").is_file()
    return replace(found, name=name, tokenizer=folder if own else found.tokenizer, adapter=folder)


def _pass_type(source: _Source, dtype: str, trained: bool) -> torch.dtype:
    """What passes compute in."""
    if dtype not in ("auto", *DTYPES):
        raise ModelError(f"Model {source.name}: dtype is {dtype!r}; give auto, {', '.join(DTYPES)}.")
    if dtype == "float16" and trained:
        raise ModelError(
            f"Model {source.name}: training in float16 needs its loss scaled, which hailproof does not do; "
            "set swarm.dtype to bfloat16 or float32."
        )
    if dtype != "auto":
        return DTYPES[dtype]
    own = getattr(AutoConfig.from_pretrained(source.weights, **source.options), "dtype", None) or torch.float32
    return torch.bfloat16 if trained and own == torch.float16 else own


def _model(source: _Source, weights: torch.dtype) -> PreTrainedModel:
    """The model, each tensor of which was in the file."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source.weights,
        dtype=weights,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report, by name
        **source.options,
    )
    model, report = loaded
    check_tensors(Loaded.of_report(source.name, model, report))
    return merged(source.name, model, source.adapter) if source.adapter else model


def merged(name: str, model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """A base with a LoRA adapter added to its weights, which are changed in place.

    Args:
        name: What messages call the adapter.
        model: The base.
        adapter: The folder or hub id of the adapter.

    Raises:
        ModelError: If the adapter is another model's.
    """
    from peft import PeftConfig, get_peft_model

    settings = PeftConfig.from_pretrained(adapter)
    settings.base_model_name_or_path = model.name_or_path
    with warnings.catch_warnings():  # peft calls what transformers has renamed
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = get_peft_model(model, settings)
    report = wrapped.load_adapter(adapter, "default")
    check_tensors(Loaded(name, model, tuple(report.missing_keys), tuple(report.unexpected_keys)))
    return cast(PreTrainedModel, wrapped.merge_and_unload())


def _tokenizer(source: _Source, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, **source.options)
    if source.gguf:  # the library adds GPT-2's <|endoftext|> to what the file holds
        state, rows = json.loads(tokenizer.backend_tokenizer.to_str()), rows_of(model)
        state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < rows]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    return tokenizer
