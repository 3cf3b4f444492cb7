"""Copies of the shipped nano-a with something changed."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hailproof.policies.shipped import shipped_models

NANO = shipped_models()["nano-a"]
State = dict[str, torch.Tensor]


def copy_of_nano(
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    tensors: Callable[[State], State] | None = None,
    template: str | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Copies nano-a, overlays its JSON files, changes its tensors and template, and deletes files."""
    shutil.copytree(NANO, folder, dirs_exist_ok=True)
    overlays = {"config.json": config, "generation_config.json": generation, "tokenizer_config.json": tokenizer}
    for name, values in overlays.items():
        if values:
            path = folder / name
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    if tensors:
        weights = folder / "model.safetensors"
        save_file(tensors(load_file(weights)), weights, metadata={"format": "pt"})
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    for name in without:
        (folder / name).unlink()
    return folder
