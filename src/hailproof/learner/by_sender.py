"""Gradients by sender: what each sender's completions do to the weights, told apart in the passes that are made anyway.

Completions travel and gradients do not, but a receiver computes the gradient of every completion itself. Cut into parts
of one sender each, the same passes give one gradient a sender (the advantages are those of the whole group), and what
is known of robust aggregation applies. A sender cannot shape its gradient freely: only by what its completions say.

Each sender's part is cut again into blocks of prompts, so that a test sees several independent values a round.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from hailproof.records import Group, SenderUpdate
from hailproof.seeds import derive


class Aggregation(Protocol):
    """Makes one gradient of those of the senders; a defense that is one is handed to the learner of its node."""

    @property
    def weighs(self) -> bool:
        """Whether the gradient that it makes is the sum of the senders', each times its weight in what it returns."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks of prompts that the gradient of each sender is computed in."""
        ...

    def bind(self, parameters: Sequence[nn.Parameter]) -> None:
        """Takes up the parameters that gradients are of, once, before the first round."""
        ...

    def begin(self, round: int, sent: Mapping[int, int], live: Mapping[int, int]) -> None:
        """Begins an update.

        Args:
            round: Number of the update, from 1.
            sent: Admitted completions of each sender that has any.
            live: How many of them have an advantage, for the same senders.
        """
        ...

    def look(self, sender: int, block: int, gradient: Tensor) -> None:
        """Looks at a sender's gradient as far as it goes.

        Args:
            sender: The sender.
            block: What was added since the last look: a piece of a block, or, if it is :attr:`blocks`, what flows back
                through the prompts.
            gradient: ``[P]``, all that was added so far, in the order of the parameters; grows after the call.
        """
        ...

    def combine(self, gradients: Mapping[int, Tensor]) -> tuple[Tensor | None, dict[int, SenderUpdate]]:
        """Ends an update.

        Args:
            gradients: ``[P]`` by sender, of those whose completions pull at all; not to be changed.

        Returns:
            The gradient ``[P]`` to go by, ``None`` if nothing is left to learn from, and what became of each sender.
        """
        ...


def blocks_by_group(groups: Sequence[Group], count: int) -> list[dict[int, int]]:
    """Which block of each sender's gradient each group belongs to.

    The groups of a sender are dealt to its blocks in turn, in an order that does not depend on their names. Groups that
    several senders answer are dealt for all of them alike, so that equal blocks hold equal prompts.

    Args:
        groups: The groups of a round.
        count: The number of blocks.

    Returns:
        For each group, the block by sender.
    """
    dealt: dict[int | None, int] = {}
    result: list[dict[int, int]] = [{} for _ in groups]
    for place in sorted(range(len(groups)), key=lambda place: derive(0, "block", groups[place].prompt.problem_id)):
        senders = {scored.submission.sender for scored in groups[place].completions}
        hand = None if len(senders) > 1 else next(iter(senders), None)
        block = dealt.get(hand, 0)
        dealt[hand] = (block + 1) % count
        result[place] = dict.fromkeys(senders, block)
    return result
