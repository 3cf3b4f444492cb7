"""Attacks, by name. A third party adds one through the entry point group ``hailproof.attacks``."""

from hailproof.attacks.base import BaseAttack
from hailproof.attacks.sentence import SentenceAttack
from hailproof.attacks.text import TextAttack

ATTACKS: dict[str, type[BaseAttack]] = {"text": TextAttack, "sentence": SentenceAttack}
