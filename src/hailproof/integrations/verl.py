"""verl (0.9): a score function that lets a shield look first, one answer at a time.

    # my_rewards.py, named by reward.custom_reward_function.path
    compute_score = shielded(Shield("equations"), my_compute_score)

verl asks for a score for each answer alone and requires one, so there is no drop, no group and no sender: a rejected
answer gets ``instead`` and stays in its group's baseline. Defenses that read with a model, or that compare, do not fit
here and are refused. The verdict is in the table that is returned, so that verl's dumps and metrics have it.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from hailproof.errors import ConfigError
from hailproof.integrations.seams import reason_of
from hailproof.shield import Shield
from hailproof.shield.rows import reward_of


def shielded(shield: Shield, compute_score: Callable[..., Any], instead: float = 0.0) -> Callable[..., Any]:
    """Wraps a ``compute_score(data_source, solution_str, ground_truth, extra_info)``, sync or async.

    Args:
        shield: A shield whose chain needs texts and rewards only.
        compute_score: Returns a number, or a table with ``score``.
        instead: What a rejected answer gets.

    Raises:
        ConfigError: If the chain needs more.
    """
    needs = sorted(shield.chain.needs)
    if needs:
        raise ConfigError(f"verl scores one answer at a time, without {' and '.join(needs)}; choose other defenses.")

    def judged(solution_str: str, found: Any) -> dict[str, Any]:
        said = dict(found) if isinstance(found, dict) else {"score": found, "acc": found}
        score = reward_of("score", said["score"])
        (row,) = shield.screen(completions=[solution_str], rewards=[score])
        reason = reason_of(row, mutes=False)
        reward = instead if reason or row.reward is None else row.reward
        return {**said, "score": reward, "hailproof_left_out": float(bool(reason)), "hailproof": reason}

    if inspect.iscoroutinefunction(compute_score):

        @functools.wraps(compute_score)
        async def later(data_source: Any, solution_str: str, ground_truth: Any, **more: Any) -> dict[str, Any]:
            return judged(solution_str, await compute_score(data_source, solution_str, ground_truth, **more))

        return later

    @functools.wraps(compute_score)
    def now(data_source: Any, solution_str: str, ground_truth: Any, **more: Any) -> dict[str, Any]:
        return judged(solution_str, compute_score(data_source, solution_str, ground_truth, **more))

    return now
