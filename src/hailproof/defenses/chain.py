"""The chain asks defenses in turn and fails closed; what its verdicts lead to is in ``consequences.py``."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final, get_args

from hailproof.defenses.base import BaseDefense, failure
from hailproof.defenses.evidence import Received
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Defense, Effect, Need
from hailproof.records import Decision, Verdict

Stage = Literal["all", "before_rewards", "after_rewards"]
"""Which defenses are asked: all, those that are asked before rewards are computed, or the others."""

UNSCREENED = Verdict("none", "abstain", "no defense was asked, since the chain is empty")
"""The verdict of an empty chain: nobody looked, which is not an acceptance."""


@dataclass(frozen=True, slots=True)
class Screening:
    """What a chain says of some completions.

    Attributes:
        verdicts: Of each completion, ``[N]``, in the order in which defenses were asked; the last one is a rejection
            if it is rejected.
        seconds: What each defense took.
    """

    verdicts: list[tuple[Verdict, ...]]
    seconds: dict[str, float] = field(default_factory=dict)


@final
class Chain:
    """Asks defenses in turn and fails closed.

    A completion that one defense rejected is not shown to the next. A defense that raises, gives a wrong number of
    verdicts, or gives one that is none, rejects everything that it was shown, with ``error`` set: an attacker must not
    gain from breaking it. A ``ConfigError`` is the caller's mistake, never a sender's, and is raised.

    Args:
        defenses: In the order in which they are asked; put cheap ones first.

    Raises:
        ConfigError: If two have the same name; a verdict names its defense.
    """

    def __init__(self, defenses: Sequence[Defense]) -> None:
        self.defenses = tuple(defenses)
        names = [defense.name for defense in defenses]
        if len(set(names)) < len(names):
            raise ConfigError(f"Defense {max(names, key=names.count)} stands in the chain twice; name it once.")

    @property
    def admissions(self) -> dict[str, Admission]:
        """What each defense does with what it rejects, by name."""
        return {defense.name: defense.admission for defense in self.defenses}

    @property
    def only_drops(self) -> bool:
        """Whether every defense drops what it rejects, so that no rejection can create variance in a group."""
        return all(admission == "drop" for admission in self.admissions.values())

    @property
    def needs(self) -> frozenset[Need]:
        """What its defenses need besides texts and rewards."""
        return frozenset[Need]().union(*(defense.needs for defense in self.defenses))

    def that_give(self, effect: Effect) -> tuple[str, ...]:
        """Names of the defenses whose verdicts may ask for weights, or for masks."""
        return tuple(defense.name for defense in self.defenses if effect in getattr(defense, "gives", ()))

    @property
    def aggregation(self) -> Any:
        """The defense that makes one gradient of those of the senders (``learner/by_sender.py``); ``None`` without one.

        Raises:
            ConfigError: If there are several.
        """
        found = [defense for defense in self.defenses if callable(getattr(defense, "combine", None))]
        if len(found) > 1:
            names = " and ".join(defense.name for defense in found)
            raise ConfigError(f"The defenses {names} each make the gradient of an update; leave out all but one.")
        return found[0] if found else None

    @property
    def before_rewards(self) -> bool:
        """Whether a defense is asked before rewards are computed."""
        return any(defense.before_rewards for defense in self.defenses)

    def check(self, offers: Collection[Need]) -> None:
        """Makes sure that a caller has what the defenses need.

        Args:
            offers: What the caller has.

        Raises:
            ConfigError: If something is missing; it names the defense and what it lacks.
        """
        for defense in self.defenses:
            lacking = sorted(defense.needs.difference(offers))
            if lacking:
                is_missing, it = ("is missing", "it") if len(lacking) == 1 else ("are missing", "them")
                raise ConfigError(
                    f"Defense {defense.name} needs {' and '.join(lacking)}, which {is_missing}; give {it}"
                    f"{_other_option(defense, lacking)} or leave the defense out."
                )

    def screen(self, evidence: Received, stage: Stage = "all") -> Screening:
        """Gives each completion its verdicts.

        The receiver's own completions (``evidence.own``) are shown to defenses that need them, and get no verdict.

        Args:
            evidence: What was received.
            stage: Which defenses are asked.

        Raises:
            ConfigError: If the evidence lacks what a defense needs.
        """
        self.check(evidence.offers)
        count = len(evidence.submissions)
        if not self.defenses:
            return Screening([(UNSCREENED,)] * count)
        verdicts: list[tuple[Verdict, ...]] = [()] * count
        own = {index for index, each in enumerate(evidence.submissions) if each.sender in evidence.own}
        alive = [index for index in range(count) if index not in own]
        seconds: dict[str, float] = {}
        for defense in self.defenses:
            shown = sorted((*alive, *own)) if "own" in defense.needs else alive
            if not shown or stage not in ("all", "before_rewards" if defense.before_rewards else "after_rewards"):
                continue
            started = time.perf_counter()
            evidence_left = evidence if len(shown) == count else evidence.subset(shown)
            for index, verdict in zip(shown, _ask(defense, evidence_left), strict=True):
                if index not in own:
                    verdicts[index] += (verdict,)
            seconds[defense.name] = time.perf_counter() - started
            alive = [index for index in alive if verdicts[index][-1].decision != "reject"]
        return Screening(verdicts, seconds)

    def suspended(self, round: int) -> frozenset[int]:
        """Senders that some defense wants to have no slots in a round."""
        return frozenset().union(*(defense.suspended(round) for defense in self.defenses))

    def suspicion(self, sender: int) -> float:
        """The most that a defense holds against a sender, as a share of what is enough to exclude it."""
        ours = [defense for defense in self.defenses if isinstance(defense, BaseDefense)]
        return max((defense.suspicion(sender) for defense in ours), default=0.0)

    def state(self) -> dict[str, dict[str, Any]]:
        """What the defenses remember, by name."""
        return {defense.name: defense.state() for defense in self.defenses}

    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes up what :meth:`state` gave."""
        for defense in self.defenses:
            defense.restore(state[defense.name])


def _ask(defense: Defense, evidence: Received) -> list[Verdict]:
    try:
        verdicts = defense.screen(evidence)
        wrong = [verdict for verdict in verdicts if not _is_sound(verdict, defense.name)]
        if not wrong and len(verdicts) == len(evidence.submissions):
            return verdicts
        number = f"{len(verdicts)} verdicts for {len(evidence.submissions)} completions"
        reason = f"{wrong[0]!r:.200} is no verdict of it" if wrong else number
    except ConfigError:
        raise
    except Exception as error:  # a defense is third-party code that reads hostile text: whatever it raises is a verdict
        reason = f"{type(error).__name__}: {error}"
    return [failure(defense.name, reason)] * len(evidence.submissions)


def with_option(defense: Defense, needs: Sequence[Need]) -> str:
    """The name of a defense, with the option that decides that it needs something, where one does."""
    deciding = getattr(defense, "needs_by", {})
    option = next((deciding[need] for need in needs if need in deciding), "")
    return f"{defense.name} with {option} = {getattr(defense, option)}" if option else defense.name


def _other_option(defense: Defense, lacking: Sequence[Need]) -> str:
    """The advice to set an option otherwise, if that alone decides that a defense needs what it lacks; else a comma."""
    deciding = getattr(defense, "needs_by", {})
    option, *more = dict.fromkeys(deciding.get(need, "") for need in lacking)
    return "," if more or not option else f", set another {option} than {getattr(defense, option)},"


def _is_sound(verdict: object, name: str) -> bool:
    """Whether something is a verdict of a defense; ``None`` of a sloppy third party is not."""
    return (
        isinstance(verdict, Verdict)
        and verdict.defense == name
        and verdict.decision in get_args(Decision)
        and 0 <= verdict.weight <= 1
    )
