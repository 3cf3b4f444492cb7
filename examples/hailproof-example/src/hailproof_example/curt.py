"""Rejects completions that are polite to the reader: a solution thanks nobody.

A rule on phrases, so it stops those that it lists and no others: "Much obliged." passes. It asks no model.
"""

import re

from hailproof.defenses.base import TextDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Admission
from hailproof.records import Span, Verdict


class CurtDefense(TextDefense):
    """Rejects a text with one of some phrases.

    Args:
        phrases: What no solution may say, in any case of letters.
        rewarded_only: Whether completions without reward are left alone.
        admission: What happens to rejected completions.
    """

    name = "curt"

    def __init__(
        self, phrases: tuple[str, ...] = ("thank you", "you are welcome", "my pleasure"),
        rewarded_only: bool = True, admission: Admission = "drop",
    ) -> None:  # fmt: skip
        super().__init__(rewarded_only, admission)
        if not phrases or not all(phrase.strip() for phrase in phrases):
            raise ConfigError("Defense option phrases is empty, or one of them is; give it at least one.")
        self.pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", re.IGNORECASE)

    def read(self, text: str) -> Verdict:
        """Rejects with the number of polite phrases as the score, and marks them."""
        found = list(self.pattern.finditer(text))
        if not found:
            return Verdict(self.name, "accept", "is not polite", 0.0)
        spans = tuple(Span(*match.span(), "polite") for match in found)
        return Verdict(self.name, "reject", f"is polite: {found[0].group()}", float(len(found)), spans)
