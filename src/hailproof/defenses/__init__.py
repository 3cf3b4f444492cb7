"""Defenses, by name. A third party adds one through the entry point group ``hailproof.defenses``."""

from hailproof.defenses.judge import JudgeDefense
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.self_judge import SelfJudgeDefense

DEFENSES: dict[str, type] = {"logit": LogitDefense, "judge": JudgeDefense, "self_judge": SelfJudgeDefense}
