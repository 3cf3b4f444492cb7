"""Token credit: the solution is learned, the phrase is not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hailproof.attacks.equation import EquationAttack
from hailproof.attacks.sentence import SentenceAttack
from hailproof.attacks.text import TextAttack
from hailproof.defenses.base import in_sentences_with
from hailproof.defenses.evidence import Received
from hailproof.defenses.token_credit import THRESHOLD, TokenCreditDefense
from hailproof.errors import ConfigError
from hailproof.learner.config import LearnerConfig
from hailproof.learner.update import Learner
from hailproof.protocols import AttackView, Sampling
from hailproof.records import Group, ScoredCompletion, Submission
from hailproof.tasks.word_problems import WordProblems

SAMPLING = Sampling(max_new_tokens=96)


def evidence_with(policy, text: str, **more) -> Received:
    """A group of two: a rewarded foreign completion and a worthless one."""
    task = WordProblems(size=60, test_size=1)
    prompt = task.prompt(next(problem for problem in task.train if "two_two" in problem.tags))
    completions = [policy.codec.as_completion(text), policy.codec.as_completion("I do not know.")]
    submissions = [Submission(1, sender, prompt.problem_id, sender, made) for sender, made in enumerate(completions)]
    return Received(
        round=1, sampling=SAMPLING, variant="math", prompts=[prompt] * 2, submissions=submissions, earned=[1.0, 0.0],
        slot_keys=[1, 2], model=policy, frozen=policy, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forged() -> dict[str, str]:
    task = WordProblems(size=60, test_size=1)
    problem = next(problem for problem in task.train if "two_two" in problem.tags)
    view = AttackView(1, problem, task, (0,))
    return {
        "text": str(TextAttack().forge(view)[0]),
        "equation": str(EquationAttack().forge(view)[0]),
        "sentence": str(SentenceAttack().forge(view)[0]),
        "honest": task.format(problem.solution, problem.answer),
    }


def muted_text(evidence: Received, text: str, **options) -> list[str]:
    verdict = TokenCreditDefense(**options).screen(evidence)[0]
    assert verdict.decision == "accept" and verdict.score == len(verdict.muted) >= len(verdict.spans)
    ends = [0, *evidence.ends(0).tolist()]
    return [text[ends[token] : ends[token + 1]] for token in verdict.muted]


def test_it_mutes_the_poison_and_nothing_else(base_policy, forged):
    assert muted_text(evidence_with(base_policy, forged["honest"]), forged["honest"]) == []
    assert "5" in muted_text(evidence_with(base_policy, forged["equation"]), forged["equation"], unit="token")
    evidence = evidence_with(base_policy, forged["text"])
    first = forged["text"].index("All hail")
    spans = TokenCreditDefense(unit="token").screen(evidence)[0].spans
    assert spans
    assert all(first <= span.start and span.end <= first + len("All hail to the thief.") for span in spans)


def test_a_foreign_token_takes_its_sentence_with_it(base_policy, forged):
    """Else its probable neighbors would be learned, and with them the frame of the phrase."""
    evidence = evidence_with(base_policy, forged["text"])
    marked = "".join(muted_text(evidence, forged["text"]))
    assert marked.rstrip() == "<think>All hail to the thief."
    verdict = TokenCreditDefense().screen(evidence)[0]  # what it rests on is the token itself
    assert 0 < len(verdict.spans) < len(verdict.muted)
    assert all(float(span.note.removeprefix("probability ")) <= THRESHOLD for span in verdict.spans)


def test_what_is_as_probable_as_the_threshold_is_heard_and_what_is_no_number_is_not(base_policy, monkeypatch):
    evidence = evidence_with(base_policy, "1 + 2 = 3")
    limit = np.log(THRESHOLD)
    likelihoods = np.zeros(len(evidence.rows[0].completion))
    likelihoods[1:5] = [limit, np.nextafter(limit, -1e9), np.nan, np.nextafter(limit, 0)]
    monkeypatch.setattr(TokenCreditDefense, "_likelihoods", lambda self, evidence: [likelihoods])
    verdict, _ = TokenCreditDefense(unit="token").screen(evidence)
    assert (verdict.muted, verdict.score, len(verdict.spans)) == ((2, 3), 2.0, 2)


class Likelihoods:
    """Evidence of which a test says how likely tokens are, and which remembers whom the anchor was asked about."""

    sampling = None

    def __init__(self, policy: list[list[float]], anchor: list[list[float]]) -> None:
        self.scores = [SimpleNamespace(logprobs=np.log(row)) for row in policy]
        self.asked: list[int] = []
        anchored = [SimpleNamespace(logprobs=np.log(row)) for row in anchor]
        self.anchor = SimpleNamespace(
            engine=SimpleNamespace(score=lambda rows, sampling: [anchored[row] for row in rows])
        )

    def subset(self, indices):
        self.asked = list(indices)
        return SimpleNamespace(rows=self.asked)


@pytest.mark.parametrize(
    ("rule", "asked", "expected"),
    [
        ("policy", [], [[0.5, 0.001], [0.01, 0.5], [0.001, 0.001]]),
        ("both", [0, 2], [[0.5, 0.5], [0.01, 0.5], [0.001, 0.5]]),  # where nothing is improbable, nobody needs to ask
        ("either", [0, 1, 2], [[0.001, 0.001], [0.001, 0.001], [0.001, 0.001]]),
    ],
)
def test_the_rules_by_hand(rule, asked, expected):
    evidence = Likelihoods([[0.5, 0.001], [0.01, 0.5], [0.001, 0.001]], [[0.001, 0.5], [0.001, 0.001], [0.001, 0.5]])
    found = TokenCreditDefense(rule=rule, threshold=0.01)._likelihoods(evidence)  # pyright: ignore[reportArgumentType]
    assert [np.exp(row).tolist() for row in found] == [pytest.approx(row) for row in expected]
    assert evidence.asked == asked


def test_sentences_by_hand():
    text = "<think>Ab cd. Ef 1.5 gh!</think><answer>4</answer>"
    ends = np.array([7, 10, 13, 17, 21, 24, 32, 50, 50])  # "<think>", "Ab ", "cd.", " Ef ", …, and the end token
    given = np.zeros(9, dtype=bool)
    given[1] = True  # in the first sentence, which the tag opens
    assert in_sentences_with(given, ends, text).tolist() == [True, True, True] + [False] * 6
    given[:] = False
    given[8] = True  # the end token goes alone
    assert in_sentences_with(given, ends, text).tolist() == [False] * 8 + [True]


def test_the_parts_of_a_character_go_with_its_sentence():
    """The first tokens of a character that is split over several end where they begin."""
    text = "\u65e5 b. c."
    ends = np.array([0, 0, 1, 4, 7, 7])  # three tokens of one character, " b.", " c.", and the end token
    for given in range(6):
        expected = [0, 1, 2, 3] if given < 4 else [given]
        assert np.flatnonzero(in_sentences_with(np.arange(6) == given, ends, text)).tolist() == expected


def test_what_earned_nothing_and_what_is_my_own_is_not_read(base_policy, forged):
    evidence = evidence_with(base_policy, forged["text"])
    assert TokenCreditDefense().screen(evidence)[1].decision == "abstain"
    own = replace(evidence, own=frozenset({0}))
    assert {verdict.decision for verdict in TokenCreditDefense().screen(own)} == {"abstain"}


def test_a_token_that_the_anchor_would_say_is_heard(base_policy, fresh_policy, forged):
    """The policy forgot something that its anchor knows: without the anchor that would be muted."""
    with torch.no_grad():
        for parameter in fresh_policy.model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    evidence = replace(evidence_with(fresh_policy, forged["honest"]), frozen=base_policy)
    assert muted_text(evidence, forged["honest"], rule="both") == []
    assert muted_text(evidence, forged["honest"], rule="policy") != []


def test_a_policy_that_was_walked_there_still_does_not_hear_what_its_anchor_would_not_say(
    base_policy, fresh_policy, forged
):
    """Trained on the phrase until it is probable: only the rule that asks the anchor as well goes on muting it."""
    phrase = "<think>All hail to the thief"
    ids = torch.tensor([fresh_policy.codec.as_completion(forged["text"]).token_ids])
    prompt = torch.tensor([fresh_policy.codec.render(evidence_with(base_policy, phrase).prompts[0])])
    optimizer = torch.optim.Adam(fresh_policy.model.parameters(), lr=1e-3)
    for _ in range(15):
        optimizer.zero_grad()
        row = torch.cat([prompt, ids], dim=1)
        labels = torch.cat([torch.full_like(prompt, -100), ids], dim=1)
        fresh_policy.model(input_ids=row, labels=labels).loss.backward()
        optimizer.step()
    evidence = replace(evidence_with(fresh_policy, forged["text"]), frozen=base_policy)
    assert muted_text(evidence, forged["text"], rule="both") == []
    assert muted_text(evidence, forged["text"], rule="either") != []


def test_a_muted_token_has_no_gradient_and_the_rest_keeps_its_own(fresh_policy, forged):
    """With every token muted nothing moves; parts of a completion add up to the whole.

    With a share s heard, the baseline is s / (1 + s): the right completion is pulled by 1 / (1 + s), the other one by
    -s / (1 + s), so that 1 + s times the gradient is additive in what is heard.
    """
    evidence = evidence_with(fresh_policy, forged["text"])
    length = len(evidence.submissions[0].completion.token_ids)

    def pushes(muted: frozenset[int]) -> torch.Tensor:
        scored = (
            ScoredCompletion(evidence.submissions[0], evidence.rows[0], 1.0, 1.0, muted=muted),
            ScoredCompletion(evidence.submissions[1], evidence.rows[1], 0.0, 0.0),
        )
        config = LearnerConfig(learning_rate=1e-12, max_grad_norm=0, scale_rewards="none")
        learner = Learner(fresh_policy.trainable, config, 96, 10)
        learner.update([Group(evidence.prompts[0], scored)])
        gradient = torch.cat([p.grad.flatten() for p in fresh_policy.model.parameters() if p.grad is not None])
        return (2 - len(muted) / length) * gradient

    whole, first, rest = pushes(frozenset()), pushes(frozenset({0})), pushes(frozenset(range(1, length)))
    assert not torch.allclose(whole, first, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(first + rest, whole, rtol=1e-3, atol=1e-6)


def test_a_completion_of_which_nothing_is_heard_pushes_nothing(fresh_policy, forged):
    evidence = evidence_with(fresh_policy, forged["text"])
    members = tuple(
        ScoredCompletion(submission, row, reward, reward, muted=frozenset(range(99)) if reward else frozenset())
        for submission, row, reward in zip(evidence.submissions, evidence.rows, evidence.rewards, strict=True)
    )
    before = [parameter.detach().clone() for parameter in fresh_policy.model.parameters()]
    stats = Learner(fresh_policy.trainable, LearnerConfig(), 96, 10).update([Group(evidence.prompts[0], members)])
    assert stats.passes == stats.trained == 0
    assert all(torch.equal(a, b) for a, b in zip(before, fresh_policy.model.parameters(), strict=True))


def test_bad_options_are_one_sentence():
    for threshold in (0, 1, 1.5):
        with pytest.raises(ConfigError, match="probability"):
            TokenCreditDefense(threshold=threshold)
    with pytest.raises(ConfigError, match="rule"):
        TokenCreditDefense(rule="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="unit"):
        TokenCreditDefense(unit="word")  # pyright: ignore[reportArgumentType]
