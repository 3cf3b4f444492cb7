"""Equations in prose: found, and evaluated exactly."""

from hailproof.arithmetic.equations import MAX_CHARACTERS, Equation, equations

__all__ = ["MAX_CHARACTERS", "Equation", "equations"]
