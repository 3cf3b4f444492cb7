"""JUDGE: another language model reads problem and completion and decides (*Hail to the Thief*, section 5).

Idea: a judge reads only text, so it works between different models and on text of any origin. It can see what a token
check cannot: a wrong equation, or an import that is not needed. It costs a generation for each completion, and the text
that it reads can try to influence it; ``judging.py`` builds the prompt against that.

As in the paper, the judge writes a criticism first, then one word (``reasoning = false`` asks for the word alone).
Sampling is top-k 10, top-p 0.9, temperature 0.6, 3 beams. Rejected completions stay in the group with reward 0.

Deviations: the wording of the instructions is our own. The paper does not say how its three beams are drawn or when
they stop; here as in ``transformers`` (``policies/beams.py``). The default judge is ``nano-judge``, which is shipped
and knows the nano world only (``docs/nano-models.md``); the paper's is a 14 B model.

Limits: the text can talk the judge round (``judge_injection``). The shipped judge knows the nano world only.

Source: *Hail to the Thief* (arXiv 2511.09780), section 5.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, final

from hailproof.defenses.base import RewardedDefense
from hailproof.defenses.judge_backends import EndpointJudge, JudgeBackend, LocalJudge
from hailproof.defenses.panel import Judgement, Panel, cases_of, judge_sampling
from hailproof.errors import ConfigError
from hailproof.protocols import Admission, Evidence
from hailproof.records import Verdict

SHIPPED_JUDGE = "nano-judge"
"""The judge that is in the package; it knows the nano world only."""

REMEMBERED = 8192
"""Judgements that are kept; the one that was not asked for longest goes first."""


@final
class JudgeDefense(RewardedDefense):
    """Rejects completions that a judge does not accept.

    Each distinct pair of problem and text is asked about once, whatever the number of copies, and remembered across
    rounds; a judgement is forgotten only if an answer did not come at all, which another round may mend. The memory is
    part of the state, so that a resumed run judges as an uninterrupted one.

    Args:
        model: The judge: a shipped name, a folder, a hub id, or an endpoint's name for its model.
        backend: ``transformers``, or ``openai`` for an OpenAI-compatible endpoint, which knows no top-k and no beams.
        url: The endpoint's base URL.
        key_env: Name of the environment variable with the endpoint's API key; never the key itself.
        reasoning: Whether the judge writes a criticism before it decides.
        votes: How often it is asked about each pair; more than half must be well-formed and say yes.
        timeout: Seconds for one try at an endpoint.
        retries: Further tries at an endpoint.
        max_new_tokens: Length limit of an answer; one that is cut is malformed. 0: 128 for a shipped judge, else 512.
        temperature: Divides the logits; 0 takes the best.
        top_k: Only the k most probable tokens.
        top_p: Only the smallest set of tokens that reaches p.
        beams: Beams of the transformers backend. With 1, an answer depends on nothing but problem, text and seed.
        seed: Root of the judge's randomness; the same in all nodes that must decide alike.
        device: Where a transformers model runs.
        dtype: Its precision.
        rewarded_only: Whether completions without reward are not asked about. Set it with ``admission = "drop"``:
        otherwise a good judge drops all wrong answers, and nothing is left to compare right ones with.
    admission: What happens to rejected completions; the paper sets their reward to 0.

    Raises:
        HailproofError: If an option is out of range, the model does not load, or the endpoint's client is missing.
    """

    name = "judge"

    def __init__(
        self, model: str = SHIPPED_JUDGE, backend: Literal["transformers", "openai"] = "transformers", url: str = "",
        key_env: str = "", reasoning: bool = True, votes: int = 1, timeout: float = 60.0, retries: int = 2,
        max_new_tokens: int = 0, temperature: float = 0.6, top_k: int = 10, top_p: float = 0.9, beams: int = 3,
        seed: int = 0, device: str = "auto", dtype: str = "auto", rewarded_only: bool = False,
        admission: Admission = "zero_reward",
    ) -> None:  # fmt: skip
        super().__init__(rewarded_only, admission)
        if timeout <= 0 or retries < 0 or beams < 1:
            raise ConfigError("Defense judge takes a timeout above 0, retries of 0 or more, and at least 1 of beams.")
        self.panel = Panel(reasoning, votes, seed)
        shipped = backend == "transformers" and model.startswith("nano-")
        sampling = judge_sampling(max_new_tokens or (128 if shipped else 512), temperature, top_k, top_p)
        self._known: OrderedDict[str, Judgement] = OrderedDict()
        self.backend: JudgeBackend
        match backend:
            case "transformers":
                self.backend = LocalJudge(model, device, dtype, sampling, beams)
            case "openai":
                self.backend = EndpointJudge(model, url, key_env, sampling, timeout, retries)
            case _:
                raise ConfigError(f"Defense option backend = {backend} is unknown; use transformers or openai.")

    def examine(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a completion; only pairs that were never judged are asked about, in one batch."""
        cases = cases_of(evidence)
        keys = {case: case.digest for case in dict.fromkeys(cases)}
        found = {case: self._known[key] for case, key in keys.items() if key in self._known}
        new = [case for case in keys if case not in found]
        if new:
            found.update(zip(new, self.panel.rule(new, self.backend.ask), strict=True))
        for case, judgement in found.items():
            self._remember(keys[case], judgement)
        return [self.panel.verdict(self.name, case, found[case]) for case in cases]

    def _remember(self, key: str, judgement: Judgement) -> None:
        if not judgement.failure:
            self._known[key] = judgement
            self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def state(self) -> dict[str, Any]:
        """The remembered judgements, those asked for longest ago first."""
        return {"known": {key: asdict(judgement) for key, judgement in self._known.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._known = OrderedDict((key, Judgement(**saved)) for key, saved in state["known"].items())
