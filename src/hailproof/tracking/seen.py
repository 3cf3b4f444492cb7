"""What trackers and the live view are told of one round, whoever played it: a run, a node, or a shield."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from hailproof.metrics.rates import mean
from hailproof.records import NodeRound, ScoredCompletion, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRow:
    """What became of one completion.

    Attributes:
        sender: Who sent it, as it calls itself; ``None`` if nobody said.
        tokens: Its length in tokens; ``None`` if its tokens are not known.
        learned: Tokens that the update could learn from: those that are not muted, times the completion's weight.
        muted: Tokens that are muted.
        left_out: Whether nothing is learned from it and it has no place in its group's baseline.
        rejection: The verdict that rejected it; ``None`` if no defense did.
    """

    sender: str | None
    tokens: int | None
    learned: float
    muted: int
    left_out: bool
    rejection: Verdict | None = None

    @property
    def kept(self) -> bool:
        """Whether it is learned from with the reward that it earned."""
        return not self.left_out and self.rejection is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRound:
    """One round.

    Attributes:
        round: Its number.
        rows: The completions that were read.
        reward: Mean reward of what the own model wrote, before screening; ``None`` if unknown, as all that follow.
        completion_tokens: Mean tokens of what the own model wrote.
        held_out: Mean reward on held-out problems.
        held_out_problems: How many those are.
        attack_success: The attack's success rate.
        excluded: Senders from whom nothing is learned for now, or that have no slots in the next round.
        defenses: Names of the defenses that are asked.
        defense_seconds: What they took together.
        notes: What is known of a sender, to be shown beside its name.
    """

    round: int
    rows: tuple[SeenRow, ...]
    reward: float | None = None
    completion_tokens: float | None = None
    held_out: float | None = None
    held_out_problems: int = 0
    attack_success: float | None = None
    excluded: frozenset[str] = frozenset()
    defenses: tuple[str, ...] = ()
    defense_seconds: float = 0.0
    notes: Mapping[str, str] = field(default_factory=dict)


def rows_of(views: Iterable[NodeRound]) -> tuple[SeenRow, ...]:
    """The completions that nodes read, as they are counted."""
    return tuple(_row(scored) for view in views for group in view.groups for scored in group.completions)


def _row(scored: ScoredCompletion) -> SeenRow:
    tokens, muted = len(scored.submission.completion.token_ids), len(scored.muted)
    rejection = next((each for each in scored.verdicts if each.decision == "reject"), None)
    return SeenRow(
        sender=str(scored.submission.sender),
        tokens=tokens,
        learned=max(0, tokens - muted) * scored.weight if scored.admitted else 0.0,
        muted=muted,
        left_out=not scored.admitted and rejection is not None,
        rejection=rejection,
    )


def excluded_in(view: NodeRound, suspended: Collection[int]) -> frozenset[str]:
    """Senders that an update left out, and those without slots in the next round."""
    left_out = {sender for sender, what in view.update.senders.items() if what.excluded}
    return frozenset(str(sender) for sender in {*left_out, *suspended})


def seen_by_node(
    round: int, view: NodeRound, own: Collection[int], suspended: Collection[int], defenses: tuple[str, ...]
) -> SeenRound:
    """A round as one node of a real swarm saw it.

    Args:
        round: Its number.
        view: What the node made of the round.
        own: Indices of the node among the senders.
        suspended: Members without slots in the next round.
        defenses: Names of its defenses.
    """
    written = [
        scored for group in view.groups for scored in group.completions if scored.submission.sender in own
    ]
    return SeenRound(
        round=round,
        rows=rows_of([view]),
        reward=mean(scored.raw_reward for scored in written),
        completion_tokens=mean(len(scored.submission.completion.token_ids) for scored in written),
        excluded=excluded_in(view, suspended),
        defenses=defenses,
        defense_seconds=sum(view.defense_seconds.values()),
        notes={str(index): "own" for index in own},
    )
