"""An unchanged ``GRPOTrainer`` as a node of a swarm: a ``rollout_func`` that draws its slots and takes the others'.

All nodes train with the same data in the same order (``args.seed``, ``args.data_seed``), so that every node's batch
holds the same prompts: TRL's sampler is the public plan. In a horizontal swarm slot ``i`` of each group belongs to node
``i % nodes``; in a vertical one group ``g`` belongs to node ``(g + round) % nodes``. A node draws its own slots from
the trainer's present weights with the swarm's public noise, sends them, and gets everybody's. What does not come, or
cannot be read, is an end token that is muted and marked as not present, which ``guard`` leaves out.

The sender's log-probabilities are never taken: TRL's importance correction would multiply the loss by what a sender
claims. Draws are repeatable, so the defense ``replay`` can check them; ``slot_key`` has the keys.

With ``names`` prompts are called what a swarm's plan calls them, so that nodes of ``hailproof node`` can be in the same
swarm (``hailproof.service.trainer``).

Limits: one process; no vLLM; evaluation draws everything itself.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, final, get_args

from hailproof.errors import ConfigError
from hailproof.parsing import encodable
from hailproof.policies.causal_lm import CausalLM
from hailproof.protocols import Exchange, Sampling, Topology
from hailproof.records import Completion, Submission
from hailproof.rollouts import completion_key
from hailproof.shield.models import policy_of, prompt_ids

ID_LIMIT = 2**31


@final
class SwarmRollout:
    """A ``rollout_func`` for TRL over any exchange.

    Args:
        exchange: Moves the submissions.
        node: Index of this node.
        nodes: How many there are.
        sampling: How completions are drawn; the same in all nodes, and TRL's ``max_completion_length``.
        seed: The swarm's public seed.
        topology: Whether nodes share each group, or each has groups of its own.
        names: What the swarm's plan calls a prompt, for a horizontal swarm; without, it is named by its text.
        draw_seed: Seed of this node's draws; without, the public one, so that others can repeat them.

    Raises:
        ConfigError: If the numbers do not fit.
    """

    def __init__(
        self,
        exchange: Exchange,
        node: int,
        nodes: int,
        sampling: Sampling,
        seed: int = 0,
        topology: Topology = "horizontal",
        names: Callable[[Any], str] | None = None,
        draw_seed: int | None = None,
    ) -> None:
        if not 0 <= node < nodes:
            raise ConfigError(f"node = {node} is none of {nodes} nodes; count from 0.")
        if topology not in get_args(Topology):
            raise ConfigError(f"topology = {topology!r} is unknown; use horizontal or vertical.")
        if names is not None and topology != "horizontal":
            raise ConfigError("Prompts that a plan names are dealt in horizontal swarms only; leave names out.")
        self._names = names
        self.exchange, self.node, self.nodes = exchange, node, nodes
        self.sampling, self.seed, self.topology = sampling, seed, topology
        self._draw_seed = seed if draw_seed is None else draw_seed
        self.round = 0
        self.beacon: int | None = None
        self._policy: CausalLM | None = None

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Fills a batch of TRL's; prompts of a group stand side by side.

        Raises:
            ConfigError: If the trainer runs in several processes, or its length limit is another.
        """
        policy = self._reading(trainer)
        size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
        label = self._planned if self._names is not None and trainer.model.training else self._label
        slots = [label(prompt, place // size, place % size) for place, prompt in enumerate(prompts)]
        ids = [prompt_ids(policy.codec.tokenizer, prompt) for prompt in prompts]
        if not trainer.model.training:
            return self._answered(policy, ids, {}, slots, alone=True)
        self.round += 1
        mine = [place for place, slot in enumerate(slots) if self.owner(*slot) == self.node]
        keys = [completion_key(self._draw_seed, self.round, *slots[place]) for place in mine]
        drawn = policy.engine.draw([ids[place] for place in mine], keys, self.sampling)
        sent = [
            Submission(self.round, self.node, *slots[place], policy.codec.drawn(tokens))
            for place, tokens in zip(mine, drawn, strict=True)
        ]
        came = self.exchange.all_gather(self.round, sent)
        self.beacon = self.exchange.beacon(self.round)
        return self._answered(policy, ids, self._taken(policy, came, slots), slots)

    def owner(self, problem_id: str, slot: int) -> int:
        """The node that fills a slot of the present round."""
        if self.topology == "horizontal":
            return slot % self.nodes
        return (int(problem_id.partition("-")[0]) + self.round) % self.nodes

    def key(self, problem_id: str, slot: int) -> int:
        """The public key of a slot of the present round."""
        return completion_key(self.seed, self.round, problem_id, slot)

    def _reading(self, trainer: Any) -> CausalLM:
        """A policy on the trainer's present weights."""
        if trainer.accelerator.num_processes > 1:
            raise ConfigError("A swarm's node trains in one process here; start TRL without a launcher.")
        if trainer.args.max_completion_length != self.sampling.max_new_tokens:
            raise ConfigError(
                f"The trainer's max_completion_length is {trainer.args.max_completion_length} and the swarm's limit "
                f"{self.sampling.max_new_tokens}; set both to the same."
            )
        if getattr(trainer, "use_vllm", False):
            raise ConfigError("A swarm's node draws with the trainer's own weights; set use_vllm to False.")
        if self._policy is None:
            self._policy = policy_of(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class)
        return self._policy

    def _planned(self, prompt: Any, group: int, slot: int) -> tuple[str, int]:
        """What the swarm's plan calls a slot, whose owner it must be here, too."""
        assert self._names is not None
        return self._names(prompt), slot

    @staticmethod
    def _label(prompt: Any, group: int, slot: int) -> tuple[str, int]:
        digest = hashlib.sha256(json.dumps(prompt, sort_keys=True, default=str).encode()).hexdigest()
        return f"{group}-{digest[:16]}", slot

    def _taken(
        self, policy: CausalLM, came: Sequence[Submission], slots: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], tuple[int, ...]]:
        """The ids of each slot for which its owner sent something that can be read; the first one counts."""
        owed, taken = set(slots), dict[tuple[str, int], tuple[int, ...]]()
        for each in came:
            place = (each.problem_id, each.slot)
            if each.round != self.round or place not in owed or place in taken:
                continue
            if each.sender != self.owner(*place) or not _readable(each.completion, self.sampling.max_new_tokens):
                continue
            ids = policy.codec.received_ids(each.completion)
            if 0 < len(ids) <= self.sampling.max_new_tokens:
                taken[place] = ids
        return taken

    def _answered(
        self,
        policy: CausalLM,
        prompts: Sequence[tuple[int, ...]],
        taken: dict[tuple[str, int], tuple[int, ...]],
        slots: Sequence[tuple[str, int]],
        alone: bool = False,
    ) -> dict[str, Any]:
        """What TRL wants, with columns for the guard."""
        if alone:
            keys = [completion_key(self.seed, 0, *slot) for slot in slots]
            drawn = policy.engine.draw(prompts, keys, self.sampling)
            taken = dict(zip(slots, drawn, strict=True))
        filler = (policy.codec.end_ids[0],)
        ids = [taken.get(slot, filler) for slot in slots]
        present = [slot in taken for slot in slots]
        answered: dict[str, Any] = {
            "prompt_ids": [list(prompt) for prompt in prompts],
            "completion_ids": [list(tokens) for tokens in ids],
            "logprobs": None,
            "env_mask": [[int(there)] * len(tokens) for there, tokens in zip(present, ids, strict=True)],
        }
        if not alone:
            answered |= {
                "sender": [self.owner(*slot) for slot in slots],
                "slot_key": [self.key(*slot) for slot in slots],
                "present": present,
            }
        return answered


def _readable(completion: Completion, limit: int) -> bool:
    """Whether a completion has the types and sizes of one."""
    text, ids = completion.text, completion.token_ids
    if not isinstance(text, str) or not isinstance(ids, tuple) or len(text) > 16 * limit or len(ids) > limit:
        return False
    return all(type(token) is int and 0 <= token < ID_LIMIT for token in ids) and encodable(text) == text
