"""Every seam of the program, in one file without torch.

A third party implements one of these, registers it under an entry point (``hailproof.tasks``, ``hailproof.attacks``,
``hailproof.defenses``), and it is a name on the command line. Arrays are numpy, so that no seam needs torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hailproof.records import Completion, Problem, Prompt, Submission, Verdict

Admission = Literal["drop", "zero_reward"]
"""What happens to a rejected completion.

``drop``: it leaves the group before mean and standard deviation. ``zero_reward``: it stays in the baseline with
reward 0 and is pushed down. These are different algorithms.
"""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a policy draws tokens.

    Attributes:
        temperature: Divides the logits; 0 is greedy.
        top_k: Only the k most probable tokens may be drawn; 0 switches the limit off.
        top_p: Only the smallest set of tokens whose probability reaches p may be drawn; 1 switches it off.
        max_new_tokens: Length limit of a completion in tokens, end token included.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One completion to be drawn: the prompt, and the key that all its randomness is derived from."""

    prompt: Prompt
    key: int


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a policy says of the T tokens of one completion, end token included, by teacher forcing.

    Attributes:
        token_ids: ``[T]`` the ids that were scored, under the scoring policy's tokenizer.
        logprobs: ``[T]`` natural log-probabilities at temperature 1 over the whole vocabulary.
        ranks: ``[T]`` number of tokens that are strictly more probable.
        gaps: ``[T]`` nats by which a token lies below the least probable token that the sampling settings allow;
            zero for tokens that could have been drawn.
        ends: ``[T]`` index of the character of the text at which each token ends, to mark what a verdict rests on;
            exact unless a character is split over several tokens.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    ranks: np.ndarray
    gaps: np.ndarray
    ends: np.ndarray


class Task(Protocol):
    """Problems, and how their answers are asked for and judged."""

    name: str
    completion_tokens: int
    """Length limit that suits the task's answers, in tokens; used where the configuration gives none."""
    train: Sequence[Problem]
    test: Sequence[Problem]

    def prompt(self, problem: Problem) -> Prompt:
        """Strips a problem of its answer and adds the instructions."""
        ...

    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning and answer in the form that earns full reward."""
        ...

    def reward(self, problem: Problem, text: str) -> float:
        """Scores a completion's text, in [0, 1]; never raises on hostile text."""
        ...


class Policy(Protocol):
    """A language model as the swarm uses it."""

    name: str

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenizes a completion's text, without special tokens and without the end token."""
        ...

    def as_completion(self, text: str) -> Completion:
        """Makes a finished completion of a text: its ids under this tokenizer, then the end token."""
        ...

    def sample(self, requests: Sequence[SampleRequest], sampling: Sampling) -> list[Completion]:
        """Draws one completion per request; what is drawn depends on weights, prompt and key only."""
        ...

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], sampling: Sampling
    ) -> list[TokenScores]:
        """Scores every token of every completion in one teacher-forced pass."""
        ...


@dataclass(frozen=True, slots=True)
class AttackView:
    """What an attacker knows when it forges the completions of one problem.

    Attributes:
        round: The round.
        problem: The problem; its ``answer`` and ``solution`` are empty for an attacker without oracle.
        task: How answers are asked for and judged. Its reward is of use only to an attacker with an oracle.
        slots: The slots of the group that this attacker fills.
        sample: Draws n completions of this problem from the attacker's own copy of the policy.
        defenses: Names of the defenses that the attacker knows of.
    """

    round: int
    problem: Problem
    task: Task
    slots: tuple[int, ...]
    sample: Callable[[int], list[Completion]] | None = None
    defenses: tuple[str, ...] = ()


class Attack(Protocol):
    """A way to forge completions, and the measure of whether it worked."""

    name: str

    def forge(self, view: AttackView) -> list[str]:
        """Forges one text for each of ``view.slots``."""
        ...

    def wants(self, problem: Problem) -> bool:
        """Whether the attack can be carried out on a problem; in vertical swarms attackers choose such problems."""
        ...

    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether a text shows the attacked behavior; ``None`` if the text is not eligible to show it."""
        ...


class Evidence(Protocol):
    """What a defense may look at: received completions, and the receiver's own view of their tokens."""

    @property
    def round(self) -> int:
        """The round in which they were received."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How an honest node draws completions in this swarm."""
        ...

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The prompt of each completion, ``[N]``."""
        ...

    @property
    def submissions(self) -> Sequence[Submission]:
        """What was received, ``[N]``; everything in it is the sender's claim."""
        ...

    @property
    def scores(self) -> Sequence[TokenScores]:
        """The receiver's own token scores, ``[N]``; one model pass, computed when first asked for and shared."""
        ...


class Defense(Protocol):
    """Decides what an honest model may learn from."""

    name: str
    admission: Admission

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """Gives one verdict for each completion of the evidence."""
        ...


class Exchange(Protocol):
    """Moves submissions between nodes; what comes out is untrusted."""

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Sends the own submissions of a round and returns everybody's, in the order of (problem, slot)."""
        ...
