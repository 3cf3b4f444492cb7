"""Panels: a public random sample of the members plays a round for all, so that its cost does not grow with the swarm.

In the protocol of ``rounds`` every member commits, and every member lists what all the others sent. With m members a
node then reads m inventories of m entries each. A panel of k members, drawn by the beacon of the round before, does
this instead: its members send and list, and everybody else follows. In the plan, the checks and the rule of the
majority the panel takes the place of the members, so that these stay the same code (``admission.Rolls``).

All nodes draw the same panel, so that all learn from the same batches and stay equal. A panel of one's own would be a
smaller download too, but then no two nodes would learn the same, and nothing that compares weights could be used.

**What that costs.** The majority is now one of the sample. :func:`captured` says how likely dishonest members hold it.
The panel is known once the beacon is, for about one round: whoever can bribe or stop chosen members meanwhile is not in
that number. The beacon is not quite random either: each member of the panel that withholds its nonce chooses between
two beacons, so j of them choose the next panel among 2^j. ``biased=True`` counts the most that there can be without a
majority, (k - 1) / 2, as a union bound. It holds where all see the same envelopes: a store that shows each honest one
another commitment of the dishonest gives these more choices. A panel once captured chooses all that follow.
"""

import math
import random
from collections.abc import Sequence

from scipy.stats import hypergeom

from hailproof.errors import ConfigError
from hailproof.seeds import derive


def panel(members: Sequence[bytes], size: int, beacon: int, round: int) -> tuple[bytes, ...]:
    """Who sends and lists in a round.

    Args:
        members: Public keys of all nodes, in the order that all share.
        size: Members of the panel k, an odd number; a swarm of at most so many is its own panel.
        beacon: The beacon of the round before; for the first round the seed of the run.
        round: The round.

    Returns:
        The keys, in the order of ``members``.

    Raises:
        ConfigError: If the size is not an odd number, or there are no members.
    """
    _check_size(size)
    if not members:
        raise ConfigError("A panel cannot be drawn from no members; list the public keys of the swarm.")
    if len(members) <= size:
        return tuple(members)
    rng = random.Random(derive(beacon, "panel", round))
    return tuple(members[index] for index in sorted(rng.sample(range(len(members)), size)))


def captured(members: int, malicious: int, size: int, biased: bool = False) -> float:
    """The probability that more than half of a panel are malicious, in one round: a hypergeometric tail.

    A majority that is malicious decides what counts. Counted with those who are down, the same number says how likely
    the rest are too few to finish the round.

    Args:
        members: Nodes of the swarm m.
        malicious: How many of them are malicious; they were so before the beacon was known.
        size: Members of the panel k, an odd number; a swarm of at most so many is its own panel.
        biased: Whether the malicious of the panel before chose among all beacons that withheld nonces allow: an upper
            bound, for as many as a panel holds that is not captured.

    Raises:
        ConfigError: If the numbers do not fit each other.
    """
    _check_size(size)
    if not 0 <= malicious <= members or members < 1:
        raise ConfigError(f"{malicious} of {members} members cannot be malicious; give a number from 0 to all of them.")
    if members <= size:
        return float(malicious > members / 2)
    logarithm = float(hypergeom.logsf(size // 2, members, malicious, size))
    return math.exp(min(0.0, logarithm + biased * (size // 2) * math.log(2)))


def smallest(members: int, malicious: int, risk: float, biased: bool = False) -> int | None:
    """The smallest panel that is captured with at most some probability in one round.

    Args:
        members: Nodes of the swarm m.
        malicious: How many of them are malicious.
        risk: The probability.
        biased: As in :func:`captured`.

    Returns:
        An odd number; ``None`` if no panel short of the whole swarm will do.

    Raises:
        ConfigError: If the numbers do not fit each other, or the risk is no probability above 0.
    """
    if not 0 < risk < 1:
        raise ConfigError(f"A risk of {risk} is not between 0 and 1; give the probability that may be borne.")
    sizes = range(1, members, 2)
    return next((size for size in sizes if captured(members, malicious, size, biased) <= risk), None)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"A panel of {size} members has no clear majority; give an odd number.")
