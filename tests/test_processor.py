"""A generation loop that is not ours draws what a verifier of ours repeats."""

import pytest
import torch

from hailproof.defenses.evidence import Received
from hailproof.defenses.replay import ReplayDefense
from hailproof.policies.load import load
from hailproof.policies.processor import SlotNoise
from hailproof.policies.scoring import padded_left
from hailproof.protocols import Sampling
from hailproof.records import Submission
from hailproof.seeds import derive
from hailproof.tasks.word_problems import WordProblems


@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_new_tokens=64), Sampling(temperature=0.7, top_k=0, top_p=0.9, max_new_tokens=24)],
    ids=["top-k", "top-p"],
)
@pytest.mark.parametrize("name", ["nano-a", "nano-b"])
def test_generate_draws_what_replay_repeats(name, sampling):
    policy, task = load(name, device="cpu"), WordProblems(size=24, test_size=1)
    prompts = [task.prompt(problem) for problem in task.train]
    rendered = [policy.codec.render(prompt) for prompt in prompts]
    keys = [derive(3, prompt.problem_id) for prompt in prompts]
    assert len({len(prompt) for prompt in rendered}) > 1  # some are padded
    ids, mask = padded_left(rendered)
    columns = policy.model.config.get_text_config().vocab_size
    noise = SlotNoise(keys, sampling, policy.codec.barred(columns), ids.shape[1])
    with torch.inference_mode():
        output = policy.model.generate(  # pyright: ignore[reportCallIssue]
            ids, attention_mask=mask, do_sample=False, logits_processor=[noise], max_new_tokens=sampling.max_new_tokens
        )
    drawn = []
    for row in output[:, ids.shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in policy.codec.end_ids), len(row) - 1)
        drawn.append(tuple(row[: end + 1]))
    assert drawn == policy.engine.draw(rendered, keys, sampling)
    completions = [policy.codec.drawn(row) for row in drawn]
    sent = [Submission(1, 0, prompt.problem_id, 0, each) for prompt, each in zip(prompts, completions, strict=True)]
    seen = Received(
        round=1, sampling=sampling, variant="math", prompts=prompts, submissions=sent, earned=[1.0] * len(sent),
        slot_keys=keys, model=policy,
    )  # fmt: skip
    assert [verdict.decision for verdict in ReplayDefense().screen(seen)] == ["accept"] * len(sent)


def test_no_barred_token_is_drawn():
    noise = SlotNoise([5], Sampling(top_k=2), barred=[0, 3], prompt_tokens=2)
    scores = noise(torch.tensor([[1, 1, 1]]), torch.tensor([[9.0, 1.0, 1.0, 9.0]]))
    assert scores[0, [0, 3]].tolist() == [-torch.inf] * 2 and scores.max() == 0 and scores.argmax() in (1, 2)
