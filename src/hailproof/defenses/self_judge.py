"""SELF_JUDGE: the policy that is being trained judges (*Hail to the Thief*, figure 13: a negative result).

Idea: no second model is needed. But training on what the judge accepts also trains the judge. In the paper it collapses
to accepting everything, and the attack succeeds. It is shipped to show that, not to be used.

It is asked as ``judge`` is, but with one beam, so that an answer depends on weights, problem, text, round and seed
only. Answers are not remembered, since the weights change in every round. A policy that was not taught to judge
(``nano-a``) gives malformed answers, so everything is rejected as an error. With ``--model nano-judge`` the swarm
trains one that can judge.

Limits: what an attacker teaches the policy, it teaches the judge.

Source: *Hail to the Thief* (arXiv 2511.09780), figure 13.
"""

from functools import partial
from typing import final

from hailproof.defenses.base import BaseDefense
from hailproof.defenses.judge_backends import ask_policy
from hailproof.defenses.panel import Panel, cases_of, judge_sampling
from hailproof.protocols import Admission, Evidence
from hailproof.records import Verdict


@final
class SelfJudgeDefense(BaseDefense):
    """Rejects completions that the receiver's own policy does not accept.

    Args:
        reasoning: Whether it writes a criticism before it decides.
        votes: How often it is asked about each pair; more than half must be well-formed and say yes.
        max_new_tokens: Length limit of an answer; one that is cut is malformed.
        temperature: Divides the logits; 0 takes the best.
        top_k: Only the k most probable tokens.
        top_p: Only the smallest set of tokens that reaches p.
        seed: Root of its randomness; the same in all nodes that must decide alike.
        admission: What happens to rejected completions; the paper sets their reward to 0.

    Raises:
        ConfigError: If an option is out of range.
    """

    name = "self_judge"
    needs = frozenset({"model"})

    def __init__(
        self, reasoning: bool = True, votes: int = 1, max_new_tokens: int = 256, temperature: float = 0.6,
        top_k: int = 10, top_p: float = 0.9, seed: int = 0, admission: Admission = "zero_reward",
    ) -> None:  # fmt: skip
        super().__init__(admission)
        self.panel = Panel(reasoning, votes, seed)
        self.sampling = judge_sampling(max_new_tokens, temperature, top_k, top_p)

    def screen(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; each distinct pair of problem and text is asked about once."""
        cases = cases_of(evidence)
        distinct = list(dict.fromkeys(cases))
        ask = partial(ask_policy, evidence.policy, sampling=self.sampling)
        found = dict(zip(distinct, self.panel.rule(distinct, ask, "round", evidence.round), strict=True))
        return [self.panel.verdict(self.name, case, found[case]) for case in cases]
