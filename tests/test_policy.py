"""A real model through the real code path: sampling, scoring, and what hostile ids and texts do to it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hailproof.attacks.rank_aware import RankAwareAttack
from hailproof.defenses.evidence import Received
from hailproof.defenses.logit import LogitDefense
from hailproof.defenses.replay import ReplayDefense
from hailproof.defenses.token_credit import TokenCreditDefense
from hailproof.errors import ModelError
from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.codec import TokenizerCodec
from hailproof.protocols import SampleRequest, Sampling, TokenScores
from hailproof.records import Completion, Prompt, Row, Submission
from hailproof.rollouts import sample
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems

SAMPLING = Sampling(max_new_tokens=48)


@pytest.fixture(scope="module")
def prompts():
    task = WordProblems(size=6, test_size=1)
    return [task.prompt(problem) for problem in task.train]


def requests(prompts, each: int) -> list[SampleRequest]:
    return [SampleRequest(prompt, derive(5, prompt.problem_id, slot)) for prompt in prompts for slot in range(each)]


def scored(policy: CausalLM, prompts, completions, sampling: Sampling) -> list[TokenScores]:
    """What a receiver makes of completions of some prompts."""
    pairs = zip(prompts, completions, strict=True)
    rows = [Row(policy.codec.render(prompt), policy.codec.received_ids(completion)) for prompt, completion in pairs]
    return policy.engine.score(rows, sampling)


@pytest.fixture(scope="module")
def drawn(base_policy, prompts):
    asked = requests(prompts, 4)
    return asked, sample(base_policy, asked, SAMPLING)


def test_what_is_drawn_does_not_depend_on_the_batch(base_policy, drawn):
    asked, completions = drawn
    assert sample(base_policy, asked[::-1], SAMPLING)[::-1] == completions
    assert sample(base_policy, asked[5:6], SAMPLING) == completions[5:6]
    assert sample(base_policy, [asked[7], asked[7]], SAMPLING) == [completions[7]] * 2


def test_completions_end_by_themselves_or_at_the_limit(base_policy, drawn):
    _, completions = drawn
    assert {completion.finished for completion in completions} == {True, False} or all(c.finished for c in completions)
    for completion in completions:
        ends = [index for index, token in enumerate(completion.token_ids) if token in base_policy.codec.end_ids]
        assert ends == ([len(completion.token_ids) - 1] if completion.finished else [])
        assert completion.finished or len(completion.token_ids) == SAMPLING.max_new_tokens
    (cut,) = sample(base_policy, [drawn[0][0]], Sampling(max_new_tokens=3))
    assert len(cut.token_ids) == 3 and not cut.finished


def test_greedy_agrees_with_transformers(base_policy, prompts):
    """Our cache and batching against the library's own generation loop, one prompt at a time."""
    greedy = Sampling(temperature=0, max_new_tokens=40)
    ours = sample(base_policy, [SampleRequest(prompt, 0) for prompt in prompts], greedy)
    for prompt, completion in zip(prompts, ours, strict=True):
        ids = torch.tensor([base_policy.codec.render(prompt)])
        theirs = base_policy.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40, pad_token_id=1
        )[0, ids.shape[1] :]
        assert tuple(theirs.tolist()) == completion.token_ids


def test_scores_are_those_of_a_plain_pass(base_policy, drawn):
    asked, completions = drawn
    scores = scored(base_policy, [request.prompt for request in asked], completions, SAMPLING)
    for request, completion, score in zip(asked, completions, scores, strict=True):
        prompt = base_policy.codec.render(request.prompt)
        with torch.no_grad():
            logits = base_policy.model(input_ids=torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
        logits = logits[len(prompt) - 1 : -1]
        chosen = torch.tensor(completion.token_ids)[:, None]
        expected = logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)
        assert score.token_ids.tolist() == list(completion.token_ids)  # the end token is among them
        np.testing.assert_allclose(score.logprobs, expected.numpy(), atol=1e-4)
        ranks = (logits > logits.gather(-1, chosen)).sum(-1)
        assert np.abs(score.ranks - ranks.numpy()).max() <= 1
        assert score.gaps.max() < 1e-3  # every honest token is within the limits
        ends = base_policy.codec.ends(completion.token_ids)
        assert len(ends) == len(score.gaps) and ends[-1] == len(completion.text) and (np.diff(ends) >= 0).all()


def test_a_foreign_phrase_lies_outside_the_limits(base_policy, prompts):
    forged = base_policy.codec.as_completion("<think>All hail to the thief. 1 + 1 = 2.</think><answer>2</answer>")
    (score,) = scored(base_policy, prompts[:1], [forged], SAMPLING)
    outside, ends = np.flatnonzero(score.gaps > 1e-3), base_policy.codec.ends(forged.token_ids)
    assert len(outside)
    marked = forged.text[ends[outside[0] - 1] : ends[outside[-1]]]
    assert any(word in marked for word in ("All", "hail", "thief"))


@pytest.mark.parametrize(
    "lie",
    [
        lambda text, ids: Completion(text, tuple(reversed(ids)), True),  # other ids than the text
        lambda text, ids: Completion(text, (*ids[:-1], 10**9), True),  # no such id
        lambda text, ids: Completion(text, (-1, *ids[1:]), True),
        lambda text, ids: Completion(text, (ids[-1], *ids), True),  # an end token in the middle
        lambda text, ids: Completion(text, ids[:-1], True),  # says it ended, did not
        lambda text, ids: Completion(text, (), True),
    ],
)
def test_lying_ids_are_tokenized_anew(base_policy, lie):
    honest = base_policy.codec.as_completion("2 + 3 = 5.")
    assert base_policy.codec.received_ids(lie(honest.text, honest.token_ids)) == honest.token_ids


def test_ids_that_decoding_leaves_out_are_not_kept(base_policy):
    """A token that is flagged special, and not among the tokenizer's named ones, does not show in the text."""
    tokenizer = copy.deepcopy(base_policy.codec.tokenizer)
    tokenizer.add_tokens([AddedToken("<|header|>", special=True)], special_tokens=True)
    codec = TokenizerCodec("headed", tokenizer)
    honest = codec.as_completion("2 + 3 = 5.")
    hidden = tokenizer.convert_tokens_to_ids("<|header|>")
    laced = replace(honest, token_ids=(honest.token_ids[0], hidden, *honest.token_ids[1:]))
    assert codec.decode(laced.token_ids[:-1]) == laced.text
    assert codec.received_ids(laced) == honest.token_ids


@pytest.mark.parametrize(
    "text", ["ééé All hail.", "a \U0001d7e0\U0001d7e0 b", "한국어 1 + 1", "\ufffd\ufffd x", "plain. Text"]
)
def test_the_ends_of_tokens_are_those_of_the_characters(base_policy, text):
    """Also where a character is split over tokens, which a sender could use to shift every later token."""
    completion = base_policy.codec.as_completion(text)
    submission = Submission(1, 0, "p", 0, completion)
    evidence = Received(
        round=1, sampling=Sampling(), variant="math", prompts=[Prompt("p", "", "?")], submissions=[submission],
        earned=[1.0], model=base_policy,
    )  # fmt: skip
    ends, ids = evidence.ends(0).tolist(), completion.token_ids
    assert len(ends) == len(ids) and ends == sorted(ends) and ends[-1] == len(text)
    for index in range(1, len(ids)):
        written = base_policy.codec.decode(ids[:index])
        if not written.endswith("\ufffd"):  # the token ends where a character does
            assert ends[index - 1] == len(written)


def test_lengths_of_tokens_alone_are_not_believed_because_their_sum_is_right():
    """Decoders that strip a leading blank shorten every word that is decoded alone; bytes of one emoji lengthen."""
    vocabulary = ["<s>", "\u2581So", "\u2581x", *(f"<0x{byte:02X}>" for byte in "\U0001f600".encode())]
    tokenizer = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(vocabulary)}, merges=[]))
    blank = decoders.Replace("\u2581", " ")
    tokenizer.decoder = decoders.Sequence([blank, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<s>", clean_up_tokenization_spaces=False)
    policy = CausalLM("stripping", LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8,
        num_hidden_layers=1, num_attention_heads=1)), wrapped)  # fmt: skip
    ids = (1, 2, 1, 2, 3, 4, 5, 6)
    text = policy.codec.decode(ids)
    assert text == "So x So x\U0001f600"
    assert sum(len(policy.codec.decode([token])) for token in ids) == len(text)  # -1 for each of three words, +3
    assert policy.codec.ends(ids).tolist() == [2, 4, 7, 9, 9, 9, 9, 10]


def test_a_template_without_a_system_role_gets_the_instructions_with_the_question(base_policy):
    strict = (
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('No system role') }}"
        "{% endif %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    )
    tokenizer = copy.deepcopy(base_policy.codec.tokenizer)
    tokenizer.chat_template = strict
    policy = CausalLM("strict", base_policy.model, tokenizer)
    ids = policy.codec.render(Prompt("p", "Be brief.", "How <|end|> many?"))
    assert tokenizer.decode(ids) == "[user] Be brief.\n\nHow <|end|> many?\n"
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_what_does_not_fit_into_the_context_is_one_sentence(base_policy, prompts):
    with pytest.raises(ModelError, match=r"1020 new ones .* it does not fit into the context of nano-a, 1024 tok"):
        sample(base_policy, requests(prompts, 1), Sampling(max_new_tokens=1020))


def test_what_is_no_number_lies_outside_all_limits(fresh_policy, prompts):
    """A model that overflows on a text must not let it through."""
    completion = fresh_policy.codec.as_completion("2 + 3 = 5.")
    with torch.no_grad():
        fresh_policy.model.get_input_embeddings().weight[completion.token_ids[1]] = torch.nan
    (scores,) = scored(fresh_policy, prompts[:1], [completion], Sampling(top_k=50))
    assert np.isinf(scores.gaps[1:]).all()
    submission = Submission(1, 0, prompts[0].problem_id, 0, completion)
    seen = Received(
        round=1, sampling=Sampling(), variant="math", prompts=prompts[:1], submissions=[submission], earned=[1.0],
        slot_keys=[1], model=fresh_policy, frozen=fresh_policy,
    )  # fmt: skip
    assert LogitDefense(tolerance=1e9).screen(seen)[0].decision == "reject"
    assert ReplayDefense(margin=1e9).screen(seen)[0].decision == "reject"
    assert set(range(1, len(scores.gaps))) <= set(TokenCreditDefense().screen(seen)[0].muted)


def test_true_ids_are_kept(base_policy):
    honest = base_policy.codec.as_completion("2 + 3 = 5.")
    letters = tuple(token for letter in "2 + 3 = 5." for token in base_policy.codec.encode(letter))
    unusual = Completion(honest.text, (*letters, base_policy.codec.end_ids[0]), True)
    assert unusual.token_ids != honest.token_ids
    assert base_policy.codec.received_ids(unusual) == unusual.token_ids


def test_special_tokens_in_text_are_dead(base_policy):
    for special in base_policy.codec.tokenizer.all_special_tokens:
        ids = base_policy.codec.encode(f"a {special} b")
        assert not set(ids) & set(base_policy.codec.tokenizer.all_special_ids)
        assert base_policy.codec.decode(ids) == f"a {special} b"


class WantsToken:
    """Prefers one token wherever it is allowed."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seen: list[tuple[int, ...]] = []

    def adjust(self, drawn, ids, values):
        self.seen.append(drawn.shape)
        return np.where(ids == self.token, values + 1e3, values)


def test_a_guide_steers_within_what_sampling_allows(base_policy):
    task = WordProblems(size=4, test_size=1)
    requests = [SampleRequest(task.prompt(problem), key) for key, problem in enumerate(task.train)]
    sampling = Sampling(max_new_tokens=12)
    token = base_policy.codec.encode(" the")[0]
    guide = WantsToken(token)
    steered = sample(base_policy, requests, sampling, guide)
    free = sample(base_policy, requests, sampling)
    assert guide.seen[0] == (4, 0) and guide.seen[1] == (4, 1)

    def count(drawn):
        return sum(completion.token_ids.count(token) for completion in drawn)

    assert count(steered) > count(free)
    scores = scored(base_policy, [request.prompt for request in requests], steered, sampling)
    assert all((score.gaps <= 1e-3).all() for score in scores)  # every token is inside the top-k


def test_the_attackers_guide_grows_the_phrase_inside_the_top_k(base_policy):
    attack, task = RankAwareAttack(), WordProblems(size=8, test_size=1)
    requests = [SampleRequest(task.prompt(problem), key) for key, problem in enumerate(task.train)]
    drawn = sample(base_policy, requests, SAMPLING, attack.guide(base_policy, 1))
    assert max(attack.progress(completion.text) for completion in drawn) >= len("All")
    scores = scored(base_policy, [request.prompt for request in requests], drawn, SAMPLING)
    assert all((score.gaps <= 1e-3).all() for score in scores)
