"""Where programs of strangers run."""

from hailproof.sandbox.base import Limits, Outcome, Sandbox, last_line
from hailproof.sandbox.monty import MontySandbox

__all__ = ["Limits", "MontySandbox", "Outcome", "Sandbox", "last_line"]
