"""One node, one round. The file to read first.

A round has two halves. ``produce``: an honest node samples the slots that the plan gives it; a malicious one forges
them. ``consume``: a node takes what the exchange brought, trusts none of it, and learns.

    plan -> produce -> exchange -> [check against the plan -> reward -> screen -> admit -> update] -> record
"""

import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hailproof.attacks.base import Allotment, Forged, Forger, Forgery
from hailproof.defenses.base import Chain, Received
from hailproof.learner.update import Learner
from hailproof.policies.causal_lm import CausalLM
from hailproof.protocols import AttackView, Sampling, Task
from hailproof.records import Completion, Group, NodeRound, Problem, Prompt, ScoredCompletion, Slot, Submission, Verdict
from hailproof.rollouts import completion_key, rollout
from hailproof.seeds import derive
from hailproof.topology import sampled_groups

OVERSIZE = 4
"""Completions of more than so many times the length limit are not looked at: tokenizers differ, but less than that."""

CHARACTERS_PER_TOKEN = 16
"""Text of more characters per token than this is not looked at either."""


ID_LIMIT = 2**31
"""No tokenizer has so many tokens, and files and hashes take what is below."""


@dataclass(frozen=True, slots=True)
class SampledSharing:
    """A node learns from I own and J received groups, those without advantage discarded before (SAPO).

    Attributes:
        own: I.
        received: J.
    """

    own: int
    received: int


@dataclass(frozen=True, slots=True)
class HonestNode:
    """A node that follows the protocol; in a homogeneous swarm one of these stands for all that are alike.

    Attributes:
        nodes: Indices of the nodes that it stands for.
        policy: Its model.
        learner: Trains the model.
        chain: What it asks before it learns from a completion.
        task: Problems and rewards.
        sampling: How it draws tokens.
        seed: The run's seed.
        screens_own: Whether its own completions go through the chain. In a homogeneous swarm they must, so that all
            nodes decide alike; in a heterogeneous one they do not.
        sharing: Which groups it learns from; ``None``: from all (the paper's all-gather).
        anchor: The frozen initial policy, if a defense looks at it.
    """

    nodes: tuple[int, ...]
    policy: CausalLM
    learner: Learner
    chain: Chain
    task: Task
    sampling: Sampling
    seed: int
    screens_own: bool
    sharing: SampledSharing | None = None
    anchor: CausalLM | None = None

    def produce(self, round: int, slots: Sequence[Slot], problems: Mapping[str, Problem]) -> list[Submission]:
        """Samples the slots that belong to this node, in one batch."""
        own = set(self.nodes)
        mine = [slot for slot in slots if slot.node in own]
        prompts = {slot.problem_id: self.task.prompt(problems[slot.problem_id]) for slot in mine}
        completions = rollout(self.policy, mine, prompts, round, self.seed, self.sampling)
        return [
            Submission(round, slot.node, slot.problem_id, slot.index, completion)
            for slot, completion in zip(mine, completions, strict=True)
        ]

    def consume(
        self,
        round: int,
        slots: Sequence[Slot],
        problems: Mapping[str, Problem],
        received: Sequence[Submission],
        beacon: int | None = None,
    ) -> NodeRound:
        """Learns from what was received: reward, screen, admit, update.

        Args:
            round: The round.
            slots: Who owed what.
            problems: By id.
            received: What came, from anybody.
            beacon: Public randomness that nobody knew before all had sent, if there is any.
        """
        started = time.perf_counter()
        expected = {(slot.problem_id, slot.index, slot.node) for slot in slots}
        submissions = list(
            {
                key: readable
                for submission in received
                if (key := (submission.problem_id, submission.slot, submission.sender)) in expected
                and submission.round == round
                and (readable := self._readable(submission, self.task.prompt(problems[submission.problem_id])))
            }.values()
        )
        rewards = self._rewards(problems, submissions)
        chosen = self._chosen(round, problems, submissions, rewards)
        owed = Counter(slot.node for slot in slots)
        owed.subtract(submission.sender for submission in submissions)
        verdicts = self._screen(round, problems, submissions, rewards, chosen, +owed, beacon)
        screened = time.perf_counter()
        groups: dict[str, list[ScoredCompletion]] = {problem_id: [] for problem_id in problems}
        for submission, raw, spoken in zip(submissions, rewards, verdicts, strict=True):
            fate = self.chain.admission(spoken)
            reward = 0.0 if fate == "zero_reward" else raw
            admitted = fate != "drop" and submission.problem_id in chosen
            weight = math.prod(verdict.weight for verdict in spoken)
            muted = frozenset(token for verdict in spoken for token in verdict.muted)
            groups[submission.problem_id].append(
                ScoredCompletion(submission, reward, raw, admitted, weight, muted, spoken)
            )
        view = tuple(Group(self.task.prompt(problems[key]), tuple(members)) for key, members in groups.items())
        update = self.learner.update([group for group in view if group.prompt.problem_id in chosen])
        seconds = {"screen": screened - started, "update": time.perf_counter() - screened}
        return NodeRound(self.nodes[0], view, update, dict(self.chain.seconds), seconds)

    def _readable(self, submission: Submission, prompt: Prompt) -> Submission | None:
        """A submission as this node's model reads it; ``None`` if an honest node cannot have sent it.

        What is ``None`` is as if it had never come. Claimed ids and characters are counted first, which costs nothing,
        then the tokens that would be scored: a character can be four of them, and beside the prompt they must fit into
        the model's context. A text that is no Unicode (a lone surrogate) has no tokens at all. Ids that can be none are
        left out.

        Reward and defenses are shown the text that will be learned, which is another one where the tokenizer does not
        keep what it is given, say accents.
        """
        limit = OVERSIZE * self.sampling.max_new_tokens
        completion = submission.completion
        if len(completion.token_ids) > limit or len(completion.text) > CHARACTERS_PER_TOKEN * limit:
            return None
        if any(not 0 <= token < ID_LIMIT for token in completion.token_ids):
            completion = replace(completion, token_ids=())
        try:
            completion.text.encode()
        except UnicodeEncodeError:
            return None
        completion = self.policy.received(completion)
        size = len(self.policy.received_ids(completion))
        fits = size <= min(limit, self.policy.context - len(self.policy.render(prompt)))
        return replace(submission, completion=completion) if fits else None

    def _rewards(self, problems: Mapping[str, Problem], submissions: Sequence[Submission]) -> list[float]:
        """Scores every distinct text of a problem once; the sender's opinion is not asked."""
        known: dict[tuple[str, str], float] = {}
        for submission in submissions:
            key = (submission.problem_id, submission.completion.text)
            if key not in known:
                known[key] = self.task.reward(problems[submission.problem_id], submission.completion.text)
        return [known[s.problem_id, s.completion.text] for s in submissions]

    def _chosen(
        self, round: int, problems: Mapping[str, Problem], submissions: Sequence[Submission], rewards: Sequence[float]
    ) -> frozenset[str]:
        """The prompts whose groups this node learns from, by the sharing rule."""
        if self.sharing is None:
            return frozenset(problems)
        owned = list(dict.fromkeys(s.problem_id for s in submissions if s.sender in self.nodes))
        spread = _spread(submissions, rewards)
        received = [key for key, values in spread.items() if len(values) > 1 and key not in owned]
        rng = random.Random(derive(self.seed, "round", round, "sharing of node", self.nodes[0]))
        return sampled_groups(owned, received, self.sharing.own, self.sharing.received, rng)

    def _screen(
        self,
        round: int,
        problems: Mapping[str, Problem],
        submissions: Sequence[Submission],
        rewards: Sequence[float],
        chosen: frozenset[str],
        missing: Mapping[int, int],
        beacon: int | None,
    ) -> list[tuple[Verdict, ...]]:
        """Asks the chain about every completion that can change the update."""
        verdicts: list[tuple[Verdict, ...]] = [()] * len(submissions)
        if not self.chain.defenses:
            return verdicts
        spread = _spread(submissions, rewards)
        asked = [
            index
            for index, submission in enumerate(submissions)
            if (self.screens_own or self.chain.uses_own or submission.sender not in self.nodes)
            and submission.problem_id in chosen
            and self._has_influence(spread[submission.problem_id])
        ]
        shown = [submissions[index] for index in asked]
        evidence = Received(
            round, self.sampling, self.task.variant,
            [self.task.prompt(problems[each.problem_id]) for each in shown], shown,
            [rewards[index] for index in asked],
            [completion_key(self.seed, round, each.problem_id, each.slot) for each in shown],
            self.policy, frozenset() if self.screens_own else frozenset(self.nodes), missing, self.anchor, beacon,
        )  # fmt: skip
        for index, spoken in zip(asked, self.chain.screen(evidence), strict=True):
            verdicts[index] = spoken
        return verdicts

    def _has_influence(self, rewards: set[float]) -> bool:
        """Whether a group with these rewards can change the update, whatever the verdicts; a KL term always does."""
        if self.learner.config.beta:
            return True
        return len(rewards) > 1 or (not self.chain.only_drops and rewards != {0.0})


def _spread(submissions: Sequence[Submission], rewards: Sequence[float]) -> dict[str, set[float]]:
    """The distinct rewards of each prompt's group."""
    spread: dict[str, set[float]] = {}
    for submission, reward in zip(submissions, rewards, strict=True):
        spread.setdefault(submission.problem_id, set()).add(reward)
    return spread


@dataclass(frozen=True, slots=True)
class MaliciousNode:
    """A node that forges what it sends.

    Attributes:
        node: Its index.
        forger: Runs the attack.
        policy: Its own copy of the policy: the tokenizer of what it sends, and what it draws from.
        task: Problems and rewards.
        sampling: How an honest node draws.
        seed: The run's seed.
        defenses: Names of the defenses that it knows of.
    """

    node: int
    forger: Forger
    policy: CausalLM
    task: Task
    sampling: Sampling
    seed: int
    defenses: tuple[str, ...] = ()

    def produce(
        self, round: int, slots: Sequence[Slot], problems: Mapping[str, Problem], group_size: int
    ) -> tuple[list[Submission], list[Forged]]:
        """Forges the slots that belong to this node; also returns what each forgery is truly worth."""
        mine: dict[str, list[int]] = {}
        for slot in slots:
            if slot.node == self.node:
                mine.setdefault(slot.problem_id, []).append(slot.index)
        own_seed = derive(self.seed, "attacker", self.node)
        allotments = {
            key: self.forger.allot(own_seed, round, problems[key], indices, len(indices) == group_size)
            for key, indices in mine.items()
        }
        honest, samples = self._draw(round, problems, allotments, group_size)
        submissions: list[Submission] = []
        worth: list[Forged] = []
        for key, allotment in allotments.items():
            view = AttackView(
                round, problems[key], self.task, allotment.poisoned, samples.get(key, ()), honest[key], self.defenses
            )
            forged = self.forger.craft(view, allotment, honest[key])
            made = {item.content: self._completion(item.content) for item in forged.values()}
            submissions += [
                Submission(round, self.node, key, index, completion)
                for index in mine[key]
                if (completion := made[forged[index].content]) is not None
            ]
            worth += forged.values()
        return submissions, worth

    def _completion(self, content: Forgery) -> Completion | None:
        return self.policy.as_completion(content) if isinstance(content, str) else content

    def _draw(
        self, round: int, problems: Mapping[str, Problem], allotments: Mapping[str, Allotment], group_size: int
    ) -> tuple[dict[str, dict[int, Completion]], dict[str, list[Completion]]]:
        """Draws, in one batch each, what an honest node would have sent and what the attack chooses from."""
        prompts = {key: self.task.prompt(problems[key]) for key in allotments}
        every_slot = self.forger.attack.needs_honest_draws
        slots = [
            Slot(self.node, key, index)
            for key, allotment in allotments.items()
            for index in sorted((*allotment.honest, *(allotment.poisoned if every_slot else ())))
        ]
        drawn = rollout(self.policy, slots, prompts, round, self.seed, self.sampling)
        honest: dict[str, dict[int, Completion]] = {key: {} for key in allotments}
        for slot, completion in zip(slots, drawn, strict=True):
            honest[slot.problem_id][slot.index] = completion
        extra = [
            Slot(self.node, key, group_size + index)  # places beyond the group: no honest node draws there
            for key, allotment in allotments.items()
            if allotment.poisoned
            for index in range(self.forger.draws)
        ]
        guide = self.forger.attack.guide(self.policy, round)
        samples: dict[str, list[Completion]] = {}
        for slot, completion in zip(
            extra, rollout(self.policy, extra, prompts, round, self.seed, self.sampling, guide), strict=True
        ):
            samples.setdefault(slot.problem_id, []).append(completion)
        return honest, samples
