"""Replay: the draws of slots are facts, and nothing else is let in."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hailproof.attacks.grinding import EndSuppressor
from hailproof.defenses.evidence import Received
from hailproof.defenses.replay import ReplayDefense, most_mismatches
from hailproof.draws import _border, _log_odds, masses, shortfalls, wanted
from hailproof.errors import ConfigError
from hailproof.policies.sampling import draw
from hailproof.protocols import Candidates, SampleRequest, Sampling
from hailproof.records import Completion, Row, Submission
from hailproof.rollouts import completion_key, sample
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems

SAMPLING = Sampling(max_new_tokens=64)
BEACON = 11
SENDERS = 4


def shortfall(logits, keys, position, token_ids, sampling) -> torch.Tensor:
    """The shortfall of single tokens, with candidates as an engine gives them."""
    values, ids = logits.topk(wanted(sampling, logits.shape[-1]), dim=-1)
    found = Candidates(ids.numpy(), values.numpy(), logits.gather(-1, token_ids[:, None]).squeeze(-1).numpy())
    return torch.tensor(shortfalls(found, token_ids.numpy(), keys.numpy(), position.numpy(), sampling))


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_k=0), Sampling(top_p=0.8), Sampling(top_k=3, temperature=0.5)]
)
def test_only_the_drawn_token_has_no_shortfall(sampling):
    torch.manual_seed(0)
    logits, keys, position = torch.randn(6, 30) * 3, torch.arange(6) * 7919, torch.arange(6)
    drawn = draw(logits, keys, position, sampling)
    for token in range(30):
        tokens = torch.full((6,), token)
        short = shortfall(logits, keys, position, tokens, sampling)
        assert ((short == 0) == (tokens == drawn)).all()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(top_k=0, top_p=0.8), Sampling(top_p=0.9)])
def test_rounding_is_no_more_than_rounding(sampling, temperature):
    """What is drawn from logits that are off by up to e is explained by 2 e, at the borders of top-k and top-p too."""
    generator, size, error = torch.Generator().manual_seed(0), 10_000, 4e-3
    sampling = replace(sampling, temperature=temperature)
    logits = torch.randn(size, 60, generator=generator).double()
    off = logits + error * (2 * torch.rand(size, 60, generator=generator).double() - 1)
    keys, position = torch.arange(size) * 7919, torch.zeros(size, dtype=torch.long)
    sent, drawn = (draw(each, keys, position, sampling) for each in (off, logits))
    short = shortfall(logits, keys, position, sent, sampling)
    assert (sent != drawn).sum() > 10 and (short[sent != drawn] > 0).all() and not short[sent == drawn].any()
    assert short.max() <= 2 * error / temperature + 1e-6
    assert (shortfall(logits, keys + 1, position, sent, sampling) > 1e-3).float().mean() > 0.3  # another key's draws


def test_a_tie_at_the_border_is_a_tie_by_hand():
    # noise makes the third token win where it may be drawn; it is above the border by a hair, or below
    keys, position = torch.arange(5000), torch.zeros(5000, dtype=torch.long)
    above, below = torch.tensor([[3.0, 2.0, 1.0001, 1.0]]), torch.tensor([[3.0, 2.0, 1.0, 1.0001]])
    sampling = Sampling(top_k=3)
    one, other = (draw(logits.expand(5000, -1), keys, position, sampling) for logits in (above, below))
    parted = (one == 2) & (other < 2)
    assert parted.sum() > 100
    short = shortfall(above.expand(5000, -1), keys, position, other, sampling)[parted]
    assert short.tolist() == pytest.approx([1e-4] * len(short), rel=1e-2)
    # what the border does not explain is as far below as it ever was
    far = shortfall(torch.tensor([[3.0, 2.0, 1.0, -5.0]]).expand(5000, -1), keys, position, other, sampling)[parted]
    assert (far > 1e-3).float().mean() > 0.99


def test_a_verifier_asks_for_one_candidate_more_than_may_be_drawn():
    assert [wanted(Sampling(top_k=k)) for k in (1, 50)] == [2, 51] and wanted(Sampling(top_k=0)) > 10**9
    assert [wanted(Sampling(top_k=k), 30) for k in (0, 29, 30, 50)] == [30, 30, 30, 30]


def test_what_is_barred_obliges_nobody_and_cannot_be_the_draw():
    found = Candidates(np.array([[3, 5, 9]]), np.array([[2.0, -np.inf, -np.inf]]), np.array([2.0]))
    barred = replace(found, own=np.array([-np.inf]))
    place = np.zeros(1, dtype=np.int64)
    for sampling in (Sampling(), Sampling(top_k=2), Sampling(top_p=0.9)):
        assert shortfalls(found, np.array([3]), place, place, sampling).tolist() == [0.0]
        assert not shortfalls(barred, np.array([5]), place, place, sampling)[0] <= 1e300  # infinite, or no number


def test_the_border_of_top_p_by_hand():
    """It lies between 0.6 and 0.3: a token crosses it by changing places, or by moving the odds of what lies above."""
    values = np.log([[0.6, 0.3, 0.1]])
    shares, before = masses(values + 1000)  # as large as no exponential is
    assert shares.tolist() == [pytest.approx([0.6, 0.3, 0.1])] and before.tolist() == [pytest.approx([0, 0.6, 0.9])]
    assert masses(np.array([[1000.0, 0.0]]))[0].tolist() == [[1.0, 0.0]]
    with np.errstate(divide="ignore"):
        assert _log_odds(np.array([0.0, 0.5, 1 + 1e-15])).tolist() == [-math.inf, 0.0, math.inf]  # a sum may exceed 1
    inside, outside = _border(values, values[:, 1], k=3, top_p=0.5)
    # the first falls out behind the second; the others are out by half the log-odds of 0.6 and of 0.9
    assert inside.tolist() == [pytest.approx([math.log(2), -math.log(1.5) / 2, -math.log(9) / 2])]
    assert outside.tolist() == pytest.approx([math.log(1.5) / 2])
    # where the mass above is 0.9 and 0.7 are allowed, both the odds and the places count: the smaller of them
    wide, _ = _border(values, values[:, 1], k=3, top_p=0.7)
    assert wide.tolist() == [pytest.approx([math.log(6), math.log(7 / 3 / 1.5) / 2, -math.log(9 / (7 / 3)) / 2])]
    _, far = _border(values, np.log([0.05]), k=2, top_p=0.99)
    assert far.tolist() == pytest.approx([math.log(0.3 / 0.05)])  # outside the top-k, which is the farther border


def test_greedy_shortfall_is_the_distance_to_the_best_token():
    logits = torch.tensor([[1.0, 3.0, 2.5]])
    zero = torch.zeros(1, dtype=torch.long)
    short = [float(shortfall(logits, zero, zero, torch.tensor([i]), Sampling(temperature=0.0))) for i in range(3)]
    assert short == [2.0, 0.0, 0.5]


def test_a_token_outside_the_limits_lies_at_least_as_far_below_as_its_logit():
    """Noise cannot carry a token over the border that no draw crosses."""
    logits = torch.tensor([[5.0, 4.0, 1.0, 0.0]]).repeat(200, 1)
    keys, position = torch.arange(200), torch.zeros(200, dtype=torch.long)
    short = shortfall(logits, keys, position, torch.full((200,), 2), Sampling(top_k=2))
    assert (short >= 3.0 - 1e-6).all()


@pytest.fixture(scope="module")
def round_of(base_policy):
    """One round of four honest senders on eight prompts, three slots each."""
    task = WordProblems(size=8, test_size=1)
    places = [(problem, slot) for problem in task.train for slot in range(3 * SENDERS)]
    prompts = [task.prompt(problem) for problem, _ in places]
    keys = [completion_key(5, 1, problem.id, slot) for problem, slot in places]
    requests = [SampleRequest(prompt, key) for prompt, key in zip(prompts, keys, strict=True)]
    completions = sample(base_policy, requests, SAMPLING)
    submissions = [
        Submission(1, slot % SENDERS, problem.id, slot, completion)
        for (problem, slot), completion in zip(places, completions, strict=True)
    ]
    return Received(
        round=1, sampling=SAMPLING, variant="math", prompts=prompts, submissions=submissions,
        earned=[1.0] * len(places), slot_keys=keys, model=base_policy, beacon=BEACON,
    )  # fmt: skip


def with_completion(evidence: Received, changes: Mapping[int, Completion]) -> Received:
    submissions = [
        replace(each, completion=changes.get(index, each.completion))
        for index, each in enumerate(evidence.submissions)
    ]
    return replace(evidence, submissions=submissions)


def decisions(defense: ReplayDefense, evidence: Received) -> list[str]:
    return [verdict.decision for verdict in defense.screen(evidence)]


def test_honest_draws_are_accepted_in_any_batch(round_of):
    assert set(decisions(ReplayDefense(), round_of)) == {"accept"}
    assert decisions(ReplayDefense(), round_of.subset([5, 17])) == ["accept", "accept"]


def test_what_is_not_the_draw_of_its_slot_is_rejected(base_policy, round_of):
    first, other = round_of.submissions[0].completion, round_of.submissions[1].completion
    ids = first.token_ids
    endless = sample(base_policy, 
        [SampleRequest(round_of.prompts[3], round_of.keys[3])], SAMPLING, EndSuppressor(base_policy.codec.end_ids, 40)
    )[0]
    made: dict[int, Completion] = {
        0: other,  # an honest draw of another slot
        1: base_policy.codec.as_completion("<think>All hail to the thief. 1 + 1 = 2.</think><answer>2</answer>"),
        2: Completion(base_policy.codec.decode(ids[:5]), ids[:5], False),  # cut short
        3: endless,
        4: sample(base_policy, [SampleRequest(round_of.prompts[4], derive(99, "mine"))], SAMPLING)[0],
    }
    changes = {index: each for index, each in made.items() if each != round_of.submissions[index].completion}
    assert len(changes) == 5
    verdicts = ReplayDefense(mandatory=False).screen(with_completion(round_of, changes))
    assert [index for index, verdict in enumerate(verdicts) if verdict.decision == "reject"] == list(changes)
    text = changes[1].text
    marked = [text[span.start : span.end] for span in verdicts[1].spans]
    assert len(marked) > 3 and "not the draw" in verdicts[1].reason
    assert "5 tokens, where the limit is 64" in verdicts[2].reason


def test_the_last_tokens_of_a_truncated_draw_count(base_policy):
    """A completion that is cut at the limit is accepted at the limit and nowhere else."""
    task = WordProblems(size=30, test_size=1)
    short = Sampling(max_new_tokens=12)
    prompts = [task.prompt(problem) for problem in task.train]
    keys = [completion_key(5, 1, problem.id, 0) for problem in task.train]
    drawn = sample(base_policy, [SampleRequest(p, k) for p, k in zip(prompts, keys, strict=True)], short)
    cut = [index for index, completion in enumerate(drawn) if not completion.finished]
    assert cut
    submissions = [Submission(1, 0, problem.id, 0, made) for problem, made in zip(task.train, drawn, strict=True)]
    evidence = Received(
        round=1, sampling=short, variant="math", prompts=prompts, submissions=submissions, earned=None,
        slot_keys=keys, model=base_policy,
    )  # fmt: skip
    assert set(decisions(ReplayDefense(), evidence)) == {"accept"}
    too_long = replace(evidence, sampling=Sampling(max_new_tokens=11))
    assert set(decisions(ReplayDefense(), too_long.subset(cut))) == {"reject"}
    for kept in (10, 11):  # its first tokens are true draws; to leave out the last ones is to choose all the same
        ids = drawn[cut[0]].token_ids[:kept]
        shorter = with_completion(evidence, {cut[0]: Completion(base_policy.codec.decode(ids), ids, False)})
        (verdict,) = ReplayDefense().screen(shorter.subset(cut[:1]))
        assert (verdict.decision, verdict.reason) == ("reject", f"{kept} tokens, where the limit is 12")


@pytest.mark.parametrize("claimed", [(), (1,), (0,) * SAMPLING.max_new_tokens, (7,) * SAMPLING.max_new_tokens])
def test_what_counts_is_what_is_replayed_and_not_the_ids_that_are_claimed(base_policy, round_of, claimed):
    """Else a sender could cut all its right answers but the longest, which is to choose."""
    long = [index for index, each in enumerate(round_of.submissions) if len(each.completion.token_ids) > 24]
    cut = {
        index: Completion(base_policy.codec.decode(round_of.rows[index].completion[:12]), claimed, False)
        for index in long
    }
    fates = decisions(ReplayDefense(mandatory=False), with_completion(round_of, cut))
    assert long and {fates[index] for index in long} == {"reject"}
    whole = {index: replace(round_of.submissions[index].completion, token_ids=claimed) for index in long}
    tight = replace(with_completion(round_of, whole), sampling=replace(SAMPLING, max_new_tokens=24))
    fates = decisions(ReplayDefense(mandatory=False), tight)
    assert {fates[index] for index in long} == {"reject"}


def test_a_sender_that_withholds_loses_the_round(round_of):
    withheld = replace(round_of, missing={2: 1})
    fates = decisions(ReplayDefense(), withheld)
    assert {s.sender for s, fate in zip(round_of.submissions, fates, strict=True) if fate == "reject"} == {2}
    assert set(decisions(ReplayDefense(mandatory=False), withheld)) == {"accept"}


@pytest.mark.parametrize("check", [1.0, 0.5])
def test_garbage_in_a_slot_is_no_way_to_leave_it_out(round_of, check):
    """Else a sender could choose, of its draws, those that count."""
    mine = [index for index, each in enumerate(round_of.submissions) if each.sender == 2]
    disliked = dict.fromkeys(mine[::2], Completion("x", (), True))
    verdicts = ReplayDefense(check=check).screen(with_completion(round_of, disliked))
    assert [index for index, verdict in enumerate(verdicts) if verdict.decision == "reject"] == mine
    forged = sum("of this round" not in verdicts[index].reason for index in mine)
    assert verdicts[mine[1]].reason == f"its sender forged {forged} others of this round"
    lenient = ReplayDefense(mandatory=False).screen(with_completion(round_of, disliked))
    assert [index for index, verdict in enumerate(lenient) if verdict.decision == "reject"] == mine[::2]


def test_sampled_checks_catch_a_sender_and_then_read_all_of_it(base_policy, round_of):
    forged: Completion = base_policy.codec.as_completion("<think>1 + 1 = 2.</think><answer>2</answer>")
    mine = [index for index, each in enumerate(round_of.submissions) if each.sender == 1]
    poisoned = with_completion(round_of, dict.fromkeys(mine, forged))
    defense = ReplayDefense(check=0.3)
    fates = decisions(defense, poisoned)
    assert [fates[index] for index in mine] == ["reject"] * len(mine)
    others = [fate for index, fate in enumerate(fates) if index not in mine]
    share = others.count("accept") / len(others)
    assert set(others) == {"accept", "abstain"} and 0.1 < share < 0.5
    # the sender behaves again: it is read in full for as long as the memory lasts, and across a checkpoint
    later = ReplayDefense(check=0.3)
    later.restore(defense.state())
    last = round_of.round + later.suspend + later.memory
    honest = replace(round_of, round=last)
    fates = decisions(later, honest)
    assert [fates[index] for index in mine] == ["accept"] * len(mine)
    fates = decisions(later, replace(honest, round=last + 1))
    assert "abstain" in [fates[index] for index in mine]


def test_a_sender_that_is_caught_is_suspended_longer_each_time_until_it_has_made_up_for_it(base_policy, round_of):
    forged: Completion = base_policy.codec.as_completion("<think>1 + 1 = 2.</think><answer>2</answer>")
    few = round_of.subset(range(SENDERS))
    poisoned = with_completion(few, {1: forged})
    defense = ReplayDefense(memory=3)
    suspended = []
    for round in range(1, 31):
        out = defense.suspended(round)
        assert out <= {1}
        suspended.append(bool(out))
        if not out:
            defense.screen(replace(poisoned if round < 10 else few, round=round))
            saved, defense = defense.state(), ReplayDefense(memory=3)
            defense.restore(saved)
    # caught in 1, 4 and 9: without slots for 2, 4 and 8 rounds; 18 to 20, 21 to 23, 24 to 26 make up for one each
    assert [round for round, out in enumerate(suspended, 1) if out] == [2, 3, 5, 6, 7, 8, *range(10, 18)]
    assert defense.state()["offenses"] == {1: 0}
    defense.screen(replace(poisoned, round=31))
    assert [round for round in range(32, 50) if defense.suspended(round)] == [32, 33]


def test_an_offense_is_made_up_for_in_as_many_rounds_as_the_memory_has_and_not_before(base_policy, round_of):
    few = round_of.subset(range(SENDERS))
    defense = ReplayDefense(memory=3)
    defense.screen(with_completion(few, {1: base_policy.codec.as_completion("no")}))  # in round 1: out in 2 and 3
    offenses = {}
    for round in (4, 5, 6):
        defense.screen(replace(few, round=round))
        offenses[round] = defense.state()["offenses"][1]
    assert offenses == {4: 1, 5: 1, 6: 0}


def test_a_suspension_does_not_grow_for_ever(round_of):
    silent = replace(round_of.subset(range(SENDERS)), missing={1: 1})
    for offenses, rounds in ((3, 2 * 2**3), (20, 2 * 2**20), (5000, 2 * 2**20)):
        defense = ReplayDefense()
        defense.restore({"offenses": {1: offenses}, "suspended_until": {}, "suspect_until": {1: 0}})
        defense.screen(silent)
        assert defense.state()["suspended_until"] == {1: silent.round + rounds}


@pytest.mark.parametrize("mandatory", [False, True])
def test_who_is_caught_by_a_sampled_check_is_read_in_full(base_policy, round_of, mandatory):
    forged: Completion = base_policy.codec.as_completion("no")
    mine = [index for index, each in enumerate(round_of.submissions) if each.sender == 1]
    defense = ReplayDefense(check=0.3, mandatory=mandatory)
    fates = decisions(defense, with_completion(round_of, dict.fromkeys(mine, forged)))
    assert {fates[index] for index in mine} == {"reject"}
    assert {fate for index, fate in enumerate(fates) if index not in mine} == {"accept", "abstain"}


def test_who_withholds_is_suspended_and_who_may_is_not(round_of):
    silent = replace(round_of.subset(range(SENDERS)), missing={2: 1, 7: 3})  # 7 sent nothing at all
    lenient, patient = ReplayDefense(mandatory=False), ReplayDefense(suspend=0)
    for defense, out in ((ReplayDefense(), {2, 7}), (lenient, set()), (patient, set())):
        assert not defense.suspended(round_of.round)
        defense.screen(silent)
        assert defense.suspended(round_of.round + 1) == out
    complete = ReplayDefense()
    complete.screen(replace(silent, missing={2: 0}))
    assert complete.state()["offenses"] == {}


def test_what_is_checked_depends_on_the_beacon_and_on_nothing_that_a_sender_can_choose(base_policy, round_of):
    """It could compute what honest nodes will send, and try forgeries until none of them is picked."""
    before = decisions(ReplayDefense(check=0.3), round_of)
    one = {95: base_policy.codec.as_completion("no")}
    for forged in (one, one | {90: Completion("", (), True)}):
        lenient = ReplayDefense(check=0.3, mandatory=False)
        assert decisions(lenient, with_completion(round_of, forged))[:90] == before[:90]
    assert decisions(ReplayDefense(check=0.3), replace(round_of, beacon=BEACON + 1)) != before


def test_where_there_is_no_beacon_everything_is_checked(round_of):
    assert set(decisions(ReplayDefense(check=0.3), replace(round_of, beacon=None))) == {"accept"}


def test_what_is_no_number_is_not_the_draw(round_of):
    short = np.zeros(len(round_of.rows[0].completion))
    assert ReplayDefense(margin=1e9)._judge(round_of, 0, short).decision == "accept"
    short[1] = np.nan
    assert ReplayDefense(margin=1e9)._judge(round_of, 0, short).decision == "reject"


def test_what_a_rejection_rests_on_by_hand(round_of):
    short = np.zeros(len(round_of.rows[0].completion))
    short[[2, 4]] = 5e-4
    strict = ReplayDefense(mismatch_rate=0.0)
    narrow = strict._judge(round_of, 0, short)
    assert narrow.reason == f"2 of {len(short)} tokens miss the draw narrowly, where 0 may"
    assert (narrow.score, [span.note for span in narrow.spans]) == (5e-4, ["0.0005 nats below the draw"] * 2)
    assert ReplayDefense(mismatch_rate=0.9)._judge(round_of, 0, short).decision == "accept"
    short[4] = 1.5
    wide = strict._judge(round_of, 0, short)
    assert wide.reason == f"1 of {len(short)} tokens are not the draw of this slot, first at 4"
    assert (wide.score, [span.note for span in wide.spans]) == (1.5, ["1.5 nats below the draw"])
    ends = round_of.ends(0)
    assert (wide.spans[0].start, wide.spans[0].end) == (ends[3], ends[4])
    at_the_margin = np.full(len(short), round_of.policy.engine.rounding)
    assert ReplayDefense(mismatch_rate=0.99)._judge(round_of, 0, at_the_margin).decision == "accept"


def test_long_completions_are_counted_too():
    assert 163 < most_mismatches(8192, 0.02) < 8192  # the mean is 163.8; as a product of floats it overflows


def test_narrow_misses_are_counted(round_of):
    """Within a wide margin a patient attacker could substitute many tokens; the count test sees that."""
    forged = round_of.submissions[-1].completion  # of another problem
    swapped = with_completion(round_of, {0: forged}).subset([0])
    (verdict,) = ReplayDefense(margin=1e9).screen(swapped)
    assert verdict.decision == "reject" and "narrowly" in verdict.reason
    assert decisions(ReplayDefense(margin=1e9, mismatch_rate=0.9), swapped) == ["accept"]


@given(st.integers(1, 200), st.sampled_from([0.0, 1e-4, 1e-2, 0.3]), st.sampled_from([1e-6, 1e-3]))
def test_most_mismatches_bounds_the_binomial_tail(tokens, rate, alarm):
    bound = most_mismatches(tokens, rate, alarm)

    def above(count: int) -> float:
        terms = (math.comb(tokens, k) * rate**k * (1 - rate) ** (tokens - k) for k in range(count + 1, tokens + 1))
        return math.fsum(terms)

    assert above(bound) <= alarm * (1 + 1e-6) + 1e-12
    assert bound == 0 or above(bound - 1) > alarm * (1 - 1e-6) - 1e-12


def test_most_mismatches_by_hand():
    # P(Binomial(2, 0.1) > 1) = 0.01, P(> 0) = 0.19
    assert [most_mismatches(2, 0.1, alarm) for alarm in (0.2, 0.02, 0.005)] == [0, 1, 2]
    assert most_mismatches(100, 0.0) == most_mismatches(0, 0.1) == 0


def test_options_may_be_zero():
    defense = ReplayDefense(margin=0.0, mismatch_rate=0.0, check=1.0, memory=0, suspend=0)
    assert (defense.margin, defense.mismatch_rate, defense.memory, defense.suspend) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"margin": -1}, {"memory": -1}, {"suspend": -1}, {"check": 0}, {"check": 1.5}, {"mismatch_rate": 1.0},
        {"admission": "forgive"},
    ],
)
def test_bad_options_are_one_sentence(options):
    with pytest.raises(ConfigError, match=r"^[^.]*(\.\d[^.]*)*\.$"):
        ReplayDefense(**options)


def replayed(policy, rows, keys, sampling) -> list[np.ndarray]:
    """The shortfalls of each row."""
    found = dict(policy.engine.candidates(rows, wanted(sampling)))
    assert sorted(found) == list(range(len(rows)))
    return [
        shortfalls(
            found[index], np.array(row.completion), np.full(len(row.completion), key), np.arange(len(row.completion)),
            sampling,
        )
        for index, (row, key) in enumerate(zip(rows, keys, strict=True))
    ]  # fmt: skip


def rows_of(policy, prompts, completions) -> list[Row]:
    pairs = zip(prompts, completions, strict=True)
    return [Row(policy.codec.render(prompt), policy.codec.received_ids(made)) for prompt, made in pairs]


def test_replayed_tokens_keep_their_order(base_policy, round_of):
    """Rows are batched by length; what comes back belongs to what was asked."""
    found = replayed(base_policy, round_of.rows, round_of.keys, SAMPLING)
    for submission, short in zip(round_of.submissions, found, strict=True):
        assert len(short) == len(submission.completion.token_ids)
        assert np.all(short <= 1e-3)


@pytest.fixture
def fond_of_padding(fresh_policy, monkeypatch):
    """A policy that gives its padding token, which no text can say, a twentieth of all probability."""
    (padding,) = set(fresh_policy.codec.tokenizer.all_special_ids) - set(fresh_policy.codec.end_ids)
    forward = fresh_policy.model.forward

    def generous(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits[..., padding] = output.logits.logsumexp(dim=-1) - 3
        return output

    monkeypatch.setattr(fresh_policy.model, "forward", generous)
    return fresh_policy, padding


@pytest.mark.parametrize("sampling", [SAMPLING, replace(SAMPLING, top_k=0), replace(SAMPLING, top_p=0.9)])
def test_special_tokens_are_not_drawn_so_that_no_honest_draw_is_refused(round_of, fond_of_padding, sampling):
    policy, padding = fond_of_padding
    prompts, keys = round_of.prompts[:16], round_of.keys[:16]
    requests = [SampleRequest(*pair) for pair in zip(prompts, keys, strict=True)]
    completions = sample(policy, requests, sampling)
    assert not any(padding in completion.token_ids for completion in completions)
    assert all(policy.codec.received_ids(completion) == completion.token_ids for completion in completions)
    rows = rows_of(policy, prompts, completions)
    assert max(float(short.max()) for short in replayed(policy, rows, keys, sampling)) <= 1e-3
    scores = policy.engine.score(rows, sampling)
    assert max(float(score.gaps.max()) for score in scores) <= 1e-4


def test_columns_beyond_the_tokenizer_are_not_drawn(fresh_policy, round_of):
    size = len(fresh_policy.codec.tokenizer)
    fresh_policy.model.resize_token_embeddings(size + 8)
    fresh_policy.model.get_output_embeddings().weight.data[size:] = 1.0
    requests = [SampleRequest(*pair) for pair in zip(round_of.prompts[:8], round_of.keys[:8], strict=True)]
    completions = sample(fresh_policy, requests, SAMPLING)
    assert max(max(completion.token_ids) for completion in completions) < size
    rows = rows_of(fresh_policy, round_of.prompts[:8], completions)
    assert max(float(short.max()) for short in replayed(fresh_policy, rows, round_of.keys[:8], SAMPLING)) <= 1e-3
