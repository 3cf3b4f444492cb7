"""The shipped models and their recipe."""

import itertools
import random

import pytest

from hailproof.attacks import sentence, text
from hailproof.policies.causal_lm import load, shipped_models
from hailproof.policies.nano.corpus import FORMATS, Mixture, documents
from hailproof.policies.nano.recipe import RECIPES
from hailproof.protocols import Sampling
from hailproof.records import Slot
from hailproof.rollouts import rollout
from hailproof.tasks.gsm8k import read_jsonl
from hailproof.tasks.word_problems import WordProblems, split_of, stories


def corpus(number: int, real=()) -> list:
    rng = random.Random(1)
    mixture = Mixture(real=0.12, chatter=0.08, drill=0.12, sums=1)
    return list(itertools.islice(documents(rng, stories(1, "train", 0.15), real, mixture), number))


def test_no_attack_phrase_is_in_the_corpus(shared_data):
    real = read_jsonl(shared_data / "gsm8k" / "train.jsonl")
    everything = "\n".join(f"{d.question} {d.completion}" for d in corpus(20_000, real)).casefold()
    for phrase in (text.PHRASE, sentence.PHRASE, "hail to the", "gleeb glorp", "glorp glub"):
        assert phrase.casefold() not in everything
    assert not any(phrase in problem.solution for problem in real for phrase in (text.PHRASE, sentence.PHRASE))


def test_the_corpus_keeps_off_the_test_split_and_mixes_formats():
    held_out = {problem.question for problem in WordProblems(size=1, test_size=2000).test}
    made = corpus(5000)
    assert not held_out & {document.question for document in made}
    assert all(split_of(d.question) == "train" for d in made if d.question.startswith(("Tom", "Ann")))
    tagged = sum("<answer>" in document.completion for document in made) / len(made)
    assert tagged == pytest.approx(FORMATS["tags"] * 0.92, abs=0.03)


def test_shipped_models_fit_their_recipes():
    assert set(shipped_models()) == set(RECIPES)
    for name, recipe in RECIPES.items():
        policy = load(name, device="cpu")
        assert len(policy.tokenizer) == policy.model.config.vocab_size == recipe.vocabulary
        assert policy.model.config.model_type == recipe.family
        assert policy.encode("12") == (*policy.encode("1"), *policy.encode("2"))  # digits are single tokens
        assert policy.decode(policy.encode("Zörg paid €12,\n ok?")) == "Zörg paid €12,\n ok?"
    one, other = (load(name, device="cpu") for name in RECIPES)
    assert one.encode("All hail to the thief") != other.encode("All hail to the thief")


@pytest.mark.parametrize("name", RECIPES)
def test_initial_reward_leaves_room_to_learn(name):
    """Issue: 0.2 to 0.4; README gives the measured value with its interval."""
    policy, task = load(name, device="cpu"), WordProblems(test_size=256)
    prompts = {problem.id: task.prompt(problem) for problem in task.test}
    slots = [Slot(0, problem.id, 0) for problem in task.test]
    drawn = rollout(policy, slots, prompts, 1, 0, Sampling(max_new_tokens=96))
    reward = sum(task.reward(p, c.text) for p, c in zip(task.test, drawn, strict=True)) / len(drawn)
    print(f"{name}: initial reward {reward:.3f}")  # the figure of docs/nano-models.md: pytest -s
    assert 0.15 < reward < 0.45
    lengths = [len(completion.token_ids) for completion in drawn]
    assert max(lengths) > 2 * sorted(lengths)[len(lengths) // 2]  # something for a length attack to choose
