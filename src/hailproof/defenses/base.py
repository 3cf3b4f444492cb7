"""What defenses share: their base classes, and marks on the text for what a verdict rests on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

import numpy as np

from hailproof.errors import ConfigError
from hailproof.parsing import sentence_borders
from hailproof.protocols import Admission, Effect, Evidence, Need, Variant
from hailproof.records import Span, Verdict


class BaseDefense(ABC):
    """Defaults of a defense; a subclass writes ``screen``.

    A class says where it has something to do, so that a run in which it has nothing is refused: ``variants`` lists the
    kinds of answers that it reads, ``same_weights`` is for one that accepts nothing which other weights drew, and
    :meth:`check_limit` looks at the length limit.

    Args:
        admission: What happens to rejected completions.

    Raises:
        ConfigError: If the admission is not one.
    """

    name: str
    needs: frozenset[Need] = frozenset()
    needs_by: ClassVar[Mapping[Need, str]] = {}
    """The option that decides whether it needs something, where one does, for messages."""
    gives: frozenset[Effect] = frozenset()
    """What its verdicts may ask for besides a rejection; a trainer that cannot do it refuses the defense."""
    before_rewards: bool = False
    variants: tuple[Variant, ...] = ("math", "code")
    """The kinds of answers in which it finds something to read."""
    same_weights: bool = False
    """Whether it rejects every draw of other weights than the receiver's."""
    reads_sampling: bool = False
    """Whether its verdict depends on how honest completions are drawn (``Evidence.sampling``)."""

    def __init__(self, admission: Admission = "drop") -> None:
        if admission not in get_args(Admission):
            raise ConfigError(f"Defense option admission = {admission} is unknown; use drop or zero_reward.")
        self.admission: Admission = admission

    @abstractmethod
    def screen(self, evidence: Evidence) -> list[Verdict]:
        """Gives one verdict for each completion of the evidence."""

    def check_limit(self, longest: int) -> None:
        """Makes sure that the options can do something where no completion has more tokens than a limit.

        Args:
            longest: Tokens of the longest completion that is read.

        Raises:
            ConfigError: If they cannot; by default they can.
        """
        return None

    def suspended(self, round: int) -> frozenset[int]:
        """Senders that are to have no slots in a round; by default none."""
        return frozenset()

    def suspicion(self, sender: int) -> float:
        """What is held against a sender, as a share of what is enough to exclude it; by default nothing."""
        return 0.0

    def state(self) -> dict[str, Any]:
        """What it remembers between rounds; by default nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        return None


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
        except ConfigError:
            raise
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


def failure(defense: str, reason: str) -> Verdict:
    """The verdict of a defense that failed."""
    return Verdict(defense, "reject", f"the defense failed: {reason:.200}", error=True)
