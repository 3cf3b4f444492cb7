"""The bench: its matrix, what a cell holds, and that it goes on where it was."""

import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_run import line, row, run, verdict
from typer.testing import CliRunner

from hailproof.attacks.text import TextAttack
from hailproof.campaigns.cells import FORMAT, kept, measured, read_cells, write_cell
from hailproof.campaigns.matrix import cells_of, load_matrix
from hailproof.campaigns.posthoc import counted
from hailproof.campaigns.scales import SCALES
from hailproof.campaigns.sweep import Job, play_job
from hailproof.cli import app
from hailproof.errors import ConfigError
from hailproof.metrics.established import NO_WORSE_MARGIN, beyond_p
from hailproof.metrics.intervals import difference_of_counts, interval, ratio_interval, share_interval
from hailproof.reports.table import table_of
from hailproof.runs.learned import Learned, learned
from hailproof.runs.settle import settle
from hailproof.runs.store import SCHEMA

TINY = {
    "rounds": 2,
    "swarm": {"prompts": 2, "group_size": 4},
    "sampling": {"max_new_tokens": 72},  # what TEXT forges has at most 66
    "task": {"options": {"size": 40, "test_size": 8}},
    "evaluation": {"problems": 4},
}


def test_every_row_and_column_of_the_file_has_a_valid_configuration(tmp_path):
    matrix = load_matrix()
    cells = cells_of(list(matrix.attacks), list(matrix.defenses), [0], "nano", tmp_path)  # settles each
    assert len({cell.file_name for cell in cells}) == len(cells)
    for preset in matrix.presets.values():
        assert set(preset.attacks) <= set(matrix.attacks) and set(preset.defenses) <= set(matrix.defenses)


def test_a_cell_whose_defense_has_nothing_to_do_is_left_out(tmp_path):
    def pairs(attacks: list[str], defenses: list[str]) -> set[tuple[str, str]]:
        cells = cells_of(attacks, defenses, [0], "nano", tmp_path)
        return {(cell.attack, cell.defense) for cell in cells if cell.attack != "clean"}

    assert pairs(["text", "text-mixed"], ["replay", "logit"]) == {
        ("text", "replay"), ("text", "logit"), ("text-mixed", "logit"),
    }  # fmt: skip
    assert pairs(["text", "code"], ["imports"]) == {("code", "imports")}
    assert pairs(["text", "code"], ["equations+imports"]) == {
        ("text", "equations+imports"), ("code", "equations+imports"),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'replay' rejects completions of nodes with other weights"):
        pairs(["text-mixed", "text-sampled"], ["replay", "homogeneous"])


def test_rows_that_share_a_control_share_its_run(tmp_path):
    cells = cells_of(["text", "sentence", "equation"], ["none"], [0], "nano", tmp_path)
    controls = {cell.setting: cell for cell in cells if cell.attack == "clean"}
    assert set(controls) == {"control of text", "control of equation"}
    text, sentence = (cell for cell in cells if cell.attack in ("text", "sentence"))
    assert text.controls[0].folder == sentence.controls[0].folder == controls["control of text"].jobs[0].folder
    assert settle(text.controls[0].config).config.malicious == 0


def test_settings_for_all_leave_controls_clean_and_columns_what_they_are(tmp_path):
    changes = {"attack": {"malicious": 2}, "rounds": 7}
    clean, none, logit = cells_of(["text"], ["none", "logit"], [0], "nano", tmp_path, changes)
    assert [cell.jobs[0].config.malicious for cell in (clean, none, logit)] == [0, 2, 2]
    assert none.controls[0].folder == clean.jobs[0].folder
    assert {cell.jobs[0].config.rounds for cell in (clean, none, logit)} == {7}
    for changes in ({"defense": []}, {"seed": 3}, {"attack": {"name": "length"}}):
        with pytest.raises(ConfigError, match="not for several runs"):
            cells_of(["text"], ["none"], [0], "nano", tmp_path, changes)


def test_the_preset_all_is_every_row_and_column():
    matrix = load_matrix()
    whole = matrix.preset("all")
    assert set(whole.attacks) == set(matrix.attacks) and set(whole.defenses) == set(matrix.defenses)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Unknown attack 'txt'"):
        cells_of(["txt"], ["none"], [0], "nano", tmp_path)
    with pytest.raises(ConfigError, match="Unknown defense 'lgit'"):
        cells_of(["text"], ["lgit"], [0], "nano", tmp_path)


def test_a_registered_defense_that_the_file_does_not_name_is_a_column(tmp_path):
    (_, cell) = cells_of(["text"], ["self_judge"], [0], "nano", tmp_path)
    assert [plugin.name for plugin in cell.jobs[0].config.defense] == ["self_judge"]


def test_acceptance_over_a_run_weighs_rounds_by_what_was_screened():
    lines = [
        {"screened": {"honest": 10}, "honest_acceptance": 1.0},
        {"screened": {"honest": 30}, "honest_acceptance": 0.5},
        {"screened": {"honest": 0}, "honest_acceptance": None},
        {"screened": {"honest": 10}, "honest_acceptance": 0.0},
    ]
    assert kept(lines, "honest") == (10 + 15) / 50
    assert kept(lines[2:3], "honest") is None and kept(lines[3:], "honest") == 0.0


def test_what_is_learned_from_is_what_is_neither_rejected_nor_muted_nor_weighed_down(tmp_path):
    def said(muted: tuple[int, ...] = (), **changes) -> list[dict]:
        twice = [verdict("accept", muted=muted, weight=1.0), verdict("accept", muted=muted[:1], weight=1.0)]
        return [{**each, **changes} for each in twice]

    rows = [
        row(1, "whole", tokens=10, weight=1.0, verdicts=said()),
        row(1, "muted in part, one token by both", tokens=10, weight=1.0, verdicts=said((3, 4, 5))),
        row(1, "rejected", tokens=10, weight=1.0, admitted=False, verdicts=said(decision="reject")),
        row(1, "weighed down", tokens=10, weight=0.5, verdicts=said()),
        row(1, "wrong", tokens=99, weight=1.0, raw_reward=0.0, verdicts=said()),
        row(1, "not screened", tokens=99, weight=1.0),
        row(1, "muted beyond its sender's tokens", True, tokens=2, weight=1.0, verdicts=said((0, 1, 2))),
    ]
    folder = run(tmp_path / "some", [], rows)
    assert learned(folder) == {"honest": Learned((10 + 7 + 0 + 5) / 40, 4), "malicious": Learned(0.0, 1)}
    nothing = {"honest": Learned(None, 0), "malicious": Learned(None, 0)}
    assert learned(run(tmp_path / "none", [], rows[4:6])) == nothing


def test_what_was_learned_is_known_before_the_completions_of_the_rounds_are_joined(tmp_path):
    spoken = [verdict("accept", muted=(0,), weight=1.0)]
    rows = [row(number, "said", tokens=4, weight=1.0, verdicts=spoken[:number]) for number in (1, 2)]
    folder = run(tmp_path / "run", [], rows)
    joined = learned(folder)
    (folder / "completions.parquet").unlink()
    (folder / "completions").mkdir()
    for number, each in enumerate(rows, start=1):
        table = pa.Table.from_pylist([each], SCHEMA)
        pq.write_table(table, folder / "completions" / f"round-{number:06d}.parquet")
    assert learned(folder) == joined == {"honest": Learned(0.75, 2), "malicious": Learned(None, 0)}


SECONDS = {"sample": 3.0, "screen": 1.0, "update": 4.0}


def sent(weight: float, excluded: bool = False) -> dict:
    """What an update says of a sender."""
    return {"length": 1.0, "weight": weight, "cosine": None, "evidence": None, "excluded": excluded}


def finished(job: Job, lines: list[dict], summary: dict, rows: list[dict]) -> Job:
    """A run that nobody played, where the bench looks for it."""
    config = settle(job.config).config
    shutil.rmtree(job.folder, ignore_errors=True)
    run(job.folder, lines, rows, summary, f"# hailproof 1.2, Python 3.9\n{config.to_toml()}")
    return job


def test_a_cell_by_hand(tmp_path):
    """Two seeds of five rounds beside their controls; of three others a run is not finished, so they do not count."""
    (_, cell) = cells_of(["text"], ["logit"], [0, 1, 2, 3, 4], "nano", tmp_path, {"rounds": 5})
    tokens = [900.0, 900.0, 20.0, 40.0, 60.0]  # the first two rounds are not settled: 5 * 0.4
    screened = {"screened": {"honest": 10, "malicious": 5}, "honest_acceptance": 0.8, "malicious_acceptance": 0.4}
    for seed, (success, held) in enumerate([(0.75, 0.5), (0.5, 0.75)]):
        attacked = [
            line(number, completion_tokens=count, seconds=SECONDS, **screened) for number, count in enumerate(tokens, 1)
        ]
        attacked[0]["update"] |= {"senders": {"0": sent(1.0), "1": sent(0.5), "3": sent(0.2, excluded=True)}}
        attacked[1]["update"] |= {"senders": {"0": sent(1.0), "1": sent(1.0), "2": sent(1.0)}}
        clean = [line(number, completion_tokens=10.0, seconds=SECONDS, defended=False) for number in range(1, 6)]
        spoken = [verdict("accept", muted=(0, 1, 2), weight=1.0)]
        rows = [row(1, "honest", tokens=12, weight=1.0, verdicts=spoken)]
        rows += [row(1, "forged", True, tokens=12, weight=1.0, admitted=False, verdicts=spoken)]
        twos = {"problems": 20, "right": 0.25, "from_five": 0.5, "other": 0.25, "steps": 10, "five_used": 0.75}
        asked = {"reward": held, "problems": 64, "attack_success": 0.5, "eligible": 64, "two_two": twos}
        known = {"reward": 0.875, "problems": 64, "attack_success": 0.125, "eligible": 64}
        figures = {"attack_success": success, "reward": 0.5, "held_out": asked, "seconds_per_round": 8.0}
        control = {"attack_success": 0.25, "reward": 0.9, "held_out": known, "seconds_per_round": 4.0}
        finished(cell.jobs[seed], attacked, figures, rows)
        path = finished(cell.controls[seed], clean, control, rows[:1]).folder / "config.toml"
        path.write_text(path.read_text().replace("hailproof 1.2", "hailproof 1.1"))
    for source, job in ((cell.jobs[0], cell.jobs[2]), (cell.controls[0], cell.controls[3])):
        shutil.copytree(source.folder, job.folder)
    record = measured(cell)
    assert record is not None
    assert record["seeds"] == [0, 1] and record["versions"] == {"hailproof": "1.2", "Python": "3.9"}
    assert [record[key] for key in ("attack", "defense", "setting", "scale")] == ["text", "logit", "", "nano"]
    assert [record[key] for key in ("topology", "rounds", "digest")] == ["horizontal", 5, cell.jobs[0].digest]
    played = record["config"]
    assert played["attack"]["malicious"] == 1 and [each["name"] for each in played["defense"]] == ["logit"]
    assert not {"name", "seed"} & set(played) and "trigger" not in played["attack"]  # what is not set is left out
    expected = {
        "attack_success": [0.75, 0.5],
        "excess_success": [0.5, 0.25],  # beyond what the control shows
        "reward": [0.5, 0.5],
        "held_out_success": [0.5, 0.5],
        "held_out_excess": [0.375, 0.375],
        "held_out_reward": [0.5, 0.75],
        "held_out_loss": [0.375, 0.125],  # what the attack and the defense cost: the control is better
        "tokens": [40.0, 40.0],
        "tokens_ratio": [4.0, 4.0],
        "two_two_right": [0.25, 0.25],
        "two_two_from_five": [0.5, 0.5],
        "two_two_other": [0.25, 0.25],
        "two_two_five_used": [0.75, 0.75],
        "honest_kept": [0.8, 0.8],
        "forged_kept": [0.4, 0.4],
        "honest_learned": [0.75, 0.75],
        "forged_learned": [0.0, 0.0],
        "honest_pull": [0.75, 0.75],  # 1, 0.5, and 0 of who was left out; then all; the others told nobody apart
        "forged_pull": [0.1, 0.1],
        "honest_excluded": [0.0, 0.0],
        "forged_excluded": [1.0, 1.0],
        "seconds_per_round": [8.0, 8.0],
        "screen_share": [0.125, 0.125],
    }
    assert {key.removesuffix("_seeds"): value for key, value in record.items() if key.endswith("_seeds")} == {
        measure: pytest.approx(values) for measure, values in expected.items()
    }
    assert {measure: record[f"{measure}_mean"] for measure in expected} == {
        measure: pytest.approx(sum(values) / 2) for measure, values in expected.items()
    }
    low, high = record["excess_success_low"], record["excess_success_high"]
    assert (low, high) == (-1.0, 1.0)  # of two seeds, 0.375 +- 1.59, cut to what a difference can be
    # The last five rounds hold 5 * 10 eligible completions a seed, and all rounds 5 * 10 screened honest ones.
    expected_ends = {
        "attack_success": share_interval([0.75, 0.5], 100), "held_out_reward": share_interval([0.5, 0.75], 128),
        "held_out_success": share_interval([0.5, 0.5], 128), "honest_kept": share_interval([0.8, 0.8], 100),
        "two_two_right": share_interval([0.25, 0.25], 40), "two_two_five_used": share_interval([0.75, 0.75], 20),
        "honest_learned": share_interval([0.75, 0.75], 2), "forged_learned": share_interval([0.0, 0.0], 2),
        "honest_excluded": share_interval([0.0, 0.0], 6),
        "reward": share_interval([0.5, 0.5], 2 * 5 * 16), "tokens_ratio": ratio_interval([4.0, 4.0]),
        "tokens": interval([40.0, 40.0]), "screen_share": share_interval([0.125, 0.125]),
    }  # fmt: skip
    assert played["swarm"]["prompts"] == 16
    for measure, ends in expected_ends.items():
        assert (record[f"{measure}_low"], record[f"{measure}_high"]) == pytest.approx(ends), measure
    # Of 0 of 2 right forged completions on 2 seeds: 1 - 0.05 ** (1 / 2), both ways.
    for unit in ("completion", "seed"):
        assert record[f"forged_learned_upper_{unit}"] == pytest.approx(0.7764, abs=1e-4)
    assert "attack_success_upper_seed" not in record
    assert (record["learned_margin"], record["stopped_margin"], record["no_worse_margin"]) == (0.1, 0.05, 0.03)
    assert record["learned_p"] == beyond_p([0.5, 0.25], 0.1, "greater") and record["stopped_p"] == 1.0
    single = measured(replace(cell, jobs=cell.jobs[:1], controls=cell.controls[:1]))
    assert single is not None and single["seeds"] == [0] and single["excess_success_mean"] == 0.5
    assert single["excess_success_low"] is None is single["excess_success_high"]


def test_what_was_not_evaluated_or_not_screened_is_undefined_in_a_cell(tmp_path):
    (_, cell) = cells_of(["text"], ["none"], [0], "nano", tmp_path)
    figures = {"attack_success": None, "reward": 0.5, "held_out": None, "seconds_per_round": 8.0}
    control = figures | {"attack_success": 0.25, "held_out": {"reward": 0.5}}
    finished(cell.jobs[0], [line(1, defended=False, seconds=SECONDS)], figures, [row(1, "one", weight=1.0)])
    finished(cell.controls[0], [line(1, defended=False, seconds=SECONDS)], control, [])
    record = measured(cell) or {}
    undefined = {key.removesuffix("_seeds") for key, value in record.items() if value == [None]}
    assert undefined == {
        "attack_success", "excess_success", "held_out_success", "held_out_excess", "held_out_reward", "held_out_loss",
        "two_two_right", "two_two_from_five", "two_two_other", "two_two_five_used",
        "honest_kept", "forged_kept", "honest_learned", "forged_learned",
        "honest_pull", "forged_pull", "honest_excluded", "forged_excluded",
    }  # fmt: skip
    finished(cell.jobs[0], [line(1, seconds=SECONDS)], figures | {"held_out": {"reward": 0.25}}, [])
    finished(cell.controls[0], [line(1, seconds=SECONDS)], control | {"held_out": None}, [])
    record = measured(cell) or {}
    assert record["held_out_reward_seeds"] == [0.25] and record["held_out_loss_seeds"] == [None]
    finished(cell.jobs[0], [line(1, seconds=SECONDS)], figures | {"attack_success": 0.5}, [])
    finished(cell.controls[0], [line(1, seconds=SECONDS)], control | {"attack_success": None}, [])
    record = measured(cell) or {}
    assert record["attack_success_seeds"] == [0.5] and record["excess_success_seeds"] == [None]


def made(cell, success, clean_success, held, clean_held, tokens=10.0, **changes):
    """Plays the runs of a cell by hand: one value a seed of success and of held-out reward."""
    for place, job in enumerate(cell.jobs):
        lines = [line(number, success[place], seconds=SECONDS, completion_tokens=tokens) for number in range(1, 11)]
        asked = {"reward": held[place], "problems": 64, "attack_success": success[place], "eligible": 64}
        figures = {"attack_success": success[place], "reward": 0.5, "held_out": asked, "seconds_per_round": 8.0}
        finished(job, lines, figures | changes, [])
        found = clean_success[place]
        control = [line(number, found, seconds=SECONDS, completion_tokens=10.0) for number in range(1, 11)]
        asked = {"reward": clean_held[place], "problems": 64, "attack_success": found, "eligible": 64}
        figures = {"attack_success": found, "reward": 0.5, "held_out": asked, "seconds_per_round": 8.0}
        finished(cell.controls[place], control, figures, [])
    record = measured(cell)
    assert record is not None
    return record


def test_an_attack_that_shows_on_no_seed_has_bounds_and_a_test_that_seeds_alone_can_pass(tmp_path):
    (_, cell) = cells_of(["text"], ["logit"], range(5), "nano", tmp_path, {"rounds": 10})
    record = made(cell, [0.0] * 5, [0.0] * 5, [0.9, 0.8, 0.85, 0.9, 0.95], [0.9, 0.81, 0.84, 0.9, 0.94])
    assert record["attack_success_upper_seed"] == pytest.approx(1 - 0.05 ** (1 / 5))
    assert record["attack_success_upper_completion"] == pytest.approx(1 - 0.05 ** (1 / 250))  # 5 seeds * 5 rounds * 10
    ends = record["excess_success_low"], record["excess_success_high"]
    assert ends == pytest.approx(difference_of_counts(0.0, 250, 0.0, 250)) and ends[0] < 0 < ends[1] < 0.02
    certain = made(cell, [1.0] * 5, [0.0] * 5, [0.5] * 5, [0.5] * 5)
    ends = certain["excess_success_low"], certain["excess_success_high"]
    assert ends == pytest.approx(difference_of_counts(1.0, 250, 0.0, 250)) and 0.97 < ends[0] < 1.0 == ends[1]
    assert record["stopped_p"] == pytest.approx(0.5**5) and record["learned_p"] == 1.0
    assert record["no_worse_p"] < 0.05 and NO_WORSE_MARGIN == 0.03
    again = made(cell, [0.0] * 5, [0.0] * 5, [0.9, 0.8, 0.85, 0.9, 0.95], [0.8, 0.9, 0.95, 0.8, 0.94])
    assert again["no_worse_p"] > 0.05


def test_an_attack_on_length_is_tested_on_the_log_scale_and_a_control_is_not_tested(tmp_path):
    clean, cell = cells_of(["length"], ["none"], range(5), "nano", tmp_path, {"rounds": 10})
    record = made(cell, [None] * 5, [None] * 5, [0.5] * 5, [0.5] * 5, tokens=14.0)
    assert record["tokens_ratio_mean"] == pytest.approx(1.4) and record["learned_margin"] == 1.25
    assert record["learned_p"] == pytest.approx(0.5**5) and "stopped_p" not in record  # nothing was there to stop it
    assert not any(key.endswith(("_p", "_margin")) for key in measured(clean) or {})


def test_sabotage_which_is_not_after_length_is_judged_by_reward_alone(tmp_path):
    (_, cell) = cells_of(["spite-answer"], ["none"], range(5), "nano", tmp_path, {"rounds": 10})
    record = made(cell, [None] * 5, [None] * 5, [0.1] * 5, [0.9] * 5)
    assert record["tokens_ratio_mean"] == 1.0 and record["no_worse_p"] == 1.0
    assert "learned_p" not in record and "stopped_p" not in record


def test_a_cell_without_an_attacker_claims_nothing_of_an_attack_and_an_undefined_seed_leaves_no_test(tmp_path):
    (_, cell) = cells_of(["no-attacker"], ["logit"], range(5), "nano", tmp_path / "a", {"rounds": 10})
    record = made(cell, [0.0] * 5, [0.0] * 5, [0.5] * 5, [0.5] * 5)
    assert record["no_worse_p"] == pytest.approx(0.5**5) and "learned_p" not in record and "stopped_p" not in record
    (_, cell) = cells_of(["text"], ["logit"], range(5), "nano", tmp_path / "b", {"rounds": 10})
    record = made(cell, [0.0, None, 0.0, 0.0, 0.0], [0.0] * 5, [0.5] * 5, [0.5] * 5)
    assert record["stopped_p"] is None is record["learned_p"] and record["excess_success_mean"] == 0.0


def test_reward_and_success_are_means_of_the_evaluations_of_the_last_fifth(tmp_path):
    (_, cell) = cells_of(["text"], ["none"], [0], "nano", tmp_path, {"rounds": 10})
    made(cell, [0.5], [0.0], [0.25], [0.5])
    lines = [line(number, seconds=SECONDS) for number in range(1, 11)]
    for number, reward, success in ((5, 0.0, 0.0), (8, 0.0, 0.0), (9, 0.75, 1.0), (10, 0.25, 0.5)):
        asked = {"reward": reward, "problems": 64, "attack_success": success, "eligible": 64}
        lines[number - 1]["held_out"] = asked
    figures = {"attack_success": 0.5, "reward": 0.5, "held_out": asked, "seconds_per_round": 8.0}
    finished(cell.jobs[0], lines, figures, [])
    record = measured(cell) or {}
    assert record["held_out_reward_seeds"] == [0.5] and record["held_out_success_seeds"] == [0.75]
    assert record["held_out_loss_seeds"] == [0.0] and record["held_out_excess_seeds"] == [0.75]


def test_success_on_held_out_prompts_beyond_a_control_that_measured_another_attack_is_unknown(tmp_path):
    (_, cell) = cells_of(["sentence"], ["none"], [0], "nano", tmp_path, {"rounds": 10})
    record = made(cell, [0.5], [0.0], [0.25], [0.5])
    assert record["held_out_success_seeds"] == [0.5] and record["held_out_excess_seeds"] == [None]


def test_cells_are_read_as_they_were_written_and_in_the_order_of_the_matrix(tmp_path):
    matrix = load_matrix()
    attacks, defenses = list(matrix.attacks)[:2], list(matrix.defenses)[:2]
    for cell in cells_of(attacks[::-1], defenses[::-1], [0], "nano", tmp_path / "runs"):
        figures = {"attack_success": 0.5, "reward": 0.5, "held_out": None, "seconds_per_round": 8.0}
        for job in cell.runs:
            if job.summary is None:
                finished(job, [line(1, seconds=SECONDS)], figures, [])
        record = write_cell(cell, tmp_path / "out" / "cells")
        text = (tmp_path / "out" / "cells" / cell.file_name).read_text()
        assert json.loads(text) == record and text.startswith('{\n "attack"') and text.endswith("}\n")
    foreign = {"setting": "", "topology": "horizontal", "seeds": [], "format": FORMAT}
    for attack in ("mine", attacks[0]):
        cell = foreign | {"attack": attack, "defense": "mine"}
        (tmp_path / "out" / "cells" / f"0-{attack}.json").write_text(json.dumps(cell))
    order = [(cell["attack"], cell["defense"]) for cell in read_cells(tmp_path / "out")]
    assert [place for place in order if place[0] != "clean"] == [
        (attacks[0], defenses[0]), (attacks[0], defenses[1]), (attacks[0], "mine"),
        (attacks[1], defenses[0]), (attacks[1], defenses[1]), ("mine", "mine"),
    ]  # fmt: skip
    assert order[0] == ("clean", "none")
    assert read_cells(tmp_path / "nowhere") == []


SOUND = {
    "attack": "text", "defense": "none", "topology": "horizontal", "setting": "", "seeds": [0, 1], "rounds": 5,
    "format": FORMAT, "config": {}, "versions": {},
    "reward_mean": 0.5, "reward_low": None, "reward_high": 1, "reward_seeds": [0.5, None],
}  # fmt: skip


def test_a_sound_cell_is_read(tmp_path):
    (tmp_path / "cells").mkdir()
    for name, lacks in (("whole", ()), ("old", ("rounds", "config", "versions", "reward_mean"))):
        kept = {key: value for key, value in SOUND.items() if key not in lacks}
        (tmp_path / "cells" / f"{name}.json").write_text(json.dumps(kept))
    assert read_cells(tmp_path)[1] == SOUND and len(read_cells(tmp_path)) == 2


@pytest.mark.parametrize(
    "cell",
    [
        [], 3, {}, SOUND | {"seeds": 0}, SOUND | {"seeds": [0, "1"]}, SOUND | {"seeds": [True]},
        *[SOUND | {key: None} for key in ("attack", "defense", "topology", "setting")],
        SOUND | {"rounds": "5"}, SOUND | {"reward_mean": "0.5"}, SOUND | {"reward_low": [0, {}]},
        SOUND | {"reward_high": True}, SOUND | {"reward_seeds": [0.5, "x"]}, SOUND | {"reward_seeds": 0.5},
        SOUND | {"config": []}, SOUND | {"versions": "1.2"}, SOUND | {"format": "2"}, SOUND | {"learned_p": "0.01"},
        SOUND | {"learned_margin": []}, SOUND | {"reward_upper_seed": "0.3"}, SOUND | {"reward_upper_completion": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_cell_is_named(tmp_path, cell):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "good.json").write_text(json.dumps(SOUND))
    (tmp_path / "cells" / "odd.json").write_text(json.dumps(cell))
    with pytest.raises(ConfigError, match=r"odd\.json is no cell of a bench; delete it and run the bench again"):
        read_cells(tmp_path)


@pytest.mark.parametrize("version", [None, 2, 4])
def test_a_cell_of_another_format_is_refused_since_its_numbers_mean_something_else(tmp_path, version):
    (tmp_path / "cells").mkdir()
    cell = {key: value for key, value in SOUND.items() if key != "format"} | ({"format": version} if version else {})
    (tmp_path / "cells" / "old.json").write_text(json.dumps(cell))
    with pytest.raises(ConfigError, match=rf"old\.json is a cell of format {version or 1}, .* delete it and run the b"):
        read_cells(tmp_path)


def test_a_program_that_was_refused_unrewarded_is_not_known_to_be_right(tmp_path):
    """Where rewards cost time, what a defense refuses before has none; nothing of it counts as learned or lost."""
    spoken = [verdict("reject", weight=1.0, muted=())]
    rows = [row(1, "refused", True, raw_reward=None, admitted=False, weight=1.0, verdicts=spoken)]
    assert learned(run(tmp_path / "run", [], rows))["malicious"] == Learned(None, 0)


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, list]:
    root = tmp_path_factory.mktemp("bench")
    cells = cells_of(["text"], ["none", "logit"], [0, 1], "nano", root / "cells", TINY)
    for cell in cells:
        for job in cell.runs:
            if job.seed == 0:
                play_job(job)
    return root, cells


@pytest.mark.slow
def test_a_cell_is_flat_and_says_what_it_was_made_of(played):
    root, cells = played
    records = {(cell.attack, cell.defense): write_cell(cell, root / "out" / "cells") or {} for cell in cells}
    record = records["text", "logit"]
    assert record == json.loads(next((root / "out" / "cells").glob("nano-text-logit-*.json")).read_text())
    assert record["seeds"] == [0] and record["rounds"] == 2 and record["topology"] == "horizontal"
    assert record["config"]["defense"][0]["name"] == "logit"
    assert record["versions"]["Python"] == platform.python_version()
    assert record["honest_kept_mean"] is not None and record["honest_kept_low"] is None  # one seed has no interval
    assert record["honest_learned_mean"] is not None and record["forged_kept_mean"] is not None
    assert record["excess_success_seeds"] == [0.0]
    assert all(not isinstance(value, dict) for key, value in record.items() if key not in ("config", "versions"))
    clean = records["clean", "none"]
    assert clean["tokens_ratio_mean"] == 1.0 and clean["held_out_loss_mean"] == 0.0
    assert clean["honest_kept_seeds"] == clean["honest_learned_seeds"] == [None]  # not screened, which is not zero
    other = records["text", "none"] | {"attack": "judge_injection"}
    (root / "out" / "cells" / "nano-judge_injection-none.json").write_text(json.dumps(other))
    order = [(cell["attack"], cell["defense"]) for cell in read_cells(root / "out")]
    assert order == [("clean", "none"), ("text", "none"), ("text", "logit"), ("judge_injection", "none")]


@pytest.mark.slow
def test_a_cell_grows_with_its_seeds(played):
    _, cells = played
    cell = next(cell for cell in cells if (cell.attack, cell.defense) == ("text", "none"))
    for job in cell.runs:
        play_job(job)
    record = measured(cell)
    assert record is not None and record["seeds"] == [0, 1]
    low, mean, high = (record[f"reward_{end}"] for end in ("low", "mean", "high"))
    assert low <= mean <= high and mean == pytest.approx(sum(record["reward_seeds"]) / 2)


@pytest.mark.slow
def test_a_measure_finds_in_another_attacks_run_what_its_own_would_have_counted(played):
    _, cells = played
    cell = next(cell for cell in cells if (cell.attack, cell.defense) == ("text", "none"))
    found = counted(cell.jobs[0].folder, TextAttack(), 1, 2)
    lines = [json.loads(line) for line in (cell.jobs[0].folder / "rounds.jsonl").read_text().splitlines()]
    assert found.trials == sum(line["eligible"] for line in lines)
    assert found.value == sum(line["attack_success"] * line["eligible"] for line in lines) / found.trials


def test_a_cell_without_finished_runs_is_not_written(tmp_path):
    (_, cell) = cells_of(["text"], ["none"], [0], "nano", tmp_path, TINY)
    assert write_cell(cell, tmp_path / "out") is None and not (tmp_path / "out").exists()


def test_a_damaged_cell_is_named(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json is damaged"):
        read_cells(tmp_path)


def test_columns_and_rows_mean_at_every_scale_what_they_are_called(tmp_path):
    """A row or column that says something for one scale and nothing for another would be another there, unnoticed."""
    matrix = load_matrix()
    for scale in SCALES:
        cells = {each.defense: each for each in cells_of(["text"], list(matrix.defenses), [0], scale, tmp_path)}
        undefended = {name for name, cell in cells.items() if not cell.jobs[0].config.defense}
        assert undefended == {"none", "length_neutral"}
        (mixed,) = (each for each in cells_of(["text-mixed"], ["none"], [0], scale, tmp_path) if each.attack != "clean")
        assert len(mixed.jobs[0].config.swarm.models) == 2


def test_a_measure_that_a_cell_lacks_is_a_dash_in_the_table():
    old = {"attack": "text", "defense": "none", "setting": "", "topology": "horizontal", "seeds": [0]}
    row = table_of([{**old, "reward_mean": 0.5}]).splitlines()[-1]
    assert "| 50.0 |" in row and row.count("| - ") == 17 + 3


def test_names_in_the_table_are_text():
    hostile = "<img src=x onerror=alert(1)>\n\n# Owned | \ud83d"
    cell = {"attack": hostile, "defense": hostile, "setting": "", "topology": "horizontal", "seeds": [0]}
    head, rule, row = table_of([cell]).splitlines()
    assert row.startswith("| &lt;img src=x onerror=alert(1)&gt; # Owned \\| &lt;U+D83D&gt; |")
    assert row.replace("\\|", "").count("|") == head.count("|") == rule.count("|")


@pytest.mark.parametrize(
    ("arguments", "seeds"),
    [
        (["--preset=headline"], list(range(2001, 2011))),
        (["--preset=headline", "--seeds=2"], [0, 1]),
        ([], [2001, 2002, 2003, 2004, 2005]),
    ],
)
def test_a_preset_that_is_named_brings_its_seeds_to_rows_that_are(monkeypatch, tmp_path, arguments, seeds):
    taken = []
    monkeypatch.setattr("hailproof.campaigns.bench.bench", lambda cells, *_: taken.extend(cells))
    named = ["bench", "--attack=equation", "--defense=logit", "--only-finished", f"--out={tmp_path}", *arguments]
    assert CliRunner().invoke(app, named).exit_code == 0
    assert [(cell.attack, cell.defense) for cell in taken] == [("clean", "none"), ("equation", "logit")]
    assert [[job.seed for job in cell.jobs] for cell in taken] == [seeds] * 2
