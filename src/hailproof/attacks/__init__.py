"""Attacks, by name. A third party adds one through the entry point group ``hailproof.attacks``."""

from hailproof.attacks.base import BaseAttack
from hailproof.attacks.boundary import BoundaryAttack
from hailproof.attacks.code import CodeAttack
from hailproof.attacks.equation import EquationAttack
from hailproof.attacks.grinding import GrindingAttack
from hailproof.attacks.judge_injection import JudgeInjectionAttack
from hailproof.attacks.length import LengthAttack
from hailproof.attacks.low_and_slow import LowAndSlowAttack
from hailproof.attacks.rank_aware import RankAwareAttack
from hailproof.attacks.sentence import SentenceAttack
from hailproof.attacks.text import TextAttack

ATTACKS: dict[str, type[BaseAttack]] = {
    "text": TextAttack,
    "sentence": SentenceAttack,
    "equation": EquationAttack,
    "code": CodeAttack,
    "length": LengthAttack,
    "judge_injection": JudgeInjectionAttack,
    "rank_aware": RankAwareAttack,
    "grinding": GrindingAttack,
    "low_and_slow": LowAndSlowAttack,
    "boundary": BoundaryAttack,
}
