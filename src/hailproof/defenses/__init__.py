"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.registry import Builtins

DEFENSES: Builtins[type] = Builtins({
    "logit": "hailproof.defenses.logit:LogitDefense",
    "judge": "hailproof.defenses.judge:JudgeDefense",
    "self_judge": "hailproof.defenses.self_judge:SelfJudgeDefense",
    "reward_outlier": "hailproof.defenses.reward_outlier:RewardOutlierDefense",
    "replay": "hailproof.defenses.replay:ReplayDefense",
    "equations": "hailproof.defenses.equations:EquationsDefense",
    "imports": "hailproof.defenses.imports:ImportsDefense",
    "token_credit": "hailproof.defenses.token_credit:TokenCreditDefense",
    "length": "hailproof.defenses.length:LengthDefense",
    "sender_stats": "hailproof.defenses.sender_stats:SenderStatsDefense",
    "influence": "hailproof.defenses.influence:InfluenceDefense",
    "robust": "hailproof.defenses.robust:RobustDefense",
})
"""The paper's first, then those that go on from them."""
