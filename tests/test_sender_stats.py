"""Bets, phrases and verdicts on senders: by hand, by exact enumeration, and in small simulated swarms."""

import itertools
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_defenses import evidence_of
from test_swarm import make

from hailproof.defenses.betting import BETS, Gambler, advantage_in_rank, evidence_against
from hailproof.defenses.phrases import PROMPTS, marked, phrases, remembered
from hailproof.defenses.sender_stats import SenderStatsDefense, matched, trust
from hailproof.errors import ConfigError
from hailproof.protocols import TokenScores
from hailproof.records import Completion, Prompt, Submission

SENDER_STATS = ("defense", [{"name": "sender_stats"}])
values = st.lists(st.integers(0, 5), min_size=1, max_size=5)


class Words:
    """A policy whose tokens are words, with an end token 0; what comes late in the alphabet is improbable."""

    def __init__(self):
        self.codec = self.engine = self

    def render(self, prompt):
        return (0,)

    def received_ids(self, completion):
        return (*(ord(word[0]) - 96 for word in completion.text.split()), 0)

    def score(self, rows, sampling):
        scored = []
        for row in rows:
            logprobs = -np.array(row.completion[:-1], dtype=float)
            none = np.zeros_like(logprobs)
            scored.append(TokenScores(none, logprobs, none, none))
        return scored


def received(round: int, sent: list[tuple[int, str, str, float]]):
    """Evidence of completions (sender, problem, text, reward)."""
    submissions = [
        Submission(round, sender, problem, slot, Completion(text, (), True))
        for slot, (sender, problem, text, _) in enumerate(sent)
    ]
    prompts = [Prompt(problem, "", "?") for _, problem, _, _ in sent]
    return evidence_of(prompts, submissions, Words(), rewards=[reward for *_, reward in sent])


def draw(rng: random.Random) -> tuple[str, float]:
    words = rng.choices("abcdefgh", k=rng.randint(5, 20))
    return " ".join(words), float(rng.random() < 0.6)


def swarm_round(rng: random.Random, round: int, forge: dict[int, Any], senders: int = 4, vertical: bool = False):
    """Eight prompts, eight slots; ``forge`` gives some senders' texts, which earn full reward."""
    sent = []
    for number, slot in itertools.product(range(8), range(8)):
        sender = number % senders if vertical else slot % senders
        text, reward = draw(rng)
        if sender in forge and (forged := forge[sender](rng)) is not None:
            text, reward = forged, 1.0
        sent.append((sender, f"{round}-{number}", text, reward))
    return received(round, sent)


def weights(defense: SenderStatsDefense, evidence) -> dict[int, float]:
    verdicts = defense.screen(evidence)
    return {s.sender: v.weight for s, v in zip(evidence.submissions, verdicts, strict=True)}


def after(rounds: int, defense: SenderStatsDefense, seed: int, forge: dict[int, Any], **more: Any) -> dict[int, float]:
    """Weights of all senders in the last of some rounds."""
    rng, found = random.Random(seed), {}
    for round in range(1, rounds + 1):
        found = weights(defense, swarm_round(rng, round, forge, **more))
    return found


def longest(rng: random.Random) -> str:
    return max((draw(rng)[0] for _ in range(40)), key=len)


def improbable(rng: random.Random) -> str:
    return draw(rng)[0] + " z"


def hail(rng: random.Random) -> str:
    return "d e a d " + draw(rng)[0]


def test_ranks_by_hand():
    assert advantage_in_rank([3, 5], [1, 4]) == 0.5
    assert advantage_in_rank([2, 2], [2]) == 0 and advantage_in_rank([9], [1, 2]) == 1


@given(values, values)
def test_ranks_are_antisymmetric(first, second):
    rank = advantage_in_rank(first, second)
    assert -1 <= rank <= 1 and rank == -advantage_in_rank(second, first)


def test_a_bet_by_hand():
    one_sided, two_sided = Gambler([True], 1e9), Gambler([False], 1e9)
    for gambler in (one_sided, two_sided):
        assert gambler.capital == 1
        gambler.bet(np.zeros((0, 1)))
        assert gambler.capital == 1 and gambler.rounds == 0
        gambler.bet(np.array([[1.0]]))
    # half of the capital is put in, spread over bets of 0.1, 0.3 and 0.9; two-sided ones win and lose alike
    assert one_sided.capital == pytest.approx(0.5 + 0.5 * (1.1 + 1.3 + 1.9) / 3)
    assert two_sided.capital == pytest.approx(1)
    one_sided.bet(np.array([[1.0]]))
    # a sixth more is put in, a third is kept
    stakes = [(0.5 * (1 + bet) + 1 / 6) / 3 * (1 + bet) for bet in (0.1, 0.3, 0.9)]
    assert one_sided.capital == pytest.approx(1 / 3 + sum(stakes))


@pytest.mark.parametrize("one_sided", [True, False])
def test_bets_on_equals_are_fair_exactly(one_sided):
    """Over all outcomes of three rounds of two symmetric comparisons the mean capital is 1."""
    capitals = []
    for outcome in itertools.product([-1.0, 0.5, -0.5, 1.0], repeat=6):
        gambler = Gambler([one_sided, False], 1e9)
        for round in range(3):
            gambler.bet(np.array([[rank, -rank] for rank in outcome[2 * round : 2 * round + 2]]))
        capitals.append(gambler.capital)
    assert np.mean(capitals) == pytest.approx(1)


@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=40), max_size=20))
def test_capital_stays_between_nothing_and_its_ceiling(rounds):
    gambler = Gambler([False], 50.0)
    for ranks in rounds:
        gambler.bet(np.array([[rank] for rank in ranks]))
        assert 0 <= gambler.capital <= 51


def test_evidence_leaves_the_largest_out():
    assert evidence_against([1000.0, 2.0, 4.0], 1) == 3
    assert evidence_against([2.0], 1) is None and evidence_against([2.0], 0) == 2
    assert evidence_against([100.0] * 4, 5) is None  # fewer came than might be malicious


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.lists(st.floats(0, 1e6), max_size=3))
def test_liars_cannot_raise_the_evidence_above_what_honest_senders_say(honest, liars):
    evidence = evidence_against([*honest, *liars], len(liars))
    assert evidence is not None and evidence <= np.mean(honest) * (1 + 1e-9)


def test_phrases_by_hand():
    assert phrases("2 + 2 = 5") == {PROMPTS, "2 + 2", "+ 2 =", "2 = 5"}
    assert phrases("All hail, thief") == {PROMPTS, "all hail ,", "hail , thief"}
    first = remembered({}, [[{PROMPTS, "x"}, {PROMPTS, "x", "y"}], [{PROMPTS, "x"}]])
    assert first == {PROMPTS: 2, "x": 2, "y": 1}
    second = remembered(first, [[{PROMPTS, "z"}]])
    assert second == pytest.approx({PROMPTS: 2.6, "x": 1.6, "y": 0.8, "z": 1})
    assert set(remembered(second, [])) == {PROMPTS, "x", "z"}


def test_marked_phrases_lead_those_of_the_median_sender():
    own = {PROMPTS: 10.0, "all hail": 9.0, "the answer": 9.0, "once": 1.0}
    others = [{PROMPTS: 10.0, "the answer": 9.0}, {PROMPTS: 5.0, "the answer": 4.5}, {PROMPTS: 10.0, "all hail": 10.0}]
    assert marked(own, others) == {"all hail": 3.0}  # (9 - 0) / sqrt(9 + 0), and one accomplice does not change it
    assert marked({}, others) == {} and marked(own, []) == {"all hail": 3.0, "the answer": 3.0}


def test_completions_are_compared_prompt_by_prompt():
    # p: a has a right answer, b a right and a wrong one; q: all right; r: a alone; s: right only at a
    first = {"p": [0], "q": [1], "r": [2], "s": [3]}
    second = {"p": [4, 5], "q": [6], "s": [7]}
    rewards = [1, 1, 1, 1, 1, 0, 1, 0]
    assert matched(first, second, rewards) == [([0], [4])]


def test_groups_are_matched_where_prompts_are_not_shared():
    first, second = {"p": [0, 1], "q": [2, 3], "r": [4, 5]}, {"s": [6, 7], "t": [8, 9]}
    rewards = [1, 0] * 5
    pairs = matched(first, second, rewards)
    assert len(pairs) == 2 and {b[0] for _, b in pairs} == {6, 8} and {a[0] for a, _ in pairs} <= {0, 2, 4}
    assert matched(second, first, rewards) == [(b, a) for a, b in pairs]
    rewards[7] = 1  # a group without variance teaches nothing, and is not compared
    assert [b for _, b in matched(first, second, rewards)] == [[8]]


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize(
    ("forge", "statistic"), [(longest, "length"), (improbable, "likelihood"), (improbable, "lowest"), (hail, "phrases")]
)
def test_a_sender_that_stands_out_is_convicted_and_the_others_are_not(forge, statistic, vertical):
    """By the statistic that the attack shows in; vertical attackers mix in decoys, which are not learned from."""

    def half(rng: random.Random) -> str | None:
        return forge(rng) if rng.random() < 0.5 else None

    attack = {3: half if vertical else forge}
    found = after(40, SenderStatsDefense(statistics=[statistic]), 1, attack, vertical=vertical)
    assert found == {0: 1, 1: 1, 2: 1, 3: 0}


def test_honest_senders_keep_their_weight_and_an_attacker_that_stops_gets_it_back():
    defense, rng = SenderStatsDefense(), random.Random(2)
    history = []
    for round in range(1, 81):
        history.append(weights(defense, swarm_round(rng, round, {3: longest} if 11 <= round <= 25 else {})))
    assert all(found[sender] == 1 for found in history for sender in range(3))
    assert all(found[3] == 1 for found in history[:10]) and history[24][3] == 0
    assert history[-1][3] == 1


def test_two_of_five_attackers_do_not_make_the_others_look_odd():
    attack = {3: longest, 4: longest}
    assert after(40, SenderStatsDefense(), 3, attack, senders=5) == {0: 1, 1: 1, 2: 1, 3: 0, 4: 0}
    # without leaving any out, everybody stands out
    assert set(after(40, SenderStatsDefense(malicious=0), 3, attack, senders=5).values()) == {0}


def test_weight_falls_from_the_root_of_one_over_alpha_to_nothing():
    capitals = [0, 0.5, 10, 10**1.5, 100, 1000]
    assert [trust(capital, 0.01) for capital in capitals] == pytest.approx([1, 1, 1, 0.5, 0, 0])


def test_two_senders_cannot_be_told_apart():
    defense, rng = SenderStatsDefense(), random.Random(4)
    verdicts = defense.screen(swarm_round(rng, 1, {1: longest}, senders=2))
    assert {(verdict.decision, verdict.weight) for verdict in verdicts} == {("abstain", 1.0)}
    assert defense.screen(received(2, [])) == []


def test_a_new_identity_earns_its_weight():
    defense, rng = SenderStatsDefense(probation=0.2, probation_rounds=4), random.Random(5)
    history = [weights(defense, swarm_round(rng, round, {}, senders=3 + (round > 2))) for round in range(1, 9)]
    assert all(found[sender] == 1 for found in history for sender in range(3))  # founders serve no probation
    assert [found[3] for found in history[2:]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_a_restored_defense_goes_on_alike():
    first, second, rng = SenderStatsDefense(probation=0.5), SenderStatsDefense(probation=0.5), random.Random(6)
    rounds = [swarm_round(rng, round, {3: longest, 2: hail}) for round in range(1, 9)]
    for evidence in rounds[:4]:
        first.screen(evidence)
    second.restore(json.loads(json.dumps(first.state())))
    for evidence in rounds[4:]:
        assert first.screen(evidence) == second.screen(evidence)
    assert first.state() == second.state()


def test_without_likelihood_no_model_is_asked(monkeypatch):
    monkeypatch.delattr(Words, "score")
    SenderStatsDefense(statistics=["length", "phrases"]).screen(swarm_round(random.Random(7), 1, {}))


@pytest.mark.parametrize(
    "option",
    [
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"statistics": []},
        {"statistics": ["mood"]},
        {"statistics": ["length", "length"]},
        {"malicious": -1},
        {"probation": 1.5},
        {"probation_rounds": 0},
        {"admission": "forgive"},
    ],
)
def test_bad_options_are_one_sentence(option):
    with pytest.raises(ConfigError, match=r"^[A-Z].*\.$"):
        SenderStatsDefense(**option)


def test_bets_are_symmetric_and_never_all():
    assert sorted(-BETS) == sorted(BETS) and np.abs(BETS).max() < 1


@pytest.mark.parametrize("topology", ["horizontal", "vertical"])
def test_a_swarm_plays_two_rounds(topology):
    experiment = make(("attack.name", "text"), ("swarm.topology", topology), SENDER_STATS)
    for round in (1, 2):
        (view,) = experiment.swarm.play(round).views
        verdicts = [verdict for group in view.groups for s in group.completions for verdict in s.verdicts]
        assert verdicts and not any(verdict.error for verdict in verdicts)
        assert {verdict.decision for verdict in verdicts} <= {"accept", "abstain"}  # abstain: few groups have variance


def test_separate_nodes_decide_alike():
    common = [SENDER_STATS, ("swarm.nodes", 3), ("sampling.max_new_tokens", 48)]
    once, apart = make(*common), make(*common, ("swarm.separate", True))
    assert (len(once.swarm.honest), len(apart.swarm.honest)) == (1, 3)
    (shared,), own = once.swarm.play(1).views, apart.swarm.play(1).views
    assert all(view.groups == shared.groups for view in own)
