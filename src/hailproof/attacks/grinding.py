"""GRINDING: choosing among what the rules allow, to push length (adaptive, against ``replay``).

Threat: where every draw is checked against shared randomness, an attacker can still try to choose. Modes:

* ``best_of``: the longest right draw among N, with other randomness than its slots have (``replay`` must reject it);
* ``withhold``: honest draws only; slots whose draw is shorter than the median of its own draws stay empty;
* ``prompts``: honest draws only, on prompts chosen for their long solutions (vertical swarms);
* ``suppress_end``: draws in which the end token may not come before ``min_tokens``.

The measure is tokens per completion, as in LENGTH.

Limits: the first and the last mode do not send the draws of their slots, so ``replay`` rejects them. Under ``replay`` a
sender that withholds loses the round. Prompts that are assigned cannot be chosen.

Source: hailproof's own.
"""

import statistics
from collections.abc import Sequence

import numpy as np

from hailproof.attacks.base import Forgery
from hailproof.attacks.length import LengthAttack
from hailproof.errors import ConfigError
from hailproof.parsing import sentences
from hailproof.protocols import AttackView, Policy, Topology
from hailproof.records import Problem

MODES = ("best_of", "withhold", "prompts", "suppress_end")


class EndSuppressor:
    """Forbids the end token until a completion has a length.

    Args:
        end_ids: Tokens that end a completion.
        min_tokens: Length in tokens.
    """

    def __init__(self, end_ids: tuple[int, ...], min_tokens: int) -> None:
        self.end_ids = end_ids
        self.min_tokens = min_tokens

    def adjust(self, drawn: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Takes the end tokens out of the candidates."""
        if drawn.shape[1] >= self.min_tokens:
            return values
        return np.where(np.isin(ids, self.end_ids), -1e9, values)


class GrindingAttack(LengthAttack):
    """Chooses among draws, slots or prompts.

    Args:
        mode: One of ``MODES``.
        samples: Draws to choose from in ``best_of`` and ``suppress_end``.
        min_tokens: Length below which ``suppress_end`` forbids the end.
    """

    name = "grinding"
    topology: Topology = "horizontal"

    def __init__(self, mode: str = "best_of", samples: int = 16, min_tokens: int = 64) -> None:
        if mode not in MODES:
            raise ConfigError(f"Attack option mode = {mode} is unknown; use one of {', '.join(MODES)}.")
        super().__init__(samples)
        if mode not in ("best_of", "suppress_end"):
            self.samples = 0
        self.needs_honest_draws = mode in ("withhold", "prompts")
        self.mode = mode
        self.min_tokens = min_tokens
        self.topology = "vertical" if mode == "prompts" else "horizontal"

    def guide(self, policy: Policy, round: int) -> EndSuppressor | None:
        """Suppresses the end token in ``suppress_end``."""
        return EndSuppressor(policy.codec.end_ids, self.min_tokens) if self.mode == "suppress_end" else None

    def forge(self, view: AttackView) -> Sequence[Forgery]:
        """Fills the slots by the mode's rule."""
        if not self.needs_honest_draws:
            return super().forge(view)
        honest = [view.honest[slot] for slot in view.slots]
        if self.mode == "prompts":
            return honest
        middle = statistics.median(len(completion.token_ids) for completion in honest)
        return [completion if len(completion.token_ids) >= middle else None for completion in honest]

    def wants(self, problem: Problem) -> bool:
        """In ``prompts``, problems with at least three sentences of solution."""
        return len(sentences(problem.solution)) >= 3 if self.mode == "prompts" else super().wants(problem)
