"""From records, roster and the attack's measure to the lines of ``rounds.jsonl`` and the rows of the completions."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hailproof.metrics.detection import acceptance, decisions
from hailproof.metrics.rates import Rate, mean, rate
from hailproof.metrics.two_two import followed
from hailproof.parsing import encodable
from hailproof.protocols import AttackMeasure, Task
from hailproof.records import Completion, Problem, RoundRecord, ScoredCompletion, Slot, UpdateStats
from hailproof.rollouts import rollout
from hailproof.runs.build import Experiment, first_targets
from hailproof.runs.files import known
from hailproof.runs.learned import Learned
from hailproof.runs.words import LAST_ROUNDS


def _success(attack: AttackMeasure | None, problem: Problem, text: str) -> bool | None:
    return attack.success(problem, text) if attack else None


def _also(attack: AttackMeasure | None, written: Iterable[tuple[Problem, str]]) -> dict[str, float | None]:
    """The attack's further measures, as rates over the texts that are eligible for each."""
    measured = [attack.also(problem, text) for problem, text in written] if attack else []
    return {name: rate(each[name] for each in measured).value for name in (measured[0] if measured else ())}


def _figures(completions: Sequence[ScoredCompletion], successes: Iterable[bool | None]) -> dict[str, Any]:
    hits = rate(successes)
    return {
        "reward": mean(scored.raw_reward for scored in completions if scored.raw_reward is not None),
        "attack_success": hits.value,
        "eligible": hits.trials,
        "completion_tokens": mean(len(scored.submission.completion.token_ids) for scored in completions),
        "finished": mean(float(scored.submission.completion.finished) for scored in completions),
    }


def round_line(experiment: Experiment, record: RoundRecord) -> dict[str, Any]:
    """One line of ``rounds.jsonl``: honest behavior, what defenses did, what the update did, where time went.

    Numbers that are not finite are null; ``update.not_finite`` counts the steps that were not made because the gradient
    was none.
    """
    malicious, attack = experiment.roster.malicious, experiment.attack
    problems = experiment.problems
    seen = [scored for group in record.views[0].groups for scored in group.completions]
    honest = [scored for scored in seen if scored.submission.sender not in malicious]
    success = {
        id(scored): _success(attack, problems[scored.submission.problem_id], scored.submission.completion.text)
        for scored in honest
    }
    everything = [scored for view in record.views for group in view.groups for scored in group.completions]
    accepted = acceptance(everything, malicious)
    by_model: dict[str, list[ScoredCompletion]] = {}
    for scored in honest:
        by_model.setdefault(experiment.roster.models[scored.submission.sender], []).append(scored)
    reasons = sorted({reason for view in record.views for reason in view.unread})
    asked = sorted({name for view in record.views for name in view.defense_seconds})
    return {
        "round": record.round,
        **_figures(honest, success.values()),
        "also": _also(
            attack, ((problems[s.submission.problem_id], s.submission.completion.text) for s in honest)
        ),
        "malicious_reward": mean(record.forged_rewards),
        "screened": {side: share.trials for side, share in accepted.items()},
        "honest_acceptance": accepted["honest"].value,
        "malicious_acceptance": accepted["malicious"].value,
        "defenses": decisions(everything, malicious),
        "update": _update_figures([view.update for view in record.views]),
        "models": {
            name: _figures(scored_by, [success[id(scored)] for scored in scored_by])
            for name, scored_by in sorted(by_model.items())
        },
        "defense_seconds": {
            name: sum(view.defense_seconds.get(name, 0.0) for view in record.views) for name in asked
        },
        "unread": {reason: sum(view.unread.get(reason, 0) for view in record.views) for reason in reasons},
        "seconds": record.seconds,
    }


def _update_figures(updates: Sequence[UpdateStats]) -> dict[str, Any]:
    """What the updates of all views did, on average, and to each sender."""
    fields = [known(asdict(update)) for update in updates]
    named: dict[int, list[dict[str, Any]]] = {}
    for each in fields:
        for sender, what in each.pop("senders").items():
            named.setdefault(sender, []).append(what)
    held = Counter(each.pop("held") for each in fields)
    return {
        **_means(fields),
        "not_finite": sum(not math.isfinite(update.grad_norm) for update in updates),
        "held": {reason: number for reason, number in sorted(held.items()) if reason},
        "senders": {str(sender): _means(named[sender]) for sender in sorted(named)},
    }


def _means(tables: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {key: mean(table[key] for table in tables) for key in tables[0]}


def completion_rows(experiment: Experiment, record: RoundRecord) -> list[dict[str, Any]]:
    """The rows of a round in ``completions.parquet``: every submission in every computed view."""
    problems = experiment.problems
    return [
        {
            "round": record.round,
            "view": view.node,
            "sender": scored.submission.sender,
            "malicious": scored.submission.sender in experiment.roster.malicious,
            "problem_id": group.prompt.problem_id,
            "question": group.prompt.user,
            "slot": scored.submission.slot,
            "text": scored.submission.completion.text,
            "tokens": len(scored.submission.completion.token_ids),
            "token_ids": scored.submission.completion.token_ids,
            "finished": scored.submission.completion.finished,
            "raw_reward": scored.raw_reward,
            "reward": scored.reward,
            "admitted": scored.admitted,
            "weight": scored.weight,
            "success": _success(
                experiment.attack, problems[group.prompt.problem_id], scored.submission.completion.text
            ),
            "verdicts": [{**asdict(verdict), "reason": encodable(verdict.reason)} for verdict in scored.verdicts],
        }
        for view in record.views
        for group in view.groups
        for scored in group.completions
    ]


def held_out(experiment: Experiment) -> dict[str, Any] | None:
    """Reward and attack success on problems of the test split, one sample each, averaged over the honest models.

    ``reward_targeted`` is the reward on the problems that the attack can be carried out on, ``reward_other`` that on
    the rest; each is undefined where there are none. With ``evaluation.targeted``, as many targets are asked, wherever
    they stand in the test split, and ``reward_targeted`` is that on them; everything else but ``two_two`` is of the
    first ``evaluation.problems`` problems. ``two_two`` is what :func:`hailproof.metrics.two_two.followed` makes of all.
    """
    task: Task = experiment.swarm.task
    asked = experiment.config.evaluation
    first = list(task.test)[: asked.problems]
    targets = first_targets(experiment.attack, task, asked.targeted) if asked.targeted else ()
    known_ids = {problem.id for problem in first}
    extra = [problem for problem in targets if problem.id not in known_ids]
    problems = [*first, *extra]
    if not problems:
        return None
    prompts = {problem.id: task.prompt(problem) for problem in problems}
    slots = [Slot(0, problem.id, 0) for problem in problems]
    drawn: list[tuple[Problem, Completion]] = []
    for node in experiment.swarm.honest:
        completions = rollout(
            node.policy, slots, prompts, round=0, seed=experiment.config.seed, sampling=node.sampling
        )
        drawn += zip(problems, completions, strict=True)
    attack, further, aimed_at = experiment.attack, {each.id for each in extra}, {each.id for each in targets}
    rewards = {(place, problem.id): task.reward(problem, said.text) for place, (problem, said) in enumerate(drawn)}
    usual = [(problem, completion) for problem, completion in drawn if problem.id not in further]
    wanted = {problem.id for problem in problems if attack is not None and attack.wants(problem)}
    hits: Rate = rate(_success(attack, problem, completion.text) for problem, completion in usual)
    return {
        "problems": len(first),
        "reward": mean(reward for (_, name), reward in rewards.items() if name not in further),
        "targets": len(aimed_at or wanted),
        "reward_targeted": mean(reward for (_, name), reward in rewards.items() if name in (aimed_at or wanted)),
        "reward_other": mean(reward for (_, name), reward in rewards.items() if name not in wanted),
        "also": _also(attack, ((problem, completion.text) for problem, completion in usual)),
        "attack_success": hits.value,
        "eligible": hits.trials,
        "completion_tokens": mean(len(completion.token_ids) for _, completion in usual),
        "two_two": followed(task, ((problem, completion.text) for problem, completion in drawn)),
    }


def summarize(
    experiment: Experiment, lines: Sequence[dict[str, Any]], heard: Mapping[str, Learned] | None = None
) -> dict[str, Any]:
    """The summary of a run: means over the last rounds, what was learned from over all, and the held-out evaluation.

    Args:
        experiment: The run after its last round.
        lines: All its lines.
        heard: What was learned of each side; ``None`` in a run without a defense.
    """
    last = lines[-LAST_ROUNDS:]
    keys = ("attack_success", "reward", "completion_tokens", "honest_acceptance", "malicious_acceptance")
    return {
        "name": experiment.config.name,
        "rounds": len(lines),
        "seed": experiment.config.seed,
        **{key: mean(line[key] for line in last) for key in keys},
        "honest_learned": heard["honest"].share if heard else None,
        "forged_learned": heard["malicious"].share if heard else None,
        "also": {name: mean(line["also"].get(name) for line in last) for name in last[-1]["also"]} if last else {},
        "seconds_per_round": mean(sum(line["seconds"].values()) for line in lines),
        "held_out": held_out(experiment),
    }
