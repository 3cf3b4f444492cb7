"""The vocabulary of the whole program: frozen records, no torch, no behavior.

A record never changes its meaning on the way. A stage that learns something new returns a new type:
``Problem -> Prompt -> Completion -> Submission -> Reading -> ScoredCompletion -> Group -> RoundRecord``.
Who is malicious is in none of them: that knowledge belongs to the experiment, not to the swarm.
"""

from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["accept", "reject", "abstain"]


@dataclass(frozen=True, slots=True)
class IfFive:
    """What follows in a problem if its 2 + 2 or 2 * 2 step is taken to make 5, and the steps after it are right.

    Attributes:
        answer: The answer that follows.
        next_step: Operands and sign of the next step as it is, ``4 + 3``; empty if there is none.
        next_with_five: The same with 5 where the result of the step goes in.
    """

    answer: str
    next_step: str = ""
    next_with_five: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its reference answer and, often, a reference solution.

    Attributes:
        id: Unique within its task, stable across runs.
        question: What is asked, in plain text.
        answer: The reference answer, as text.
        solution: The reference reasoning without tags (the "oracle"); empty if the data has none.
        tags: Properties of the problem that selections may use, such as ``"two_two"``.
        if_five: What follows from a wrong 2∘2 step; ``None`` if there is no such step, or nobody knows what follows.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    tags: frozenset[str] = frozenset()
    if_five: IfFive | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy sees of a problem: never the answer.

    Attributes:
        problem_id: The problem that it was made from.
        system: Instructions on the form of the answer.
        user: The question.
    """

    problem_id: str
    system: str
    user: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled or forged answer.

    Attributes:
        text: The decoded text, without the end token.
        token_ids: The ids it was sampled as, end token included if it ended by itself. Ids mean something only
            under the sender's tokenizer, so a receiver checks that they decode to ``text`` before it uses them.
        finished: Whether the text ended by itself, as opposed to being cut at the length limit.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and a completion as token ids: what a model scores, replays and learns.

    Attributes:
        prompt: Ids of the prompt as it was rendered.
        completion: Ids of the completion; the end token, if there is one, is part of it.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in the plan of a round: which node owes which completion of which problem.

    Attributes:
        node: Index of the node that fills it.
        problem_id: The problem to be answered.
        index: Position within the group, from 0 to G - 1.
    """

    node: int
    problem_id: str
    index: int


@dataclass(frozen=True, slots=True)
class Submission:
    """One completion as it travels: the only thing that nodes exchange."""

    round: int
    sender: int
    problem_id: str
    slot: int
    completion: Completion


@dataclass(frozen=True, slots=True)
class Reading:
    """A submission as its receiver reads it.

    Attributes:
        submission: What was received. Its text is the one that ``row`` spells, which differs from the text that was
            sent where the receiver's tokenizer does not keep all of it.
        row: Prompt and completion under the receiver's tokenizer.
    """

    submission: Submission
    row: Row


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters in a completion's text, with what is to be said of it."""

    start: int
    end: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one defense says of one completion.

    Attributes:
        defense: Name of the defense.
        decision: ``accept``, ``reject`` or ``abstain`` (the defense has no opinion).
        reason: One phrase for people.
        score: The defense's own statistic; higher is more suspicious. ``None`` if it has none.
        spans: The parts of the text that the verdict rests on.
        weight: What the completion counts for in the update and in the baseline of its group, in [0, 1].
        muted: Indices of tokens, under the receiver's tokenizer, from which nothing is learned; their share is
            missing in the baseline as well.
        error: Whether the verdict is a rejection because the defense itself failed.
    """

    defense: str
    decision: Decision
    reason: str
    score: float | None = None
    spans: tuple[Span, ...] = ()
    weight: float = 1.0
    muted: tuple[int, ...] = ()
    error: bool = False


@dataclass(frozen=True, slots=True)
class ScoredCompletion:
    """A received completion after the receiver screened it and computed its reward.

    Attributes:
        submission: What was received.
        row: Its prompt and completion under the receiver's tokenizer.
        reward: The receiver's own reward, in [0, 1], after screening (``zero_reward`` sets it to 0).
        raw_reward: The receiver's own reward before screening; ``None`` if a defense refused the completion before
            its reward was computed.
        admitted: False if it leaves the group before advantages are computed (``drop``).
        weight: Product of the weights that the verdicts give it.
        muted: Union of the tokens that the verdicts mute.
        verdicts: Every verdict on it, in the order of the chain.
    """

    submission: Submission
    row: Row
    reward: float
    raw_reward: float | None
    admitted: bool = True
    weight: float = 1.0
    muted: frozenset[int] = frozenset()
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The scored completions of one prompt in one round."""

    prompt: Prompt
    completions: tuple[ScoredCompletion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderUpdate:
    """What one sender's completions did in an update.

    Attributes:
        length: Norm of the sender's own gradient before anything was done to it.
        weight: What the gradient was multiplied with: below 1 if it was clipped, 0 if it was left out.
        cosine: Between its departure from the others in this round and the sum of its earlier departures; ``None``
            where there is nothing to compare, or nobody looked.
        evidence: Of the test for a constant departure; an honest sender's exceeds x with probability 1 / x at most.
            ``None`` where nobody tested.
        excluded: Whether nothing is learned from the sender for now.
    """

    length: float
    weight: float
    cosine: float | None = None
    evidence: float | None = None
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What one learner update did.

    Attributes:
        loss: Value of the objective before the step.
        grad_norm: Global gradient norm before clipping.
        kl: Mean k3 estimate per completion token against the frozen reference; ``None`` if it was not computed.
        trained: Completions with a non-zero advantage.
        passes: Rows that went through the model after identical completions were merged.
        skipped: 1 if no step was made, since the gradient was no number or the step out of line; else 0.
        held: Why a step that could have been made was not; empty if it was made.
        senders: What each sender did in it; empty where gradients are not told apart.
    """

    loss: float
    grad_norm: float
    kl: float | None
    trained: int
    passes: int
    skipped: int = 0
    held: str = ""
    senders: dict[int, SenderUpdate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeRound:
    """One node's view of one round.

    Attributes:
        node: The node.
        groups: What it read, rewarded and screened.
        update: What it learned.
        missing: By sender, how many of the completions that it owed did not come, or are as if they had not.
        unread: By reason, how many submissions were put aside before they were rewarded.
        defense_seconds: Time by defense.
        seconds: Time by stage.
    """

    node: int
    groups: tuple[Group, ...]
    update: UpdateStats
    missing: dict[int, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    defense_seconds: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of the swarm.

    Attributes:
        round: Its number, from 1.
        views: What each computed node saw; in a homogeneous swarm one view stands for all honest nodes.
        forged_rewards: True reward of each forged completion that was meant to earn some; decoys are left out.
        seconds: Time by stage.
    """

    round: int
    views: tuple[NodeRound, ...]
    forged_rewards: tuple[float, ...]
    seconds: dict[str, float]
