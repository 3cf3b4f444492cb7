"""Where programs of strangers run."""

from hailproof.sandbox.base import Limits, Outcome, Sandbox, last_line
from hailproof.sandbox.monty import MontySandbox
from hailproof.sandbox.oslevel import OsSandbox

__all__ = ["Limits", "MontySandbox", "OsSandbox", "Outcome", "Sandbox", "last_line"]
