"""The work by which a stranger pays for its name: draws of its own, which members repeat and nobody learns from.

In each round of its trial a stranger draws one completion for each prompt of the round, at a slot beyond the group that
a hash of its key names. So a thousand keys have a thousand times the work: what one has drawn is no draw of another's.
Draws are repeatable (``defenses.replay``), so that a member checks a few in one pass over them; which ones is said by
the beacon of the round, which nobody knew before the work was shown. Who leaves out a share s of it passes a round with
probability (1 - s)^CHECKED.
"""

import hashlib
import random
from collections.abc import Sequence

from hailproof.defenses.evidence import Received
from hailproof.defenses.replay import ReplayDefense
from hailproof.node import CHARACTERS_PER_TOKEN, HonestNode
from hailproof.parsing import encodable
from hailproof.records import Completion, Row, Slot, Submission
from hailproof.rollouts import completion_key, rollout
from hailproof.seeds import derive

CHECKED = 2
"""Completions of a stranger's batch whose draws are repeated."""
_FIRST_SLOT = 2**30
"""No group is so large."""


def trial_slots(node: HonestNode, round: int, key: bytes) -> list[Slot]:
    """What a stranger owes in a round.

    Args:
        node: A node of the swarm; all say the same.
        round: The round.
        key: The stranger's public key.
    """
    digest = hashlib.sha256(b"hailproof trial " + key).digest()
    index = _FIRST_SLOT + int.from_bytes(digest[:8], "big") % _FIRST_SLOT
    return [Slot(-1, problem_id, index) for problem_id in sorted(node.plan(round).problems)]


def trial_batch(node: HonestNode, round: int, key: bytes) -> list[Submission]:
    """Draws what a stranger owes in a round, with its own weights."""
    slots = trial_slots(node, round, key)
    problems = node.plan(round).problems
    prompts = {slot.problem_id: node.task.prompt(problems[slot.problem_id]) for slot in slots}
    drawn = rollout(node.policy, slots, prompts, round=round, seed=node.planner.rules.seed, sampling=node.sampling)
    return [
        Submission(round, node.nodes[0], slot.problem_id, slot.index, completion)
        for slot, completion in zip(slots, drawn, strict=True)
    ]


def is_honest(node: HonestNode, round: int, key: bytes, batch: Sequence[Submission], beacon: int) -> bool:
    """Whether a stranger's batch is the work that it owes, as far as it is looked at; it never raises on hostile text.

    Args:
        node: This node, before it learns from the round.
        round: The round.
        key: The stranger's public key.
        batch: What it has shown.
        beacon: The beacon of the round.
    """
    owed = [(slot.problem_id, slot.index) for slot in trial_slots(node, round, key)]
    if [(each.problem_id, each.slot) for each in batch] != owed:
        return False
    if not all(_looks_possible(each.completion, node.sampling.max_new_tokens) for each in batch):
        return False
    picked = random.Random(derive(beacon, "trial", round, key.hex())).sample(list(batch), min(CHECKED, len(batch)))
    read = [_row(node, round, each) for each in picked]
    rows = [row for row in read if row is not None]
    if len(rows) < len(picked):
        return False
    seed = node.planner.rules.seed
    evidence = Received(
        round=round,
        sampling=node.sampling,
        variant=node.task.variant,
        prompts=[node.task.prompt(node.plan(round).problems[each.problem_id]) for each in picked],
        submissions=picked,
        earned=None,
        slot_keys=[completion_key(seed, round, each.problem_id, each.slot) for each in picked],
        model=node.policy,
        read=rows,
    )
    return all(verdict.decision == "accept" for verdict in ReplayDefense().screen(evidence))


def _looks_possible(completion: Completion, limit: int) -> bool:
    """Whether a completion is one of a model by its size, which is asked before it is read."""
    ids, text = completion.token_ids, completion.text
    return 0 < len(ids) <= limit and len(text) <= CHARACTERS_PER_TOKEN * limit and encodable(text) == text


def _row(node: HonestNode, round: int, submission: Submission) -> Row | None:
    """A completion as this node's model reads it; ``None`` if its ids are not those that its sender claims."""
    codec, completion = node.policy.codec, submission.completion
    ids = codec.received_ids(completion)
    prompt = node.task.prompt(node.plan(round).problems[submission.problem_id])
    row = Row(codec.render(prompt), ids)
    return row if ids == completion.token_ids and len(row) <= node.policy.engine.context else None
