"""How surprising each token of a completion is, and how a report shows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from synthetic_run import line, page_of, row, run

from hailproof.policies.causal_lm import CausalLM
from hailproof.policies.load import load
from hailproof.records import Prompt
from hailproof.reports.samples import Cell, cells_of
from hailproof.reports.surprise import Token, surprises, system_of, why_not
from hailproof.runs.config import TaskConfig, load_config
from hailproof.tasks import TASKS


def direct(policy: CausalLM, prompt: Prompt, ids: Sequence[int]) -> list[float]:
    """Surprise of each token by one plain pass over prompt and completion."""
    asked = [*policy.codec.render(prompt), *ids]
    with torch.inference_mode():
        logprobs = policy.model(input_ids=torch.tensor([asked])).logits[0].double().log_softmax(dim=-1)
    return [-float(logprobs[at - 1, asked[at]]) for at in range(len(asked) - len(ids), len(asked))]


def test_surprises_are_those_of_a_direct_pass(base_policy: CausalLM) -> None:
    texts = ["<think>All hail to the thief. 2 + 2 = 4.</think><answer>4</answer>", "4", ""]
    sent = [base_policy.codec.as_completion(text) for text in texts]
    rows = [
        row(1, completion.text, token_ids=completion.token_ids, question="Tom has 2 pens and 2 cups. How many things?")
        for completion in sent
    ]
    rows[1]["finished"] = False
    rows[1]["token_ids"] = sent[1].token_ids[:-1]
    config = load_config()
    prompt = Prompt("any", system_of(config.task) or "", rows[0]["question"])
    for tokens, each in zip(surprises(config, rows), rows, strict=True):
        assert [token.nats for token in tokens] == pytest.approx(
            direct(base_policy, prompt, each["token_ids"]), abs=1e-4
        )
        assert "".join(each["text"][token.start : token.end] for token in tokens) == each["text"]
    # The phrase is what stands out: some word of it is the least expected token of the completion.
    tokens = surprises(config, rows[:1])[0]
    most = max(tokens, key=lambda token: token.nats)
    assert most.nats > 4 and texts[0].index("All") <= most.start < texts[0].index(" 2 + 2")


def test_each_receiver_reads_with_its_own_model_and_tokenizer(base_policy: CausalLM) -> None:
    other = load("nano-b", device="cpu", dtype="float32")
    config = load_config(None, [("swarm.models", ["nano-a", "nano-b"])])
    text = "<think>3 * 4 = 12 cups. 🙂é</think><answer>12</answer>"
    foreign = base_policy.codec.as_completion(text).token_ids
    rows = [row(1, text, view=view, token_ids=foreign, question="How many?") for view in (0, 1, 2)]
    first, second, third = surprises(config, rows)
    assert first == third != second
    prompt = Prompt("any", system_of(config.task) or "", "How many?")
    assert [token.nats for token in second] == pytest.approx(
        direct(other, prompt, other.codec.as_completion(text).token_ids), abs=1e-4
    )
    # Letters that are split over several tokens do not shift the ones after them.
    for tokens in (first, second):
        assert "".join(text[token.start : token.end] for token in tokens) == text
        assert [text[token.start : token.end] for token in tokens][-2:] == ["</answer>", ""]


def test_texts_that_are_too_long_for_the_model_are_left_out(base_policy: CausalLM) -> None:
    rows = [row(1, "7 " * 1200), row(1, "fine"), row(1, "fine", question="7 " * 1200), row(1, "7" * 10_000)]
    assert [bool(tokens) for tokens in surprises(load_config(), rows)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("word_problems", {"size": 1, "test_size": 1}, ""),
        ("word_problems", {"size": 1, "test_size": 1, "variant": "code"}, ""),
        ("gsm8k", {}, '{"question": "Q", "answer": "2 #### 2"}'),
        ("openmath", {}, '{"question": "Q", "program": "print(2)", "answer": 2}'),
    ],
)
def test_the_instructions_are_those_of_the_task(name: str, options: dict[str, Any], line: str, tmp_path: Path) -> None:
    if line:
        (tmp_path / "data.jsonl").write_text(line)
        options = {"data": str(tmp_path / "data.jsonl")}
    task = TASKS[name](**options)
    assert system_of(TaskConfig(name=name, options=options)) == task.prompt(task.train[0]).system


def test_the_strip_is_left_out_where_the_models_or_the_task_are_foreign(tmp_path: Path) -> None:
    assert why_not(load_config()) == ""
    assert why_not(load_config(None, [("swarm.models", ["nano-a", "/x"])])).startswith("/x is not one of the models")
    assert "riddles are not" in why_not(load_config(None, [("task.name", "riddles")])).replace("of the task ", "")
    foreign = run(tmp_path / "foreign", [line(1)], [row(1, "a")], config='[swarm]\nmodels = ["some/model"]\n')
    broken = run(tmp_path / "broken", [line(1)], [row(1, "a")], config="rounds = 'many'\n")
    own = run(tmp_path / "own", [line(1)], [row(1, "a")])
    for folder, surprise, said in (
        (foreign, True, "some/model is not one of the models that come with hailproof"),
        (broken, True, "the configuration cannot be read"),
        (own, False, "the report was asked to leave it out"),
    ):
        page = page_of(folder, surprise)
        assert f"is left out: {said}" in page.text("p")
        assert not page.named("pre", "strip") and "a" in page.text("pre")
    assert page_of(own, surprise=True).named("pre", "strip")


def test_cells_are_colored_by_their_nats_and_cut_with_the_text() -> None:
    tokens = [Token(0, 2, 0.05), Token(2, 4, 0.1), Token(4, 6, 3.9), Token(6, 8, 80.0), Token(8, 8, 0.7)]
    assert cells_of("abcdefgh", tokens, 0, 5) == [Cell("ab", 0, 0.05), Cell("cd", 1, 0.1), Cell("e", 4, 3.9)]
    assert cells_of("abcdefgh", tokens, 5, 8) == [Cell("f", 4, 3.9), Cell("gh", 6, 80.0), Cell("", 2, 0.7)]


def test_the_strip_says_its_values(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", [line(1)], [row(1, "ab<b>")])
    tokens = [(Token(0, 2, 0.5), Token(2, 5, 9.876), Token(5, 5, 0.0))]
    with patch("hailproof.reports.samples.surprises", lambda config, rows: tokens):
        page = page_of(folder, surprise=True)
    shown = list(zip(page.named("i"), page.texts["i"], strict=True))[7:]
    assert [(text, attrs["class"], attrs["title"]) for attrs, text in shown] == [
        ("ab", "h2", "0.50 nats"),
        ("<b>", "h6", "9.88 nats"),
        ("∎", "h0", "0.00 nats"),
    ]
    assert page.texts["i"][:7] == ["under 0.1", "0.1 to 0.5", "0.5 to 1", "1 to 2", "2 to 4", "4 to 8", "8 and more"]
    assert "mean 3.46 nats a token" in page.text("output")
    assert "under nano-a" in page.text("p")
