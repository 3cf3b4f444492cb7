"""What defenses share: their base class, the evidence that they look at, and the chain that asks them in turn."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final, get_args

import numpy as np

from hailproof.errors import ConfigError
from hailproof.parsing import sentence_borders
from hailproof.protocols import Admission, Defense, Evidence, Policy, Sampling, TokenScores, Variant
from hailproof.records import Completion, Decision, Prompt, Span, Submission, Verdict


class BaseDefense(ABC):
    """Defaults of a defense; a subclass writes ``screen``.

    Args:
        admission: What happens to rejected completions.

    Raises:
        ConfigError: If the admission is not one.
    """

    name: str
    needs_anchor: bool = False
    uses_own: bool = False

    def __init__(self, admission: Admission = "drop") -> None:
        if admission not in get_args(Admission):
            raise ConfigError(f"Defense option admission = {admission} is unknown; use drop or zero_reward.")
        self.admission: Admission = admission

    @abstractmethod
    def screen(self, evidence: Evidence) -> list[Verdict]:
        """Gives one verdict for each completion of the evidence."""

    def suspended(self, round: int) -> frozenset[int]:
        """Senders that are to have no slots in a round; by default none."""
        return frozenset()

    def state(self) -> dict[str, Any]:
        """What it remembers between rounds; by default nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        return None


@final
@dataclass(frozen=True, slots=True)
class Received:
    """Received completions with the receiver's own view of them; implements ``Evidence``.

    Attributes:
        round: The round in which they were received.
        sampling: How an honest node draws completions in this swarm.
        variant: Whether answers are reasoning with a number, or programs.
        prompts: The prompt of each, ``[N]``.
        submissions: What was received, ``[N]``.
        rewards: The receiver's own rewards, ``[N]``.
        keys: The public key of each slot's randomness, ``[N]``.
        model: The receiver's policy; ``None`` where texts are screened without one.
        own: Senders that are the receiver itself.
        missing: Completions that did not come, by sender.
        frozen: The initial policy, if a defense asked for it.
        beacon: Public randomness that nobody knew before all completions of the round were sent, if there is any.
    """

    round: int
    sampling: Sampling
    variant: Variant
    prompts: Sequence[Prompt]
    submissions: Sequence[Submission]
    rewards: Sequence[float]
    keys: Sequence[int]
    model: Policy | None
    own: frozenset[int] = frozenset()
    missing: Mapping[int, int] = field(default_factory=dict)
    frozen: Policy | None = None
    beacon: int | None = None
    _scored: dict[tuple[str, int, int], TokenScores] = field(default_factory=dict, repr=False)

    @classmethod
    def texts(cls, texts: Sequence[str], questions: Sequence[str] = (), variant: Variant = "math") -> "Received":
        """Evidence of texts alone, for defenses that ask no model: each by a sender and for a problem of its own.

        Args:
            texts: Completions, ``[N]``.
            questions: What was asked, ``[N]``; without, the questions are empty.
            variant: Whether they are reasoning with a number, or programs.
        """
        asked = questions or [""] * len(texts)
        prompts = [Prompt(str(place), "", question) for place, question in enumerate(asked)]
        submissions = [
            Submission(1, place, str(place), 0, Completion(text, (), True)) for place, text in enumerate(texts)
        ]
        return cls(1, Sampling(), variant, prompts, submissions, [1.0] * len(texts), list(range(len(texts))), None)

    @property
    def policy(self) -> Policy:
        """The receiver's own policy.

        Raises:
            ConfigError: If there is none.
        """
        if self.model is None:
            raise ConfigError("This defense reads texts with the receiver's own policy, and none was given.")
        return self.model

    @property
    def anchor(self) -> Policy:
        """The receiver's policy as it was before the first round.

        Raises:
            ConfigError: If the defense did not say that it needs it.
        """
        if self.frozen is None:
            raise ConfigError("No anchor was kept; a defense that looks at it must set needs_anchor.")
        return self.frozen

    @property
    def scores(self) -> Sequence[TokenScores]:
        """The receiver's own token scores, ``[N]``; one pass for all that were not scored yet."""
        places = [(each.problem_id, each.slot, each.sender) for each in self.submissions]
        new = [index for index, place in enumerate(places) if place not in self._scored]
        if new:
            completions = [self.submissions[index].completion for index in new]
            scores = self.policy.score([self.prompts[index] for index in new], completions, self.sampling)
            self._scored.update(zip([places[index] for index in new], scores, strict=True))
        return [self._scored[place] for place in places]

    def subset(self, indices: Sequence[int]) -> "Received":
        """The evidence of some completions; what was scored is shared both ways."""
        return Received(
            self.round, self.sampling, self.variant,
            [self.prompts[i] for i in indices], [self.submissions[i] for i in indices],
            [self.rewards[i] for i in indices], [self.keys[i] for i in indices], self.model, self.own, self.missing,
            self.frozen, self.beacon, self._scored,
        )  # fmt: skip


UNREWARDED = "earned nothing, so nobody learns to write it"


class RewardedDefense(BaseDefense):
    """A defense that may leave alone what earned nothing; a subclass writes ``examine``.

    Args:
        rewarded_only: Whether completions without reward are left alone.
        admission: What happens to rejected completions.
    """

    def __init__(self, rewarded_only: bool = True, admission: Admission = "drop") -> None:
        super().__init__(admission)
        self.rewarded_only = rewarded_only

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; an abstention for each that is left alone."""
        verdicts = [Verdict(self.name, "abstain", UNREWARDED)] * len(evidence.submissions)
        asked = self.asked(evidence)
        for index, verdict in zip(asked, self.examine(evidence.subset(asked)), strict=True):
            verdicts[index] = verdict
        return verdicts

    def asked(self, evidence: Evidence) -> list[int]:
        """The completions that are not left alone."""
        return [index for index, reward in enumerate(evidence.rewards) if reward > 0 or not self.rewarded_only]

    @abstractmethod
    def examine(self, evidence: Evidence) -> list[Verdict]:
        """One verdict for each completion that is not left alone."""


class TextDefense(RewardedDefense):
    """A defense that reads one text at a time and asks no model; a subclass writes ``read``."""

    def examine(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a text; equal texts are read once, and one that breaks the reader is rejected alone."""
        texts = [submission.completion.text for submission in evidence.submissions]
        read = {text: self._read(text) for text in dict.fromkeys(texts)}
        return [read[text] for text in texts]

    def _read(self, text: str) -> Verdict:
        try:
            return self.read(text)
        except Exception as error:  # as in the chain: what hostile text raises is a verdict
            return failure(self.name, f"{type(error).__name__}: {error}")

    @abstractmethod
    def read(self, text: str) -> Verdict:
        """The verdict on a completion's text."""


def token_starts(ends: np.ndarray) -> np.ndarray:
    """Index of the character at which each token begins, ``[T]``, from that at which each ends."""
    return np.concatenate([[0], ends[:-1]])


def token_spans(ends: np.ndarray, tokens: Sequence[int], notes: Sequence[str]) -> tuple[Span, ...]:
    """The characters of some tokens, to mark what a verdict rests on.

    Args:
        ends: ``[T]`` index of the character at which each token ends.
        tokens: Which tokens to mark.
        notes: What to say of each.
    """
    starts = token_starts(ends)
    return tuple(Span(int(starts[i]), int(ends[i]), note) for i, note in zip(tokens, notes, strict=True))


def in_sentences_with(tokens: np.ndarray, ends: np.ndarray, text: str) -> np.ndarray:
    """Which tokens stand in a sentence that holds a given token.

    Args:
        tokens: ``[T]`` which tokens are given.
        ends: ``[T]`` index of the character at which each token ends.
        text: The completion's text.

    Returns:
        ``[T]``. The end token, which has no character, goes with the last sentence only if it is given itself.
    """
    borders = np.array(sentence_borders(text))
    starts = token_starts(ends)
    sentence = np.searchsorted(borders, starts, side="right")
    spelled = starts < len(text)  # tokens that are a part of a character have no width of their own
    return tokens | (np.isin(sentence, sentence[tokens & spelled]) & spelled)


@final
class Chain:
    """Asks defenses in turn and fails closed.

    A completion that one defense rejected is not shown to the next. A defense that raises, gives a wrong number of
    verdicts, or gives one that is none, rejects everything that it was shown, with ``error`` set: an attacker must not
    gain from breaking it.

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
        self.seconds = dict.fromkeys(names, 0.0)
        """What each took in the last round."""

    @property
    def only_drops(self) -> bool:
        """Whether every defense drops what it rejects, so that no rejection can create variance in a group."""
        return all(defense.admission == "drop" for defense in self.defenses)

    @property
    def uses_own(self) -> bool:
        """Whether a defense compares with the receiver's own completions."""
        return any(defense.uses_own for defense in self.defenses)

    def screen(self, evidence: Received) -> list[tuple[Verdict, ...]]:
        """Gives each completion its verdicts; the last one is a rejection if it is rejected.

        The receiver's own completions (``evidence.own``) are shown to defenses that compare with them, and get no
        verdict.
        """
        verdicts: list[tuple[Verdict, ...]] = [()] * len(evidence.submissions)
        own = {index for index, each in enumerate(evidence.submissions) if each.sender in evidence.own}
        alive = [index for index in range(len(evidence.submissions)) if index not in own]
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        for defense in self.defenses:
            shown = sorted((*alive, *own)) if defense.uses_own else alive
            if not shown:
                continue
            started = time.perf_counter()
            evidence_left = evidence if len(shown) == len(evidence.submissions) else evidence.subset(shown)
            for index, verdict in zip(shown, _ask(defense, evidence_left), strict=True):
                if index not in own:
                    verdicts[index] += (verdict,)
            self.seconds[defense.name] = time.perf_counter() - started
            alive = [index for index in alive if verdicts[index][-1].decision != "reject"]
        return verdicts

    def admission(self, verdicts: Sequence[Verdict]) -> str:
        """What becomes of a completion with these verdicts: ``accept``, ``drop`` or ``zero_reward``."""
        for verdict in verdicts:
            if verdict.decision == "reject":
                return next(defense.admission for defense in self.defenses if defense.name == verdict.defense)
        return "accept"

    def suspended(self, round: int) -> frozenset[int]:
        """Senders that some defense wants to have no slots in a round."""
        return frozenset().union(*(defense.suspended(round) for defense in self.defenses))

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
    except Exception as error:  # a defense is third-party code that reads hostile text: whatever it raises is a verdict
        reason = f"{type(error).__name__}: {error}"
    return [failure(defense.name, reason)] * len(evidence.submissions)


def failure(defense: str, reason: str) -> Verdict:
    """The verdict of a defense that failed."""
    return Verdict(defense, "reject", f"the defense failed: {reason:.200}", error=True)


def _is_sound(verdict: object, name: str) -> bool:
    """Whether something is a verdict of a defense; ``None`` of a sloppy third party is not."""
    return (
        isinstance(verdict, Verdict)
        and verdict.defense == name
        and verdict.decision in get_args(Decision)
        and 0 <= verdict.weight <= 1
    )
