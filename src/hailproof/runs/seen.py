"""A round of a run as trackers and the live view take it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hailproof.records import RoundRecord
from hailproof.runs.build import Experiment
from hailproof.tracking.seen import SeenRound, excluded_in, rows_of
from hailproof.tracking.tally import Tally


def seen(experiment: Experiment, record: RoundRecord, line: Mapping[str, Any]) -> SeenRound:
    """What is known of a round; where honest nodes hold different weights, their views are counted together.

    Args:
        experiment: The run after the round.
        record: The round.
        line: Its line in ``rounds.jsonl``, with the evaluation after it, if there was one.
    """
    suspended = experiment.swarm.suspended(record.round + 1)
    held_out = line.get("held_out") or {}
    return SeenRound(
        round=record.round,
        rows=rows_of(record.views),
        reward=line["reward"],
        completion_tokens=line["completion_tokens"],
        held_out=held_out.get("reward"),
        held_out_problems=held_out.get("problems", 0),
        attack_success=line["attack_success"],
        excluded=frozenset().union(*(excluded_in(view, suspended) for view in record.views)),
        defenses=tuple(plugin.name for plugin in experiment.config.defense),
        defense_seconds=sum(line["defense_seconds"].values()),
        notes={str(index): "attacks" for index in experiment.roster.malicious},
    )


def remember(tally: Tally, lines: Sequence[Mapping[str, Any]]) -> None:
    """Tells a tally what earlier rounds of a run earned.

    Args:
        tally: The tally.
        lines: Lines of ``rounds.jsonl``.
    """
    for line in lines:
        held_out = line.get("held_out") or {}
        tally.remember(line["round"], line["reward"], held_out.get("reward"), held_out.get("problems", 0))
