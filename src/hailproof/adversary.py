"""One malicious node: it forges the slots that the plan gives it, with what an attacker may know."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hailproof.attacks.base import Allotment, Forged, Forger, Forgery
from hailproof.protocols import AttackView, Policy, Sampling, Task
from hailproof.records import Completion, Problem, Prompt, Slot, Submission
from hailproof.rewards import Rewarder
from hailproof.rollouts import rollout
from hailproof.topology import Plan, Planner, plan_vertical


@dataclass(frozen=True, slots=True, kw_only=True)
class MaliciousNode:
    """A node that forges what it sends.

    Attributes:
        node: Its index.
        forger: Runs the attack.
        wants: Which problems it picks where nodes choose their prompts.
        policy: Its own copy of the policy: the tokenizer of what it sends, and what it draws from.
        planner: Derives the plan of a round from public state.
        rewarder: Says what a forgery is truly worth, for the record.
        sampling: How an honest node draws.
        private_seed: Of its own randomness.
        defenses: Names of the defenses that it knows of.
        place: Its place among the malicious nodes, from 0.
        attackers: How many of them there are.
    """

    node: int
    forger: Forger
    wants: Callable[[Problem], bool]
    policy: Policy
    planner: Planner
    rewarder: Rewarder
    sampling: Sampling
    private_seed: int
    defenses: tuple[str, ...] = ()
    place: int = 0
    attackers: int = 1

    def produce(
        self, round: int, suspended: Collection[int] = (), suspicion: float = 0.0
    ) -> tuple[list[Submission], list[Forged]]:
        """Forges the slots that belong to this node.

        Args:
            round: The round.
            suspended: Who has no slots, as honest nodes have decided.
            suspicion: What honest nodes hold against it, as a share of what is enough to exclude it.

        Returns:
            What it sends, and what each forgery is truly worth.
        """
        plan = self._plan(round, suspended)
        mine: dict[str, list[int]] = {}
        for slot in plan.slots:
            if slot.node == self.node:
                mine.setdefault(slot.problem_id, []).append(slot.index)
        if self.forger.composition.dares(round, self.place, self.attackers, suspicion):
            size, seed = self.planner.rules.group_size, self.private_seed
            allotments = {
                key: self.forger.allot(seed, round, plan.problems[key], indices, len(indices) == size)
                for key, indices in mine.items()
            }
        else:
            allotments = {key: Allotment((), (), tuple(indices)) for key, indices in mine.items()}
        attacks = any(each.poisoned for each in allotments.values())
        others = self._draws_of_others(round, plan) if attacks and self.forger.attack.needs_others else {}
        return self._forge(round, plan.problems, allotments, mine, others)

    def _plan(self, round: int, suspended: Collection[int]) -> Plan:
        """The public plan, with the prompts that this node picks for itself where it may."""
        plan = self.planner.plan(round, suspended)
        if not self.planner.chooses or self.node in suspended:
            return plan
        picked = self.planner.picks(round, self.node, self.wants)
        taken_over = {
            slot.problem_id: plan.problems[slot.problem_id]
            for slot in plan.slots
            if slot.node == self.node and self.planner.owner(round, slot.problem_id) != self.node
        }
        problems = {**{problem.id: problem for problem in picked}, **taken_over}
        slots = plan_vertical([list(problems)], self.planner.rules.group_size) if problems else ()
        return Plan(problems, tuple(Slot(self.node, slot.problem_id, slot.index) for slot in slots))

    def _forge(
        self,
        round: int,
        problems: Mapping[str, Problem],
        allotments: Mapping[str, Allotment],
        mine: Mapping[str, list[int]],
        others: Mapping[str, Mapping[int, list[Completion]]],
    ) -> tuple[list[Submission], list[Forged]]:
        task: Task = self.rewarder.task
        honest, samples = self._draw(round, {key: task.prompt(problems[key]) for key in allotments}, allotments)
        purse = self.rewarder.purse(round, sum(map(len, mine.values())))
        submissions: list[Submission] = []
        worth: list[Forged] = []
        for key, allotment in allotments.items():
            view = AttackView(
                round=round,
                problem=problems[key],
                task=task,
                slots=allotment.poisoned,
                samples=samples.get(key, ()),
                honest=honest[key],
                others=others.get(key, {}),
                defenses=self.defenses,
            )
            forged = self.forger.craft(view, allotment, honest[key], purse.earn)
            made = {item.content: self._completion(item.content) for item in forged.values()}
            submissions += [
                Submission(round, self.node, key, index, completion)
                for index in mine[key]
                if (completion := made[forged[index].content]) is not None
            ]
            worth += forged.values()
        return submissions, worth

    def _draws_of_others(self, round: int, plan: Plan) -> dict[str, dict[int, list[Completion]]]:
        """What every other node will draw for the problems that this one has a part in, by problem and node."""
        shared = {slot.problem_id for slot in plan.slots if slot.node == self.node}
        slots = [slot for slot in plan.slots if slot.node != self.node and slot.problem_id in shared]
        prompts = {key: self.rewarder.task.prompt(plan.problems[key]) for key in shared}
        seed = self.planner.rules.seed
        drawn: dict[str, dict[int, list[Completion]]] = {}
        for slot, each in zip(
            slots, rollout(self.policy, slots, prompts, round=round, seed=seed, sampling=self.sampling), strict=True
        ):
            drawn.setdefault(slot.problem_id, {}).setdefault(slot.node, []).append(each)
        return drawn

    def _completion(self, content: Forgery) -> Completion | None:
        return self.policy.codec.as_completion(content) if isinstance(content, str) else content

    def _draw(
        self, round: int, prompts: Mapping[str, Prompt], allotments: Mapping[str, Allotment]
    ) -> tuple[dict[str, dict[int, Completion]], dict[str, list[Completion]]]:
        """Draws, in one batch each, what an honest node would have sent and what the attack chooses from."""
        every_slot = self.forger.attack.needs_honest_draws
        slots = [
            Slot(self.node, key, index)
            for key, allotment in allotments.items()
            for index in sorted((*allotment.honest, *(allotment.poisoned if every_slot else ())))
        ]
        seed, group_size = self.planner.rules.seed, self.planner.rules.group_size
        drawn = rollout(self.policy, slots, prompts, round=round, seed=seed, sampling=self.sampling)
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
        chosen_from = rollout(
            self.policy, extra, prompts, round=round, seed=seed, sampling=self.sampling, guide=guide
        )
        samples: dict[str, list[Completion]] = {}
        for slot, completion in zip(extra, chosen_from, strict=True):
            samples.setdefault(slot.problem_id, []).append(completion)
        return honest, samples
