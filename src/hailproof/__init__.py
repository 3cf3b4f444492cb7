"""hailproof: a lab and a shield for decentralized GRPO.

A swarm of language models trains together by exchanging nothing but completions; attackers poison what they send;
defenses decide what an honest model may learn from. Read ``node.py`` first. Importing this package imports no torch.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hailproof")
except PackageNotFoundError:  # a source tree on the path that nobody installed
    __version__ = "0+unknown"
