"""The models in the package; without torch."""

from pathlib import Path


def shipped_models() -> dict[str, Path]:
    """The models in the package, by name."""
    folder = Path(__file__).parent / "nano" / "models"
    return {path.name: path for path in sorted(folder.glob("*")) if (path / "config.json").is_file()}
