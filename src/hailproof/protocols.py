"""Every seam of the program, in one file without torch.

A third party implements one of these, registers it under an entry point (``hailproof.tasks``, ``hailproof.attacks``,
``hailproof.defenses``, ``hailproof.engines``), and it is a name on the command line. Arrays are numpy, so that no seam
needs torch.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from hailproof.records import Completion, Group, Problem, Prompt, Row, Submission, UpdateStats, Verdict
from hailproof.sandbox.base import Library

Topology = Literal["horizontal", "vertical"]
"""Whether all nodes answer the same prompts, or each brings its own."""

PromptChoice = Literal["free", "assigned"]
"""Whether nodes of a vertical swarm pick their prompts themselves, or get them by a public hash.

In a horizontal swarm all prompts are those of the hash, whatever is said here.
"""

Variant = Literal["math", "code"]
"""Whether answers are reasoning with a number, or programs."""

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


Need = Literal["tokens", "model", "anchor", "keys", "senders", "groups", "own"]
"""What a defense may need besides texts and rewards.

``tokens``: the ids of each completion under the receiver's tokenizer. ``model``: the receiver's own policy, which
scores and replays them. ``anchor``: that policy as it was before the first round. ``keys``: the public key of each
slot's randomness. ``senders``: who sent each completion. ``groups``: which completions answer the same prompt.
``own``: the receiver's own completions, to compare with; nodes with such a defense decide differently and part.
"""


Effect = Literal["weights", "masks"]
"""What a defense may ask of a trainer besides leaving completions out: to weigh them, or to mute some of their tokens.
"""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One completion to be drawn: the prompt, and the key that all its randomness is derived from."""

    prompt: Prompt
    key: int


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says of the T tokens of one completion, end token included, by teacher forcing.

    Attributes:
        token_ids: ``[T]`` the ids that were scored.
        logprobs: ``[T]`` natural log-probabilities at temperature 1 over the whole vocabulary.
        ranks: ``[T]`` number of tokens that are strictly more probable.
        gaps: ``[T]`` nats by which a token lies below the least probable token that the sampling settings allow;
            zero for tokens that could have been drawn.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    ranks: np.ndarray
    gaps: np.ndarray


@dataclass(frozen=True, slots=True)
class Candidates:
    """The K most probable next tokens at each of the T places of one completion, by teacher forcing.

    Attributes:
        ids: ``[T, K]`` their ids, in any order.
        logits: ``[T, K]`` their logits; log-probabilities will do, since only differences count. Tokens that the codec
            bars have ``-inf`` or are left out.
        own: ``[T]`` the logit of the completion's own token; ``-inf`` if it is barred.
    """

    ids: np.ndarray
    logits: np.ndarray
    own: np.ndarray


class Task(Protocol):
    """Problems, and how their answers are asked for and judged."""

    name: str
    completion_tokens: int
    """Length limit that suits the task's answers, in tokens; used where the configuration gives none."""
    train: Sequence[Problem]
    test: Sequence[Problem]

    @property
    def variant(self) -> Variant:
        """Whether answers are reasoning with a number, or programs."""
        ...

    @property
    def reward_seconds(self) -> float:
        """What the reward of an honest answer takes at most, in seconds; about 0 where nothing is run."""
        ...

    def prompt(self, problem: Problem) -> Prompt:
        """Strips a problem of its answer and adds the instructions."""
        ...

    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning and answer in the form that earns full reward."""
        ...

    def reward(self, problem: Problem, text: str) -> float:
        """Scores a completion's text, in [0, 1]; never raises on hostile text."""
        ...


class Guide(Protocol):
    """Steers draws among the tokens that sampling allows; honest nodes have none."""

    def adjust(self, drawn: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Changes the values of candidate tokens before the noise is added.

        Args:
            drawn: ``[N, t]`` the tokens drawn so far.
            ids: ``[N, K]`` the candidates.
            values: ``[N, K]`` their logits over the temperature; ``-inf`` for those that top-p leaves out.

        Returns:
            ``[N, K]`` the values to draw with.
        """
        ...


class Codec(Protocol):
    """Text to token ids and back: a tokenizer, and what a receiver keeps of what strangers send."""

    end_ids: tuple[int, ...]
    """Tokens that end a completion; the first is the one that this codec writes."""

    def barred(self, columns: int) -> tuple[int, ...]:
        """Ids below ``columns`` that no completion may hold: special tokens that do not end it, and ids of no token."""
        ...

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenizes a completion's text, without special tokens and without the end token."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of completion ids; special tokens are left out."""
        ...

    def as_completion(self, text: str) -> Completion:
        """Makes a finished completion of a text: its ids under this tokenizer, then the end token."""
        ...

    def drawn(self, token_ids: Sequence[int]) -> Completion:
        """Makes a completion of ids that were drawn."""
        ...

    def received_ids(self, completion: Completion) -> tuple[int, ...]:
        """Ids to score and train a received completion with: the sender's if they are sound, else the text's own."""
        ...

    def received(self, completion: Completion) -> Completion:
        """A received completion with the text that those ids say, which is what is learned from it."""
        ...

    def ends(self, token_ids: Sequence[int]) -> np.ndarray:
        """``[T]`` index of the character of the decoded text at which each token ends.

        Tokens that share a character end before it, but for the last of them.
        """
        ...


class Engine(Protocol):
    """Runs a model over rows of token ids; it knows no text.

    A third party registers a factory of one under ``hailproof.engines``: called with the weights that the learner
    trains (``hailproof.policies.trainable.Trainable``) and the codec, it returns the engine.
    """

    @property
    def context(self) -> int:
        """Tokens that the model can read at once, prompt and completion together."""
        ...

    @property
    def rounding(self) -> float:
        """Nats by which a logit may differ between two passes over the same tokens, since sums are rounded."""
        ...

    def draw(
        self,
        prompts: Sequence[tuple[int, ...]],
        keys: Sequence[int],
        sampling: Sampling,
        guide: Guide | None = None,
    ) -> list[tuple[int, ...]]:
        """Draws one completion per prompt, end token included; it depends on weights, prompt, key and guide only.

        The draw of each token is defined in :mod:`hailproof.draws`; tokens that the codec bars are never drawn.
        """
        ...

    def score(self, rows: Sequence[Row], sampling: Sampling) -> list[TokenScores]:
        """Scores every completion token of every row in one teacher-forced pass."""
        ...

    def candidates(self, rows: Sequence[Row], count: int) -> Iterator[tuple[int, Candidates]]:
        """Yields, for each row in any order, its index and the most probable tokens at its places.

        Args:
            rows: What is read.
            count: How many tokens are wanted at each place; fewer if the vocabulary is smaller.
        """
        ...

    def refresh(self) -> None:
        """Takes up the weights as they are after an update."""
        ...


class Policy(Protocol):
    """A language model as the swarm uses it: how text becomes tokens, and what runs on them."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    @property
    def codec(self) -> Codec:
        """Its tokenizer."""
        ...

    @property
    def engine(self) -> Engine:
        """What draws and scores."""
        ...


class Learner(Protocol):
    """Trains the weights of one node."""

    @property
    def hears_all(self) -> bool:
        """Whether groups without variance in their rewards change the update too, as with a KL term."""
        ...

    def update(self, groups: Sequence[Group]) -> UpdateStats:
        """Makes one step on the scored groups of a round."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Weights, and everything else that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a saved state."""
        ...


@dataclass(frozen=True, slots=True)
class AttackView:
    """What an attacker knows when it forges the completions of one problem.

    Attributes:
        round: The round.
        problem: The problem; without an oracle its answer and solution are the attacker's own estimates.
        task: How answers are asked for and judged.
        slots: The slots of the group that this attacker poisons.
        samples: As many draws of the attacker's own copy of the policy as the attack asked for, steered by its guide.
        honest: By slot, what an honest node would have drawn for it, if the attack asked for it.
        others: By node, what each other one will draw for the problem, if the attack asked for it. It is right where
            all hold the same weights and draws are public.
        defenses: Names of the defenses that the attacker knows of.
    """

    round: int
    problem: Problem
    task: Task
    slots: tuple[int, ...]
    samples: Sequence[Completion] = ()
    honest: Mapping[int, Completion] = field(default_factory=dict)
    others: Mapping[int, Sequence[Completion]] = field(default_factory=dict)
    defenses: tuple[str, ...] = ()


class AttackMeasure(Protocol):
    """Whether an attack worked, as seen in what honest nodes write."""

    def success(self, problem: Problem, text: str) -> bool | None:
        """Whether a text shows the attacked behavior; ``None`` if the text is not eligible to show it."""
        ...

    def also(self, problem: Problem, text: str) -> Mapping[str, bool | None]:
        """Further measures of a text by name, with the same three values."""
        ...

    def wants(self, problem: Problem) -> bool:
        """Whether the attack can be carried out on a problem; in vertical swarms attackers choose such problems."""
        ...


class Attack(AttackMeasure, Protocol):
    """A way to forge completions, and the measure of whether it worked; ``attacks.base.BaseAttack`` has defaults."""

    name: str
    topology: Topology
    """Where the attack belongs, if the configuration does not say."""
    variant: Variant
    """The kind of task that it works on."""
    samples: int
    """Draws of its own policy, per problem, that it chooses from."""
    needs_honest_draws: bool
    """Whether it asks for what an honest node would have drawn for its poisoned slots."""
    needs_others: bool
    """Whether it asks for what the other nodes draw."""

    libraries: ClassVar[Mapping[str, Library]]
    """Modules that the attacker owns and that programs can import in the experiment."""
    composition: ClassVar[Mapping[str, Any]]
    """Settings of the harness that make the attack what it is, if the configuration does not say."""

    def check_swarm(self, topology: Topology, honest: Collection[int]) -> None:
        """Makes sure that it can be carried out in a swarm with these honest nodes, or raises ``ConfigError``."""
        ...

    def guide(self, policy: Policy, round: int) -> Guide | None:
        """Steers the draws of ``samples``; ``None`` leaves them honest."""
        ...

    def forge(self, view: AttackView) -> Sequence[str | Completion | None]:
        """Forges a text, a completion as drawn, or nothing (withheld) for each of ``view.slots``."""
        ...

    def decoys(self, view: AttackView, count: int) -> Sequence[str | Completion]:
        """Worthless completions for the decoy slots of a group that the attacker owns whole."""
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
    def variant(self) -> Variant:
        """Whether answers are reasoning with a number, or programs."""
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
    def rewards(self) -> Sequence[float]:
        """The receiver's own reward of each, before screening, ``[N]``; unknown to defenses with ``before_rewards``."""
        ...

    @property
    def rows(self) -> Sequence[Row]:
        """Prompt and completion of each as token ids of the receiver, ``[N]``; for defenses that need ``tokens``."""
        ...

    def ends(self, index: int) -> np.ndarray:
        """``[T]`` index of the character at which each token of a completion ends, to mark what a verdict rests on."""
        ...

    @property
    def keys(self) -> Sequence[int]:
        """The public key that the randomness of each slot is derived from, ``[N]``."""
        ...

    @property
    def beacon(self) -> int | None:
        """Public randomness that nobody knew before all completions of the round were sent, if there is any."""
        ...

    @property
    def own(self) -> frozenset[int]:
        """Senders that are the receiver itself; empty where all nodes must decide alike."""
        ...

    @property
    def missing(self) -> Mapping[int, int]:
        """By sender, how many of the completions that it owed in this round did not come."""
        ...

    @property
    def policy(self) -> Policy:
        """The receiver's own policy, for defenses that need ``model``; a defense reads it and never trains it."""
        ...

    @property
    def anchor(self) -> Policy:
        """The receiver's policy as it was before the first round, for defenses that need ``anchor``."""
        ...

    def subset(self, indices: Sequence[int]) -> "Evidence":
        """The evidence of some of the completions; scores are shared, so that nothing is computed twice."""
        ...

    @property
    def scores(self) -> Sequence[TokenScores]:
        """The receiver's own token scores, ``[N]``; one model pass, computed when first asked for and shared."""
        ...


class Defense(Protocol):
    """Decides what an honest model may learn from; ``defenses.base.BaseDefense`` has defaults."""

    name: str
    admission: Admission
    needs: frozenset[Need]
    """What it needs besides texts and rewards; a chain refuses evidence that lacks it."""
    before_rewards: bool
    """Whether it is asked before rewards are computed, so that what it refuses costs no reward."""

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """Gives one verdict for each completion of the evidence."""
        ...

    def suspended(self, round: int) -> frozenset[int]:
        """Senders that are to have no slots in a round, because of what they sent before."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers between rounds, in plain types, for the checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        ...


class Exchange(Protocol):
    """Moves submissions between nodes; what comes out is untrusted."""

    def all_gather(self, round: int, submissions: Sequence[Submission]) -> list[Submission]:
        """Sends the own submissions of a round and returns everybody's, in the order of (problem, slot)."""
        ...

    def beacon(self, round: int) -> int | None:
        """Public randomness that is the same for all nodes, and that none knew before all were bound to what they sent.

        A later round of drand, say, or the hash of nonces that all nodes commit to with their completions and reveal
        afterwards. ``None`` if there is none; a hash of the completions is none, since whoever holds the weights and
        knows the labels can compute what honest nodes will send.
        """
        ...
