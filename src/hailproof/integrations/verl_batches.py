"""What a shield does to a whole batch of verl (0.9): rollouts in its queue are screened, muted, and weighed.

A rollout's key holds its group, session and index, joined by underscores. Its fields are nested tensors, a row each.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hailproof.integrations.seams import recentered
from hailproof.shield import Screened, Shield
from hailproof.shield.rows import sender_of


@dataclass(frozen=True, slots=True)
class Counts:
    """What a rollout counts for.

    Attributes:
        weight: In the update, in [0, 1].
        share: In the baseline of its group, in [0, 1].
    """

    weight: float
    share: float


def screened(shield: Shield, batch: Any, sender: str | None) -> Screened:
    """What a shield says of the rollouts of a batch.

    Args:
        shield: The shield. It gets the ids that the model sampled, and reads them if it has a tokenizer.
        batch: ``KVBatchMeta``: which rollouts.
        sender: Name of the column that says who sent a rollout.
    """
    names = ["prompts", "responses", "response_mask", "rm_scores"]
    fields = fetch(batch, *names, *([] if sender is None else [sender]))
    responses, masks = _rows(fields["responses"]), _rows(fields["response_mask"])
    return shield.screen(
        prompt_ids=[each.tolist() for each in _rows(fields["prompts"])],
        completion_ids=[ids[mask.bool()].tolist() for ids, mask in zip(responses, masks, strict=True)],
        rewards=[float(each.sum()) for each in _rows(fields["rm_scores"])],
        groups=[group_of(key) for key in batch.keys],
        senders=None if sender is None else [sender_of(sender, getattr(each, "data", each)) for each in fields[sender]],
    )


def mute(batch: Any, rows: Screened) -> None:
    """Takes muted tokens out of ``response_mask`` and ``loss_mask`` of the rollouts of a batch."""
    if not any(row.muted for row in rows):
        return
    import torch

    masks = []
    for before, row in zip(_rows(fetch(batch, "response_mask")["response_mask"]), rows, strict=True):
        mask = before.clone()
        if row.muted:
            mask[before.bool()] = torch.tensor(row.mask, dtype=mask.dtype, device=mask.device)
        masks.append(mask)
    _put(batch, response_mask=masks, loss_mask=masks)


def weigh(batch: Any, counts: Mapping[str, Counts]) -> None:
    """Lets the advantages of a batch go by what rollouts count for; padding, which nobody screened, stays as it is.

    Args:
        batch: ``KVBatchMeta``, with ``advantages``. Its ``returns``, which critics learn, stay as they are.
        counts: By key, what each rollout counts for.
    """
    if all(each == Counts(1.0, 1.0) for each in counts.values()):
        return
    fields = fetch(batch, "advantages", "response_mask")
    values, masks = list(_rows(fields["advantages"])), [each.bool() for each in _rows(fields["response_mask"])]
    for places in _groups(batch.keys, counts):
        keys = [batch.keys[at] for at in places]
        shifts = _shifts([values[at][masks[at]].tolist() for at in places], keys, counts)
        for at, key, shift in zip(places, keys, shifts, strict=True):
            values[at] = (values[at] + shift * masks[at]) * counts[key].weight
    _put(batch, advantages=values)


def group_of(key: str) -> str:
    """The group of a rollout."""
    return key.rsplit("_", 2)[0]


def fetch(batch: Any, *names: str) -> Any:
    """Fields of the rollouts of a batch, by name."""
    queue = importlib.import_module("transfer_queue")
    return queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[*names])


def _put(batch: Any, **fields: Sequence[Any]) -> None:
    """Writes fields of the rollouts of a batch back, a row each."""
    import torch

    nested = {name: torch.nested.as_nested_tensor([*rows], layout=torch.jagged) for name, rows in fields.items()}
    made = importlib.import_module("tensordict").TensorDict(nested, batch_size=len(batch.keys))
    importlib.import_module("transfer_queue").kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=made
    )


def _rows(field: Any) -> Sequence[Any]:
    return field.unbind()


def _groups(keys: Sequence[str], counts: Mapping[str, Counts]) -> list[list[int]]:
    """Places of the rollouts that were screened, by group."""
    groups: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        if key in counts:
            groups.setdefault(group_of(key), []).append(at)
    return list(groups.values())


def _shifts(values: Sequence[Sequence[float]], keys: Sequence[str], counts: Mapping[str, Counts]) -> list[float]:
    """What is added to the advantages of each rollout of a group, so that it counts in the baseline for its share.

    Outputs of one session have one advantage and are one row of the baseline, with the mean of their shares. Nothing is
    added where advantages differ within a session.
    """
    sessions: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        sessions.setdefault(key.rsplit("_", 1)[0], []).append(at)
    found = [{value for at in places for value in values[at]} for places in sessions.values()]
    if any(len(each) != 1 for each in found):
        return [0.0] * len(keys)
    before = [value for (value,) in found]
    shares = [sum(counts[keys[at]].share for at in places) / len(places) for places in sessions.values()]
    shifts = [0.0] * len(keys)
    for places, old, new in zip(sessions.values(), before, recentered(before, shares), strict=True):
        for at in places:
            shifts[at] = new - old
    return shifts
