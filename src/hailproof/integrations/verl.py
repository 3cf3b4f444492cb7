"""verl (0.9): a score function or a reward manager that lets a shield look first, and a replay buffer that can drop.

    # my_verl.py
    shield = Shield("equations")
    compute_score = shielded(shield, my_compute_score)    # reward.custom_reward_function.{path,name}
    Manager = reward_manager(NaiveRewardManager, shield)  # reward.reward_manager.{source=importlib,module.path,name}
    Buffer = replay_buffer(ReplayBuffer)                  # trainer.v1.sampler.custom_sampler.{path,name}

verl asks for a score for each answer alone and requires one. A score function and a reward manager can therefore not
drop: a rejected answer gets ``instead`` and stays in its group's baseline. The manager reads the sampled ids, which a
score function does not get. Both name the verdict in ``reward_extra_info``, so that verl's dumps and metrics have it.
Defenses that read with a model, that compare rows, or that weigh or mute do not fit and are refused: each of verl's
reward workers sees some rows, one by one.

The replay buffer takes rejected rollouts out of the batch before anything is computed of them: a true drop. verl fills
the batch up with padding. It needs ``trainer.use_v1``, which is the default. It reads the verdict of one of the seams
above, or screens whole batches by a shield of its own:

    Buffer = replay_buffer(ReplayBuffer, Shield("equations", "reward_outlier", brings={"ids", "groups"}), PPOTrainer)

Then defenses may compare rows and mute tokens, which leave ``response_mask`` and ``loss_mask``. With verl's trainer
beside it the advantages of a batch are multiplied by weights, and a row counts in its group's baseline for what is
learned from it: where advantages of a group sum to zero, as those of GRPO do, they are taken relative to the mean by
shares. The process of the trainer holds no weights of the model; a defense that reads with one reads the one that you
give, as it is.

Limits. A reward model without a custom reward function goes past reward managers. Validation is scored through them as
well, and is never screened by a replay buffer.
"""

import functools
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hailproof.errors import ConfigError, RunError
from hailproof.integrations.seams import check, check_alone, reason_of, share
from hailproof.integrations.verl_batches import Counts, fetch, mute, screened, weigh
from hailproof.shield import Shield
from hailproof.shield.rows import reward_of

TRAINER = "verl"

LEFT_OUT = "hailproof_left_out"
"""Key of ``reward_extra_info`` that is 1.0 for a row of which nothing may be learned."""


def shielded(
    shield: Shield, compute_score: Callable[..., Any], instead: float = 0.0, coarse: bool = False
) -> Callable[..., Any]:
    """Wraps a ``compute_score(data_source, solution_str, ground_truth, extra_info)``, sync or async.

    Args:
        shield: A shield whose chain needs texts and rewards only.
        compute_score: Returns a number, or a table with ``score``.
        instead: What a rejected answer gets.
        coarse: Whether an answer that would be weighed below 0.5 is rejected, and one that weighs more counts fully.

    Raises:
        ConfigError: If the chain needs more, or if its verdicts may ask for weights or muted tokens, unless ``coarse``
            is set.
    """
    check_alone(shield, TRAINER, ())
    check(shield, f"A score function of {TRAINER}", weighs=False, mutes=False, coarse=coarse)

    def judged(solution_str: str, found: Any) -> dict[str, Any]:
        said = dict(found) if isinstance(found, dict) else {"score": found, "acc": found}
        score = reward_of("score", said["score"])
        reward, verdict = _judged(shield, solution_str, None, score, instead, coarse)
        return {**said, "score": reward, **verdict}

    if inspect.iscoroutinefunction(compute_score):

        @functools.wraps(compute_score)
        async def later(data_source: Any, solution_str: str, ground_truth: Any, **more: Any) -> dict[str, Any]:
            return judged(solution_str, await compute_score(data_source, solution_str, ground_truth, **more))

        return later

    @functools.wraps(compute_score)
    def now(data_source: Any, solution_str: str, ground_truth: Any, **more: Any) -> dict[str, Any]:
        return judged(solution_str, compute_score(data_source, solution_str, ground_truth, **more))

    return now


def reward_manager(manager: type[Any], shield: Shield, instead: float = 0.0, coarse: bool = False) -> type[Any]:
    """A subclass of a reward manager whose scores are shielded.

    Args:
        manager: A reward manager of verl's reward loop, as ``NaiveRewardManager``.
        shield: A shield whose chain needs texts, rewards and ids only.
        instead: What a rejected answer gets.
        coarse: Whether an answer with muted tokens or a weight below 0.5 is rejected, and one that weighs more counts
            fully.

    Raises:
        ConfigError: If the chain needs more, or if its verdicts may ask for weights or muted tokens, unless ``coarse``
            is set.
    """
    check_alone(shield, TRAINER, ("tokens",))
    check(shield, f"A reward manager of {TRAINER}", weighs=False, mutes=False, coarse=coarse)

    class Shielded(manager):
        async def run_single(self, data: Any) -> dict[str, Any]:
            said = await super().run_single(data)
            ids = _response_ids(data)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            score = reward_of("reward_score", said["reward_score"])
            reward, verdict = _judged(shield, text, ids, score, instead, coarse)
            return {"reward_score": reward, "reward_extra_info": {**said.get("reward_extra_info", {}), **verdict}}

    Shielded.__name__ = Shielded.__qualname__ = f"Shielded{manager.__name__}"
    return Shielded


def replay_buffer(
    buffer: type[Any],
    shield: Shield | None = None,
    trainer: type[Any] | None = None,
    sender: str | None = None,
    coarse: bool = False,
) -> type[Any]:
    """A subclass of a replay buffer that leaves out what a shield rejects.

    Of a group of which one rollout is left nothing is kept, since verl's GRPO has no baseline for it and would take its
    score for its advantage.

    Args:
        buffer: ``ReplayBuffer`` or ``ReplayBufferAsync`` of ``verl.trainer.ppo.v1.replay_buffer``.
        shield: Screens whole batches; without it, the verdict of a shielded score function or reward manager counts.
        trainer: ``PPOTrainer`` of ``verl.trainer.ppo.v1``: its ``_compute_advantage`` is replaced, in this process, by
            one that goes by weights and places as well.
        sender: Name of the column of the data that says who sent a rollout.
        coarse: Whether, without a trainer, a rollout that weighs less than 0.5 is left out, and one that weighs more
            counts fully.

    Raises:
        ConfigError: If there is a trainer or a sender without a shield, if the shield has no tokenizer, or if its
            verdicts may ask for weights without a trainer, unless ``coarse`` is set.
    """
    if shield is None and (trainer is not None or sender is not None):
        raise ConfigError("A replay buffer without a shield reads verdicts only; give it a shield, too.")
    if shield is not None:
        if shield.codec is None:
            raise ConfigError("verl's queue holds ids, which the shield cannot read; build it with tokenizer=.")
        check(shield, f"{TRAINER} without its trainer", weighs=trainer is not None, mutes=True, coarse=coarse)
    if trainer is not None:
        _weigh(trainer)

    class Shielded(buffer):
        counts: Mapping[str, Counts] = {}

        def sample(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            batch, metrics = super().sample(*args, **kwargs)
            if batch.partition_id == "val":
                return batch, metrics
            weighs, advice = trainer is not None, "read their 'hailproof' reasons in the dump of rollouts"
            if shield is None:
                rejected = [_is_left_out(each) for each in fetch(batch, "extra_fields")["extra_fields"]]
            else:
                said = screened(shield, batch, sender)
                reasons = [reason_of(row, weighs=weighs, mutes=True, coarse=coarse) for row in said]
                rejected, advice = [bool(each) for each in reasons], f"of the first the shield says: {reasons[0]}"
                mute(batch, said)
                self.counts = {
                    key: Counts(row.weight, share(row)) for key, row in zip(batch.keys, said, strict=True) if weighs
                }
                metrics = {**metrics, **{f"training/{name}": figure for name, figure in said.metrics().items()}}
            out = _left_out(batch.keys, rejected)
            if len(out) == len(batch.keys):
                raise RunError(
                    f"all {len(out)} rollouts of the batch were rejected, so that there is nothing to train on; "
                    f"{advice}."
                )
            if out:
                importlib.import_module("transfer_queue").kv_clear(
                    keys=[batch.keys[at] for at in out], partition_id=batch.partition_id
                )
                kept = [at for at in range(len(batch.keys)) if at not in out]
                batch = replace(batch, keys=[batch.keys[at] for at in kept], tags=[batch.tags[at] for at in kept])
            return batch, {**metrics, f"training/{LEFT_OUT}": len(out)}

    Shielded.__name__ = Shielded.__qualname__ = f"Shielded{buffer.__name__}"
    return Shielded


def _weigh(trainer: type[Any]) -> None:
    """Lets the advantages of a trainer go by what its replay buffer says that rollouts count for."""
    compute = trainer._compute_advantage
    if getattr(compute, "weighs", False):
        return

    @functools.wraps(compute)
    def weighed(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        batch = compute(self, batch, *args, **kwargs)
        weigh(batch, getattr(self.replay_buffer, "counts", {}))
        return batch

    weighed.__dict__["weighs"] = True  # a second import of the user's file must not weigh twice
    trainer._compute_advantage = weighed


def _judged(
    shield: Shield, text: str, ids: Sequence[int] | None, score: float | None, instead: float, coarse: bool
) -> tuple[float, dict[str, Any]]:
    """The score of an answer, and what is noted of it."""
    (row,) = shield.screen(completions=[text], completion_ids=None if ids is None else [ids], rewards=[score])
    reason = reason_of(row, weighs=False, mutes=False, coarse=coarse)
    reward = instead if reason or row.reward is None else row.reward
    return reward, {LEFT_OUT: float(bool(reason)), "hailproof": reason}


def _response_ids(data: Any) -> list[int]:
    """The ids of the last answer of a batch, without padding."""
    item = data[len(data) - 1]
    responses = item.batch["responses"]
    length = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
    return responses[:length].tolist()


def _is_left_out(extra_fields: Any) -> bool:
    """Whether the extra fields of a rollout say that it was rejected."""
    fields = getattr(extra_fields, "data", extra_fields)
    info = fields.get("reward_extra_info") if isinstance(fields, dict) else None
    if not info or LEFT_OUT not in info:
        raise ConfigError(
            f"a rollout has no '{LEFT_OUT}', so that nobody screened it; name a shielded reward manager or score "
            "function in the configuration of rewards."
        )
    return bool(info[LEFT_OUT])


def _left_out(keys: Sequence[str], rejected: Sequence[bool]) -> set[int]:
    """Places of the rollouts to take out: those rejected, and the last one of a group that lost others.

    ``keys`` are as verl makes them: group, session and index, joined by underscores.
    """
    sessions = [tuple(key.rsplit("_", 2)[:2]) for key in keys]
    lost = {session for session, no in zip(sessions, rejected, strict=True) if no}
    groups = Counter(group for group, _ in set(sessions) - lost)
    short = {group for group, _ in lost if groups[group] == 1}
    return {at for at, session in enumerate(sessions) if session in lost or session[0] in short}
