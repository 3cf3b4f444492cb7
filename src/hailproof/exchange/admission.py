"""Who belongs to a swarm in a round: the members of its file, and strangers that have paid for their names.

Names that cost nothing make a majority of whoever makes most of them, so a stranger becomes a member only in a way
that all members see alike, and that costs it something:

    join        a stranger says in a round that it wants to be a member
    welcome     each member lists, in its signed inventory, the strangers that it is for
    on trial    for whom more than half of the members are; it draws completions of its own, beyond those that are
                learned from, commits to them, and shows them
    welcome     members list it again for each round in which its draws were the ones that it owed
    member      once it was listed by more than half of the members in so many rounds: from the next one on it is heard

A member is for a stranger that asks unless an outside hook of the swarm's file says no. So a hook is asked on each
machine, and may answer differently there: what decides is the majority of the inventories, which all nodes read alike
(``deciding``). What has been decided is a :class:`Roll`, a pure function of the rolls before; it is part of every
checkpoint, so that it survives a restart, and nodes that differ in it are seen to be apart. It also holds the beacon,
which draws the next panel where only a panel of the members is heard (``panels``).

Memory is bounded: so many seats, so many strangers on trial at once, each for so many rounds at the most. Who is on
trial and asks again stays where it is; whose time is over begins anew with nothing paid. A key that is a member stays
one.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

from hailproof.errors import RunError
from hailproof.exchange.panels import panel
from hailproof.identity import KEY_BYTES
from hailproof.seeds import derive

KEPT = 1024
"""Rounds of which it is remembered who was heard; who returns after more of them needs a checkpoint."""


@final
@dataclass(frozen=True, slots=True)
class Admission:
    """How strangers become members.

    Attributes:
        members: Members that there may ever be, those of the file included.
        rounds: Honest rounds K that a stranger pays before it is heard; 0: none, where a hook decides alone.
        places: Strangers on trial at the same time; without a fee, strangers that become members in one round.
    """

    members: int
    rounds: int
    places: int

    @property
    def patience(self) -> int:
        """Rounds that a stranger has to pay its fee, the one included in which it was let in."""
        return 2 * self.rounds + 2

    @property
    def welcomed(self) -> int:
        """Keys that one inventory may welcome."""
        return 2 * self.places


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """A stranger that pays its fee.

    Attributes:
        key: Its public key.
        since: The round in which it was let in.
        paid: Honest rounds that a majority has seen since.
    """

    key: bytes
    since: int
    paid: int = 0


@final
@dataclass(frozen=True, slots=True)
class Roll:
    """Who belongs to the swarm after a round.

    Attributes:
        round: The round; 0 before the first.
        beacon: Its randomness; before the first round the seed of the run.
        members: Public keys, in the order of their indices; keys are added at the end, and none is ever taken away.
        trials: Strangers that pay their fee.
        earlier: Members that there were in the round itself.
        earlier_beacon: The beacon of the round before, which drew the panel of the round itself.
    """

    round: int
    beacon: int
    members: tuple[bytes, ...]
    trials: tuple[Trial, ...]
    earlier: int
    earlier_beacon: int

    def after(self, admission: Admission | None, welcome: Collection[bytes], beacon: int) -> "Roll":
        """The roll after the next round.

        Args:
            admission: How strangers become members; ``None``: not at all.
            welcome: Keys that a majority of the inventories of that round is for.
            beacon: The beacon of that round; it draws lots among strangers if there are more of them than places.
        """
        round, earlier = self.round + 1, (len(self.members), self.beacon)
        if admission is None:
            return Roll(round, beacon, self.members, (), *earlier)
        listed = set(welcome) - set(self.members)
        trials = [
            replace(trial, paid=trial.paid + (trial.key in listed and round > trial.since + 1))
            for trial in self.trials
        ]  # the first batch is of the round after ``since``, and judged in the one after that
        members = self.members + tuple(trial.key for trial in trials if trial.paid >= admission.rounds)
        staying = [
            trial for trial in trials
            if trial.paid < admission.rounds <= trial.paid + trial.since + admission.patience - round
        ]  # who can no longer pay in time keeps no other stranger out
        free = min(admission.places - len(staying), admission.members - len(members) - len(staying))
        strangers = listed - {trial.key for trial in trials}
        fresh = sorted(strangers, key=lambda key: derive(beacon, "admission", key.hex()))[: max(free, 0)]
        if admission.rounds == 0:
            return Roll(round, beacon, members + tuple(fresh), (), *earlier)
        return Roll(round, beacon, members, (*staying, *(Trial(key, round) for key in fresh)), *earlier)

    def plain(self) -> list[Any]:
        """The roll in plain types, for a checkpoint."""
        trials = [[trial.key.hex(), trial.since, trial.paid] for trial in self.trials]
        members = [key.hex() for key in self.members]
        return [self.round, self.beacon, members, trials, self.earlier, self.earlier_beacon]

    @classmethod
    def of_plain(cls, tree: Any) -> "Roll":
        """Takes up what :meth:`plain` gave.

        Raises:
            RunError: If it is damaged.
        """
        try:
            round, beacon, members, trials, earlier, earlier_beacon = tree
            keys = tuple(bytes.fromhex(key) for key in members)
            paying = tuple(Trial(bytes.fromhex(key), int(since), int(paid)) for key, since, paid in trials)
            roll = cls(int(round), int(beacon), keys, paying, int(earlier), int(earlier_beacon))
        except (TypeError, ValueError) as error:
            raise RunError(f"A list of members cannot be read ({error!s:.200}); use another one.") from error
        if any(len(key) != KEY_BYTES for key in (*keys, *(trial.key for trial in paying))):
            raise RunError("A list of members holds what is no public key; use another one.")
        return roll


@final
@dataclass(frozen=True)
class Floor:
    """Who may speak in a round.

    Attributes:
        heard: Whose batches are learned from, and whose inventories and states count; in the order of their indices.
        trials: Strangers that pay their fee.
    """

    heard: tuple[bytes, ...]
    trials: tuple[bytes, ...] = ()

    @cached_property
    def heard_set(self) -> frozenset[bytes]:
        """Those that are heard, without order."""
        return frozenset(self.heard)

    @property
    def quorum(self) -> int:
        """How many of those that are heard are more than half of them."""
        return len(self.heard) // 2 + 1


@final
class Rolls:
    """The rolls of the last rounds, as far as this node knows them.

    Args:
        founders: Public keys of the swarm's file, in the order of their indices.
        admission: How strangers become members; ``None``: not at all.
        seed: The seed of the run.
        panel: Members that are heard in a round, drawn by the beacon of the round before; 0: all.
    """

    def __init__(
        self, founders: Sequence[bytes], admission: Admission | None = None, seed: int = 0, panel: int = 0
    ) -> None:
        self.admission, self.panel = admission, panel
        self._all = Floor(tuple(founders))
        self.latest = Roll(0, seed, self._all.heard, (), len(self._all.heard), seed)
        self._known: OrderedDict[int, Roll] = OrderedDict({0: self.latest})
        self._floors: dict[int, Floor] = {}

    @property
    def fixed(self) -> bool:
        """Whether the same are heard in every round."""
        return self.admission is None and not 0 < self.panel < len(self._all.heard)

    def floor(self, round: int) -> Floor | None:
        """Who may speak in a round; ``None`` if that is not known (yet, or any more)."""
        if self.fixed or round == 0:
            return self._all
        if round not in self._floors:
            before, after = self._known.get(round - 1), self._known.get(round)
            if before is not None:
                heard = self._drawn(before.members, before.beacon, round)
                self._floors[round] = Floor(heard, tuple(trial.key for trial in before.trials))
            elif after is not None:
                self._floors[round] = Floor(self._drawn(after.members[: after.earlier], after.earlier_beacon, round))
        return self._floors.get(round)

    def _drawn(self, members: tuple[bytes, ...], beacon: int, round: int) -> tuple[bytes, ...]:
        return panel(members, self.panel, beacon, round) if self.panel else members

    def after(self, round: int) -> Roll | None:
        """The roll after a round; ``None`` if it is not known."""
        return self._known.get(round)

    def add(self, roll: Roll) -> None:
        """Takes up the roll after a round; what was known of later rounds is forgotten if it came of another one."""
        if self._known.get(roll.round) != roll:
            self._floors.clear()
            for number in [number for number in self._known if number >= roll.round]:
                del self._known[number]
            self._known[roll.round] = roll
        self.latest = self._known[max(self._known)]
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
