"""One honest node, one round. The file to read first.

A round has two halves. ``produce``: the node samples the slots that the plan gives it. ``consume``: it takes what the
exchange brought, trusts none of it, and learns. It knows nothing but public state, what it received, and itself.

    plan -> produce -> exchange -> [read -> (screen) -> reward -> screen -> consequences -> update] -> record
"""

import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hailproof.consequences import consequence
from hailproof.defenses.chain import Chain, Screening, Stage
from hailproof.defenses.evidence import Received
from hailproof.parsing import encodable
from hailproof.protocols import Learner, Policy, Sampling, Task
from hailproof.records import Completion, Group, NodeRound, Prompt, Reading, Row, ScoredCompletion, Submission, Verdict
from hailproof.rewards import Rewarder
from hailproof.rollouts import completion_key, rollout
from hailproof.seeds import derive
from hailproof.topology import Plan, Planner, sampled_groups

CHARACTERS_PER_TOKEN = 16
"""Text of more characters per allowed token than this is not read."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HonestNode:
    """A node that follows the protocol; in a homogeneous swarm one of these stands for all that are alike.

    Attributes:
        nodes: Indices of the nodes that it stands for.
        policy: Its model.
        learner: Trains the model.
        chain: What it asks before it learns from a completion.
        planner: Derives the plan of a round from public state.
        rewarder: Rewards what was received, within a budget for each sender.
        sampling: How it draws tokens.
        private_seed: Of the randomness that is its own.
        decides_alike: Whether all honest nodes see and decide the same, as in a homogeneous swarm. Then its own
            completions go through the chain too, and senders that the chain suspends have no slots in the plan.
        draw_seed: Of its draws; ``None``: the swarm's public one, so that others can repeat them.
        longest: How many times the length limit a completion may have that was not drawn with this node's tokenizer:
            tokenizers differ in how many tokens they make of one text.
        sharing: Which groups it learns from; ``None``: from all (the paper's all-gather).
        anchor: The frozen initial policy, if a defense needs it.
    """

    nodes: tuple[int, ...]
    policy: Policy
    learner: Learner
    chain: Chain
    planner: Planner
    rewarder: Rewarder
    sampling: Sampling
    private_seed: int
    decides_alike: bool
    draw_seed: int | None = None
    longest: float = 1.0
    sharing: SampledSharing | None = None
    anchor: Policy | None = None

    @property
    def task(self) -> Task:
        """Problems, prompts and rewards."""
        return self.rewarder.task

    def suspended(self, round: int) -> frozenset[int]:
        """Senders without slots in a round; nobody, if that were the whole swarm.

        Only where all honest nodes decide alike: else the plans of two nodes could differ.
        """
        wanted = self.chain.suspended(round) if self.decides_alike else frozenset()
        return wanted if set(self.planner.present) - wanted else frozenset()

    def plan(self, round: int) -> Plan:
        """The plan of a round, from public state."""
        return self.planner.plan(round, self.suspended(round))

    def produce(self, round: int) -> list[Submission]:
        """Samples the slots that belong to this node, in one batch."""
        plan, own = self.plan(round), set(self.nodes)
        mine = [slot for slot in plan.slots if slot.node in own]
        prompts = {slot.problem_id: self.task.prompt(plan.problems[slot.problem_id]) for slot in mine}
        seed = self.planner.rules.seed if self.draw_seed is None else self.draw_seed
        completions = rollout(self.policy, mine, prompts, round=round, seed=seed, sampling=self.sampling)
        return [
            Submission(round, slot.node, slot.problem_id, slot.index, completion)
            for slot, completion in zip(mine, completions, strict=True)
        ]

    def consume(self, round: int, received: Sequence[Submission], beacon: int | None = None) -> NodeRound:
        """Learns from what was received: read, reward, screen, admit, update.

        Args:
            round: The round.
            received: What came, from anybody, in any order.
            beacon: Public randomness that nobody knew before all had sent, if there is any.
        """
        started = time.perf_counter()
        plan = self.planner.adopted(self.plan(round), round, filter(_well_typed, received))
        prompts = {key: self.task.prompt(problem) for key, problem in plan.problems.items()}
        view = _View(self, round, plan, prompts, beacon)
        view.read(received)
        view.judge()
        screened = time.perf_counter()
        groups = view.groups()
        update = self.learner.update([group for group in groups if group.prompt.problem_id in view.chosen])
        self.policy.engine.refresh()
        seconds = {"screen": screened - started, "update": time.perf_counter() - screened}
        return NodeRound(
            node=self.nodes[0],
            groups=groups,
            update=update,
            missing=dict(view.missing()),
            unread=dict(+view.unread),
            defense_seconds=view.seconds,
            seconds=seconds,
        )


class _View:
    """What one node makes of one round, step by step.

    Args:
        node: The node.
        round: The round.
        plan: Who owes what.
        prompts: By problem id.
        beacon: Public randomness that nobody knew before all had sent, if there is any.
    """

    def __init__(
        self, node: HonestNode, round: int, plan: Plan, prompts: Mapping[str, Prompt], beacon: int | None
    ) -> None:
        self.node, self.round, self.plan, self.prompts, self.beacon = node, round, plan, prompts, beacon
        self.unread: Counter[str] = Counter()
        self.readings: list[Reading] = []
        self.rewards: list[float | None] = []
        self.verdicts: list[tuple[Verdict, ...]] = []
        self.seconds: dict[str, float] = {}
        self.chosen: frozenset[str] = frozenset()

    def read(self, received: Iterable[Submission]) -> None:
        """Takes what fills a slot and can be read, in an order that does not depend on arrival.

        What an honest node cannot have sent is as if it had never come. Of several completions for one slot that look
        possible the smallest is tokenized and no other, so that neither the order of arrival nor the number of copies
        decides anything.
        """
        expected = {(slot.problem_id, slot.index, slot.node) for slot in self.plan.slots}
        due: list[Submission] = []
        for each in received:
            if not _well_typed(each):
                self.unread["malformed"] += 1
            elif each.round != self.round:
                self.unread["of another round"] += 1
            elif (each.problem_id, each.slot, each.sender) not in expected:
                self.unread["for no slot of its sender"] += 1
            elif not self._looks_possible(each.completion):
                self.unread["unreadable or too long"] += 1
            else:
                due.append(each)
        due.sort(key=lambda each: (each.problem_id, each.slot, each.sender, *_content(each)))
        taken: set[tuple[str, int, int]] = set()
        for each in due:
            key = (each.problem_id, each.slot, each.sender)
            if key in taken:
                self.unread["sent twice"] += 1
                continue
            taken.add(key)
            reading = self._reading(each)
            if reading is None:
                self.unread["unreadable or too long"] += 1
            else:
                self.readings.append(reading)

    @property
    def _longest(self) -> int:
        """Tokens that a completion may have which was not drawn with this node's tokenizer."""
        return math.ceil(self.node.longest * self.node.sampling.max_new_tokens)

    def _looks_possible(self, completion: Completion) -> bool:
        """Whether claimed ids and characters are few enough, and the text is Unicode, as one with tokens must be."""
        if len(completion.token_ids) > self._longest or len(completion.text) > CHARACTERS_PER_TOKEN * self._longest:
            return False
        return encodable(completion.text) == completion.text

    def _reading(self, submission: Submission) -> Reading | None:
        """A submission as this node's model reads it; ``None`` if it has too many tokens for an honest node's.

        Ids that can be none are left out.
        """
        codec, limit = self.node.policy.codec, self.node.sampling.max_new_tokens
        completion = submission.completion
        if any(not 0 <= token < ID_LIMIT for token in completion.token_ids):
            completion = replace(completion, token_ids=())
        completion = codec.received(completion)
        ids = codec.received_ids(completion)
        row = Row(codec.render(self.prompts[submission.problem_id]), ids)
        drawn_alike = ids == submission.completion.token_ids
        if len(ids) > (limit if drawn_alike else self._longest) or len(row) > self.node.policy.engine.context:
            return None
        return Reading(replace(submission, completion=completion), row)

    def judge(self) -> None:
        """Rewards and screens what was read.

        Where rewards cost time, defenses that need none are asked before, so that what they refuse is not rewarded.
        """
        node = self.node
        self.verdicts = [()] * len(self.readings)
        early = node.chain.before_rewards and node.task.reward_seconds > 0
        if early:
            self._screen(range(len(self.readings)), "before_rewards")
        refused = {index for index, spoken in enumerate(self.verdicts) if spoken and spoken[-1].decision == "reject"}
        self._reward(refused)
        refused = {index for index, reward in enumerate(self.rewards) if reward is None}
        self.chosen = self._chosen()
        if node.chain.defenses:
            spread = self._spread()
            asked = [
                index
                for index, reading in enumerate(self.readings)
                if index not in refused
                and reading.submission.problem_id in self.chosen
                and self._has_influence(spread[reading.submission.problem_id])
            ]
            self._screen(asked, "after_rewards" if early else "all")

    def _reward(self, refused: set[int]) -> None:
        """Rewards every reading but the refused ones, within each sender's budget; the rest of it is as if not come."""
        owed = self.plan.owed()
        purses = {sender: self.node.rewarder.purse(self.round, count) for sender, count in owed.items()}
        rewards: list[float | None] = []
        late: set[int] = set()
        for index, reading in enumerate(self.readings):
            sent = reading.submission
            reward = None
            if index not in refused:
                reward = purses[sent.sender].earn(self.plan.problems[sent.problem_id], sent.completion.text)
                if reward is None:
                    late.add(index)
            rewards.append(reward)
        self.unread["over its sender's budget"] += len(late)
        kept = [index for index in range(len(rewards)) if index not in late]
        self.readings = [self.readings[index] for index in kept]
        self.verdicts = [self.verdicts[index] for index in kept]
        self.rewards = [rewards[index] for index in kept]

    def _chosen(self) -> frozenset[str]:
        """The prompts whose groups this node learns from, by the sharing rule."""
        node = self.node
        if node.sharing is None:
            return frozenset(self.plan.problems)
        sent = (reading.submission for reading in self.readings)
        owned = list(dict.fromkeys(each.problem_id for each in sent if each.sender in node.nodes))
        received = [key for key, values in self._spread().items() if len(values) > 1 and key not in owned]
        rng = random.Random(derive(node.private_seed, "round", self.round, "sharing"))
        return sampled_groups(owned, received, node.sharing.own, node.sharing.received, rng)

    def _spread(self) -> dict[str, set[float]]:
        """The distinct rewards of each prompt's group."""
        spread: dict[str, set[float]] = {}
        for reading, reward in zip(self.readings, self.rewards, strict=True):
            if reward is not None:
                spread.setdefault(reading.submission.problem_id, set()).add(reward)
        return spread

    def _has_influence(self, rewards: set[float]) -> bool:
        """Whether a group with these rewards can change the update, whatever the verdicts."""
        return self.node.learner.hears_all or len(rewards) > 1 or (
            not self.node.chain.only_drops and rewards != {0.0}
        )

    def missing(self) -> Counter[int]:
        """How many of the completions that each sender owed did not come, or are as if they had not."""
        owed = self.plan.owed()
        owed.subtract(reading.submission.sender for reading in self.readings)
        return +owed

    def _screen(self, indices: Iterable[int], stage: Stage) -> None:
        """Asks the chain about some readings; own completions are shown only where all nodes decide alike.

        A defense that compares with own completions is shown them as well.
        """
        node, chain = self.node, self.node.chain
        shows_own = node.decides_alike or "own" in chain.needs
        asked = [
            index for index in indices if shows_own or self.readings[index].submission.sender not in node.nodes
        ]
        rewards = [self.rewards[index] for index in asked] if self.rewards else None
        shown = [self.readings[index].submission for index in asked]
        evidence = Received(
            round=self.round,
            sampling=node.sampling,
            variant=node.task.variant,
            prompts=[self.prompts[each.problem_id] for each in shown],
            submissions=shown,
            earned=None if rewards is None else [0.0 if reward is None else reward for reward in rewards],
            slot_keys=[
                completion_key(node.planner.rules.seed, self.round, each.problem_id, each.slot) for each in shown
            ],
            model=node.policy,
            own=frozenset() if node.decides_alike else frozenset(node.nodes),
            missing=self.missing(),
            frozen=node.anchor,
            beacon=self.beacon,
            read=[self.readings[index].row for index in asked],
        )
        screening: Screening = chain.screen(evidence, stage)
        for index, spoken in zip(asked, screening.verdicts, strict=True):
            self.verdicts[index] += spoken
        for name, seconds in screening.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def groups(self) -> tuple[Group, ...]:
        """What was read, with rewards and consequences, by prompt."""
        members: dict[str, list[ScoredCompletion]] = {key: [] for key in self.prompts}
        admissions = self.node.chain.admissions
        for reading, raw, spoken in zip(self.readings, self.rewards, self.verdicts, strict=True):
            fate = consequence(raw, spoken, admissions)
            problem_id = reading.submission.problem_id
            members[problem_id].append(
                ScoredCompletion(
                    submission=reading.submission,
                    row=reading.row,
                    reward=(raw or 0.0) if fate.reward is None else fate.reward,
                    raw_reward=raw,
                    admitted=fate.reward is not None and problem_id in self.chosen,
                    weight=fate.weight,
                    muted=fate.muted,
                    verdicts=spoken,
                )
            )
        return tuple(Group(self.prompts[key], tuple(scored)) for key, scored in members.items())


def _well_typed(submission: Submission) -> bool:
    """Whether the fields of a submission have their declared types; what decodes a wire may not have checked."""
    completion = submission.completion
    return (
        all(type(number) is int for number in (submission.round, submission.sender, submission.slot))
        and type(submission.problem_id) is str
        and type(completion.text) is str
        and type(completion.token_ids) is tuple
        and all(type(token) is int for token in completion.token_ids)
        and type(completion.finished) is bool
    )


def _content(submission: Submission) -> tuple[str, tuple[int, ...], bool]:
    """What a sender chose, to order submissions by."""
    completion = submission.completion
    return completion.text, completion.token_ids, completion.finished
