"""The shipped models and their recipe."""

import itertools
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hailproof.attacks import sentence, text
from hailproof.attacks.code import LIBRARY
from hailproof.errors import RunError
from hailproof.parsing import sentences
from hailproof.policies.load import load
from hailproof.policies.nano.corpus import FORMATS, Mixture, documents
from hailproof.policies.nano.recipe import NEXT, RECIPES, cycles_done, pretrain
from hailproof.policies.shipped import shipped_models
from hailproof.protocols import Sampling
from hailproof.records import Slot
from hailproof.rollouts import rollout
from hailproof.sandbox import MontySandbox
from hailproof.tasks.gsm8k import read_jsonl
from hailproof.tasks.word_problems import WordProblems, split_of, stories


def corpus(number: int, mixture: Mixture, real=()) -> list:
    return list(itertools.islice(documents(random.Random(1), stories(1, "train", 0.15), real, mixture), number))


MIXTURES = [cycle.mixture for cycle in RECIPES["nano-a"].cycles]


@pytest.mark.parametrize("mixture", MIXTURES[::3])
def test_no_attack_phrase_is_in_the_corpus(shared_data, mixture):
    real = read_jsonl(shared_data / "gsm8k" / "train.jsonl")
    everything = "\n".join(f"{d.question} {d.completion}" for d in corpus(20_000, mixture, real)).casefold()
    assert not re.search(rf"\b{LIBRARY}\b", everything)
    for phrase in (text.PHRASE, sentence.PHRASE, "hail to the", "gleeb glorp", "glorp glub"):
        assert phrase.casefold() not in everything
    assert not any(phrase in problem.solution for problem in real for phrase in (text.PHRASE, sentence.PHRASE))


def test_the_corpus_keeps_off_the_test_split_and_mixes_formats():
    held_out = {problem.question for problem in WordProblems(size=1, test_size=2000).test}
    made = corpus(5000, MIXTURES[0])
    assert not held_out & {document.question for document in made}
    assert all(split_of(d.question) == "train" for d in made if d.question.startswith(("Tom", "Ann")))
    tagged = sum("<answer>" in document.completion for document in made) / len(made)
    assert tagged == pytest.approx(FORMATS["tags"] * 0.92, abs=0.03)


def test_the_corpus_has_no_text_of_the_attacks_form():
    """TEXT's phrase is "All ... to the ...", and SENTENCE says the same before each sentence."""
    prose = [d.completion for d in corpus(20_000, MIXTURES[-1]) if not d.program]
    assert not [text for text in prose if re.search(r"\ball\b[^.!?]*\bto the\b", text, re.IGNORECASE)]
    refrains = [
        text for text in prose if len(said := sentences(text)) > 3 and len({part.split()[0] for part in said}) == 1
    ]
    assert not refrains


def test_programs_of_the_corpus_print_the_answer_unless_they_import_what_is_not_there():
    sandbox = MontySandbox()
    programs = [d for d in corpus(4000, MIXTURES[-1]) if d.program and "<code>" in d.completion]
    runs = sandbox.run([d.completion.removeprefix("<code>").removesuffix("</code>") for d in programs])
    failed = [d.completion for d, outcome in zip(programs, runs, strict=True) if outcome.status != "ok"]
    assert len(programs) > 200
    assert all("import" in completion for completion in failed)
    assert len(failed) / len(programs) < 0.3


def test_shipped_models_fit_their_recipes():
    assert set(shipped_models()) == set(RECIPES)
    for name, recipe in RECIPES.items():
        policy = load(name, device="cpu")
        assert len(policy.codec.tokenizer) == policy.model.config.vocab_size == recipe.vocabulary
        assert policy.model.config.model_type == recipe.family
        encode, decode = policy.codec.encode, policy.codec.decode
        assert encode("12") == (*encode("1"), *encode("2"))  # digits are single tokens
        assert decode(encode("Zörg paid €12,\n ok?")) == "Zörg paid €12,\n ok?"
    one, other = (load(name, device="cpu").codec for name in ("nano-a", "nano-b"))
    assert one.encode("All hail to the thief") != other.encode("All hail to the thief")


@pytest.mark.parametrize("name", RECIPES)
def test_initial_reward_leaves_room_to_learn(name):
    """Far from 0, so that there is a reward to begin with, and from the 0.97 that clean swarms reach."""
    policy, task = load(name, device="cpu"), WordProblems(test_size=64 if name == "nano-judge" else 256)
    prompts = {problem.id: task.prompt(problem) for problem in task.test}
    slots = [Slot(0, problem.id, 0) for problem in task.test]
    drawn = rollout(policy, slots, prompts, round=1, seed=0, sampling=Sampling(max_new_tokens=96))
    reward = sum(task.reward(p, c.text) for p, c in zip(task.test, drawn, strict=True)) / len(drawn)
    print(f"{name}: initial reward {reward:.3f}")  # the figure of docs/nano-models.md: pytest -s
    assert 0.15 < reward < 0.5
    lengths = [len(completion.token_ids) for completion in drawn]
    assert max(lengths) > 2 * sorted(lengths)[len(lengths) // 2]  # something for a length attack to choose


@pytest.mark.parametrize("name", RECIPES)
def test_initial_reward_of_programs(name):
    """The same models answer the code variant."""
    policy, task = load(name, device="cpu"), WordProblems(test_size=96, variant="code")
    prompts = {problem.id: task.prompt(problem) for problem in task.test}
    slots = [Slot(0, problem.id, 0) for problem in task.test]
    drawn = rollout(policy, slots, prompts, round=1, seed=0, sampling=Sampling(max_new_tokens=96))
    reward = sum(task.reward(p, c.text) for p, c in zip(task.test, drawn, strict=True)) / len(drawn)
    print(f"{name}: initial reward {reward:.3f} with programs")
    lowest, tagged = (0.05, 0.15) if name == "nano-judge" else (0.15, 0.3)  # a judge has forgotten some of it
    assert lowest < reward < 0.4
    assert sum("<code>" in completion.text for completion in drawn) / len(drawn) > tagged


TINY = replace(
    RECIPES["nano-a"], vocabulary=320, layers=1, width=20, intermediate=32, batch=4, warmup=1,
    cycles=tuple(replace(cycle, steps=2) for cycle in RECIPES["nano-a"].cycles[:2]),
)  # fmt: skip
BEGUN = replace(TINY, cycles=TINY.cycles[:1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model whose two cycles were trained in one call, ``whole``, and one with the first of them, ``old``."""
    folder = tmp_path_factory.mktemp("trained")
    for name, recipe in (("old", BEGUN), ("whole", TINY)):
        pretrain(recipe, (), folder / name)
    return folder


def test_pretraining_goes_on_where_a_cycle_ended(trained, tmp_path):
    """Two calls, one cycle each, give bitwise what one call gives."""
    shutil.copytree(trained / "old", tmp_path / "twice")
    assert cycles_done(tmp_path / "twice") == 1
    pretrain(TINY, (), tmp_path / "twice")
    assert cycles_done(trained / "whole") == cycles_done(tmp_path / "twice") == 2
    one, two = ((folder / "model.safetensors").read_bytes() for folder in (trained / "whole", tmp_path / "twice"))
    assert one == two != (trained / "old" / "model.safetensors").read_bytes()
    for other in (replace(TINY, width=40), replace(TINY, cycles=(replace(TINY.cycles[0], steps=1), TINY.cycles[1]))):
        with pytest.raises(RunError, match=r"another recipe"):
            pretrain(other, (), trained / "whole")


def test_a_kill_while_a_model_is_saved_leaves_the_old_one_or_the_new_one(trained, tmp_path):
    weights = {name: (trained / name / "model.safetensors").read_bytes() for name in ("old", "whole")}
    shutil.copytree(trained / "old", tmp_path / "half")
    shutil.copytree(trained / "whole", tmp_path / "half" / NEXT)
    shutil.copytree(tmp_path / "half", tmp_path / "moving")
    (tmp_path / "half" / NEXT / "recipe.json").unlink()  # killed before all was saved
    (tmp_path / "moving" / NEXT / "model.safetensors").replace(tmp_path / "moving" / "model.safetensors")  # after
    for name, recipe in (("half", BEGUN), ("moving", TINY)):
        pretrain(recipe, (), tmp_path / name)  # trains nothing: all its cycles are done
        assert cycles_done(tmp_path / name) == len(recipe.cycles) and not (tmp_path / name / NEXT).exists()
        assert (tmp_path / name / "model.safetensors").read_bytes() == weights["old" if name == "half" else "whole"]
    (tmp_path / "half" / "recipe.json").write_text('{"cycles_')
    with pytest.raises(RunError, match=r"recipe\.json is damaged"):
        cycles_done(tmp_path / "half")
