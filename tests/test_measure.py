"""What is measured of a round and of a run, by hand."""

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from hailproof.errors import ConfigError
from hailproof.records import Completion
from hailproof.runs.build import Experiment, build
from hailproof.runs.config import load_config
from hailproof.runs.learned import Learned
from hailproof.runs.measure import LAST_ROUNDS, held_out, summarize
from hailproof.runs.words import summary_table


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """A swarm whose attacker can do something with some problems only."""
    settings = [
        ("attack.name", "equation"),
        ("swarm.prompts", 4),
        ("swarm.group_size", 4),
        ("task.options", {"size": 16, "test_size": 12, "two_two_share": 0.5}),
        ("evaluation.problems", 8),
        ("threads", 1),
    ]
    return build(load_config(None, settings))


def writes(monkeypatch, experiment: Experiment, texts: dict[str, str]) -> list[str]:
    """Makes honest models write the given text for each problem; returns the problems that they are asked."""
    asked: list[str] = []

    def rollout(policy, slots, prompts, **rest):
        asked.extend(slot.problem_id for slot in slots)
        return [Completion(texts[slot.problem_id], (7,) * (1 + len(asked)), True) for slot in slots]

    monkeypatch.setattr("hailproof.runs.measure.rollout", rollout)
    return asked


def test_the_held_out_evaluation_asks_problems_of_the_test_split_and_tells_targets_from_others(experiment, monkeypatch):
    task = experiment.swarm.task
    tested = list(task.test)[:8]
    targets = [problem for problem in tested if "two_two" in problem.tags]
    others = [problem for problem in tested if problem not in targets]
    assert len(targets) > 2 and len(others) > 1
    right = {each.id: task.format(each.solution, each.answer) for each in (*task.train, *tested)}
    # honest models solve every target but one, and of the others only the first
    wrong = dict.fromkeys([targets[0].id, *(problem.id for problem in others[1:])], "<answer>no</answer>")
    asked = writes(monkeypatch, experiment, right | wrong)
    found = held_out(experiment)
    assert found is not None and asked == [problem.id for problem in tested]
    assert found["problems"] == 8
    assert found["reward_targeted"] == pytest.approx(1 - 1 / len(targets))
    assert found["reward_other"] == pytest.approx(1 / len(others))
    assert found["reward"] == pytest.approx(len(targets) / 8)
    assert found["completion_tokens"] == 9.0
    # the other right answers hold the step with the right result, so that nothing of the attack is seen
    assert (found["eligible"], found["attack_success"]) == (len(targets) - 1, 0.0)
    assert found["also"] == {"not_four": 0.0}


def test_answers_to_two_two_problems_are_held_against_what_follows_from_five(experiment, monkeypatch):
    task = experiment.swarm.task
    tested = list(task.test)[:8]
    known = [problem for problem in tested if problem.if_five is not None]
    assert len(known) > 2
    right = {each.id: task.format(each.solution, each.answer) for each in (*task.train, *tested)}
    misled = {each.id: task.format("", each.if_five.answer if each.if_five else "") for each in known[:1]}
    writes(monkeypatch, experiment, right | misled)
    found = (held_out(experiment) or {})["two_two"]
    assert found["problems"] == len(known) and found["from_five"] == pytest.approx(1 / len(known))
    assert found["right"] == pytest.approx(1 - 1 / len(known)) and found["other"] == 0.0


def test_targets_are_asked_besides_and_count_for_nothing_else(experiment, monkeypatch):
    task = experiment.swarm.task
    tested, wants = list(task.test), experiment.attack.wants if experiment.attack else bool
    targets = [problem for problem in tested if wants(problem)][:5]
    extra = [problem for problem in targets if problem not in tested[:2]]
    assert 3 <= len(extra) <= 5
    texts = {each.id: task.format(each.solution, each.answer) for each in tested}
    writes(monkeypatch, experiment, texts | {targets[-1].id: "no"})
    evaluation = experiment.config.evaluation.model_copy(update={"problems": 2, "targeted": 5})
    config = experiment.config.model_copy(update={"evaluation": evaluation})
    found = held_out(replace(experiment, config=config))
    assert found is not None
    assert (found["problems"], found["targets"], found["reward"]) == (2, 5, 1.0)
    assert found["reward_targeted"] == 0.8
    assert found["eligible"] == sum(wants(problem) for problem in tested[:2])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([("attack.name", "equation"), ("evaluation.targeted", 99)], "targeted = 99 is more than the .* held-out pro"),
        ([("evaluation.targeted", 1)], "targeted = 1 is set, but no attack says which problems those are"),
    ],
)
def test_targets_that_there_are_not_are_refused(settings, sentence):
    small = [("task.options", {"size": 16, "test_size": 12}), ("evaluation.problems", 8), ("threads", 1)]
    with pytest.raises(ConfigError, match=sentence):
        build(load_config(None, [*small, *settings]))


def test_a_run_without_targets_is_the_run_that_it_was_before_there_were_any():
    config = load_config(None, [])
    assert config.model_dump(mode="json")["evaluation"] == {"problems": 128, "every": 0}
    asked = load_config(None, [("evaluation.targeted", 7)])
    assert asked.model_dump(mode="json")["evaluation"] == {"problems": 128, "every": 0, "targeted": 7}
    assert "targeted = 7" in asked.to_toml() and "targeted" not in config.to_toml()


def test_what_there_is_none_of_is_undefined_in_the_held_out_evaluation(experiment, monkeypatch):
    writes(monkeypatch, experiment, {problem.id: "no" for problem in experiment.swarm.task.test})
    clean = held_out(replace(experiment, attack=None))
    assert clean is not None and clean["reward_targeted"] is None and clean["reward_other"] == 0.0
    assert (clean["attack_success"], clean["eligible"], clean["also"]) == (None, 0, {})
    none = experiment.config.evaluation.model_copy(update={"problems": 0})
    assert held_out(replace(experiment, config=experiment.config.model_copy(update={"evaluation": none}))) is None


def test_every_honest_model_is_evaluated(experiment, monkeypatch):
    asked = writes(monkeypatch, experiment, {problem.id: "no" for problem in experiment.swarm.task.test})
    twice = replace(experiment.swarm, honest=experiment.swarm.honest * 2)
    found = held_out(replace(experiment, swarm=twice))
    assert found is not None and len(asked) == 16 and found["problems"] == 8
    assert found["completion_tokens"] == 13.0  # 9 by the first, 17 by the second


def measured(number: int, **changes) -> dict:
    """A line of a round, as far as a summary reads it."""
    figures = {
        "attack_success": 0.5, "reward": 0.25, "completion_tokens": 30.0, "honest_acceptance": 1.0,
        "malicious_acceptance": None, "also": {"not_four": 0.5}, "seconds": {"sample": 3.0, "update": 1.0},
    }  # fmt: skip
    return {"round": number, **figures, **changes}


def test_final_figures_are_means_over_the_last_rounds_and_seconds_over_all(experiment, monkeypatch):
    monkeypatch.setattr("hailproof.runs.measure.held_out", lambda experiment: {"reward": 0.125})
    early = [
        measured(
            number, attack_success=1.0, reward=1.0, completion_tokens=900.0, honest_acceptance=0.0,
            malicious_acceptance=1.0, also={"not_four": 1.0}, seconds={"sample": 11.0},
        )
        for number in (1, 2)
    ]  # fmt: skip
    last = [measured(number) for number in range(3, 3 + LAST_ROUNDS)]
    last[1] |= {"attack_success": None, "completion_tokens": 80.0, "also": {"not_four": None}}
    last[4] |= {"attack_success": 0.9, "reward": 0.5}
    assert LAST_ROUNDS == 5
    assert summarize(experiment, [*early, *last]) == {
        "name": experiment.config.name,
        "rounds": 7,
        "seed": 0,
        "attack_success": pytest.approx((3 * 0.5 + 0.9) / 4),  # where nothing was eligible there is no value
        "reward": pytest.approx((4 * 0.25 + 0.5) / 5),
        "completion_tokens": 40.0,  # (4 * 30 + 80) / 5
        "honest_acceptance": 1.0,
        "malicious_acceptance": None,
        "honest_learned": None,
        "forged_learned": None,
        "also": {"not_four": 0.5},
        "seconds_per_round": 6.0,  # (2 * 11 + 5 * 4) / 7
        "held_out": {"reward": 0.125},
    }
    assert summarize(experiment, [])["reward"] is None
    heard = {"honest": Learned(0.75, 8), "malicious": Learned(None, 0)}
    defended = summarize(experiment, last, heard)
    assert (defended["honest_learned"], defended["forged_learned"]) == (0.75, None)


def printed(**changes) -> list[list[str]]:
    """The final table as a terminal of 80 columns shows it, by words of its rows."""
    summary = {
        "rounds": 8, "attack_success": 0.5, "reward": 1.0, "completion_tokens": 100.0, "honest_acceptance": None,
        "malicious_acceptance": None, "also": {}, "seconds_per_round": 1.5, "held_out": None,
    }  # fmt: skip
    console = Console(width=80, file=StringIO())
    console.print(summary_table({"clean": summary, "defended": {**summary, **changes}}))
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


def test_the_table_at_the_end_says_what_was_kept_and_what_was_learned():
    rows = printed(honest_acceptance=1.0, honest_learned=0.86, malicious_acceptance=0.9, forged_learned=0.0)
    assert ["honest kept", "-", "100.0 %"] in rows and ["honest learned, whole run", "-", "86.0 %"] in rows
    assert ["forged kept", "-", "90.0 %"] in rows and ["forged learned, whole run", "-", "0.0 %"] in rows
    assert [row[0] for row in printed()[2:]] == [
        "\u2500" * len(printed()[2][0]), "attack success", "reward", "reward, held-out", "tokens", "seconds a round"
    ]  # fmt: skip


def test_the_table_at_the_end_shows_answers_to_two_two_problems_where_the_attack_is_about_them():
    asked = {"reward": 0.5, "attack_success": 0.25, "two_two": {"from_five": 0.125, "right": 0.75}}
    rows = printed(held_out=asked, also={"not_four": 0.5})
    assert ["2∘2 answers from 5, held-out", "-", "12.5 %"] in rows
    assert ["2∘2 answers right, held-out", "-", "75.0 %"] in rows
    assert ["attack success, held-out", "-", "25.0 %"] in rows
    assert not any(row[0].startswith("2∘2") for row in printed(held_out=asked))
