"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.imports import ImportsDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.defenses.token_credit import TokenCreditDefense

DEFENSES: dict[str, type] = {
    "equations": EquationsDefense,
    "imports": ImportsDefense,
    "logit": LogitDefense,
    "replay": ReplayDefense,
    "token_credit": TokenCreditDefense,
}
