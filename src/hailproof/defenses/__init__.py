"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.equations import EquationsDefense
from hailproof.defenses.imports import ImportsDefense
from hailproof.defenses.judge import JudgeDefense
from hailproof.defenses.length import LengthDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.defenses.reward_outlier import RewardOutlierDefense
from hailproof.defenses.self_judge import SelfJudgeDefense
from hailproof.defenses.sender_stats import SenderStatsDefense
from hailproof.defenses.token_credit import TokenCreditDefense

DEFENSES: dict[str, type] = {
    "logit": LogitDefense,
    "judge": JudgeDefense,
    "self_judge": SelfJudgeDefense,
    "reward_outlier": RewardOutlierDefense,
    "replay": ReplayDefense,
    "equations": EquationsDefense,
    "imports": ImportsDefense,
    "token_credit": TokenCreditDefense,
    "length": LengthDefense,
    "sender_stats": SenderStatsDefense,
}
"""The paper's first, then those that go on from them."""
