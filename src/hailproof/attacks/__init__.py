"""Attacks, by name. A third party adds one through the entry point group ``hailproof.attacks``."""

from hailproof.attacks.base import BaseAttack
from hailproof.registry import Builtins

ATTACKS: Builtins[type[BaseAttack]] = Builtins({
    "text": "hailproof.attacks.text:TextAttack",
    "sentence": "hailproof.attacks.sentence:SentenceAttack",
    "equation": "hailproof.attacks.equation:EquationAttack",
    "code": "hailproof.attacks.code:CodeAttack",
    "length": "hailproof.attacks.length:LengthAttack",
    "judge_injection": "hailproof.attacks.judge_injection:JudgeInjectionAttack",
    "rank_aware": "hailproof.attacks.rank_aware:RankAwareAttack",
    "grinding": "hailproof.attacks.grinding:GrindingAttack",
    "low_and_slow": "hailproof.attacks.low_and_slow:LowAndSlowAttack",
    "boundary": "hailproof.attacks.boundary:BoundaryAttack",
    "native": "hailproof.attacks.native:NativeAttack",
    "clones": "hailproof.attacks.clones:ClonesAttack",
    "shifting": "hailproof.attacks.shifting:ShiftingAttack",
    "copies": "hailproof.attacks.copies:CopiesAttack",
    "trait": "hailproof.attacks.trait:TraitAttack",
    "terse": "hailproof.attacks.terse:TerseAttack",
    "windy": "hailproof.attacks.windy:WindyAttack",
    "padding": "hailproof.attacks.padding:PaddingAttack",
    "spite": "hailproof.attacks.spite:SpiteAttack",
    "spin": "hailproof.attacks.spin:SpinAttack",
    "bulk": "hailproof.attacks.bulk:BulkAttack",
    "framing": "hailproof.attacks.framing:FramingAttack",
    "seesaw": "hailproof.attacks.seesaw:SeesawAttack",
})
