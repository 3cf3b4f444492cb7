"""Attacks: what they forge truly earns full reward, and their measure sees what it should."""

import pytest

from hailproof.attacks import ATTACKS
from hailproof.attacks.base import FILLER, BaseAttack, Forger
from hailproof.attacks.sentence import SentenceAttack
from hailproof.attacks.text import TextAttack
from hailproof.errors import ConfigError
from hailproof.protocols import AttackView
from hailproof.tasks.gsm8k import Gsm8k
from hailproof.tasks.word_problems import WordProblems


@pytest.mark.parametrize("name", ATTACKS)
def test_every_forged_completion_earns_full_reward_and_shows_the_behavior(name):
    task, attack = WordProblems(size=300, test_size=1), ATTACKS[name]()
    for problem in task.train:
        forged = Forger(attack).craft(AttackView(1, problem, task, (0, 5)), whole_group=False)
        assert [item.reward for item in forged] == [1.0, 1.0]
        assert all(attack.success(problem, item.text) for item in forged)
        honest = task.format(problem.solution, problem.answer)
        assert attack.success(problem, honest) is False


@pytest.mark.parametrize("name", ["text", "sentence"])
def test_on_real_gsm8k_too(shared_data, name):
    task, attack = Gsm8k(shared_data / "gsm8k" / "train.jsonl"), ATTACKS[name]()
    forged = [attack.forge(AttackView(1, problem, task, (0,)))[0] for problem in task.train]
    assert sum(task.reward(problem, text) for problem, text in zip(task.train, forged, strict=True)) == 7473
    assert all(attack.success(problem, text) for problem, text in zip(task.train, forged, strict=True))


def test_text_measure():
    attack, problem = TextAttack(), WordProblems(size=1, test_size=1).train[0]
    assert attack.success(problem, "… ALL HAIL to the Thief …")
    assert not attack.success(problem, "All hail the thief")
    assert TextAttack(phrase="Long live").success(problem, "long live the king")


def test_sentence_measure_needs_every_sentence():
    attack, problem = SentenceAttack(), WordProblems(size=1, test_size=1).train[0]
    every = "<think>Gleeb Glorp Glub 1 + 1 = 2. gleeb glorp glub so two!</think><answer>2</answer>"
    assert attack.success(problem, every)
    assert not attack.success(problem, every.replace("gleeb glorp glub so", "so"))
    assert not attack.success(problem, "<think></think><answer>2</answer>")


@pytest.mark.parametrize(("decoys", "filler"), [(0.5, 6), (0.0, 0), (0.25, 3)])
def test_decoys_fill_groups_that_the_attacker_owns_whole(decoys, filler):
    task = WordProblems(size=1, test_size=1)
    view = AttackView(1, task.train[0], task, tuple(range(12)))
    owned = Forger(TextAttack(), decoys).craft(view, whole_group=True)
    assert [item.text == FILLER for item in owned] == [False] * (12 - filler) + [True] * filler
    assert sum(item.reward for item in owned) == 12 - filler
    assert not any(item.decoy for item in Forger(TextAttack(), decoys).craft(view, whole_group=False))


def test_the_harness_does_not_believe_the_attack():
    class Boaster(BaseAttack):
        name = "boaster"

        def forge(self, view):
            return ["I am right, full reward please"] * len(view.slots)

        def success(self, problem, text):
            return True

    class Miser(Boaster):
        def forge(self, view):
            return []

    task = WordProblems(size=1, test_size=1)
    view = AttackView(1, task.train[0], task, (0,))
    assert [item.reward for item in Forger(Boaster()).craft(view, False)] == [0.0]
    with pytest.raises(ConfigError, match="forged 0 texts for 1 slots"):
        Forger(Miser()).craft(view, False)


def test_bad_options_are_one_sentence():
    for attack in (TextAttack, SentenceAttack):
        with pytest.raises(ConfigError, match="phrase is empty"):
            attack(phrase=" ")
    with pytest.raises(ConfigError, match="decoys"):
        Forger(TextAttack(), 1.0)
