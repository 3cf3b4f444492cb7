"""hailproof: a lab and a shield for decentralized GRPO.

A swarm of language models trains together by exchanging nothing but completions; attackers poison what they send;
defenses decide what an honest model may learn from. Read ``node.py`` first. Importing this package imports no torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("hailproof")
except PackageNotFoundError:  # a source tree on the path that nobody installed
    __version__ = "0+unknown"

_ELSEWHERE = {
    "load": "hailproof.campaigns.analysis",
    "load_cells": "hailproof.campaigns.analysis",
    "Shield": "hailproof.shield",
}


def __getattr__(name: str) -> Any:
    # These lie in layers above, and every module imports this one first: an import statement here would
    # turn the layers upside down and load torch. So the name is looked up only when somebody asks for it.
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ELSEWHERE])
