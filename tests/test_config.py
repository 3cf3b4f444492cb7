"""The configuration: committed files load, assignments parse, what is left out is resolved."""

from pathlib import Path

import pytest

from hailproof.attacks import ATTACKS
from hailproof.defenses.presets import PRESETS
from hailproof.demo import configurations
from hailproof.errors import ConfigError, MismatchError
from hailproof.learner.config import NANO, LearnerConfig
from hailproof.plugins import make
from hailproof.runs.build import build
from hailproof.runs.config import Plugin, RunConfig, load_config, parse_assignment
from hailproof.runs.settle import expanded, settle
from hailproof.tasks import TASKS

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
    assert programs.learner == build(load_config(None, [])).config.learner
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
        ("defense.length.options.cap", "'length' is not among logit; add it with --defense length"),
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
    resolved = expanded(load_config(None, [("defense", [{"name": "texts"}, {"name": "length"}])]))
    names = [plugin.name for plugin in resolved.defense]
    assert names == [*(name for name, _ in PRESETS["texts"].chain), "length"]
    assert resolved.defense[0].options == {"unit": "sentence"}
    assert resolved.learner.length_neutral and "learning_rate" not in resolved.learner.model_fields_set
    assert expanded(load_config(None, [("defense", [{"name": "homogeneous"}])])).swarm.prompt_choice == "assigned"


def test_what_a_configuration_says_itself_a_preset_leaves_alone():
    given = [("defense", [{"name": "texts"}]), ("learner.length_neutral", False)]
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


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        # Numbers that are none.
        *((key, value, f"'{key}': input should be a finite number")
          for key in ("learner.learning_rate", "learner.beta", "learner.max_grad_norm", "sampling.temperature")
          for value in (float("inf"), float("nan"))),
        ("attack.rate", float("nan"), "'attack.rate'"),
        ("task.options.two_two_share", float("inf"), "option 'two_two_share' of 'word_problems' is inf; give it a fin"),
        ("defense", [{"name": "logit", "options": {"tolerance": float("nan")}}], "'tolerance' of 'logit' is nan"),
        ("defense", [{"name": "x", "options": {"a": [1, {"b": [float("-inf")]}]}}], "option 'a' of 'x' is -inf"),
        # Other types than TOML's.
        ("swarm.nodes", True, "'swarm.nodes': input should be a valid integer"),
        ("swarm.nodes", 4.0, "'swarm.nodes': input should be a valid integer"),
        ("swarm.nodes", "4", "'swarm.nodes': input should be a valid integer"),
        ("rounds", 2.5, "'rounds': input should be a valid integer"),
        ("swarm.separate", 1, "'swarm.separate': input should be a valid boolean"),
        ("swarm.separate", "yes", "'swarm.separate': input should be a valid boolean"),
        ("learner.beta", "0.1", "'learner.beta': input should be a valid number"),
        ("learner.beta", True, "'learner.beta': input should be a valid number"),
        ("name", 5, "'name': input should be a valid string"),
        ("swarm.models", [1], "'swarm.models.0': input should be a valid string"),
        ("seed", 2**63, "'seed': input should be less than"),
        # Names of folders.
        *(("name", name, "cannot be the name of a folder") for name in
          ("../../x", "a/b", "a\\b", "", ".", "..", "a\nb", "\0", "x" * 201, "\u202e")),
        # Parts of an attack without one.
        ("attack.malicious", 5, "attack.malicious = 5 is set, but there is no attack; set attack.name, or leave"),
        ("attack.options.phrase", "x", "attack.options = {'phrase': 'x'} is set, but there is no attack"),
        ("attack.decoys", 0.25, "attack.decoys = 0.25 is set, but there is no attack"),
        ("attack.oracle", False, "attack.oracle = False is set, but there is no attack"),
        ("attack.trigger", "Tom", "attack.trigger = 'Tom' is set, but there is no attack"),
        # What could never do what it says.
        *(("sampling.temperature", zero, "sampling.temperature = 0.0 draws the same completion in every slot")
          for zero in (0, 0.0)),
        ("sampling.top_k", 1, "sampling.top_k = 1 draws the same completion in every slot of a prompt"),
        ("evaluation.every", 61, "evaluation.every = 61 is more than rounds = 60"),
        ("evaluation", {"every": 5, "problems": 0}, "evaluation.problems = 0 leaves nothing to ask"),
        ("learner.warmup_rounds", 61, "learner.warmup_rounds = 61 is more than rounds = 60"),
        ("swarm.own_groups", 1, "swarm.own_groups = 1 is set, but with sharing = all every group is learned from"),
        ("swarm.received_groups", 0, "swarm.received_groups = 0 is set, but with sharing = all"),
        ("swarm.models", ["nano-a", "nano-b"] * 3, "swarm.models has 6 entries for swarm.nodes = 4"),
        # What is no table or list of them.
        ("learner.lora", 4, "learner.lora = 4 is no table of settings; write for example learner.lora = {r = 8, al"),
        ("learner.lora", "r", "learner.lora = 'r' is no table of settings"),
        ("defense", "logit", "defense = 'logit' is no list of defenses; name each with --defense NAME"),
        ("defense", {"name": "logit"}, "or in the file under [[defense]]"),
        ("defense.judge.x", 1, "'defense.judge.x' cannot be set: there is no defense 'judge'; add it with --defense"),
    ],
)  # fmt: skip
def test_a_value_that_is_none_of_its_key_is_one_sentence(key, value, sentence):
    with pytest.raises(ConfigError) as stop:
        load_config(None, [(key, value)])
    text = str(stop.value)
    assert sentence in text and "\n" not in text and text.endswith(".") and len(text) < 300


@pytest.mark.parametrize(
    "settings",
    [
        {"evaluation.every": 60},
        {"evaluation.problems": 0},
        {"learner.warmup_rounds": 60},
        {"swarm.models": ["nano-a"] * 3 + ["nano-b"]},
        {"swarm.own_groups": 4, "swarm.received_groups": 4},  # as the file of every run says
        {"swarm.topology": "vertical", "swarm.sharing": "sampled", "swarm.own_groups": 1, "swarm.received_groups": 0},
        {"swarm.prompt_choice": "assigned"},  # prompts of a horizontal swarm are
        {"attack.name": "text", "attack.ramp_rounds": 500},  # ends on the way up
        {"sampling.temperature": 0.01, "sampling.top_k": 2},
        {"sampling.top_k": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_means_something_is_no_mistake_at_the_border(settings):
    config = settle(load_config(None, list(settings.items()))).config
    assert load_config(None, list(config.model_dump(exclude_none=True).items())) == config


def test_what_we_set_ourselves_fits_the_shortest_run():
    """The nano models warm up for two rounds, whoever plays a single one, and the file of that run can be read."""
    for rounds, warmup in ((1, 1), (4, 4), (60, 5)):
        config = settle(load_config(None, [("rounds", rounds)])).config
        assert config.learner.warmup_rounds == warmup == min(rounds, NANO["warmup_rounds"])
        assert RunConfig.model_validate(config.model_dump()) == config


def test_an_adapter_without_targets_is_one_on_all_layers():
    given = {"r": 2, "alpha": 4}
    all_layers, same = (load_config(None, [("learner.lora", {**given, **more})]) for more in ({}, {"targets": []}))
    assert all_layers == same and all_layers.learner.lora is not None


MIXED = {"swarm.models": ["nano-a", "nano-b"]}
SAMPLED = {"swarm.topology": "vertical", "swarm.sharing": "sampled"}
CODE = {"task.options.variant": "code"}


def named(*defenses: str, **options) -> dict[str, object]:
    return {"defense": [{"name": name, "options": options} for name in defenses]}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (MIXED | named("replay"), "nodes with other weights, and honest nodes hold nano-a and nano-b"),
        (MIXED | named("homogeneous"), "defense 'replay' rejects completions of nodes with"),
        (SAMPLED | named("replay"), "with swarm.sharing = sampled honest nodes differ; set it to all"),
        (named("imports"), "defense 'imports' reads code answers, but the task 'word_problems' asks for math;"),
        (named("logit", "imports"), "defense 'imports' reads code answers"),
        (CODE | named("equations"), "defense 'equations' reads math answers, but the task 'word_problems' asks for c"),
        ({"attack.name": "code"} | named("equations"), "defense 'equations' reads math answers"),
    ],
)  # fmt: skip
def test_a_defense_that_has_nothing_to_do_is_refused(monkeypatch, settings, sentence):
    config = load_config(None, list(settings.items()))
    with pytest.raises(MismatchError, match=sentence) as stop:
        settle(config)
    assert "\n" not in str(stop.value) and str(stop.value).endswith(".")
    if "reads" in sentence:  # a task that does not tell its variant before it is built
        monkeypatch.setattr("hailproof.runs.settle._variant", lambda task: None)
        with pytest.raises(MismatchError, match=sentence):
            settle(config).task()


@pytest.mark.parametrize(
    "settings",
    [
        named("replay"),
        MIXED | named("logit"),
        MIXED | named("heterogeneous"),
        {"swarm.models": ["nano-a"] * 3 + ["nano-b"], "attack.name": "text"} | named("replay"),  # the attacker's own
        SAMPLED | named("logit"),
        named("equations"),
        named("equations", "imports"),
        CODE | named("imports"),
        CODE | named("equations", "imports"),
        named("heterogeneous"),
        CODE | named("heterogeneous"),
        named("texts"),
        CODE | named("texts"),
    ],
)
def test_a_defense_that_has_something_to_do_is_not(settings):
    config = settle(load_config(None, list(settings.items()))).config
    assert settle(config).config == config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (named("length", cap=72), r"cap = 72 rejects nothing, since no completion of more than 72 tokens is read"),
        (named("length", cap=72, quantile=0.9), r"cap = 72 rejects nothing"),
        (MIXED | named("length", cap=108), r"cap = 108 rejects nothing, since no completion of more than 108 tokens"),
        ({"defense": [{"name": "length", "options": {"quantile": 0.9}}, {"name": "replay"}]},
         r"'replay' rejects completions of nodes with other weights, and 'length' makes honest nodes differ"),
    ],
)  # fmt: skip
def test_what_the_length_of_completions_decides(settings, sentence):
    small = {"sampling.max_new_tokens": 72, "task.options.size": 40, "task.options.test_size": 8}
    with pytest.raises(ConfigError, match=sentence):
        build(load_config(None, list((small | settings).items())))


@pytest.mark.parametrize("settings", [named("length", cap=71), MIXED | named("length", cap=107)])
def test_a_cap_that_some_completions_pass_is_one(settings):
    small = {"sampling.max_new_tokens": 72, "task.options.size": 40, "task.options.test_size": 8}
    assert build(load_config(None, list((small | settings).items()))).config.defense


def test_evaluation_on_the_way_needs_held_out_problems(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        "".join(f'{{"question": "{n}?", "answer": "So it is.\\n#### {n}"}}\n' for n in range(20))
    )
    data = {"task": {"name": "gsm8k", "options": {"data": str(tmp_path / "rows.jsonl")}}}
    assert build(load_config(None, list(data.items()))).config.evaluation.problems == 0
    with pytest.raises(ConfigError, match=r"evaluation\.every = 5 is set, but 'gsm8k' has no held-out problems;"):
        build(load_config(None, [*data.items(), ("evaluation.every", 5)]))


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [("size", True, 40), ("size", 40.0, 40), ("size", "40", 40), ("two_two_share", True, 1), ("two_two_share", "1", 1)],
)
def test_options_have_the_types_of_toml(option, value, right):
    with pytest.raises(ConfigError, match=rf"option '{option}' of the task 'word_problems' is {value!r}; it should be"):
        make("tasks", TASKS, Plugin(name="word_problems", options={option: value}))
    make("tasks", TASKS, Plugin(name="word_problems", options={"size": 40, "test_size": 8, option: right}))


def test_a_whole_number_may_stand_for_any():
    assert load_config(None, [("learner.beta", 1), ("attack", {"malicious": 0})]).learner.beta == 1.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"rounds = 1" + b"0" * 4400, r"holds an integer of more than 64 bits"),
        (b"rounds = 0x1" + b"0" * 5000, r"holds an integer of more than 64 bits"),
        (b"rounds = 9223372036854775808", r"holds an integer of more than 64 bits"),
        (b"[task.options]\nx = " + b"[" * 3000 + b"]" * 3000, r"is nested too deeply; nest at most 32"),
        (b"[task.options]\nx = " + b"[" * 40 + b"]" * 40, r"is nested too deeply; nest at most 32"),
        (b"name = '\xff'", r"config\.toml, line 1 is not UTF-8 .*; save it as UTF-8, or check the path"),
        (b"rounds = ", r"is not valid TOML"),
        (b"rounds = 'three'", r"config\.toml: Configuration key 'rounds'"),
        (b"\xef\xbb\xbfrounds = 3", ""),
        (b"rounds = 0x3", ""),
    ],
)
def test_what_a_file_may_hold(tmp_path, text, sentence):
    path = tmp_path / "config.toml"
    path.write_bytes(text)
    if not sentence:
        assert load_config(path).rounds == 3
        return
    with pytest.raises(ConfigError, match=sentence) as stop:
        load_config(path)
    assert "\n" not in str(stop.value) and str(path) in str(stop.value) and len(str(stop.value)) < 400


@pytest.mark.parametrize(
    ("value", "sentence"),
    [("1" + "0" * 5000, "holds an integer of more than 64 bits"), ("[" * 3000, "is nested too deeply")],
)
def test_what_an_assignment_may_hold(value, sentence):
    with pytest.raises(ConfigError, match=f"The value of 'rounds' {sentence}"):
        parse_assignment(f"rounds={value}")


def test_held_out_problems_are_as_many_as_there_are_unless_more_are_asked_for():
    small = [("task.options.size", 40), ("task.options.test_size", 8)]
    assert build(load_config(None, small)).config.evaluation.problems == 8
    assert build(load_config(None, [*small, ("evaluation.problems", 8)])).config.evaluation.problems == 8
    with pytest.raises(ConfigError, match=r"evaluation\.problems = 9 is more than the 8 held-out problems"):
        build(load_config(None, [*small, ("evaluation.problems", 9)]))
