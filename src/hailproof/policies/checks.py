"""What a model must be before a swarm works with it: small checks, asked in order, once, when it is loaded.

``FILES`` look at a folder, ``TENSORS`` at what the library says of the weights that it read, ``MODEL`` at model and
tokenizer. Each raises a ``ModelError`` whose sentence says what is wrong and what to do. :func:`shares_prompts` tries
how the model reads rows. (The codec tries the chat template: ``policies/templates.py``.)
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hailproof.errors import ModelError
from hailproof.policies.reading import CachedReader, CascadeMemory, Reader, RowMemory, WholeReader
from hailproof.policies.scoring import forward, forward_whole
from hailproof.policies.trainable import Trainable
from hailproof.records import Row

WRAPPERS = {
    "_orig_mod.": "torch.compile adds it; save the model that it wraps (model._orig_mod)",
    "module.": "DataParallel adds it; save the model that it wraps (model.module)",
    "base_model.model.": "peft adds it; save the adapter by itself, or merge it (model.merge_and_unload())",
}
"""Prefixes of tensor names that wrappers add, and how to do without."""

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "spiece*")
"""Patterns of the files that a folder must have one of."""

TOLERANCE = {torch.float32: 1e-2}
ROUGH_TOLERANCE = 0.25
"""How far two ways of reading may differ, in standard deviations of a place's logits: by the type of the weights."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded.

    Attributes:
        name: What messages call the model.
        model: The model.
        missing: Tensors that the model needs and the file lacks.
        unexpected: Tensors of the file that the model has no place for.
        misshapen: Name, shape in the file, and shape in the model, of tensors that do not fit.
    """

    name: str
    model: PreTrainedModel
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @classmethod
    def of_report(cls, name: str, model: PreTrainedModel, report: Mapping[str, Iterable[Any]]) -> "Loaded":
        """From what ``from_pretrained(..., output_loading_info=True)`` returns."""
        misshapen = sorted((key, tuple(file), tuple(own)) for key, file, own in report["mismatched_keys"])
        missing, unexpected = (tuple(sorted(report[key])) for key in ("missing_keys", "unexpected_keys"))
        return cls(name, model, missing, unexpected, tuple(misshapen))


def _has_config(name: str, folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"Model {name}: its folder has no config.json; give the folder that a model is in.")


def _has_weights(name: str, folder: Path) -> None:
    if not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        raise ModelError(f"Model {name}: its folder has no weights; copy its model.safetensors there.")


def _has_tokenizer(name: str, folder: Path) -> None:
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ModelError(f"Model {name}: its folder has no tokenizer; copy its tokenizer.json there.")


def _no_wrapper(loaded: Loaded) -> None:
    """Names of another wrapping would leave every weight random."""
    for prefix, advice in WRAPPERS.items():
        if loaded.missing and any(key.startswith(prefix) for key in loaded.unexpected):
            raise ModelError(f"Model {loaded.name}: its tensors' names begin with '{prefix}': {advice}.")


def _all_layers(loaded: Loaded) -> None:
    missing, unexpected = _layers(loaded.missing), _layers(loaded.unexpected)
    layers = getattr(loaded.model.config, "num_hidden_layers", None)
    if layers and unexpected and min(unexpected) >= layers:
        in_file = max(unexpected) + 1
    elif layers and missing == set(range(min(missing, default=0), layers)):
        in_file = min(missing, default=layers)
    else:
        return
    if in_file not in (0, layers):
        raise ModelError(
            f"Model {loaded.name}: config.json says {layers} layers and the weights have {in_file}; "
            "mend num_hidden_layers, or take the weights that belong to it."
        )


def _layers(keys: Iterable[str]) -> set[int]:
    return {int(found[1]) for key in keys if (found := re.search(r"\.(\d+)\.", key))}


def _shapes_fit(loaded: Loaded) -> None:
    if loaded.misshapen:
        keys, files, owns = zip(*loaded.misshapen, strict=True)
        raise ModelError(
            f"Model {loaded.name}: {_some(keys)} does not have the shape that config.json asks for "
            f"({_shape(files[0])} in the file, {_shape(owns[0])} in the model); mend config.json, or take the weights "
            "that belong to it."
        )


def _none_missing(loaded: Loaded) -> None:
    if loaded.missing:
        raise ModelError(
            f"Model {loaded.name}: the weights lack {_some(loaded.missing)}, which would be random; take a whole copy."
        )


def _none_unexpected(loaded: Loaded) -> None:
    if loaded.unexpected:
        raise ModelError(
            f"Model {loaded.name}: a {type(loaded.model).__name__} has no place for {_some(loaded.unexpected)}; mend "
            "config.json, or take the weights that belong to it."
        )


def _some(keys: Sequence[str]) -> str:
    """Names the first of some tensors, and how many more there are."""
    return f"tensor '{keys[0]}'" + (f" (and {len(keys) - 1} more)" if len(keys) > 1 else "")


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _weights_finite(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    for key, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ModelError(f"Model {name}: tensor '{key}' holds values that are not finite; take a sound copy.")


def _a_row_for_each_token(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    rows, highest = rows_of(model), max(tokenizer.get_vocab().values(), default=-1)
    if highest >= rows:
        raise ModelError(
            f"Model {name}: the tokenizer has tokens up to id {highest:,}, but the model has only {rows:,} rows for "
            "them; take the tokenizer that the model was trained with, or resize the model's embeddings."
        )


FILES: tuple[Callable[[str, Path], None], ...] = (_has_config, _has_weights, _has_tokenizer)
TENSORS: tuple[Callable[[Loaded], None], ...] = (
    _no_wrapper, _all_layers, _shapes_fit, _none_missing, _none_unexpected,
)  # fmt: skip
MODEL: tuple[Callable[[str, PreTrainedModel, PreTrainedTokenizerBase], None], ...] = (
    _weights_finite, _a_row_for_each_token,
)  # fmt: skip


def rows_of(model: PreTrainedModel) -> int:
    """How many token ids a model has both an embedding and an output for."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return min(len(end.get_parameter("weight")) for end in ends if end is not None)


def check_files(name: str, folder: Path) -> None:
    """Looks at a folder before anything is loaded.

    Raises:
        ModelError: If it holds no model.
    """
    for check in FILES:
        check(name, folder)


def check_tensors(loaded: Loaded) -> None:
    """Compares the tensors of a file with those that the model has.

    Raises:
        ModelError: If some are missing, unexpected or of another shape.
    """
    for check in TENSORS:
        check(loaded)


def check_model(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Looks at model and tokenizer together.

    Raises:
        ModelError: If the weights are not finite, or the tokenizer is not the model's.
    """
    for check in MODEL:
        check(name, model, tokenizer)


def shares_prompts(name: str, model: PreTrainedModel, ids: Sequence[int]) -> bool:
    """Tries whether a model reads a prompt once for several completions, beside prompts of another length.

    Architectures without keys and values, as state-space models, have nothing that rows could share; some read padding
    as text. What counts is that a row gets the logits that it gets alone.

    Args:
        name: What messages call the model.
        model: The model.
        ids: Ids to make the rows of.

    Returns:
        Whether prompts can be shared, through a cache; else rows are to be read whole.

    Raises:
        ModelError: If a row gets other logits in a batch than alone either way.
    """
    rows = _probe(ids)
    reasons: list[str] = []
    with torch.inference_mode(), Trainable(model).passes() as model:
        try:
            alone = [forward_whole(model, [row], [0]).logits[0] for row in rows]
        except Exception as error:
            raise ModelError(f"Model {name}: a {type(model).__name__} does not run ({first_line(error)}).") from error
        shared_reader = partial(CachedReader, memory=RowMemory)
        for shared, read, reader in ((True, forward, shared_reader), (False, forward_whole, WholeReader)):
            try:
                off = max(_apart(alone, read(model, rows, [0, 1, 2]).logits), _stepwise(alone, reader, model, rows))
            except Exception as error:  # each architecture fails in its own way
                reasons.append(first_line(error))
                continue
            if off <= TOLERANCE.get(model.dtype, ROUGH_TOLERANCE):
                return shared
            reasons.append(f"the logits are off by {off:.2g} standard deviations")
    raise ModelError(
        f"Model {name}: a {type(model).__name__} reads a row in a batch differently than alone ({reasons[-1]}), so no "
        "draw could be repeated; take a model of another architecture."
    )


def cascades(model: PreTrainedModel, dtype: torch.dtype, ids: Sequence[int]) -> bool:
    """Tries whether a model that shares prompts also draws right from prompts that lie in memory once.

    That exchanges its attention (``policies/cascade.py``), which not all architectures allow, and those do not that
    look at a window, cap their scores or mix in anything else. On accelerators the library's own attention is faster,
    and in low precision it rounds less.

    Args:
        model: The model.
        dtype: What passes compute in.
        ids: Ids to make the rows of.
    """
    if model.device.type != "cpu" or {dtype, model.dtype} != {torch.float32}:
        return False
    rows = _probe(ids)
    with torch.inference_mode(), Trainable(model).passes() as model:
        alone = [forward_whole(model, [row], [0]).logits[0] for row in rows]
        try:
            off = _stepwise(alone, partial(CachedReader, memory=CascadeMemory), model, rows)
        except Exception:  # each architecture fails in its own way
            return False
    return off <= TOLERANCE[model.dtype]


def first_line(error: Exception) -> str:
    """What an error of somebody else's says first."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _probe(ids: Sequence[int]) -> list[Row]:
    """Three rows over two prompts of different length."""

    def some(count: int, start: int) -> tuple[int, ...]:
        return tuple(ids[(start + 37 * step) % len(ids)] for step in range(count))

    short, long = some(5, 3), some(11, 11)
    return [Row(short, some(4, 17)), Row(long, some(4, 23)), Row(short, some(4, 29))]


def _apart(expected: Iterable[Tensor], found: Iterable[Tensor]) -> float:
    """The largest distance of two tensors of logits, over their places, in standard deviations; ``nan`` if broken."""
    pairs = zip(expected, found, strict=True)
    parts = [((one - other).abs().mean(dim=-1) / (one.std(dim=-1) + 1e-6)).flatten() for one, other in pairs]
    return float(torch.cat(parts).max())


def _stepwise(
    alone: Sequence[Tensor], reader: Callable[..., Reader], model: PreTrainedModel, rows: Sequence[Row]
) -> float:
    """The same of rows that are read token by token, of which one is left out on the way."""
    reading = reader(model, [row.prompt for row in rows])
    tokens = torch.tensor([row.completion for row in rows], device=model.device)
    everyone, kept = torch.arange(len(rows), device=model.device), torch.tensor([0, 2], device=model.device)
    found = [reading.logits[reading.branch]]
    reading.feed(everyone, tokens[:, 0])
    found.append(reading.logits[reading.branch])
    last: list[Tensor] = []
    for place, going in ((1, kept), (2, everyone[:2])):
        reading.feed(going, tokens[kept, place])
        last.append(reading.logits[reading.branch])
    whole = torch.stack(list(alone))
    return max(_apart(whole[:, :2], torch.stack(found, dim=1)), _apart(whole[kept, 2:], torch.stack(last, dim=1)))
