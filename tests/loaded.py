"""Scripts outside the package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def script(path: str) -> ModuleType:
    """The script at a path under the repository's root; as if it were run, it finds what lies beside it."""
    found = ROOT / path
    spec = importlib.util.spec_from_file_location(found.stem, found)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(found.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(found.parent))
    return module
