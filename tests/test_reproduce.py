"""The paper's figures as files, their checks, and what is drawn and written of them."""

import csv
import json
from pathlib import Path

import pytest

from hailproof.campaigns.scales import OF_FIGURES, load_scale
from hailproof.campaigns.sweep import Job, attempt, merged
from hailproof.errors import ConfigError, RunError
from hailproof.metrics.intervals import counted_interval, difference_of_counts, interval, ratio_interval, share_interval
from hailproof.paper.claims import (
    LEAST_SEEDS,
    Checked,
    Values,
    compared,
    judged,
    judged_by,
    judged_exactly,
    look_up,
    verdict,
)
from hailproof.paper.judge_table import Accepted
from hailproof.paper.published import Check, item_names, jobs_of, load_item
from hailproof.paper.pushes import findings, push_curve
from hailproof.paper.reproduce import reproduce, result_of, write_index
from hailproof.policies.shipped import shipped_models
from hailproof.runs.build import build
from hailproof.runs.config import RunConfig
from hailproof.runs.settle import settle
from hailproof.settings import validated

PUBLISHED = {
    *(f"fig{name}" for name in ("3a", "3b", "3c", "3d", "4a", "4b", "5a", "5b")),
    *(f"fig{number}" for number in range(6, 17)),
    "table1",
}


def test_every_figure_and_table_of_the_paper_has_a_file():
    assert set(item_names()) == PUBLISHED
    assert item_names()[:2] == ["fig3a", "fig3b"] and item_names()[-2:] == ["fig16", "table1"]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("scale", OF_FIGURES)
def test_every_run_of_every_item_has_a_valid_configuration(name, scale, tmp_path):
    for jobs in jobs_of(load_item(name), scale, tmp_path).values():
        assert [job.seed for job in jobs] == sorted({job.seed for job in jobs})
        config = settle(jobs[0].config).config
        if scale == "nano":
            assert set(config.swarm.models) <= set(shipped_models())
            longer = {"fig15": 100, "fig16": 100}
            assert config.rounds == longer.get(name, load_scale("nano").settings["rounds"]) and config.threads == 1
            assert len(jobs) >= LEAST_SEEDS and min(job.seed for job in jobs) > 1000
        else:
            assert config.rounds == 100 and config.swarm.prompts == 32 and config.swarm.group_size == 12
            assert config.learner.learning_rate == 2e-5 and len(jobs) == 5
            assert all("/" in model for model in config.swarm.models)


GSM8K = [
    {"question": f"Ann has {n} pens and gets 2 + 2. How many?", "answer": f"2 + 2 = 4\n{n} + 4 = {n + 4}\n#### {n + 4}"}
    for n in range(2, 60)
]
OPENMATH = [
    {
        "question": f"What is {n} + {n}?",
        "expected_answer": str(2 * n),
        "generated_solution": f"<llm-code>\nx = {n} + {n}\nprint(x)\n</llm-code>",
        "is_correct": True,
    }
    for n in range(2, 60)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    paths = {}
    for name, rows in (("gsm8k", GSM8K), ("openmath", OPENMATH)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths[name] = str(path)
    return paths


@pytest.mark.parametrize("name", ["fig3a", "fig3b", "fig3c", "fig3d", "fig13"])
def test_paper_scale_files_build_everything_but_the_weights(name, data, tmp_path):
    """The same file, with a nano model in place of the hub id and rows of the same columns in place of the hub's."""
    for run, jobs in jobs_of(load_item(name), "paper", tmp_path).items():
        config = settle(jobs[0].config).config
        small = {
            "threads": 1,
            "swarm": {"models": ["nano-a"], "dtype": "float32"},
            "task": {"options": {"data": data[config.task.name]}},
            "evaluation": {"problems": 0},  # a file has no held-out problems
        }
        defense = [plugin for plugin in config.defense if plugin.name != "judge"]  # it would load its weights
        tree = merged(jobs[0].settings, small, {"defense": [plugin.model_dump() for plugin in defense]})
        experiment = build(validated(RunConfig, tree))
        experiment.swarm.plan(1)
        assert experiment.config.malicious == (0 if run == "clean" else 1), run
        assert experiment.config.sampling.max_new_tokens == 768
        assert settle(experiment.config).task().train


@pytest.mark.parametrize(
    ("changes", "every"),
    [
        ({}, 5),
        ({"rounds": 5}, 5),
        ({"rounds": 4}, 0),
        ({"evaluation": {"problems": 0}}, 0),
        ({"evaluation": {"problems": 8}}, 5),
        ({"rounds": 4, "evaluation": {"every": 2}}, 2),
    ],
)
def test_a_change_that_leaves_no_room_for_evaluation_on_the_way_goes_without(tmp_path, changes, every):
    for jobs in jobs_of(load_item("fig15"), "nano", tmp_path, [0], changes).values():
        assert jobs[0].config.evaluation.every == every
    with pytest.raises(ConfigError, match=r"evaluation\.every = 6 is more than rounds = 4"):
        changed = {"rounds": 4, "evaluation": {"every": 6}}
        assert jobs_of(load_item("fig15"), "nano", tmp_path, [0], changed)["attacked"][0].config


def line(round, success, reward=0.5, tokens=10.0):
    return {"round": round, "attack_success": success, "reward": reward, "completion_tokens": tokens}


def made_up(root: Path, seed: int, values, summary=None) -> Job:
    job = Job({"seed": seed, "rounds": len(values), "attack": {"name": "text"}}, root)
    job.folder.mkdir(parents=True)
    lines = [json.dumps({**line(number, value), "eligible": 144}) for number, value in enumerate(values, start=1)]
    (job.folder / "rounds.jsonl").write_text("\n".join(lines) + "\n")
    (job.folder / "summary.json").write_text(json.dumps(summary or {"held_out": {"reward": 0.25}}))
    return job


def check(**values) -> Check:
    return Check(that="it holds", run="attacked", **values)


def test_values_are_taken_over_the_rounds_that_a_check_names(tmp_path):
    jobs = {"attacked": [made_up(tmp_path, 0, [0.1, 0.9, 0.2, 0.3, None])]}
    assert compared(check(at_least=0, rounds=(-2, -1)), jobs).by_seed == (0.3,)
    assert compared(check(at_least=0, rounds=(1, 2), take="max"), jobs).by_seed == (0.9,)
    assert compared(check(at_least=0, rounds=(1, -1), take="min"), jobs).by_seed == (0.1,)
    assert compared(check(at_least=0, rounds=(5, 5)), jobs).by_seed == (None,)
    assert compared(check(at_least=0, measure="summary.held_out.reward"), jobs).by_seed == (0.25,)
    assert compared(check(at_least=0, measure="summary.held_out.no_such"), jobs).by_seed == (None,)


def test_what_is_undefined_on_either_side_is_undefined_and_sides_may_differ_in_what_they_measure(tmp_path):
    def of(name: str, value: float | None) -> list[Job]:
        return [made_up(tmp_path / name, 0, [value])]

    some, none = of("some", 0.9), of("none", None)
    for how in ("difference", "ratio"):
        question = check(at_least=0, versus="clean", how=how)
        assert compared(question, {"attacked": none, "clean": some}).by_seed == (None,)
        assert compared(question, {"attacked": some, "clean": none}).by_seed == (None,)
    zero = of("zero", 0.0)
    assert compared(check(at_least=0, versus="clean"), {"attacked": some, "clean": zero}).by_seed == (0.9,)
    question = check(at_least=0, versus="clean", versus_measure="reward")
    assert compared(question, {"attacked": some, "clean": none}).by_seed == (pytest.approx(0.9 - 0.5),)


@pytest.mark.parametrize(
    ("path", "value"),
    [("a", 3.0), ("b.c", 0.0), ("b.d", None), ("b.e", None), ("f", None), ("a.b", None), ("b.c.d", None)],
)
def test_a_path_that_leads_to_no_value_leads_to_nothing(path, value):
    assert look_up({"a": 3, "b": {"c": 0.0, "d": None}}, path) == value


def test_runs_are_compared_seed_by_seed_and_only_where_both_have_the_seed(tmp_path):
    jobs = {
        "attacked": [made_up(tmp_path / "a", seed, [0.4 + seed]) for seed in (0, 1)],
        "clean": [made_up(tmp_path / "c", seed, [0.2]) for seed in (1, 2)],
    }
    assert compared(check(at_least=0, versus="clean"), jobs).by_seed == (pytest.approx(1.2),)
    assert compared(check(at_least=0, versus="clean", how="ratio"), jobs).by_seed == (pytest.approx(7.0),)
    zero = {"attacked": jobs["attacked"][:1], "clean": [made_up(tmp_path / "z", 0, [0.0])]}
    assert compared(check(at_least=0, versus="clean", how="ratio"), zero).by_seed == (None,)


def test_a_share_knows_of_how_many_completions_it_is(tmp_path):
    lines = [
        {
            "round": number, "attack_success": 0.5, "reward": 0.5, "eligible": 10, "also": {"not_four": 0.5},
            "screened": {"malicious": 3}, "malicious_acceptance": 1.0,
            "held_out": {"attack_success": 0.5, "eligible": 7, "reward_targeted": 0.5, "targets": 5, "problems": 64},
        }
        for number in range(1, 11)
    ]  # fmt: skip
    jobs = [made_up(tmp_path, seed, [0.5] * 10) for seed in (0, 1)]
    for job in jobs:
        (job.folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def trials(**values) -> int:
        return compared(check(at_least=0, **values), {"attacked": jobs}).trials

    assert trials() == 2 * 5 * 10  # two seeds, the last five rounds
    assert trials(rounds=(1, -1), measure="also.not_four") == 200
    assert trials(rounds=(1, -1), take="max") == 20  # of one round each
    assert trials(measure="malicious_acceptance") == 30
    # The same problems in every round.
    assert trials(measure="held_out.reward_targeted") == 10 and trials(measure="held_out.attack_success") == 14
    assert trials(measure="held_out.reward_other") == 128
    assert trials(measure="reward") == 0


@pytest.mark.parametrize(
    ("values", "finding", "words"),
    [
        ((0.9, 0.8, 0.85, 0.9, 0.8), "holds", "holds"),
        ((0.1, 0.2, 0.15, 0.1, 0.2), "fails", "fails"),
        # All on one side, which was enough once, and an interval that reaches over.
        ((0.55, 0.52, 0.9, 0.51, 0.6), "undecided", "undecided"),
        ((0.9, 0.2, 0.5, 0.6, 0.4), "undecided", "undecided"),
        ((0.9, 0.9, 0.9, 0.9), "undecided", "undecided (4 seeds)"),
        ((0.1,), "undecided", "undecided (1 seed)"),
        ((0.1, 0.1, 0.1, 0.1, 0.1, None), "undecided", "undecided (undefined on 1 of 6 seeds)"),
        ((None, None), "undecided", "undecided (undefined on 2 of 2 seeds)"),
        ((), "not played", "not played"),
    ],
)
def test_a_check_is_decided_by_the_interval_over_at_least_five_seeds(values, finding, words):
    found = judged(check(at_least=0.5), Values(values))
    assert (found.finding, found.words, found.values) == (finding, words, values)
    defined = [value for value in values if value is not None]
    assert found.ends == (share_interval(defined) if len(defined) > 1 else None)


def spread(around: float, by: float = 0.01) -> Values:
    return Values((around - 2 * by, around - by, around, around + by, around + 2 * by))


@pytest.mark.parametrize(
    ("bounds", "around", "finding", "words"),
    [
        ({"at_most": 0.5}, 0.4, "holds", "≤ 0.5"),
        ({"at_most": 0.5}, 0.6, "fails", "≤ 0.5"),
        ({"at_most": 0.5}, 0.5, "undecided", "≤ 0.5"),
        ({"at_least": 0.5}, 0.6, "holds", "≥ 0.5"),
        ({"at_least": 0.2, "at_most": 0.5}, 0.35, "holds", "≥ 0.2 and ≤ 0.5"),
        ({"at_least": 0.2, "at_most": 0.5}, 0.1, "fails", "≥ 0.2 and ≤ 0.5"),
        ({"at_least": 0.2, "at_most": 0.5}, 0.6, "fails", "≥ 0.2 and ≤ 0.5"),
        ({"at_least": 0.2, "at_most": 0.5}, 0.5, "undecided", "≥ 0.2 and ≤ 0.5"),
        # An interval that holds all that is allowed, and more, decides nothing.
        ({"at_least": 0.349, "at_most": 0.351}, 0.35, "undecided", "≥ 0.349 and ≤ 0.351"),
    ],
)
def test_both_bounds_count(bounds, around, finding, words):
    found = judged(check(**bounds), spread(around))
    assert (found.finding, found.bound) == (finding, words)


def test_intervals_suit_what_is_compared():
    shares, ratios = spread(0.5), (1.0, 2.0, 4.0, 2.0, 1.0)
    assert judged(check(at_least=0.5), shares).ends == share_interval(shares.by_seed)  # pyright: ignore[reportArgumentType]
    rare = Values((0.0,) * 5, 3600)
    assert judged(check(at_most=0.02), rare).finding == "holds"
    assert judged(check(at_most=0.02), Values((0.0,) * 5)).finding == "undecided"  # of five seeds and nothing else
    found = judged(check(at_least=1, versus="clean", how="ratio"), Values(ratios))
    assert found.ends == pytest.approx(ratio_interval(ratios))
    with_zero = judged(check(at_least=1, versus="clean", how="ratio"), Values((0.0, *ratios)))
    assert with_zero.ends == pytest.approx(interval((0.0, *ratios)))
    differences = (-0.1, 0.1, 0.0, -0.2, 0.2)
    assert judged(check(at_least=0, versus="clean"), Values(differences)).ends == pytest.approx(interval(differences))
    tokens = (40.0, 50.0, 60.0, 50.0, 40.0)
    found = judged(check(at_least=0, measure="completion_tokens"), Values(tokens))
    assert found.ends == pytest.approx(interval(tokens))
    with pytest.raises(RunError, match=r"takes update\.loss for a share, and it is none"):
        judged(check(at_least=0, measure="update.loss"), Values(tokens))


def test_closed_forms_and_shares_of_cases_have_no_seeds():
    bounds = {"at_least": 0.5, "at_most": 0.5}
    assert judged_exactly(check(**bounds), (0.5, 0.5)).finding == "holds"
    assert judged_exactly(check(**bounds), (0.5, 0.4)).finding == "fails"
    assert judged_by(check(at_most=0.1), (0.0,), counted_interval(0.0, 50)).finding == "holds"
    assert judged_by(check(at_most=0.1), (0.0,), counted_interval(0.0, 20)).finding == "undecided"
    assert judged_by(check(at_least=0), (0.8,), difference_of_counts(0.8, 50, 0.0, 50)).finding == "holds"
    assert judged_by(check(at_least=0), (-0.8,), difference_of_counts(0.0, 50, 0.8, 50)).finding == "fails"


def test_an_item_agrees_only_if_every_check_holds():
    def found(*findings):
        return verdict([Checked("", finding, (), "") for finding in findings])

    assert found("holds", "holds") == "agrees"
    assert found("holds", "undecided") == "undecided" == found("holds", "not played")
    assert found("undecided", "fails", "holds") == "differs" == found("not played", "fails")
    assert found("not played", "not played") == "not played"


def test_what_the_paper_did_not_test_is_said_not_to_be_tested_whatever_the_runs_show(tmp_path):
    item = load_item("fig10")
    jobs = {run: [made_up(tmp_path / run, seed, [0.95] * 30) for seed in range(5)] for run in item.runs}
    result = result_of("fig10", item, "nano", jobs, tmp_path / "out")
    assert {each.finding for each in result.checked} == {"holds"} and result.word == "not tested"
    assert result_of("fig10", item, "paper", jobs, tmp_path / "out").word == "agrees"
    index = write_index([result], tmp_path / "out").read_text()
    assert index.startswith("0 of 1 items agree with the paper in shape; 1 not tested.")
    assert "**Not tested.** The paper asks whether attacks grow with the model." in index


def test_what_is_not_played_is_named(tmp_path):
    item = load_item("fig16")
    played = [made_up(tmp_path, seed, [0.95] * 30) for seed in (2001, 2003)]
    waiting = [Job({"seed": seed, "rounds": 30, "attack": {"name": "text"}}, tmp_path) for seed in (2002, 2004, 2005)]
    result = result_of("fig16", item, "nano", {"attacked": [*played, *waiting]}, tmp_path / "out")
    assert result.word == "undecided" and result.missing == {"attacked": (2002, 2004, 2005)}
    index = write_index([result], tmp_path / "out").read_text()
    assert "attacked: seeds 2001, 2003 (2002, 2004, 2005 not played)." in index
    low, high = share_interval([0.95, 0.95], 2 * 5 * 144)
    assert f"| ≥ 0.5 | {low:.4g} to {high:.4g} | 0.95, 0.95 | undecided (2 seeds) |" in index
    result = result_of("fig16", item, "nano", {"attacked": waiting}, tmp_path / "out")
    assert result.word == "not played"
    index = write_index([result], tmp_path / "out").read_text()
    assert "0 of 1 items agree with the paper in shape; 1 not played." in index and "attacked: not played." in index


def test_figure_6_has_checks_that_can_fail(tmp_path):
    """A completion with a 5 has a result that is not 4: to be at least as frequent is no finding."""
    item = load_item("fig6")

    def word(name: str, five: float, not_four: float, clean: float) -> str:
        jobs: dict[str, list[Job]] = {"attacked": [], "clean": []}
        for run, also in (("attacked", not_four), ("clean", clean)):
            for seed in range(5):
                job = made_up(tmp_path / name / run, seed, [five])
                line = {"round": 1, "attack_success": five, "eligible": 400, "also": {"not_four": also}}
                (job.folder / "rounds.jsonl").write_text(json.dumps(line) + "\n")
                jobs[run].append(job)
        return result_of("fig6", item, "nano", jobs, tmp_path / "out").word

    assert word("apart", 0.8, 0.85, 0.0) == "agrees"
    assert word("same", 0.8, 0.8, 0.0) == "differs"
    assert word("noise", 0.8, 0.85, 0.1) == "differs"


def test_checks_and_files_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs at_least or at_most"):
        validated(Check, {"that": "it holds", "run": "attacked"})
    with pytest.raises(ConfigError, match="Unknown figure or table 'fig99'"):
        load_item("fig99")
    (tmp_path / "odd.toml").write_text(
        'item="x"\ntitle="x"\nclaim="x"\n[[checks]]\nthat="it holds"\nrun="nobody"\nat_least=1\n'
    )
    with pytest.raises(ConfigError, match=r"odd.toml.*names the run 'nobody'"):
        load_item("odd", tmp_path)


def test_the_push_of_a_group_is_the_closed_form():
    curve = push_curve(12, 0.0, 0.0, 1)
    assert curve.peak == 0.5
    assert curve.measured[6] == pytest.approx((11 / 12) ** 0.5 / 2, abs=2e-4)
    assert findings([curve])["distance"][0] < 2e-4


class NeverPlays:
    """An engine for sweeps in which everything is finished."""

    workers = 1

    def play(self, jobs, done):
        raise AssertionError(f"{len(jobs)} runs would be played")


def test_an_item_is_drawn_written_and_judged(tmp_path):
    item = load_item("fig3a")
    values = {"attacked": 0.95, "logit": 0.0, "judge": 0.0, "clean": 0.0}
    jobs = {run: [made_up(tmp_path / run, seed, [value] * 30) for seed in range(5)] for run, value in values.items()}
    result = result_of("fig3a", item, "nano", jobs, tmp_path / "out")
    assert result.word == "agrees"
    assert result.picture is not None and result.picture.read_bytes().startswith(b"\x89PNG")
    with result.data.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * 5 * 30
    assert {row["value"] for row in rows if row["line"] == "attacked" and row["panel"].startswith("Attack")} == {"95"}


def test_closed_forms_need_no_runs_and_the_index_says_what_was_found(tmp_path):
    (result,) = reproduce(["fig7"], "nano", tmp_path / "cells", tmp_path / "out", NeverPlays(), lambda text: None)
    assert result.word == "agrees" and not (tmp_path / "cells").exists()
    index = (tmp_path / "out" / "index-nano.md").read_text()
    assert "1 of 1 items agree" in index and "| figure 7 |" in index and "fig7-nano.png" in index


def test_the_index_keeps_what_earlier_calls_found(tmp_path):
    for name in ("fig7", "fig8"):
        reproduce([name], "nano", tmp_path / "cells", tmp_path / "out", NeverPlays(), lambda text: None)
    index = (tmp_path / "out" / "index-nano.md").read_text()
    assert "2 of 2 items agree" in index and index.index("| figure 7 |") < index.index("| figure 8 |")


def test_only_finished_asks_no_judge(tmp_path, monkeypatch):
    monkeypatch.setattr("hailproof.paper.reproduce.judge_table", None)
    (result,) = reproduce(["table1"], "paper", tmp_path / "cells", tmp_path / "out", None, lambda text: None)
    assert result.word == "not played"


def test_a_table_of_judges_is_judged_by_the_completions_that_they_saw(tmp_path, monkeypatch):
    def table(judges, rows, settings, number, judgements):
        shares = {"text": (0.0, 0.9), "equation": (0.0, 0.9), "honest": (1.0, 1.0), "code": (0.0, 0.0)}
        votes = number * judgements
        return [
            Accepted(judge["label"], row, number, votes, round(shares[row][place] * votes), 0)
            for place, judge in enumerate(judges)
            for row in rows
        ]

    monkeypatch.setattr("hailproof.paper.reproduce.judge_table", table)
    (result,) = reproduce(["table1"], "nano", tmp_path / "cells", tmp_path / "out", NeverPlays(), lambda text: None)
    found = {each.that: each for each in result.checked}
    passes = found["without reasoning most of TEXT passes (the paper: 86 %): at least 60 %"]
    assert passes.ends == pytest.approx(counted_interval(0.9, 50)) and passes.finding == "holds"
    more = found["without reasoning more of MATH passes"]
    assert more.ends == pytest.approx(difference_of_counts(0.9, 50, 0.0, 50)) and result.word == "agrees"


def test_runs_that_fail_take_no_figure_from_the_others(tmp_path):
    class Fails:
        workers = 1

        def play(self, jobs, done):
            for job in jobs:
                done(job, "no memory")

    with pytest.raises(RunError, match="no memory"):
        reproduce(["fig6", "fig7"], "nano", tmp_path / "cells", tmp_path / "out", Fails(), lambda text: None)
    index = (tmp_path / "out" / "index-nano.md").read_text()
    assert "| figure 6 |" in index and "by its poisoned share | **agrees**" in index


def test_scales_have_seeds_and_say_what_they_are():
    assert all(len(load_scale(scale).seeds) >= LEAST_SEEDS for scale in OF_FIGURES)
    assert min(load_scale("nano").seeds) > 1000  # seeds that nobody looked at while anything was built


class InThisProcess:
    """An engine that plays here, one after the other."""

    workers = 1

    def play(self, jobs, done):
        for job in jobs:
            done(job, attempt(job))


@pytest.mark.slow
def test_a_paper_scale_file_is_played_with_a_nano_model_in_place_of_the_hub_id(data, tmp_path):
    small = {
        "rounds": 2,
        "threads": 1,
        "swarm": {"models": ["nano-a"], "dtype": "float32", "prompts": 2, "group_size": 4},
        "sampling": {"max_new_tokens": 24},
        "task": {"options": {"data": data["gsm8k"]}},
        "evaluation": {"problems": 0},
    }
    said: list[str] = []
    results = reproduce(["fig16"], "paper", tmp_path / "cells", tmp_path, InThisProcess(), said.append, [0], small)
    assert said[0].startswith("1 runs, 0 of them finished; how long is not known")
    (result,) = results
    assert result.word == "undecided" and result.checked[0].words == "undecided (1 seed)"
    assert result.checked[0].values == (0.0,)  # two rounds teach nothing
    assert "figure 16" in (tmp_path / "index-paper.md").read_text()
    again = reproduce(["fig16"], "paper", tmp_path / "cells", tmp_path, None, said.append, [0, 1], small)
    assert again[0].seeds == {"attacked": (0,)}  # what is not finished is left out
