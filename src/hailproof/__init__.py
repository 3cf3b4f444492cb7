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

_ANALYSIS = ("load", "load_cells")


def __getattr__(name: str) -> Any:
    # What reads runs lies in a layer above, and every module imports this one first: an import statement here would
    # turn the layers upside down and load torch. So the name is looked up only when somebody asks for it.
    if name in _ANALYSIS:
        return getattr(import_module("hailproof.campaigns.analysis"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ANALYSIS])
