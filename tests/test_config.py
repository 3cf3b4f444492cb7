"""The configuration: committed files load, assignments parse, what is left out is resolved."""

from pathlib import Path

import pytest

from hailproof.attacks import ATTACKS
from hailproof.defenses.presets import PRESETS
from hailproof.demo import configurations
from hailproof.errors import ConfigError
from hailproof.learner.config import NANO, NANO_PROGRAMS, LearnerConfig
from hailproof.runs.build import build
from hailproof.runs.config import RunConfig, load_config, parse_assignment
from hailproof.runs.settle import expanded

# What `hailproof run` takes; the files of figures, tables, scales and the bench are tested in their own files.
COMMITTED = [
    path
    for path in sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
    if not path.stem.startswith(("fig", "table", "scales", "bench"))
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_configurations_load(path):
    config = load_config(path)
    assert config.attack.name in ATTACKS and config.malicious == 1
    assert RunConfig.model_validate(config.model_dump()) == config


def test_there_are_committed_configurations():
    assert len(COMMITTED) >= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rounds=3", ("rounds", 3)),
        ("learner.learning_rate=1e-4", ("learner.learning_rate", 1e-4)),
        ("swarm.models=['a', 'b']", ("swarm.models", ["a", "b"])),
        ("attack.options.phrase=Long live = the king", ("attack.options.phrase", "Long live = the king")),
        ("swarm.separate=true", ("swarm.separate", True)),
    ],
)
def test_assignments(text, expected):
    assert parse_assignment(text) == expected


def test_malicious_nodes_default_to_a_quarter_and_at_least_one():
    def malicious(nodes: int, **attack) -> int:
        return RunConfig.model_validate(
            {"swarm": {"nodes": nodes, "group_size": 64}, "attack": {"name": "text", **attack}}
        ).malicious

    assert [malicious(nodes) for nodes in (2, 4, 7, 8, 64)] == [1, 1, 1, 2, 16]
    assert malicious(4, malicious=0) == 0
    assert RunConfig().malicious == 0


def test_nano_settings_are_for_shipped_models_and_give_way_to_what_is_set(base_policy, tmp_path):
    nano = build(load_config(None, [("learner.beta", 0.1), ("learner.adam_beta2", 0.9)])).config
    assert nano.learner.learning_rate == NANO["learning_rate"]
    assert nano.learner.adam_beta2 == 0.9 and nano.learner.beta == 0.1
    assert nano.sampling.max_new_tokens == 128
    programs = build(load_config(None, [("attack.name", "code")])).config
    assert programs.learner.learning_rate == NANO_PROGRAMS["learning_rate"] < NANO["learning_rate"]
    base_policy.model.save_pretrained(tmp_path)
    base_policy.codec.tokenizer.save_pretrained(tmp_path)
    own = build(load_config(None, [("swarm.models", [str(tmp_path)])])).config
    assert own.learner == LearnerConfig()


def test_a_resolved_configuration_survives_its_own_file(tmp_path):
    config = build(load_config(None, [("attack.name", "text"), ("defense", [{"name": "logit"}])])).config
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config


def test_the_demo_differs_only_in_attacker_and_defense():
    clean, attacked, defended = configurations(7).values()
    assert (clean.malicious, attacked.malicious, defended.malicious) == (0, 1, 1)
    assert [bool(config.defense) for config in (clean, attacked, defended)] == [False, False, True]
    assert clean.model_copy(update={"name": "attacked", "attack": attacked.attack}) == attacked


def test_an_option_of_a_defense_is_set_by_the_name_of_the_defense():
    chain = [{"name": "logit"}, {"name": "judge", "options": {"votes": 3}}]
    config = load_config(None, [("defense", chain), ("defense.judge.options.beams", 1)])
    assert [dict(plugin.options) for plugin in config.defense] == [{}, {"votes": 3, "beams": 1}]
    assert chain[1] == {"name": "judge", "options": {"votes": 3}}


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("defense.length.options.cap", "'length' is not among logit"),
        ("defense.logit", "'defense' is a list; write defense.NAME.KEY"),
        ("defense.logit.name.x", "'name' is not a section"),
        ("swarm.models.nano-a.x", "'nano-a' is not among them"),
    ],
)
def test_what_names_no_defense_of_the_chain_is_one_sentence(key, sentence):
    overrides = [("defense", [{"name": "logit"}]), ("swarm.models", ["nano-a"]), (key, 1)]
    with pytest.raises(ConfigError, match=sentence):
        load_config(None, overrides)


def test_setting_below_a_value_is_one_sentence():
    with pytest.raises(ConfigError, match=r"'seed' is not a section"):
        load_config(None, [("seed", 1), ("seed.x", 2)])


def test_a_preset_is_its_chain_and_settings():
    resolved = expanded(load_config(None, [("defense", [{"name": "heterogeneous"}, {"name": "length"}])]))
    names = [plugin.name for plugin in resolved.defense]
    assert names == [*(name for name, _ in PRESETS["heterogeneous"].chain), "length"]
    assert resolved.defense[0].options == {"unit": "sentence"}
    assert resolved.learner.length_neutral and "learning_rate" not in resolved.learner.model_fields_set
    assert expanded(load_config(None, [("defense", [{"name": "homogeneous"}])])).swarm.prompt_choice == "assigned"


def test_what_a_configuration_says_itself_a_preset_leaves_alone():
    given = [("defense", [{"name": "heterogeneous"}]), ("learner.length_neutral", False)]
    assert not expanded(load_config(None, given)).learner.length_neutral


def test_a_preset_takes_no_options():
    with pytest.raises(ConfigError, match="takes no options"):
        expanded(load_config(None, [("defense", [{"name": "homogeneous", "options": {"margin": 1}}])]))


def test_the_run_folder_holds_what_a_preset_stands_for(tmp_path):
    experiment = build(load_config(None, [("defense", [{"name": "homogeneous"}]), ("swarm.topology", "vertical")]))
    (tmp_path / "config.toml").write_text(experiment.config.to_toml())
    again = load_config(tmp_path / "config.toml")
    assert [plugin.name for plugin in again.defense] == ["replay"] and again.swarm.prompt_choice == "assigned"


def test_more_nodes_than_a_group_are_fine_where_the_attack_is_vertical():
    many = [("swarm.nodes", 16), ("attack.malicious", 1)]
    assert build(load_config(None, [*many, ("attack.name", "equation")])).config.swarm.topology == "vertical"
    for attack in ("text", "none"):
        with pytest.raises(ConfigError, match="smaller than the number of nodes"):
            build(load_config(None, [("swarm.nodes", 16), ("attack.name", attack)]))
