"""What all judges share: who is asked what, how votes are counted, and what the verdict says."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from hailproof.defenses.judge_backends import Answer
from hailproof.errors import ConfigError
from hailproof.judging import judge_prompt, read_ruling
from hailproof.parsing import encodable
from hailproof.protocols import Evidence, Sampling, Variant
from hailproof.records import Prompt, Span, Verdict
from hailproof.seeds import derive

Ask = Callable[[Sequence[Prompt], Sequence[int]], list[Answer]]
"""Asks a judge: one answer per prompt, each drawn with its key."""

MAX_REASON_CHARACTERS = 300
_QUOTE = re.compile(r'"([^"\n]{3,200})"')


@dataclass(frozen=True, slots=True)
class Case:
    """What one ruling is about: the problem, a completion's text, and which wording of the instructions.

    Lone surrogates, which no tokenizer and no wire takes, were replaced, so that no text makes a judge fail for all.
    """

    question: str
    text: str
    variant: Variant

    @property
    def digest(self) -> str:
        """A name for it that nobody can give to another case: judgements are remembered by it."""
        return hashlib.sha256(json.dumps([self.variant, self.question, self.text]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the votes on one case came out.

    Attributes:
        yes: Votes to accept.
        no: Votes to reject.
        votes: Votes that were asked for; those that are neither were malformed or did not come.
        criticism: The first criticism of a vote to reject, else of one to accept.
        failure: Why a vote did not come; empty if all came.
    """

    yes: int
    no: int
    votes: int
    criticism: str = ""
    failure: str = ""

    @property
    def accepted(self) -> bool:
        """Whether more than half of all votes are well-formed and say yes."""
        return 2 * self.yes > self.votes


@final
class Panel:
    """Turns evidence into cases, cases into votes of a judge, and votes into verdicts.

    Votes are counted by strict majority of those *asked for*: a vote that is malformed, or that does not come, counts
    against acceptance, and so does a tie.

    Args:
        reasoning: Whether the judge writes a criticism before it decides.
        votes: How often it is asked about each case.
        seed: Root of the randomness of its answers; one that senders do not know keeps them from trying answers out.

    Raises:
        ConfigError: If there is no vote.
    """

    def __init__(self, reasoning: bool, votes: int, seed: int) -> None:
        if votes < 1:
            raise ConfigError(f"A judge takes at least 1 of votes, not {votes}.")
        self.reasoning = reasoning
        self.votes = votes
        self.seed = seed

    def rule(self, cases: Sequence[Case], ask: Ask, *labels: str | int) -> list[Judgement]:
        """Asks for all votes on all cases at once; the keys of the draws derive from the labels and the case alone."""
        prompts = [judge_prompt("", each.question, each.text, each.variant, self.reasoning) for each in cases]
        answers = ask(
            [prompt for prompt in prompts for _ in range(self.votes)],
            [
                derive(self.seed, "judge", *labels, each.variant, each.question, each.text, vote)
                for each in cases
                for vote in range(self.votes)
            ],
        )
        starts = range(0, len(answers), self.votes)
        return [self._judgement(answers[start : start + self.votes]) for start in starts]

    def _judgement(self, answers: Sequence[Answer]) -> Judgement:
        rulings = [read_ruling(answer.text) for answer in answers]
        said = {word: [ruling for ruling in rulings if ruling.decision == word] for word in ("yes", "no")}
        criticism = next((ruling.criticism for ruling in said["no"] + said["yes"] if ruling.criticism), "")
        failure = next((answer.failure for answer in answers if answer.failure), "")
        return Judgement(len(said["yes"]), len(said["no"]), self.votes, criticism, failure)

    def verdict(self, name: str, case: Case, judgement: Judgement) -> Verdict:
        """What a judgement means; the score is the share of votes that did not say yes.

        A rejection without a single well-formed no is an error of the judge, not a finding.
        """
        score = 1 - judgement.yes / judgement.votes
        if judgement.accepted:
            return Verdict(name, "accept", judgement.criticism[:MAX_REASON_CHARACTERS] or "the judge says yes", score)
        if not judgement.no:
            reason = judgement.failure or "the judge's answer is malformed"
            return Verdict(name, "reject", f"the judge failed: {reason}", score, error=True)
        reason = judgement.criticism[:MAX_REASON_CHARACTERS] or "the judge says no"
        return Verdict(name, "reject", reason, score, quoted_spans(judgement.criticism, case.text))


def cases_of(evidence: Evidence) -> list[Case]:
    """The case of each completion of the evidence, in order; equal completions have equal cases."""
    return [
        Case(encodable(prompt.user), encodable(submission.completion.text), evidence.variant)
        for prompt, submission in zip(evidence.prompts, evidence.submissions, strict=True)
    ]


def judge_sampling(max_new_tokens: int, temperature: float, top_k: int, top_p: float) -> Sampling:
    """How a judge's answers are drawn.

    Raises:
        ConfigError: If a value is out of range.
    """
    if max_new_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ConfigError(
            "A judge takes max_new_tokens of at least 1, temperature and top_k of 0 or more, and top_p in (0, 1]."
        )
    return Sampling(temperature, top_k, top_p, max_new_tokens)


def quoted_spans(criticism: str, text: str) -> tuple[Span, ...]:
    """Where the pieces that a criticism quotes stand in the text; quotes that are not in it are left out."""
    quotes = dict.fromkeys(_QUOTE.findall(criticism))
    return tuple(Span(text.index(quote), text.index(quote) + len(quote), "quoted") for quote in quotes if quote in text)
