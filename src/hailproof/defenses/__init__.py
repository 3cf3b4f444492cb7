"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.length import LengthDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.reward_outlier import RewardOutlierDefense
from hailproof.defenses.sender_stats import SenderStatsDefense

DEFENSES: dict[str, type] = {
    "length": LengthDefense,
    "logit": LogitDefense,
    "reward_outlier": RewardOutlierDefense,
    "sender_stats": SenderStatsDefense,
}
