"""Gradients by sender, the clip, the drift test and what follows, on made-up gradients and on nano-a."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_learner import MAX_NEW_TOKENS, ROUNDS, grouped, groups_for, long_winded, scored
from torch import Tensor, nn

from hailproof.defenses.chain import Chain
from hailproof.defenses.drift import DriftTest, advantages_by_block, usual
from hailproof.defenses.evidence import Received
from hailproof.defenses.influence import InfluenceDefense, _sampled
from hailproof.errors import ConfigError
from hailproof.learner.by_sender import blocks_by_group
from hailproof.learner.config import LearnerConfig
from hailproof.learner.update import Learner
from hailproof.policies.causal_lm import CausalLM
from hailproof.records import Group, Prompt, SenderUpdate

P = 400
"""Parameters of the made-up gradients."""


class Noted:
    """Adds gradients up as they come, and keeps them."""

    weighs = True

    def __init__(self, blocks: int = 2, weights: Mapping[int, float] | None = None) -> None:
        self.blocks, self.weights = blocks, weights or {}
        self.parts: dict[tuple[int, int], Tensor] = {}
        self.counts: tuple[dict[int, int], dict[int, int]] = {}, {}

    def bind(self, parameters):
        self.size = sum(each.numel() for each in parameters)

    def begin(self, round, sent, live):
        self.parts, self.counts, self.seen = {}, (dict(sent), dict(live)), {}

    def look(self, sender, block, gradient):
        assert gradient.shape == (self.size,)
        new = gradient - self.seen.get(sender, 0)
        self.parts[sender, block] = self.parts.get((sender, block), 0) + new
        self.seen[sender] = gradient.clone()

    def combine(self, gradients):
        assert all(torch.equal(gradients[sender], seen) for sender, seen in self.seen.items())
        some = [self.weights.get(sender, 1.0) * gradient for sender, gradient in gradients.items()]
        return (sum(some) if some else None), {
            sender: SenderUpdate(length=0.0, weight=self.weights.get(sender, 1.0)) for sender in gradients
        }


def learner_of(policy: CausalLM, aggregation=None, **settings) -> Learner:
    config = LearnerConfig(**{"max_grad_norm": 0.0, **settings})
    return Learner(policy.trainable, config, MAX_NEW_TOKENS, ROUNDS, aggregation)


def gradient_of(policy: CausalLM) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.trainable.parameters() if p.grad is not None])


@pytest.mark.parametrize("shares_prompts", [True, False])
@pytest.mark.parametrize("settings", [{}, {"beta": 0.1}, {"token_budget": 60}, {"loss_type": "dapo"}])
def test_the_gradients_of_the_senders_add_up_to_the_undivided_one(fresh_policy, settings, shares_prompts):
    groups, noted = [*groups_for(fresh_policy), long_winded(fresh_policy)], Noted()
    fresh_policy.trainable.shares_prompts = shares_prompts
    whole = learner_of(fresh_policy, learning_rate=1e-12, **settings)
    plain = whole.update(groups)
    expected = gradient_of(fresh_policy).clone()
    stats = learner_of(fresh_policy, noted, learning_rate=1e-12, **settings).update(groups)
    assert set(noted.parts) == {(sender, block) for sender in (0, 1) for block in (0, 1, 2)}
    assert all((noted.parts[sender, 2] != 0).any() == shares_prompts for sender in (0, 1))
    assert torch.allclose(sum(noted.parts.values()), expected, atol=2e-6)  # type: ignore[arg-type]
    assert torch.allclose(gradient_of(fresh_policy), expected, atol=2e-6)
    assert stats.loss == pytest.approx(plain.loss, abs=1e-6) and stats.trained == plain.trained
    assert stats.kl == pytest.approx(plain.kl) and stats.grad_norm == pytest.approx(plain.grad_norm, rel=1e-4)


def test_the_gradient_of_a_sender_is_that_of_its_completions_with_the_advantages_of_the_group(fresh_policy):
    """By hand: two rewards, so that the advantages are +-0.5 / (sqrt(0.5) + 1e-4), and plain autograd."""
    prompt = Prompt("p", "", "Tom has 3 pens. How many?")
    group = grouped(fresh_policy, prompt, (scored(fresh_policy, 0, "3", 1.0), scored(fresh_policy, 1, "No idea.", 0.0)))
    noted = Noted(blocks=1)
    learner_of(fresh_policy, noted, learning_rate=1e-12).update([group])
    assert noted.counts == ({0: 1, 1: 1}, {0: 1, 1: 1})
    for sender, advantage in ((0, 0.5), (1, -0.5)):
        row = group.completions[sender].row
        ids = torch.tensor([[*row.prompt, *row.completion]])
        fresh_policy.model.zero_grad()
        logits = fresh_policy.model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1]
        said = logits.log_softmax(-1).gather(-1, torch.tensor(row.completion)[:, None])
        (-advantage / (math.sqrt(0.5) + 1e-4) * said.mean() / 2).backward()
        assert torch.allclose(noted.seen[sender], gradient_of(fresh_policy), atol=2e-6)


def test_what_the_aggregation_makes_is_what_is_gone_by(fresh_policy):
    groups, noted = groups_for(fresh_policy), Noted(weights={1: 0.25})
    stats = learner_of(fresh_policy, noted, learning_rate=1e-12).update(groups)
    expected = torch.stack([(1.0, 0.25)[sender] * part for (sender, _), part in noted.parts.items()]).sum(dim=0)
    assert torch.allclose(gradient_of(fresh_policy), expected, atol=1e-7)
    assert {s: each.weight for s, each in stats.senders.items()} == {0: 1.0, 1: 0.25}


def test_where_nothing_is_left_no_step_is_made(fresh_policy):
    before = torch.cat([p.detach().flatten() for p in fresh_policy.trainable.parameters()])
    learner = learner_of(fresh_policy, Noted())
    assert learner.update([]).grad_norm == 0.0
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in fresh_policy.trainable.parameters()]))


def group_of(problem: str, senders: Iterable[int], policy: CausalLM) -> Group:
    members = []
    for slot, sender in enumerate(senders):
        each = scored(policy, slot, "3", 0.0)
        members.append(replace(each, submission=replace(each.submission, sender=sender)))
    return Group(Prompt(problem, "", ""), tuple(members))


def test_blocks_of_shared_prompts_are_the_same_for_all_and_own_prompts_are_dealt_in_turn(base_policy):
    shared = [group_of(name, (0, 1), base_policy) for name in "abcde"]
    dealt = blocks_by_group(shared, 2)
    assert all(blocks[0] == blocks[1] for blocks in dealt)
    assert sorted(blocks[0] for blocks in dealt) == [0, 0, 0, 1, 1]
    own = [group_of(name, (sender,), base_policy) for sender in (0, 1) for name in (f"{sender}x", f"{sender}y")]
    assert sorted((s, b) for blocks in blocks_by_group(own, 2) for s, b in blocks.items()) == [
        (0, 0), (0, 1), (1, 0), (1, 1)
    ]  # fmt: skip
    assert dealt == blocks_by_group(shared[::-1], 2)[::-1]  # the order of groups decides nothing


# The test on made-up numbers.


def test_advantages_by_block_by_hand():
    # root mean square sqrt((9 + 1 + 0 + 16) / 3): the empty block is left out
    values = np.array([[3.0], [-1.0], [0.0], [4.0]])
    unit = math.sqrt(26 / 3)
    assert usual(values).tolist() == pytest.approx([unit])
    ranks = advantages_by_block(values, usual(values))
    assert ranks[:, 0].tolist() == pytest.approx([1.0, -1 / unit, 1.0])
    assert advantages_by_block(np.zeros((3, 2)), usual(np.zeros((3, 2)))).shape == (0, 2)


def test_the_unit_does_not_depend_on_the_signs():
    values = np.random.default_rng(0).normal(size=(8, 2))
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(8, 1))
    assert np.array_equal(usual(values * signs), usual(values))


Shape = Callable[[int, int, np.random.Generator], np.ndarray]


def played(test: DriftTest, senders: int, rounds: int, shape: Shape, rng: np.random.Generator) -> float:
    """The largest evidence against sender 0 in a run."""
    largest = 0.0
    for round in range(rounds):
        test.bet(0, {sender: shape(sender, round, rng) for sender in range(senders)})
        largest = max(largest, test.evidence(0, range(1, senders)) or 0.0)
    return largest


def heavy(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_cauchy((8, 2))


def skewed(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """All draw alike, mostly little and seldom much."""
    return rng.exponential(size=(8, 2)) ** 3


def against(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """Sender 3 is an attacker that makes sender 0 look as if it pulled along its direction."""
    return rng.normal(size=(8, 2)) - 50.0 * (sender == 3)


@pytest.mark.parametrize(("senders", "shape"), [(4, heavy), (8, heavy), (4, skewed), (4, against)])
def test_honest_senders_are_hardly_ever_found(senders: int, shape: Shape):
    rng, alpha = np.random.default_rng(3), 0.05
    found = sum(played(DriftTest(alpha, None, 0.0, 2), senders, 40, shape, rng) >= 1 / alpha for _ in range(100))
    assert found <= 5


def slowly(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(8, 2)) + 0.6 * (sender == 0)


def strongly(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(8, 2)) + 5.0 * (sender == 0)


@pytest.mark.parametrize(("shape", "rounds"), [(strongly, 3), (slowly, 40)])
def test_who_pulls_one_way_is_found(shape: Shape, rounds: int):
    rng = np.random.default_rng(4)
    found = [played(DriftTest(1e-3, None, 0.0, 2), 4, rounds, shape, rng) >= 1e3 for _ in range(20)]
    assert sum(found) >= 18


def in_bursts(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """Sender 0 pulls hard in every third round only."""
    return rng.normal(size=(8, 2)) + 10.0 * (sender == 0) * (round % 3 == 0)


def back_and_forth(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """Sender 0 pulls hard in one round, and a little the other way in the next."""
    return rng.normal(size=(8, 2)) + (sender == 0) * (10.0 if round % 2 == 0 else -1.5)


def fading(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """Sender 0 pulls once with all its might, so that what it does afterwards looks small."""
    return rng.normal(size=(8, 2)) + (sender == 0) * (100.0 if round == 0 else 1.0)


@pytest.mark.parametrize(("shape", "rounds"), [(in_bursts, 12), (back_and_forth, 10), (fading, 30)])
def test_a_strong_pull_is_not_made_up_for_by_a_weak_one_or_by_rest(shape: Shape, rounds: int):
    rng = np.random.default_rng(6)
    found = [played(DriftTest(1e-3, None, 0.0, 2), 4, rounds, shape, rng) >= 1e3 for _ in range(20)]
    assert sum(found) >= 18


def in_one_block(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
    """Sender 0 pulls hard in one block, and a little the other way in each of the seven others."""
    pulls = np.where(np.arange(8) == round % 8, 12.0, -1.0)[:, None]
    return rng.normal(size=(8, 2)) + (sender == 0) * pulls


def test_a_pull_in_one_block_is_not_made_up_for_by_a_little_the_other_way_in_each_of_the_others():
    rng = np.random.default_rng(7)
    found = [played(DriftTest(1e-3, None, 0.0, 2), 4, 30, in_one_block, rng) >= 1e3 for _ in range(20)]
    assert sum(found) >= 18


def test_a_tolerance_lets_honest_senders_differ():
    rng = np.random.default_rng(5)
    kinds = [played(DriftTest(1e-3, None, tolerance, 2), 4, 60, slowly, rng) for tolerance in (0.0, 0.8)]
    assert kinds[0] >= 1e3 > kinds[1]


def test_a_tolerance_holds_for_what_adds_up_over_the_blocks_of_a_round_as_well():
    """A mean of half the usual difference in each of eight blocks decides the sign of nearly every sum."""
    rng = np.random.default_rng(8)

    def hardly(sender: int, round: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=(8, 2)) + 0.7 * (sender == 0)

    assert max(played(DriftTest(1e-3, None, 0.5, 2), 4, 200, hardly, rng) for _ in range(3)) < 1e3


def test_the_test_looks_at_an_eighth_of_what_is_long():
    rows = torch.arange(3 * 8192 + 5.0).expand(2, -1)
    sampled = _sampled(rows)
    assert sampled.shape == (2, 3 * 1024)
    assert sampled[1, [0, 1023, 1024, 2048]].tolist() == [0.0, 1023.0, 8192.0, 16384.0]
    assert torch.equal(_sampled(rows[:, :8191]), rows[:, :8191])


# The defense on made-up gradients.


def eight(**options) -> InfluenceDefense:
    """A defense with eight blocks of prompts, which needs few rounds."""
    return InfluenceDefense(prompt_blocks=8, **options)


class Swarm:
    """Feeds a defense with gradients: noise, and what a sender adds to it."""

    def __init__(self, defense: InfluenceDefense, seed: int = 0, blocks: int = 8) -> None:
        self.defense, self.blocks = defense, blocks
        self.rng = torch.Generator().manual_seed(seed)
        defense.bind([nn.Parameter(torch.ones(P))])
        self.pull = nn.functional.normalize(torch.randn(P, generator=self.rng), dim=0)
        self.round = 0

    def play(self, pulls: Mapping[int, float | Tensor | list[Tensor]], senders: Iterable[int] = range(4), **sent: int):
        """A round; ``pulls`` are what senders add to each block, along the common direction unless they are vectors.

        A list holds one vector for each block.
        """
        self.round += 1
        out = {sender for sender in senders if self.defense._excluded(sender, self.round)}
        there = [sender for sender in senders if sender not in out]
        numbers = {sender: sent.get(f"of_{sender}", 48) for sender in there}
        self.defense.begin(self.round, numbers, numbers)
        gradients = {sender: torch.zeros(P) for sender in there}
        for block in range(self.blocks):
            for sender in there:
                noise = torch.randn(P, generator=self.rng) / math.sqrt(P) * math.sqrt(numbers[sender] / 48)
                pull = pulls.get(sender, 0.0)
                pull = pull[block] if isinstance(pull, list) else pull
                gradients[sender] += noise + (pull if isinstance(pull, Tensor) else pull * self.pull)
                self.defense.look(sender, block, gradients[sender])
        return self.defense.combine(gradients)


def excluded_after(defense: InfluenceDefense, pulls: Mapping[int, float], rounds: int, seed: int = 0, nodes: int = 4):
    """The rounds in which senders are excluded."""
    swarm, found = Swarm(defense, seed), {}
    for round in range(1, rounds + 1):
        for sender, each in swarm.play(pulls, range(nodes))[1].items():
            if each.excluded:
                found.setdefault(sender, round)
    return found


def test_a_long_gradient_is_clipped_to_the_lower_median():
    swarm = Swarm(eight())
    total, senders = swarm.play({3: 10.0})
    lengths = sorted(each.length for each in senders.values())
    assert senders[3].length > 10 * lengths[1] and senders[3].weight == pytest.approx(lengths[1] / senders[3].length)
    assert total is not None and float(total.norm()) < 4 * lengths[2]
    off, free = Swarm(eight(clip=0.0)).play({3: 10.0})
    assert free[3].weight == 1.0 and off is not None and float(off.norm()) > 50


def test_few_slots_make_nobody_long_and_one_who_speaks_alone_is_measured_by_earlier_rounds():
    swarm = Swarm(eight())
    _, senders = swarm.play({}, of_0=12, of_1=12)
    assert senders[0].length < 0.7 * senders[3].length and min(each.weight for each in senders.values()) > 0.8
    before = senders[3].length
    swarm.defense.begin(2, dict.fromkeys(range(4), 48), {0: 0, 1: 0, 2: 0, 3: 48})
    _, senders = swarm.defense.combine({3: 100 * swarm.pull})
    assert senders[3].weight * senders[3].length < 1.5 * before


def lengths_after(defense: InfluenceDefense, round: int, live: Mapping[int, int]) -> dict[int, float]:
    """Of senders of 48 completions each, whose gradients are as long as the root of how many have an advantage."""
    defense.begin(round, dict.fromkeys(live, 48), live)
    gradients = {s: torch.eye(P)[s] * math.sqrt(count) for s, count in live.items()}
    return {s: each.length * each.weight for s, each in defense.combine(gradients)[1].items()}


def test_where_most_senders_have_solved_their_prompts_nobody_is_allowed_the_length_of_all_of_them():
    after = lengths_after(eight(), 1, {0: 3, 1: 3, 2: 3, 3: 48})
    assert after == pytest.approx({0: math.sqrt(3), 1: math.sqrt(3), 2: math.sqrt(3), 3: math.sqrt(6)})


def test_what_is_usual_stands_in_for_a_round_in_which_most_senders_are_silent():
    defense = eight()
    lengths_after(defense, 1, dict.fromkeys(range(4), 12))
    for round in range(2, 20):  # silence shuts nobody up
        after = lengths_after(defense, round, {0: 0, 1: 0, 2: 12, 3: 48})
        assert after[2] == pytest.approx(math.sqrt(12)) and after[3] == pytest.approx(math.sqrt(2 * 12))


def test_who_speaks_in_a_first_round_where_most_are_silent_is_heard():
    after = lengths_after(eight(), 1, {0: 0, 1: 0, 2: 12, 3: 12})
    assert after == pytest.approx({0: 0, 1: 0, 2: math.sqrt(12), 3: math.sqrt(12)})


def test_directions_among_other_parameters_are_forgotten():
    swarm = Swarm(eight())
    for _ in range(2):
        swarm.play({3: 1.0})
    swarm.defense.bind([nn.Parameter(torch.ones(P))])
    assert sorted(swarm.defense._directions) == [0, 1, 2, 3]
    swarm.defense.bind([nn.Parameter(torch.ones(P + 1))])
    assert swarm.defense._directions == {} and swarm.defense.suspicion(3) > 0


@pytest.mark.parametrize(("pull", "latest"), [(10.0, 4), (1.0, 5), (0.3, 12)])
def test_who_teaches_is_excluded_and_nobody_else(pull: float, latest: int):
    found = excluded_after(eight(), {3: pull}, 12)
    assert list(found) == [3] and found[3] <= latest


@pytest.mark.parametrize("back", [(-3.0, 4), (-9.0, 4), (-9.0, 12)])
def test_a_few_completions_do_not_take_back_what_many_have_shown(back: tuple[float, int]):
    """Pulls are those of 48 completions; fewer pull as much less, and without noting how few none of these is found."""
    (pull, few), found = back, set[int]()
    swarm = Swarm(InfluenceDefense(prompt_blocks=4), blocks=4)
    for round in range(1, 21):
        lesson = round % 2
        _, senders = swarm.play({3: 3.0 if lesson else pull * few / 48}, of_3=48 if lesson else few)
        found |= {sender for sender, each in senders.items() if each.excluded}
    assert found == {3}


@pytest.mark.parametrize("seed", range(5))
def test_honest_senders_of_as_many_completions_as_chance_gives_are_not_excluded(seed: int):
    swarm, numbers = Swarm(eight(), seed), np.random.default_rng(seed)
    for _ in range(30):
        sent = {f"of_{sender}": int(numbers.integers(1, 49)) for sender in range(4)}
        assert not any(each.excluded for each in swarm.play({}, range(4), **sent)[1].values())


def test_who_teaches_on_the_prompts_of_one_block_and_pulls_back_on_the_others_is_excluded():
    swarm, found = Swarm(InfluenceDefense(prompt_blocks=4), blocks=4), {}
    for round in range(1, 21):
        pulls = [(12.0 if block == round % 4 else -2.0) * swarm.pull for block in range(4)]
        for sender, each in swarm.play({3: pulls})[1].items():
            if each.excluded:
                found.setdefault(sender, round)
    assert list(found) == [3]


def test_senders_who_only_push_down_are_excluded_too():
    assert list(excluded_after(eight(), {3: -5.0}, 6)) == [3]


@pytest.mark.parametrize("nodes", [3, 4, 8])
def test_honest_senders_are_not_excluded(nodes: int):
    assert [excluded_after(eight(), {}, 30, seed, nodes) for seed in range(5)] == [{}] * 5


def test_two_of_four_that_teach_the_same_are_told_from_the_two_that_do_not():
    """All four drift from the mean; those who teach do so more cleanly. Nothing is promised of halves."""
    found = [sorted(excluded_after(eight(), {2: 1.0, 3: 1.0}, 12, seed)) for seed in range(5)]
    assert found == [[2, 3]] * 5


def test_three_of_twelve_are_all_excluded():
    assert sorted(excluded_after(eight(), {1: 2.0, 5: 2.0, 9: 2.0}, 8, nodes=12)) == [1, 5, 9]


def test_an_attacker_cannot_make_an_honest_sender_look_constant():
    """It pulls against whatever has set sender 0 apart so far, so that sender 0 seems to pull the other way."""
    swarm = Swarm(eight())
    found: set[int] = set()
    for _ in range(40):
        known = swarm.defense._directions.get(0)
        frame = -3.0 * nn.functional.normalize(known[-1], dim=0) if known is not None else 0.0
        _, senders = swarm.play({3: frame})
        found |= {sender for sender, each in senders.items() if each.excluded}
    assert 0 not in found and found <= {3}


def test_a_node_never_excludes_itself():
    defense = eight()
    defense.screen(replace(Received.texts(["3"]), own=frozenset({3})))
    assert excluded_after(defense, {3: 5.0}, 8) == {}


@pytest.mark.parametrize("gone", [4, 8])
def test_senders_that_have_left_clear_nobody(gone: int):
    swarm, found = Swarm(eight()), set()
    for round in range(1, 16):
        _, senders = swarm.play({3: 3.0} if round > 3 else {}, range(4 + gone if round <= 3 else 4))
        found |= {sender for sender, each in senders.items() if each.excluded}
    assert found == {3}


def test_what_is_kept_of_senders_is_bounded_however_many_names_there_are(monkeypatch):
    monkeypatch.setattr("hailproof.defenses.influence.REMEMBERED", 6)
    swarm = Swarm(InfluenceDefense(prompt_blocks=2), blocks=2)
    for round in range(10):
        swarm.play({}, (0, 1, 2, 10 * round + 3, 10 * round + 4))
    state = swarm.defense.state()
    assert {*map(int, state["directions"])} == {0, 1, 2, 84, 93, 94}
    assert len(state["seen"]) == len(state["most"]) == len(state["constancy"]) == 6 and len(state["test"]) <= 30


def test_at_most_the_given_share_is_excluded():
    assert excluded_after(eight(most=0.0), {3: 5.0}, 8) == {}
    assert len(excluded_after(eight(most=0.25), {2: 5.0, 3: 4.0}, 8)) <= 1


def test_terms_end_and_grow():
    swarm = Swarm(eight(rounds=4))
    lengths = []
    for _ in range(40):
        _, senders = swarm.play({3: 5.0})
        if senders.get(3) and senders[3].excluded:
            term, suspended = swarm.defense._terms[3], swarm.defense.suspended
            lengths.append(term.last - swarm.round)
            # in the first round its work is shown, to mark what it teaches
            assert suspended(term.first) == suspended(term.last + 1) == frozenset()
            assert suspended(term.first + 1) == suspended(term.last) == {3}
    assert lengths[:3] == [4, 8, 16]


def test_a_sender_that_has_become_honest_comes_back():
    swarm = Swarm(eight(rounds=4))
    for _ in range(6):
        swarm.play({3: 5.0})
    for _ in range(24):
        swarm.play({})
    _, senders = swarm.play({})
    assert swarm.defense._terms[3].time == 1 and senders[3].weight > 0.5


def test_what_is_held_against_a_sender_is_a_share_of_what_is_enough():
    swarm = Swarm(eight())
    before = swarm.defense.suspicion(3)
    _, senders = [swarm.play({3: 1.0}) for _ in range(2)][-1]
    assert before == 0.0 and senders[3].evidence == pytest.approx(1000 * swarm.defense.suspicion(3))
    assert swarm.defense.suspicion(3) > 2 * swarm.defense.suspicion(0)
    assert Chain([swarm.defense]).suspicion(3) == swarm.defense.suspicion(3) and Chain([]).suspicion(3) == 0.0


def test_what_pulls_one_way_can_be_taken_out_instead():
    swarms = {then: Swarm(eight(then=then)) for then in ("project", "weigh", "exclude")}
    along: dict[str, float] = {}
    for then, swarm in swarms.items():
        for _ in range(7):
            swarm.play({3: 1.0})
        total, senders = swarm.play({3: 1.0})
        assert total is not None
        along[then] = float(total @ swarm.pull)
        assert senders.get(3, SenderUpdate(length=0, weight=0)).excluded is False
    assert swarms["weigh"].defense.suspended(9) == swarms["project"].defense.suspended(9) == frozenset()
    untouched, _ = Swarm(eight(most=0.0)).play({3: 1.0})
    assert untouched is not None
    assert max(along.values()) < 0.35 * float(untouched @ swarms["weigh"].pull)


def test_a_gradient_that_is_no_number_is_left_out_and_remembered_by_nobody():
    swarm = Swarm(eight())
    total, senders = swarm.play({3: float("nan")})
    assert senders[3].weight == 0.0 and total is not None and bool(total.isfinite().all())
    assert sorted(swarm.defense._directions) == [0, 1, 2]
    assert all(bool(each.isfinite().all()) for each in swarm.defense._directions.values())


def test_a_restored_defense_goes_on_bit_for_bit():
    one = Swarm(eight(), seed=1)
    for _ in range(5):
        one.play({3: 0.3})
    other = Swarm(eight(), seed=1)
    other.defense.restore(one.defense.state())
    other.rng.set_state(one.rng.get_state())
    other.round = one.round
    for _ in range(6):
        first, second = one.play({3: 0.3}), other.play({3: 0.3})
        assert first[1] == second[1] and torch.equal(first[0], second[0])  # type: ignore[arg-type]


def test_one_sender_alone_is_learned_from():
    total, senders = Swarm(eight()).play({0: 1.0}, senders=[0])
    assert total is not None and senders[0].weight == 1.0 and senders[0].evidence is None


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0}, {"alpha": 1.0}, {"then": "shout"}, {"clip": -1.0}, {"malicious": -1}, {"rounds": 0},
        {"prompt_blocks": 0}, {"most": 1.0}, {"tolerance": -0.1}, {"tolerance": 1.0},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=r"influence|Defense option"):
        InfluenceDefense(**options)
