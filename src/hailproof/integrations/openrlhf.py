"""OpenRLHF (0.11): a reward file or an agent executor that lets a shield look first.

    # my_rewards.py, named by --reward.remote_url
    reward_func = shielded(Shield("equations"), my_reward_func)

    # my_agent.py, named by --train.agent_func_path
    AgentExecutor = executor(SingleTurnAgentExecutor, Shield("equations"), "my_rewards.py")

OpenRLHF asks for one answer at a time. Defenses that compare rows do not fit and are refused.

A reward function can only score, so there is no drop: a row that is left out gets ``instead``, or the mean score of the
kept rows of its prompt where a caller hands over several, and is learned from with the advantage that this makes.

An executor also says which tokens are actions, and only these are learned: a row that is left out has none, and muted
tokens are none. The reward of a row that is left out is ``instead`` and stays in its group's baseline, and a row of
muted tokens counts there fully. Neither can weigh a row: a shield whose verdicts may ask for weights is refused.

OpenRLHF takes means over the actions of a row, so that its figures ``kl`` and ``logprobs_diff`` are no numbers where a
row has none; keep the KL coefficient fixed. A step of which every row is left out divides by zero.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from hailproof.integrations.seams import check, check_alone, reason_of
from hailproof.protocols import Need
from hailproof.shield import Shield
from hailproof.shield.rows import column, reward_of

TRAINER = "OpenRLHF"

READS: tuple[Need, ...] = ("model", "anchor", "tokens")
"""What a shield can bring itself, a row at a time."""


def shielded(
    shield: Shield,
    reward_func: Callable[..., Any],
    instead: float = 0.0,
    coarse: bool = False,
) -> Callable[..., dict[str, Any]]:
    """Wraps a ``reward_func(queries, prompts, labels)``.

    Args:
        shield: The shield; queries are prompt and answer, of which it reads what comes after the prompt.
        reward_func: Returns a tensor or list, or a table with ``rewards``, and perhaps ``scores`` and ``extra_logs``.
        instead: What a row gets if no row of its prompt is kept.
        coarse: Whether a row with muted tokens or a weight below 0.5 is left out, and one that weighs more counts
            fully.

    Raises:
        ConfigError: If the shield needs more than one row, or if its verdicts may ask for weights or muted tokens,
            unless ``coarse`` is set.
    """
    check_alone(shield, TRAINER, READS)
    check(shield, f"A reward function of {TRAINER}", weighs=False, mutes=False, coarse=coarse)

    def rewarded(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **more: Any) -> dict[str, Any]:
        import torch

        found = reward_func(queries, prompts, labels, **more)
        said = dict(found) if isinstance(found, dict) else {"rewards": found}
        rewards = [reward_of(f"rewards[{i}]", each)
                   for i, each in enumerate(column("rewards", said["rewards"], len(queries)))]  # fmt: skip
        answers = [query.removeprefix(prompt) for query, prompt in zip(queries, prompts, strict=True)]
        result = shield.screen(prompts=prompts, completions=answers, rewards=rewards)
        kept: dict[str, list[float]] = {}
        out = [bool(reason_of(row, weighs=False, mutes=False, coarse=coarse)) for row in result]
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


def executor(
    base: type[Any], shield: Shield, *arguments: Any, instead: float = 0.0, coarse: bool = False
) -> type[Any]:
    """A subclass of an agent executor whose actions are those that may be learned.

    Args:
        base: ``SingleTurnAgentExecutor``, or an executor of yours.
        shield: The shield. It gets the ids of the actions, and reads them if it has a tokenizer; where there are turns,
            build it with ``multi_turn=True``.
        *arguments: What ``base`` is built with, as the reward file or URL of ``SingleTurnAgentExecutor``. OpenRLHF
            builds executors without arguments.
        instead: The reward of a row that is left out.
        coarse: Whether a row with a weight below 0.5 is left out, and one that weighs more counts fully.

    Raises:
        ConfigError: If the shield needs more than one row, or if its verdicts may ask for weights, unless ``coarse`` is
            set.
    """
    check_alone(shield, TRAINER, READS)
    check(shield, TRAINER, weighs=False, mutes=True, coarse=coarse)

    class AgentExecutor(base):
        def __init__(self) -> None:
            super().__init__(*arguments)

        async def execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            said = await super().execute(*args, **kwargs)
            tokenizer = kwargs["hf_tokenizer"]
            tokens = [int(each) for each in said["observation_tokens"]]
            places = [place for first, end in said["action_ranges"] for place in range(first, end)]
            ids = [tokens[place] for place in places]
            (row,) = shield.screen(
                prompts=[said["prompt"]],
                prompt_ids=[tokens[: places[0]] if places else tokens],
                completions=[tokenizer.decode(ids, skip_special_tokens=True)],
                completion_ids=[ids],
                rewards=[reward_of("reward", said["reward"])],
            )
            reason = reason_of(row, weighs=False, mutes=True, coarse=coarse)
            logs = {**(said.get("extra_logs") or {}), "hailproof_left_out": float(bool(reason))}
            if reason:
                return {**said, "reward": instead, "action_ranges": [], "extra_logs": logs}
            learned = [place for place, kept in zip(places, row.mask or [1] * len(places), strict=True) if kept]
            return {**said, "reward": row.reward, "action_ranges": _ranges(learned), "extra_logs": logs}

    return AgentExecutor


def _ranges(places: Sequence[int]) -> list[tuple[int, int]]:
    """Rising places as ranges, each with its end left out."""
    runs = [[place for _, place in run] for _, run in groupby(enumerate(places), lambda pair: pair[1] - pair[0])]
    return [(run[0], run[-1] + 1) for run in runs]
