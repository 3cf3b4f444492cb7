"""Where programs of strangers run."""

from hailproof.sandbox.base import Library, Limits, Outcome, Sandbox, last_line
from hailproof.sandbox.monty import MontySandbox
from hailproof.sandbox.oslevel import OsSandbox

SANDBOXES: dict[str, type[MontySandbox] | type[OsSandbox]] = {"monty": MontySandbox, "os": OsSandbox}
"""The sandboxes by name."""

__all__ = ["SANDBOXES", "Library", "Limits", "MontySandbox", "OsSandbox", "Outcome", "Sandbox", "last_line"]
