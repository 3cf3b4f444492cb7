"""Who is malicious. Known to the experiment alone: no record carries it and no defense can import it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes of a swarm and what they are.

    Attributes:
        models: Name of the model of each node.
        malicious: Indices of the malicious nodes.
    """

    models: tuple[str, ...]
    malicious: frozenset[int]

    @property
    def honest(self) -> tuple[int, ...]:
        """Indices of the honest nodes, in order."""
        return tuple(index for index in range(len(self.models)) if index not in self.malicious)


def make_roster(nodes: int, models: tuple[str, ...], malicious: int) -> Roster:
    """Deals models to nodes in turn; the last nodes are the malicious ones."""
    dealt = tuple(models[index % len(models)] for index in range(nodes))
    return Roster(dealt, frozenset(range(nodes - malicious, nodes)))
