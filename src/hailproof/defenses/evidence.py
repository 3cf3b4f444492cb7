"""Received completions with the receiver's own view of them: what defenses look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from hailproof.errors import ConfigError
from hailproof.protocols import Need, Policy, Sampling, TokenScores, Variant
from hailproof.records import Completion, Prompt, Row, Submission


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Received completions with the receiver's own view of them; implements ``Evidence``.

    Attributes:
        round: The round in which they were received.
        sampling: How an honest node draws completions in this swarm.
        variant: Whether answers are reasoning with a number, or programs.
        prompts: The prompt of each, ``[N]``.
        submissions: What was received, ``[N]``.
        earned: The receiver's own rewards, ``[N]``; ``None`` while they are not computed.
        slot_keys: The public key of each slot's randomness, ``[N]``; ``None`` if draws have none.
        model: The receiver's policy; ``None`` where texts are screened without one.
        own: Senders that are the receiver itself.
        missing: Completions that did not come, by sender.
        frozen: The initial policy; ``None`` if it was not kept.
        beacon: Public randomness that nobody knew before all completions of the round were sent, if there is any.
        read: Prompt and completion of each as the receiver's token ids, ``[N]``; without, they are made with the
            model's codec.
        made_up: Which of senders and groups are made up, so that they say nothing.
    """

    round: int
    sampling: Sampling
    variant: Variant
    prompts: Sequence[Prompt]
    submissions: Sequence[Submission]
    earned: Sequence[float] | None
    slot_keys: Sequence[int] | None = None
    model: Policy | None = None
    own: frozenset[int] = frozenset()
    missing: Mapping[int, int] = field(default_factory=dict)
    frozen: Policy | None = None
    beacon: int | None = None
    read: Sequence[Row] | None = None
    made_up: frozenset[Need] = frozenset()
    _scored: dict[tuple[str, int, int], TokenScores] = field(default_factory=dict, repr=False)

    @classmethod
    def texts(cls, texts: Sequence[str], questions: Sequence[str] = (), variant: Variant = "math") -> "Received":
        """Evidence of texts alone, for defenses that need nothing else; each text counts as rewarded.

        Args:
            texts: Completions, ``[N]``.
            questions: What was asked, ``[N]``; without, the questions are empty.
            variant: Whether they are reasoning with a number, or programs.

        Raises:
            ConfigError: If there are questions, but not one for each text.
        """
        if questions and len(questions) != len(texts):
            raise ConfigError(f"{len(questions)} questions are not one for each of {len(texts)} texts; give as many.")
        asked = questions or [""] * len(texts)
        prompts = [Prompt(str(place), "", question) for place, question in enumerate(asked)]
        submissions = [
            Submission(1, place, str(place), 0, Completion(text, (), True)) for place, text in enumerate(texts)
        ]
        return cls(
            round=1,
            sampling=Sampling(),
            variant=variant,
            prompts=prompts,
            submissions=submissions,
            earned=[1.0] * len(texts),
            made_up=frozenset({"senders", "groups"}),
        )

    @property
    def offers(self) -> frozenset[Need]:
        """What defenses may need of it."""
        has: dict[Need, bool] = {
            "tokens": self.read is not None or self.model is not None,
            "model": self.model is not None,
            "anchor": self.frozen is not None,
            "keys": self.slot_keys is not None,
            "senders": "senders" not in self.made_up,
            "groups": "groups" not in self.made_up,
            "own": bool(self.own),
        }
        return frozenset(need for need, there in has.items() if there)

    @property
    def rewards(self) -> Sequence[float]:
        """The receiver's own rewards, ``[N]``.

        Raises:
            ConfigError: If they are not computed yet.
        """
        if self.earned is None:
            raise ConfigError("Rewards are not computed yet; a defense with before_rewards must not look at them.")
        return self.earned

    @property
    def keys(self) -> Sequence[int]:
        """The public key of each slot's randomness, ``[N]``.

        Raises:
            ConfigError: If draws have none.
        """
        if self.slot_keys is None:
            raise ConfigError("The draws have no public keys; a defense that repeats them must say that it needs keys.")
        return self.slot_keys

    @property
    def policy(self) -> Policy:
        """The receiver's own policy.

        Raises:
            ConfigError: If there is none.
        """
        if self.model is None:
            raise ConfigError("There is no model; a defense that looks at it must say that it needs a model.")
        return self.model

    @property
    def anchor(self) -> Policy:
        """The receiver's policy as it was before the first round.

        Raises:
            ConfigError: If it was not kept.
        """
        if self.frozen is None:
            raise ConfigError("No anchor was kept; a defense that looks at it must say that it needs an anchor.")
        return self.frozen

    @property
    def rows(self) -> Sequence[Row]:
        """Prompt and completion of each as the receiver's token ids, ``[N]``."""
        if self.read is not None:
            return self.read
        codec = self.policy.codec
        return [
            Row(codec.render(prompt), codec.received_ids(submission.completion))
            for prompt, submission in zip(self.prompts, self.submissions, strict=True)
        ]

    def ends(self, index: int) -> np.ndarray:
        """``[T]`` index of the character at which each token of a completion ends."""
        return self.policy.codec.ends(self.subset([index]).rows[0].completion)

    @property
    def scores(self) -> Sequence[TokenScores]:
        """The receiver's own token scores, ``[N]``; one pass for all that were not scored yet."""
        places = [(each.problem_id, each.slot, each.sender) for each in self.submissions]
        new = [index for index, place in enumerate(places) if place not in self._scored]
        if new:
            rows = self.rows
            scores = self.policy.engine.score([rows[index] for index in new], self.sampling)
            self._scored.update(zip([places[index] for index in new], scores, strict=True))
        return [self._scored[place] for place in places]

    def subset(self, indices: Sequence[int]) -> "Received":
        """The evidence of some completions; what was scored is shared both ways."""
        return replace(
            self,
            prompts=[self.prompts[i] for i in indices],
            submissions=[self.submissions[i] for i in indices],
            earned=None if self.earned is None else [self.earned[i] for i in indices],
            slot_keys=None if self.slot_keys is None else [self.slot_keys[i] for i in indices],
            read=None if self.read is None else [self.read[i] for i in indices],
        )
