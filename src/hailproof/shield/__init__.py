"""The front door for people who train elsewhere: screen what peers sent, with any chain of defenses, in any trainer."""

from hailproof.shield.results import Screened, ScreenedRow
from hailproof.shield.shield import Shield

__all__ = ["Screened", "ScreenedRow", "Shield"]
