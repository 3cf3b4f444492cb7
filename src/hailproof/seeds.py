"""Seeds derived by hashing labels, so that neighboring seeds never share a stream.

``derive(run_seed, "round", 3, "prompt", id)`` is a pure function of its labels. Never ``seed + i``.
"""

import hashlib
from dataclasses import dataclass

SEED_BITS = 63
"""Seeds fit a signed 64-bit integer, which every generator accepts."""


def derive(root: int, *labels: str | int) -> int:
    """Derives a seed from a root seed and a path of labels.

    Args:
        root: The run's seed, or a derived one.
        *labels: Strings and integers; their types and borders count, so ``("a", "b")`` differs from ``("ab",)``
            and ``1`` from ``"1"``.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.blake2b(digest_size=8)
    for label in (root, *labels):
        kind = b"i" if isinstance(label, int) else b"s"
        data = str(label).encode("utf-8", "surrogatepass")  # prompts of strangers are labels too
        digest.update(kind + len(data).to_bytes(4, "big") + data)
    return int.from_bytes(digest.digest(), "big") >> (64 - SEED_BITS)


@dataclass(frozen=True, slots=True)
class Seeds:
    """The three kinds of randomness of a swarm, one seed each.

    Attributes:
        public: Known to all: plans, and the noise of every draw, unless draws are private.
        private: A node's own: what it learns from, which slots an attacker poisons. Others cannot compute it.
        beacon: Known to nobody before all completions of a round are bound: which of them are checked.
    """

    public: int
    private: int
    beacon: int

    @classmethod
    def of_run(cls, seed: int) -> "Seeds":
        """The seeds of a simulated swarm, all from the run's."""
        return cls(seed, derive(seed, "private"), derive(seed, "beacon"))
