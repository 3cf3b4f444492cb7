"""Where a judge runs: a ``transformers`` model in this process, or an OpenAI-compatible endpoint."""

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, final

from hailproof.errors import ConfigError
from hailproof.judging import MAX_ANSWER_CHARACTERS
from hailproof.parsing import encodable
from hailproof.protocols import Policy, SampleRequest, Sampling
from hailproof.records import Prompt
from hailproof.rollouts import sample

if TYPE_CHECKING:
    from hailproof.policies.causal_lm import CausalLM

CONCURRENCY = 8
"""Requests that are under way at an endpoint at a time."""

MAX_RESPONSE_BYTES = 1 << 18
"""A longer response of an endpoint is not read to its end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one prompt: a text, or the reason why there is none."""

    text: str
    failure: str = ""


class JudgeBackend(Protocol):
    """Answers prompts."""

    def ask(self, prompts: Sequence[Prompt], keys: Sequence[int]) -> list[Answer]:
        """Gives one answer per prompt, each drawn with its key; never raises on what a prompt or an answer holds."""
        ...


def ask_policy(policy: Policy, prompts: Sequence[Prompt], keys: Sequence[int], sampling: Sampling) -> list[Answer]:
    """Asks a policy, one beam each; an answer depends on weights, prompt and key only."""
    requests = [SampleRequest(prompt, key) for prompt, key in zip(prompts, keys, strict=True)]
    return [Answer(completion.text) for completion in sample(policy, requests, sampling)]


@lru_cache(maxsize=2)
def _loaded(model: str, device: str, dtype: str) -> "CausalLM":
    """A frozen model, loaded once for all nodes that judge with it."""
    from hailproof.policies.load import load  # torch is needed here only: an endpoint's client does without

    return load(model, device, dtype, trained=False)


@final
class LocalJudge:
    """A ``transformers`` model in this process.

    Args:
        model: A shipped name, a folder, or a hub id.
        device: A torch device, or ``auto``.
        dtype: As :func:`hailproof.policies.load.load` takes it.
        sampling: How answers are drawn.
        beams: Beams of beam sampling; 1 samples plainly, so that an answer does not depend on its batch.

    Raises:
        ModelError: If the model does not load.
    """

    def __init__(self, model: str, device: str, dtype: str, sampling: Sampling, beams: int) -> None:
        self.policy = _loaded(model, device, dtype)
        self.sampling = sampling
        self.beams = beams

    def ask(self, prompts: Sequence[Prompt], keys: Sequence[int]) -> list[Answer]:
        """Asks in batches; a prompt that does not fit the model's context is a failure of its own."""
        room = self.policy.engine.context - self.sampling.max_new_tokens
        answers = [Answer("", "the completion does not fit the judge's context")] * len(prompts)
        asked = [index for index, prompt in enumerate(prompts) if len(self.policy.codec.render(prompt)) <= room]
        shown, chosen = [prompts[index] for index in asked], [keys[index] for index in asked]
        if self.beams > 1:
            from hailproof.policies.beams import beam_sample

            requests = [SampleRequest(prompt, key) for prompt, key in zip(shown, chosen, strict=True)]
            drawn = [Answer(text) for text in beam_sample(self.policy, requests, self.sampling, self.beams)]
        else:
            drawn = ask_policy(self.policy, shown, chosen, self.sampling)
        for index, answer in zip(asked, drawn, strict=True):
            answers[index] = answer
        return answers


@final
class EndpointJudge:
    """A model behind an OpenAI-compatible endpoint (``/v1/chat/completions``).

    What the interface cannot say is not sent: top-k and beams. The key of each prompt is sent as ``seed``; whether
    equal seeds give equal answers is up to the endpoint. Time-outs, 429 and 5xx are tried again with growing pauses by
    the client library; once the endpoint cannot be reached at all, the rest of the batch fails without another try.

    Args:
        model: The endpoint's name for the model.
        url: Base URL, such as ``http://localhost:8000/v1``.
        key_env: Name of the environment variable that holds the API key; empty if the endpoint wants none.
        sampling: How answers are drawn.
        timeout: Seconds for one try.
        retries: Further tries.

    Raises:
        ConfigError: If the client library, the URL or the key is missing.
    """

    def __init__(
        self, model: str, url: str, key_env: str, sampling: Sampling, timeout: float, retries: int
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise ConfigError("Backend openai needs the extra judge; run pip install 'hailproof[judge]'.") from error
        if not url.startswith(("http://", "https://")):
            raise ConfigError("Backend openai needs the option url, such as http://localhost:8000/v1.")
        if key_env and not os.environ.get(key_env):
            raise ConfigError(f"Environment variable {key_env}, named by key_env, is empty; put the API key there.")
        key = os.environ[key_env] if key_env else "none"
        self._errors = openai
        self._client = openai.OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=retries)
        self.model = model
        self.sampling = sampling
        self.timeout = timeout

    def ask(self, prompts: Sequence[Prompt], keys: Sequence[int]) -> list[Answer]:
        """Asks by threads, in no order; answers come back in order."""
        unreachable = threading.Event()
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            return list(pool.map(lambda prompt, key: self._ask(prompt, key, unreachable), prompts, keys))

    def _ask(self, prompt: Prompt, key: int, unreachable: threading.Event) -> Answer:
        if unreachable.is_set():
            return Answer("", "the endpoint cannot be reached")
        try:
            return _content(self._response(prompt, key))
        except self._errors.APITimeoutError:
            return Answer("", f"no answer within {self.timeout:g} s")
        except self._errors.APIConnectionError:
            unreachable.set()
            return Answer("", "the endpoint cannot be reached")
        except self._errors.APIStatusError as error:
            return Answer("", f"the endpoint answers with status {error.status_code}")
        except Exception as error:  # the transport below the client has its own errors; none may reach the round
            return Answer("", f"the request failed ({type(error).__name__})")

    def _response(self, prompt: Prompt, key: int) -> bytes:
        """The body of the response, at most :data:`MAX_RESPONSE_BYTES` and one byte of it."""
        deadline = time.monotonic() + self.timeout
        request = self._client.chat.completions.with_streaming_response.create(
            model=self.model,
            messages=[{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
            max_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=key % 2**31,
        )
        body = bytearray()
        with request as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_RESPONSE_BYTES:
                    break
                if time.monotonic() > deadline:  # the client's limit is for one piece, and pieces may come for ever
                    raise TimeoutError
        return bytes(body)


def _content(body: bytes) -> Answer:
    """Reads the answer out of a response."""
    if len(body) > MAX_RESPONSE_BYTES:
        return Answer("", "the response is too long")
    try:
        content: Any = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Answer("", "the response is not a chat completion")
    if not isinstance(content, str) or len(content) > MAX_ANSWER_CHARACTERS:
        return Answer("", "the response holds no text, or too much")
    return Answer(encodable(content))
