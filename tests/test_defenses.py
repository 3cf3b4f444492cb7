"""The chain fails closed, and logit tells sampled completions from forged ones."""

from dataclasses import replace
from typing import Any

import pytest

from hailproof.consequences import consequence
from hailproof.defenses.base import BaseDefense
from hailproof.defenses.chain import Chain
from hailproof.defenses.evidence import Received
from hailproof.defenses.logit import LogitDefense
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, SampleRequest, Sampling
from hailproof.records import Completion, Prompt, Submission, Verdict
from hailproof.rollouts import sample
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems

SAMPLING = Sampling(max_new_tokens=64)


class Says(BaseDefense):
    """A defense that rejects the given texts and remembers what it was shown."""

    def __init__(self, name, rejects=(), admission: Admission = "drop"):
        super().__init__(admission)
        self.name, self.rejects, self.shown = name, rejects, []

    def screen(self, evidence):
        texts = [submission.completion.text for submission in evidence.submissions]
        self.shown.append(texts)
        return [Verdict(self.name, "reject" if text in self.rejects else "accept", "because") for text in texts]


class Breaks(Says):
    def screen(self, evidence):
        raise ValueError("I cannot parse this")


class Miscounts(Says):
    def screen(self, evidence):
        return super().screen(evidence)[1:]


def evidence_of(prompts, submissions, policy, **more) -> Received:
    rewards = more.pop("rewards", [1.0] * len(submissions))
    keys = more.pop("keys", [derive(3, "slot", each.slot) for each in submissions])
    return Received(
        round=1, sampling=SAMPLING, variant=more.pop("variant", "math"), prompts=prompts, submissions=submissions,
        earned=rewards, slot_keys=keys, model=policy, **more,
    )  # fmt: skip


def received(policy, texts) -> Received:
    submissions = [Submission(1, 0, "p", slot, Completion(text, (), True)) for slot, text in enumerate(texts)]
    return evidence_of([Prompt("p", "", "?")] * len(texts), submissions, policy)


def test_what_one_defense_rejects_the_next_does_not_see():
    first, second, third = Says("first", {"b"}), Says("second", {"c"}, "zero_reward"), Says("third")
    chain = Chain([first, second, third])
    verdicts = chain.screen(received(None, ["a", "b", "c"])).verdicts
    assert (first.shown, second.shown, third.shown) == ([["a", "b", "c"]], [["a", "c"]], [["a"]])
    assert [[v.decision for v in spoken] for spoken in verdicts] == [["accept"] * 3, ["reject"], ["accept", "reject"]]
    assert [consequence(1.0, spoken, chain.admissions).reward for spoken in verdicts] == [1.0, None, 0.0]
    assert not chain.only_drops and Chain([first]).only_drops


class Early(Says):
    """A defense that is asked before rewards are computed."""

    before_rewards = True


class Compares(Says):
    """A defense that is shown what the receiver wrote itself."""

    needs = frozenset({"own"})


def test_a_chain_names_each_defense_once():
    with pytest.raises(ConfigError, match="Defense second stands in the chain twice"):
        Chain([Says("first"), Says("second"), Says("third"), Says("second")])


def test_defenses_are_asked_at_their_stage():
    early, late = Early("early", {"a"}), Says("late", {"b"})
    chain = Chain([late, early])
    assert chain.before_rewards is True and Chain([late]).before_rewards is False is Chain([]).before_rewards
    evidence = received(None, ["a", "b"])
    before, after = chain.screen(evidence, "before_rewards"), chain.screen(evidence, "after_rewards")
    assert [[v.defense for v in spoken] for spoken in before.verdicts] == [["early"], ["early"]]
    assert [[v.defense for v in spoken] for spoken in after.verdicts] == [["late"], ["late"]]
    assert list(before.seconds) == ["early"] and list(after.seconds) == ["late"]
    assert 0 <= before.seconds["early"] < 60
    assert Chain([late, Compares("compares"), LogitDefense()]).needs == {"own", "model", "tokens"}
    assert [len(spoken) for spoken in chain.screen(evidence).verdicts] == [2, 1]


def test_own_completions_get_no_verdict_and_are_shown_only_to_who_compares_with_them():
    texts = ["a", "mine", "b", "mine too"]
    others, compares = Says("others", {"a", "mine"}), Compares("compares", {"mine too"})
    evidence = received(None, texts)
    submissions = [replace(each, sender=place % 2) for place, each in enumerate(evidence.submissions)]
    evidence = replace(evidence, submissions=submissions, own=frozenset({1}))
    verdicts = Chain([others, compares]).screen(evidence).verdicts
    assert others.shown == [["a", "b"]] and compares.shown == [["mine", "b", "mine too"]]  # a was rejected before
    assert [[v.decision for v in spoken] for spoken in verdicts] == [["reject"], [], ["accept", "accept"], []]
    alone = Compares("compares")
    Chain([alone]).screen(replace(evidence, own=frozenset({0, 1})))
    assert alone.shown == [texts]


class Answers(Says):
    """Gives one thing, whatever it is asked."""

    def __init__(self, answer):
        super().__init__("broken")
        self.answer = answer

    def screen(self, evidence) -> list[Verdict]:
        return [self.answer] * len(evidence.submissions)


@pytest.mark.parametrize(
    "broken",
    [
        Breaks("broken"),
        Miscounts("broken"),
        Answers(None),
        Answers(Verdict("another", "reject", "")),
        Answers(Verdict("broken", "Reject", "")),  # pyright: ignore[reportArgumentType]
        Answers(Verdict("broken", "accept", "", weight=2.0)),
        Answers(Verdict("broken", "accept", "", weight=float("nan"))),
    ],
)
def test_a_broken_defense_rejects_everything_and_says_so(broken):
    after = Says("after")
    verdicts = Chain([broken, after]).screen(received(None, ["a", "b"])).verdicts
    assert all(len(spoken) == 1 and spoken[0].decision == "reject" and spoken[0].error for spoken in verdicts)
    assert after.shown == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Breaks("broken"), "the defense failed: ValueError: I cannot parse this"),
        (Miscounts("broken"), "the defense failed: 1 verdicts for 2 completions"),
        (Answers(None), "the defense failed: None is no verdict of it"),
    ],
)
def test_what_broke_a_defense_is_said(broken, reason):
    verdicts = Chain([broken]).screen(received(None, ["a", "b"])).verdicts
    assert {verdict.reason for spoken in verdicts for verdict in spoken} == {reason}


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_weight_is_a_share(weight):
    (spoken,) = Chain([Answers(Verdict("broken", "accept", "", weight=weight))]).screen(received(None, ["a"])).verdicts
    assert [(verdict.decision, verdict.weight, verdict.error) for verdict in spoken] == [("accept", weight, False)]


class Remembers(Says):
    """A defense with a memory."""

    memory = 0

    def state(self):
        return {"memory": self.memory}

    def restore(self, state):
        self.memory = state["memory"]


def test_a_chain_keeps_what_each_of_its_defenses_remembers():
    one, other = Remembers("one"), Remembers("other")
    one.memory, other.memory = 3, 4
    saved = Chain([one, Says("without"), other]).state()
    assert saved == {"one": {"memory": 3}, "without": {}, "other": {"memory": 4}}
    again, last = Remembers("one"), Remembers("other")
    Chain([last, Says("without"), again]).restore(saved)
    assert (again.memory, last.memory) == (3, 4)


def test_scores_are_computed_once_and_shared(base_policy, monkeypatch):
    calls = []
    def score(self, rows, *rest):
        calls.append(1)
        return ["s"] * len(rows)

    monkeypatch.setattr(type(base_policy.engine), "score", score)
    evidence = received(base_policy, ["a", "b", "c"])
    assert evidence.scores == ["s"] * 3 and evidence.subset([0, 2]).scores == ["s"] * 2
    assert calls == [1]


@pytest.fixture(scope="module")
def honest(base_policy):
    task = WordProblems(size=8, test_size=1)
    prompts = [task.prompt(problem) for problem in task.train for _ in range(4)]
    requests = [SampleRequest(prompt, derive(3, "slot", slot)) for slot, prompt in enumerate(prompts)]
    completions = sample(base_policy, requests, SAMPLING)
    submissions = [Submission(1, 0, "p", slot, completion) for slot, completion in enumerate(completions)]
    return prompts, submissions


def judge(policy, prompts, submissions, **options):
    return LogitDefense(**options).screen(evidence_of(prompts, submissions, policy))


def test_logit_accepts_what_the_policy_drew(base_policy, honest):
    assert {verdict.decision for verdict in judge(base_policy, *honest)} == {"accept"}


def test_logit_rejects_what_it_could_not_have_drawn_and_marks_it(base_policy, honest):
    prompts, submissions = honest
    forged = base_policy.codec.as_completion("<think>All hail to the thief. 1 + 1 = 2.</think><answer>2</answer>")
    (verdict,) = judge(base_policy, prompts[:1], [replace(submissions[0], completion=forged)])
    assert verdict.decision == "reject"
    assert verdict.score is not None and verdict.score > 1e-3
    marked = "".join(forged.text[span.start : span.end] for span in verdict.spans)
    assert set(marked.split()) & {"All", "hail", "thief", "thief."} or "th" in marked
    # told to overlook as many tokens as lie outside, it accepts
    (lenient,) = judge(
        base_policy, prompts[:1], [replace(submissions[0], completion=forged)], max_outside=len(verdict.spans)
    )
    assert lenient.decision == "accept"
    (tolerant,) = judge(base_policy, prompts[:1], [replace(submissions[0], completion=forged)], tolerance=100.0)
    assert tolerant.decision == "accept"


def test_logit_rejects_a_completion_that_was_cut_short(base_policy, honest):
    prompts, submissions = honest
    index, whole = next((i, s) for i, s in enumerate(submissions) if s.completion.finished)
    ids = whole.completion.token_ids[:5]
    cut = replace(whole, completion=Completion(base_policy.codec.decode(ids), ids, False))
    (verdict,) = judge(base_policy, [prompts[index]], [cut])
    assert verdict.decision == "reject" and "5 tokens, where the limit is 64" in verdict.reason


def test_logit_rejects_a_completion_that_is_longer_than_anybody_may_draw(base_policy, honest):
    prompts, submissions = honest
    evidence = replace(evidence_of(prompts, submissions, base_policy), sampling=replace(SAMPLING, max_new_tokens=24))
    for submission, verdict in zip(submissions, LogitDefense().screen(evidence), strict=True):
        fits = len(submission.completion.token_ids) <= 24
        assert verdict.decision == ("accept" if fits else "reject")


def test_logit_sees_the_end_token(base_policy):
    """An end where the policy would not end is a token outside the limits like any other."""
    task = WordProblems(size=30, test_size=1)
    prompts = [task.prompt(problem) for problem in task.train]
    submissions = [
        Submission(1, 0, "p", slot, base_policy.codec.as_completion(f"<think>{problem.solution.split()[0]}"))
        for slot, problem in enumerate(task.train)
    ]
    verdicts = judge(base_policy, prompts, submissions)
    assert {verdict.decision for verdict in verdicts} == {"reject"}
    for verdict, submission in zip(verdicts, submissions, strict=True):
        assert verdict.spans[-1].start >= len(submission.completion.text) - 1


def test_bad_options_are_one_sentence():
    options: list[dict[str, Any]] = [{"tolerance": -1.0}, {"max_outside": -1}, {"admission": "forgive"}]
    for option in options:
        with pytest.raises(ConfigError, match=r"\.$"):
            LogitDefense(**option)
