"""Completions that nobody drew, as large as those of a round of 32 prompts with 12 answers of 512 tokens; no torch."""

import random
import string

from hailproof.records import Completion

PROMPTS, GROUP, TOKENS, CHARACTERS, VOCABULARY = 32, 12, 512, 4, 151_936
LETTERS = string.ascii_lowercase + "     "


def completion(rng: random.Random) -> Completion:
    """A completion as long as it may be."""
    text = "".join(rng.choices(LETTERS, k=TOKENS * CHARACTERS))
    return Completion(text, tuple(rng.randrange(VOCABULARY) for _ in range(TOKENS)), True)
