"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.imports import ImportsDefense
from hailproof.defenses.logit import LogitDefense

DEFENSES: dict[str, type] = {"logit": LogitDefense, "equations": EquationsDefense, "imports": ImportsDefense}
