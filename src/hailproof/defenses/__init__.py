"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.imports import ImportsDefense
from hailproof.defenses.length import LengthDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.defenses.reward_outlier import RewardOutlierDefense
from hailproof.defenses.sender_stats import SenderStatsDefense
from hailproof.defenses.token_credit import TokenCreditDefense

DEFENSES: dict[str, type] = {
    "equations": EquationsDefense,
    "imports": ImportsDefense,
    "length": LengthDefense,
    "logit": LogitDefense,
    "replay": ReplayDefense,
    "reward_outlier": RewardOutlierDefense,
    "sender_stats": SenderStatsDefense,
    "token_credit": TokenCreditDefense,
}
