"""slime: samples that a shield rejects are taken out of the loss, and out of the group's baseline.

    # my_hooks.py
    shield = Shield("equations")
    sample_filter = sample_filter_of(shield)      # --rollout-sample-filter-path my_hooks.sample_filter
    post_process = post_process_of()              # --custom-reward-post-process-path my_hooks.post_process

The filter alone zeroes the loss of a sample and leaves its reward in the baseline. ``post_process_of`` makes the drop a
true one: group-normalized rewards without the removed samples, which get 0. Muted tokens are zeros in ``loss_mask``.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from hailproof.integrations.seams import LEAST_WEIGHT, reason_of
from hailproof.shield import Shield
from hailproof.shield.rows import reward_of


def sample_filter_of(
    shield: Shield, sender: str = "sender", least_weight: float = LEAST_WEIGHT
) -> Callable[[Any, Any], None]:
    """A rollout sample filter.

    Args:
        shield: The shield.
        sender: Key of a sample's ``metadata`` that says who sent it.
        least_weight: A sample that weighs less is removed.
    """

    def filtered(args: Any, samples: Any) -> None:
        rows = list(_flat(samples))
        if not rows:
            return
        senders: list[Any] = [each.metadata.get(sender) if isinstance(each.metadata, dict) else None for each in rows]
        ids = [tokens for each in rows if (tokens := _ids(each))]
        result = shield.screen(
            prompts=[each.prompt for each in rows],
            completions=[each.response for each in rows],
            completion_ids=ids if len(ids) == len(rows) else None,
            rewards=[_reward(args, each) for each in rows],
            senders=None if None in senders else senders,
        )
        for sample, row in zip(rows, result, strict=True):
            if reason_of(row, True, least_weight):
                sample.remove_sample = True
            elif row.muted and row.mask is not None:
                before = sample.loss_mask or [1] * len(row.mask)
                sample.loss_mask = [one * other for one, other in zip(before, row.mask, strict=True)]

    return filtered


def post_process_of(scale: bool = True) -> Callable[[Any, Any], tuple[list[float], list[float]]]:
    """A reward post-processor: raw rewards, and rewards less their group's mean, without removed samples.

    Args:
        scale: Whether they are divided by the group's standard deviation.
    """

    def processed(args: Any, samples: Any) -> tuple[list[float], list[float]]:
        rows = list(_flat(samples))
        raw = [_reward(args, each) or 0.0 for each in rows]
        groups: dict[Any, list[float]] = {}
        for sample, reward in zip(rows, raw, strict=True):
            if not sample.remove_sample:
                groups.setdefault(sample.group_index, []).append(reward)
        return raw, [
            0.0 if sample.remove_sample else _advantage(reward, groups[sample.group_index], scale)
            for sample, reward in zip(rows, raw, strict=True)
        ]

    return processed


def _advantage(reward: float, group: Sequence[float], scale: bool) -> float:
    deviation = stdev(group) if len(group) > 1 else 0.0
    difference = reward - fmean(group)
    return difference / (deviation + 1e-6) if scale and not math.isclose(deviation, 0.0) else difference


def _flat(samples: Iterable[Any]) -> Iterator[Any]:
    """Samples one by one; they come in groups, or in lists of groups."""
    for each in samples:
        if isinstance(each, list | tuple):
            yield from _flat(each)
        else:
            yield each


def _ids(sample: Any) -> list[int] | None:
    """Token ids of a sample's answer, which stand at the end of its tokens."""
    length = sample.response_length
    return list(sample.tokens[-length:]) if length and len(sample.tokens or ()) >= length else None


def _reward(args: Any, sample: Any) -> float | None:
    """A sample's reward: a number, or a table in which ``args.reward_key`` is it."""
    reward = sample.reward
    if isinstance(reward, dict):
        reward = reward.get(getattr(args, "reward_key", None) or "score")
    return reward_of("reward", reward)
