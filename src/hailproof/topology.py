"""Who answers what in a round: pure functions from the round's prompts to slots.

Horizontal: all nodes answer the same B prompts and share the G slots of each. Vertical: each node picks its own
prompts and fills all G slots of each. A plan is complete: every prompt has the slots 0 to G - 1 once each, whatever
the remainders are.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from hailproof.errors import ConfigError
from hailproof.records import Slot


def plan_horizontal(nodes: int, problem_ids: Sequence[str], group_size: int) -> tuple[Slot, ...]:
    """Deals the slots of every prompt to all nodes.

    The deal goes round and continues from prompt to prompt, so that no node's share differs from another's by more
    than one, neither within a group nor over the round.

    Args:
        nodes: Number of nodes m.
        problem_ids: The B prompts of the round.
        group_size: Completions per prompt G.

    Returns:
        B * G slots, ordered by prompt, then index.

    Raises:
        ConfigError: If there is no node, a group is too small to give every node a slot, or a prompt comes twice.
    """
    _require_nodes(nodes)
    if group_size < nodes:
        raise ConfigError(
            f"Group size {group_size} is smaller than the number of nodes {nodes}; a horizontal swarm needs at least "
            "one completion per node and prompt."
        )
    _require_distinct(problem_ids)
    return tuple(
        Slot((position * group_size + index) % nodes, problem_id, index)
        for position, problem_id in enumerate(problem_ids)
        for index in range(group_size)
    )


def plan_vertical(owned: Sequence[Sequence[str]], group_size: int) -> tuple[Slot, ...]:
    """Gives every node all slots of the prompts that it picked.

    Args:
        owned: For each node, the prompts it picked.
        group_size: Completions per prompt G.

    Returns:
        B * G slots, ordered by node, prompt as the node listed it, then index.

    Raises:
        ConfigError: If there is no node, fewer prompts than nodes, no completion per prompt, or a prompt comes twice.
    """
    _require_nodes(len(owned))
    if group_size < 1:
        raise ConfigError(f"Group size is {group_size}; a group needs at least one completion.")
    problem_ids = [problem_id for picked in owned for problem_id in picked]
    if len(problem_ids) < len(owned):
        raise ConfigError(
            f"{len(problem_ids)} prompts are fewer than the {len(owned)} nodes; a vertical swarm needs at least one "
            "prompt per node."
        )
    _require_distinct(problem_ids)
    return tuple(
        Slot(node, problem_id, index)
        for node, picked in enumerate(owned)
        for problem_id in picked
        for index in range(group_size)
    )


def reassigned(
    slots: Sequence[Slot], absent: Collection[int], present: Sequence[int], whole_groups: bool, offset: int = 0
) -> tuple[Slot, ...]:
    """Gives the slots of absent nodes to those that are there, in turn; the draws of the slots stay what they are.

    Args:
        slots: The plan of a round in which nobody is absent.
        absent: Nodes that get no slots.
        present: Nodes that take them over.
        whole_groups: Whether the slots of one prompt stay together, as in a vertical swarm.
        offset: Which of those present comes first; taken modulo their number.

    Returns:
        The plan, in the same order.

    Raises:
        ConfigError: If nobody is present.
    """
    _require_nodes(len(present))
    heirs: dict[tuple[str, int], int] = {}
    for slot in slots:
        if slot.node in absent:
            heirs.setdefault(_unit(slot, whole_groups), present[(offset + len(heirs)) % len(present)])
    return tuple(
        Slot(heirs[_unit(slot, whole_groups)], slot.problem_id, slot.index) if slot.node in absent else slot
        for slot in slots
    )


def sampled_groups(
    owned: Sequence[str], received: Sequence[str], take_owned: int, take_received: int, rng: random.Random
) -> frozenset[str]:
    """Chooses the groups that a node learns from under sampled sharing (SAPO, arXiv 2509.08721).

    Args:
        owned: Prompts whose groups the node filled itself.
        received: Prompts of others whose groups have an advantage to give; those without are discarded before.
        take_owned: Own groups to learn from, I; all if there are fewer.
        take_received: Received groups to learn from, J; all if there are fewer.
        rng: The node's own randomness for this round.
    """
    mine = rng.sample(list(owned), min(take_owned, len(owned)))
    theirs = rng.sample(list(received), min(take_received, len(received)))
    return frozenset((*mine, *theirs))


def shares(total: int, parts: int, offset: int = 0) -> tuple[int, ...]:
    """Splits a total into parts that differ by at most one.

    Args:
        total: What is split; not negative.
        parts: Number of parts.
        offset: The part that gets the first one of the remainder; taken modulo ``parts``, so that a caller who passes
            the round number gives the remainder to everybody in turn.

    Returns:
        How much each part gets; the sum is ``total``.

    Raises:
        ConfigError: If there is no part, or the total is negative.
    """
    if parts < 1 or total < 0:
        raise ConfigError(f"{total} cannot be split into {parts} parts; both must be counts, and parts at least 1.")
    base, remainder = divmod(total, parts)
    return tuple(base + ((part - offset) % parts < remainder) for part in range(parts))


def _unit(slot: Slot, whole_group: bool) -> tuple[str, int]:
    """What is given away at once: a slot, or all that a node has of a prompt."""
    return slot.problem_id, 0 if whole_group else slot.index


def _require_nodes(nodes: int) -> None:
    if nodes < 1:
        raise ConfigError(f"A swarm of {nodes} nodes cannot be planned; give at least one node.")


def _require_distinct(problem_ids: Iterable[str]) -> None:
    twice = [problem_id for problem_id, count in Counter(problem_ids).items() if count > 1]
    if twice:
        raise ConfigError(f"Problem {twice[0]!r} occurs more than once in the round; give distinct problem ids.")
