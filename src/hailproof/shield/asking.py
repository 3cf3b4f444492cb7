"""One round of a shield: a batch becomes evidence for its chain, and what the chain says becomes rows."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hailproof.consequences import consequence
from hailproof.defenses.chain import Chain, Screening
from hailproof.defenses.evidence import Received
from hailproof.protocols import Admission, Need, Sampling, Variant
from hailproof.records import Completion, Prompt, Row, Submission
from hailproof.shield.batch import NAME, Batch
from hailproof.shield.results import ScreenedRow, Sender

if TYPE_CHECKING:
    from hailproof.policies.causal_lm import CausalLM
    from hailproof.shield.senders import SenderPasses


def evidence_of(
    batch: Batch,
    *,
    round: int,
    number: Callable[[Sender], int],
    sampling: Sampling,
    variant: Variant,
    policy: "CausalLM | None",
    anchor: "CausalLM | None",
    own: Sender | None,
    missing: Mapping[int, int],
    beacon: int | None,
) -> Received:
    """The rows of a batch that can be read, as evidence, in their order.

    Args:
        batch: The batch.
        round: Its number.
        number: Gives a sender its number in records.
        sampling: How honest completions are drawn.
        variant: The kind of its answers.
        policy: The model that is trained.
        anchor: That model as it was.
        own: The receiver's own name.
        missing: By number of a sender, how many completions that it owed did not come.
        beacon: Public randomness that nobody knew before all had sent.
    """
    rows = [batch.rows[index] for index in batch.asked]
    slots: Counter[str] = Counter()
    submissions: list[Submission] = []
    for index in batch.asked:
        row, group = batch.rows[index], batch.label(index)
        sender = index if batch.senders is None else number(batch.senders[index])
        completion = Completion(row.text, row.token_ids or (), row.finished)
        submissions.append(Submission(round, sender, group, slots[group], completion))
        slots[group] += 1
    made_up: dict[Need, bool] = {"senders": batch.senders is None, "groups": batch.groups is None}
    return Received(
        round=round,
        sampling=sampling,
        variant=variant,
        prompts=[Prompt(batch.label(i), batch.prompts[i].system, batch.prompts[i].user) for i in batch.asked],
        submissions=submissions,
        earned=[batch.rewards[index] or 0.0 for index in batch.asked],
        slot_keys=None if batch.keys is None else [batch.keys[index] for index in batch.asked],
        model=policy,
        own=frozenset() if own is None else frozenset({number(own)}),
        missing=missing,
        frozen=anchor,
        beacon=beacon,
        read=None if None in [row.token_ids for row in rows]
        else [Row(row.prompt_ids, row.token_ids or ()) for row in rows],
        made_up=frozenset(need for need, so in made_up.items() if so),
    )  # fmt: skip


def asked(chain: Chain, evidence: Received, passes: "SenderPasses | None") -> Screening:
    """What a chain says of evidence, and of what its senders do to the weights.

    Args:
        chain: The chain.
        evidence: The evidence.
        passes: What looks at the gradients of senders, if a defense asks for that.
    """
    if not evidence.submissions:
        return Screening([])
    if passes is None:
        return chain.screen(evidence)
    passes.bind()  # a state that was just loaded may ask for marks, which move the weights a little
    return _weighed(chain, evidence, passes, chain.screen(evidence))


def _weighed(chain: Chain, evidence: Received, passes: "SenderPasses", screening: Screening) -> Screening:
    """Verdicts with what each sender counts for after a look at what it does to the weights."""
    from hailproof.shield.senders import groups_of, verdict_on

    started = time.perf_counter()
    updates = passes.look(groups_of(evidence, screening.verdicts, chain.admissions), evidence.round)
    said = {sender: verdict_on(passes.name, update) for sender, update in updates.items()}
    verdicts = [
        (*spoken, verdict) if (verdict := said.get(submission.sender)) is not None else spoken
        for submission, spoken in zip(evidence.submissions, screening.verdicts, strict=True)
    ]
    taken = screening.seconds.get(passes.name, 0.0) + time.perf_counter() - started
    return Screening(verdicts, {**screening.seconds, passes.name: taken})


def rows_of(
    batch: Batch, screening: Screening, admissions: Mapping[str, Admission], bounding: str | None
) -> tuple[ScreenedRow, ...]:
    """What becomes of each row of a batch.

    Args:
        batch: The batch.
        screening: What the chain says of the rows that it was asked about.
        admissions: What each defense does with what it rejects, by name.
        bounding: The defense that bounds senders in the update alone.
    """
    known: dict[str, Admission] = {**admissions, NAME: "drop"}
    spoken = {**batch.faults, **dict(zip(batch.asked, screening.verdicts, strict=True))}
    result: list[ScreenedRow] = []
    for index, row in enumerate(batch.rows):
        reward = batch.rewards[index]
        fate = consequence(reward, spoken[index], known)
        bound = math.prod(each.weight for each in spoken[index] if each.defense == bounding)
        left, mask = fate.reward is None, None
        if row.token_ids is not None:
            mask = tuple(int(not left and token not in fate.muted) for token in range(len(row.token_ids)))
        result.append(
            ScreenedRow(
                reward=fate.reward,
                weight=0.0 if left else fate.weight,
                mask=mask,
                verdicts=spoken[index],
                text=row.text,
                token_ids=row.token_ids,
                sender=None if batch.senders is None else batch.senders[index],
                group=batch.label(index),
                place=0.0 if left or not bound else fate.weight / bound,
            )
        )
    return tuple(result)
