"""TRL (1.6 or newer): reward functions that leave out what a shield rejects, and a trainer that mutes what it mutes.

    shield = Shield("heterogeneous", model=model, tokenizer=tokenizer, brings={"senders"})
    trainer = GRPOTrainer(model, reward_funcs=shield.guard(reward), args=args, train_dataset=data)
    attach(shield, trainer)

``guard`` calls the reward functions of a batch, screens it once with the sum of their rewards, and returns ``None``
for rows that are left out: TRL takes them out of the group baseline and gives them no advantage. ``attach`` lets the
trainer mute tokens and weigh rows: after rewards it multiplies TRL's token mask by the shield's, left-out rows
included, counts the tokens of the batch anew, and computes the advantages of groups with muted or weighed rows anew, so
that a row has the place in its group's baseline that it has in the update.

Limits. Without ``attach`` nothing can mute a token, so a row with muted tokens is left out, and one with a weight below
``least_weight`` too, while the others count fully. A group with one survivor teaches nothing.
With ``loss_type="grpo"`` left-out rows stay in the mean over rows, so that the step is smaller. Each process screens
its own rows. Evaluation is not screened once a trainer is attached.
"""

import asyncio
import functools
import inspect
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import MethodType
from typing import Any, final

from hailproof.errors import ConfigError
from hailproof.integrations.seams import LEAST_WEIGHT, REASON, share, unfit
from hailproof.learner.advantages import advantages
from hailproof.parsing import printable
from hailproof.records import Verdict
from hailproof.shield import Screened, ScreenedRow, Shield
from hailproof.shield.batch import NAME
from hailproof.shield.rows import reward_of

OLDEST = (1, 6)
"""Before it, ``None`` counts as 0 in the baseline: what should be left out would be pushed down."""

PLAIN = "sum_then_normalize"
"""TRL's way to go from the rewards of several functions to advantages that is computed anew for weighed rows."""

_LOGGER = logging.getLogger("hailproof.shield")

POISONED_LOGGER = "trl.trainer.grpo_trainer"
POISONED_WARNING = "All reward functions returned None"
"""TRL warns of each left-out batch by printing prompt and completion, which is what attackers wrote."""

RewardFunction = Callable[..., Any]


def guard(
    shield: Shield,
    reward_funcs: RewardFunction | Sequence[RewardFunction],
    *,
    weights: Sequence[float] | None = None,
    sender: str = "sender",
    slot_key: str = "slot_key",
    present: str = "present",
    least_weight: float = LEAST_WEIGHT,
) -> Any:
    """Wraps reward functions, so that they return ``None`` for rows that a shield leaves out.

    Args:
        shield: The shield.
        reward_funcs: Functions in TRL's form, sync or async. If one is async, all of those returned are.
        weights: TRL's ``reward_weights``, if they are not all 1.
        sender: Name of the column, of the data or of a ``rollout_func``, that says who sent a row.
        slot_key: Name of the column with the public key of a row's slot.
        present: Name of the column that says whether a completion came at all.
        least_weight: A row that counts for less than this is left out, unless the trainer is attached, which weighs it.

    Returns:
        A function for a function, a list for several.

    Raises:
        ConfigError: If TRL is too old, something is no function, or weights do not fit.
    """
    _check_version()
    single = callable(reward_funcs)
    functions = [reward_funcs] if callable(reward_funcs) else list(reward_funcs)
    for each in functions:
        if not callable(each) or hasattr(each, "forward"):
            raise ConfigError(
                f"guard takes functions, not {type(each).__name__}; write a function that asks your reward model."
            )
    if not functions:
        raise ConfigError("guard was given no reward functions; give at least one.")
    if weights is not None and len(weights) != len(functions):
        raise ConfigError(f"{len(weights)} weights for {len(functions)} reward functions; give one for each.")
    if not 0 <= least_weight <= 1:
        raise ConfigError(f"least_weight = {least_weight} is outside [0, 1]; it is compared with weights of rows.")
    _silence()
    columns = {"sender": sender, "slot_key": slot_key, "present": present}
    guarded = Guarded(shield, functions, list(weights or [1.0] * len(functions)), columns, least_weight)
    shield.guarded = guarded
    return guarded.functions[0] if single else guarded.functions


def attach(shield: Shield, trainer: Any) -> None:
    """Lets a trainer mute the tokens that a shield mutes, and weigh the rows that it weighs.

    Args:
        shield: A shield whose ``guard`` made the trainer's reward functions.
        trainer: A ``GRPOTrainer``, before it trains.

    Raises:
        ConfigError: If the trainer's rewards are not guarded, or it has nothing to take hold of.
    """
    guarded = shield.guarded
    if not isinstance(guarded, Guarded) or not any(each in guarded.functions for each in trainer.reward_funcs):
        raise ConfigError("The trainer's reward functions are not this shield's; give it shield.guard(reward_funcs).")
    if len(trainer.reward_funcs) != len(guarded.functions):
        raise ConfigError("The trainer has reward functions that are not guarded; guard all of them together.")
    scored = getattr(trainer, "_generate_and_score_completions", None)
    if scored is None:
        raise ConfigError(f"{type(trainer).__name__} scores no completions that could be muted; give a GRPOTrainer.")

    def muted(self: Any, inputs: Any) -> Any:
        guarded.evaluating = not self.model.training
        output = scored(inputs)
        result = guarded.taken()
        if result is None:
            return output
        plain = getattr(self, "multi_objective_aggregation", PLAIN) == PLAIN
        output = with_advantages(output, result, self.num_generations, self.scale_rewards if plain else None)
        return with_masks(output, result, self.accelerator)

    guarded.mutes = True
    trainer._generate_and_score_completions = MethodType(muted, trainer)


def with_advantages(
    output: dict[str, Any], rows: Sequence[ScreenedRow], group_size: int, scale: str | None
) -> dict[str, Any]:
    """TRL's batch with advantages in which each row counts for what is learned from it.

    Groups in which every kept row has its full place in the baseline keep TRL's advantages, times weights. In the
    others, mean and deviation are computed anew, with each row counted by its place times the share of its tokens that
    is not muted. Where that cannot be done, since the rows are no whole groups, or rewards are not scaled by group,
    advantages are only multiplied by weights.

    Args:
        output: What ``_generate_and_score_completions`` returned; advantages ``[N]``.
        rows: ``[N]`` what the shield said.
        group_size: Rows of a group, which lie side by side.
        scale: TRL's ``scale_rewards``; ``None`` where rewards are not summed before they are scaled.
    """
    found = output.get("advantages")
    if found is None or found.dim() != 1 or len(found) != len(rows):
        return output
    if all(row.left_out or share(row) == row.weight == 1 for row in rows):
        return output
    anew = found * found.new_tensor([row.weight for row in rows])
    if len(rows) % group_size == 0 and scale in ("group", "none"):
        for first in range(0, len(rows), group_size):
            kept = [place for place in range(first, first + group_size) if not rows[place].left_out]
            shares = [share(rows[place]) for place in kept]
            if any(each != 1 for each in shares):
                rewards = [rows[place].reward or 0.0 for place in kept]
                values = advantages([rewards], scale, [shares])[0]  # pyright: ignore[reportArgumentType]
                for place, value in zip(kept, values, strict=True):
                    anew[place] = value * rows[place].weight
    return {**output, "advantages": anew}


def with_masks(output: dict[str, Any], rows: Sequence[ScreenedRow], accelerator: Any) -> dict[str, Any]:
    """TRL's batch with its token mask multiplied by the shield's, and the tokens of all processes counted anew.

    Args:
        output: What ``_generate_and_score_completions`` returned; tensors ``[N, T]``.
        rows: ``[N]`` what the shield said.
        accelerator: Gathers counts.
    """
    import torch

    completion_mask = output["completion_mask"]
    mask = torch.ones_like(completion_mask)
    for index, row in enumerate(rows):
        if row.left_out:
            mask[index] = 0
        elif row.mask is not None:
            kept = torch.tensor(row.mask[: mask.shape[1]], dtype=mask.dtype, device=mask.device)
            mask[index, : len(kept)] = kept
    before = output.get("tool_mask")
    mask = mask if before is None else mask * before
    tokens = accelerator.gather((completion_mask * mask).sum()).sum()
    return {**output, "tool_mask": mask, "num_items_in_batch": tokens}


@final
class Guarded:
    """Reward functions that share one screening of each batch.

    Args:
        shield: The shield.
        inner: The functions.
        weights: TRL's weights of them.
        columns: Names of the columns for senders, keys and presence.
        least_weight: A row with less is left out.
    """

    def __init__(
        self,
        shield: Shield,
        inner: Sequence[RewardFunction],
        weights: Sequence[float],
        columns: dict[str, str],
        least_weight: float,
    ) -> None:
        self.shield, self.inner, self.weights, self.columns = shield, inner, weights, columns
        self.least_weight = least_weight
        self.mutes = False
        self.evaluating = False
        asynchronous = any(map(_is_async, inner))
        make = self._asynchronous if asynchronous else self._synchronous
        self.functions = [_named(make(index), function) for index, function in enumerate(inner)]
        self._batch: Any = None
        self._served: set[int] = set()
        self._found: list[list[float | None]] | asyncio.Future[list[list[float | None]]] | None = None
        self._rows: list[ScreenedRow] | None = None
        self._warned = False

    def _synchronous(self, index: int) -> RewardFunction:
        def rewarded(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            if self._is_new(index, completions):
                raw = [function(prompts=prompts, completions=completions, **columns) for function in self.inner]
                self._found = self._screened(raw, prompts, completions, columns)
            assert isinstance(self._found, list)
            return self._found[index]

        return rewarded

    def _asynchronous(self, index: int) -> RewardFunction:
        async def rewarded(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            if self._is_new(index, completions):
                self._found = asyncio.ensure_future(self._awaited(prompts, completions, columns))
            assert isinstance(self._found, asyncio.Future)
            return (await self._found)[index]

        return rewarded

    async def _awaited(self, prompts: Any, completions: Any, columns: dict[str, Any]) -> list[list[float | None]]:
        async def one(function: RewardFunction) -> Any:
            found = function(prompts=prompts, completions=completions, **columns)
            return await found if isinstance(found, Awaitable) else found

        raw = await asyncio.gather(*map(one, self.inner))
        return self._screened(raw, prompts, completions, columns)

    def _is_new(self, index: int, completions: Any) -> bool:
        """Whether a call is the first about its batch: TRL asks each function once, in any order."""
        new = self._batch is not completions or index in self._served
        if new:
            self._batch, self._served = completions, set()
        self._served.add(index)
        return new

    def taken(self) -> list[ScreenedRow] | None:
        """What was said of the rows of the last batch, once; ``None`` if none was screened since."""
        rows, self._rows = self._rows, None
        self._batch = None
        return rows

    def _screened(
        self, raw: Sequence[Any], prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]
    ) -> list[list[float | None]]:
        """The rewards of each function, ``[F][N]``, after the shield has looked at the batch."""
        names = [_name_of(function) for function in self.inner]
        rewards = [[reward_of(f"{name}[{i}]", each) for i, each in enumerate(found)]
                   for name, found in zip(names, raw, strict=True)]  # fmt: skip
        if self.evaluating:
            return rewards
        given = {part: columns.get(name) for part, name in self.columns.items()}
        there = given["present"] or [True] * len(completions)
        totals = [
            _total([found[i] for found in rewards], self.weights) if there[i] else None
            for i in range(len(completions))
        ]
        result = self.shield.screen(
            prompts=prompts,
            completions=completions,
            completion_ids=columns.get("completion_ids"),
            rewards=totals,
            senders=given["sender"],
            slot_keys=given["slot_key"],
            missing=Counter(each for each, came in zip(given["sender"] or (), there, strict=False) if not came),
        )
        rows = [self._seen(row) for row in result]
        self._rows = rows
        self._log(result, rows, columns)
        return [
            [_after(row, found[i]) for i, row in enumerate(rows)]
            for found in rewards
        ]  # fmt: skip

    def _seen(self, row: ScreenedRow) -> ScreenedRow:
        """A row as TRL can treat it: what it can neither weigh nor mute is left out."""
        if row.left_out:
            return row
        reason = unfit(row, self.mutes, 0.0 if self.mutes else self.least_weight)
        if not reason:
            return row
        verdicts = (*row.verdicts, Verdict(NAME, "reject", reason))
        return replace(row, reward=None, weight=0.0, verdicts=verdicts)

    def _log(self, result: Screened, rows: Sequence[ScreenedRow], columns: dict[str, Any]) -> None:
        """Tells TRL's tables what became of each row, its metrics how many were left out, a log what was noticed."""
        if result.notes and not self._warned:  # nobody sees the result, and each batch may have the same
            self._warned = True
            _LOGGER.warning("round %d: %s", result.round, "; ".join(result.notes))
        extra, metric = columns.get("log_extra"), columns.get("log_metric")
        if extra is not None:
            extra("hailproof", [_said(row) for row in rows])
            if any(row.sender is not None for row in rows):
                extra(self.columns["sender"], [row.sender for row in rows])
        if metric is not None:
            names = (*(defense.name for defense in self.shield.chain.defenses), NAME)
            for name, figure in replace(result, rows=tuple(rows)).metrics(names).items():
                metric(name, figure)


def _after(row: ScreenedRow, reward: float | None) -> float | None:
    """What one function returns for a row: its own reward, 0, or nothing."""
    if row.left_out or reward is None:
        return None
    return 0.0 if row.rejection is not None else reward


def _said(row: ScreenedRow) -> str:
    if row.rejection is not None:
        what = "left out" if row.left_out else "reward set to 0"
        return f"{what}: {row.rejection.defense}: {printable(row.rejection.reason, REASON)}"
    if row.left_out:
        return "left out: no reward"
    return f"kept, {row.muted} tokens muted" if row.muted else "kept"


def _total(rewards: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The sum of the rewards that there are; ``None`` if there is none."""
    found = [weight * reward for reward, weight in zip(rewards, weights, strict=True) if reward is not None]
    return math.fsum(found) if found else None


def _is_async(function: RewardFunction) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004 - an instance may be async by its method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _name_of(function: RewardFunction) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _named(function: RewardFunction, inner: RewardFunction) -> RewardFunction:
    """The function under the name of the inner one, which TRL's metrics are called by."""
    function.__name__ = function.__qualname__ = _name_of(inner)
    return function


class _NoPoison(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message may be printed."""
        return POISONED_WARNING not in str(record.msg)


def _silence() -> None:
    logger = logging.getLogger(POISONED_LOGGER)
    if not any(isinstance(each, _NoPoison) for each in logger.filters):
        logger.addFilter(_NoPoison())


def _check_version() -> None:
    try:
        found = version("trl")
    except PackageNotFoundError:
        return  # the functions are in TRL's form, and somebody else may call them
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in found.split(".")[:2])
    if numbers < OLDEST:
        raise ConfigError(
            f"TRL {found} scores a row without reward as 0, which pushes down what should be left out; install "
            "hailproof[trl], which needs trl>=1.6."
        )
