"""slime: samples that a shield rejects are taken out of the loss, and out of the group's baseline.

    # my_hooks.py
    shield = Shield("equations")
    sample_filter = sample_filter_of(shield)      # --rollout-sample-filter-path my_hooks.sample_filter
    post_process = post_process_of()              # --custom-reward-post-process-path my_hooks.post_process

The filter alone zeroes the loss of a sample and leaves its reward in the baseline. ``post_process_of`` makes the drop a
true one: group-normalized rewards without the removed samples, which get 0. Muted tokens are zeros in ``loss_mask``.

Weights are noted in ``metadata`` and multiply what ``post_process_of`` returns, which slime's group-relative estimators
take for advantages. There a sample also counts in its group's baseline for what is learned from it. The filter alone
can do neither, so that a shield whose verdicts may ask for weights needs both.

The process of these hooks holds no weights. A defense that reads with a model reads the one that you give, as it is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hailproof.errors import ConfigError
from hailproof.integrations.seams import reason_of, share
from hailproof.learner.advantages import advantages
from hailproof.shield import Shield
from hailproof.shield.rows import reward_of

NOTED = "hailproof"
"""Key of a sample's ``metadata`` with what it counts for: ``weight`` in the update, ``share`` in the baseline."""


def sample_filter_of(shield: Shield, sender: str = "sender") -> Callable[[Any, Any], None]:
    """A rollout sample filter.

    It raises ``ConfigError`` at its first call if verdicts of the shield may ask for weights and slime's arguments name
    no reward post-processor. Without one, a sample that weighs less than 1 is removed.

    Args:
        shield: The shield.
        sender: Key of a sample's ``metadata`` that says who sent it.
    """

    def filtered(args: Any, samples: Any) -> None:
        weighs = getattr(args, "custom_reward_post_process_path", None) is not None
        names = shield.chain.that_give("weights")
        if names and not weighs:
            raise ConfigError(
                f"slime weighs no rows by itself, as {' and '.join(names)} asks; name what "
                "hailproof.integrations.slime.post_process_of returns in --custom-reward-post-process-path."
            )
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
            if reason_of(row, weighs=weighs, mutes=True):
                sample.remove_sample = True
                continue
            noted = {"weight": row.weight, "share": share(row)}
            sample.metadata = {**(sample.metadata or {}), NOTED: noted}
            if row.muted and row.mask is not None:
                before = sample.loss_mask or [1] * len(row.mask)
                sample.loss_mask = [one * other for one, other in zip(before, row.mask, strict=True)]

    return filtered


def post_process_of(scale: bool = True) -> Callable[[Any, Any], tuple[list[float], list[float]]]:
    """A reward post-processor: raw rewards, and weighed rewards less their group's mean, without removed samples.

    Args:
        scale: Whether they are divided by the group's standard deviation.
    """

    def processed(args: Any, samples: Any) -> tuple[list[float], list[float]]:
        rows = list(_flat(samples))
        raw = [_reward(args, each) or 0.0 for each in rows]
        final = [0.0] * len(rows)
        groups: dict[Any, list[int]] = {}
        for place, sample in enumerate(rows):
            if not sample.remove_sample:
                groups.setdefault(sample.group_index, []).append(place)
        for places in groups.values():
            rewards, shares = [raw[place] for place in places], [_noted(rows[place], "share") for place in places]
            (values,) = advantages([rewards], "group" if scale else "none", [shares])
            for place, value in zip(places, values, strict=True):
                final[place] = value * _noted(rows[place], "weight")
        return raw, final

    return processed


def _noted(sample: Any, what: str) -> float:
    """What a sample counts for; 1 if nobody screened it."""
    noted = sample.metadata.get(NOTED) if isinstance(sample.metadata, dict) else None
    return 1.0 if noted is None else noted[what]


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
