"""OpenRLHF (0.11): a reward file whose function lets a shield look first.

    # my_rewards.py, named by --reward.remote_url
    reward_func = shielded(Shield("equations"), my_reward_func)

A score is required for every row, so there is no drop. A row that is left out gets the mean score of the rows of its
prompt that are kept: that leaves the group's mean as it is and gives the row an advantage of 0. If none is kept it gets
``instead``. The group's standard deviation still shrinks a little, and calls with parts of a group see parts.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from hailproof.integrations.seams import LEAST_WEIGHT, reason_of
from hailproof.shield import Shield
from hailproof.shield.rows import column, reward_of


def shielded(
    shield: Shield,
    reward_func: Callable[..., Any],
    instead: float = 0.0,
    least_weight: float = LEAST_WEIGHT,
) -> Callable[..., dict[str, Any]]:
    """Wraps a ``reward_func(queries, prompts, labels)``.

    Args:
        shield: The shield; queries are prompt and answer, of which it reads what comes after the prompt.
        reward_func: Returns a tensor or list, or a table with ``rewards``, and perhaps ``scores`` and ``extra_logs``.
        instead: What a row gets if no row of its prompt is kept.
        least_weight: A row that weighs less is left out.
    """

    def rewarded(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **more: Any) -> dict[str, Any]:
        import torch

        found = reward_func(queries, prompts, labels, **more)
        said = dict(found) if isinstance(found, dict) else {"rewards": found}
        rewards = [reward_of(f"rewards[{i}]", each)
                   for i, each in enumerate(column("rewards", said["rewards"], len(queries)))]  # fmt: skip
        answers = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
        result = shield.screen(prompts=prompts, completions=answers, rewards=rewards)
        kept: dict[str, list[float]] = {}
        out = [bool(reason_of(row, False, least_weight)) for row in result]
        for row, prompt, refused in zip(result, prompts, out, strict=True):
            if not refused and row.reward is not None:
                kept.setdefault(prompt, []).append(row.reward)
        final = [
            (fmean(kept[prompt]) if prompt in kept else instead) if refused else row.reward
            for row, prompt, refused in zip(result, prompts, out, strict=True)
        ]
        tensor = torch.tensor([instead if each is None else each for each in final])
        logs = {**said.get("extra_logs", {}), "hailproof_left_out": torch.tensor([float(each) for each in out])}
        return {"rewards": tensor, "scores": said.get("scores", tensor), "extra_logs": logs}

    return rewarded
