"""The process that holds somebody's reward function: it is asked by lines of JSON on standard input, one at a time.

Started as ``python -m hailproof.probing.worker MODULE:FUNCTION``. What the function prints goes to standard error.
"""

import asyncio
import importlib
import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

GIGABYTES = 4
"""What a call may take beyond what importing took."""

NAMES = ("answer", "answers", "ground_truth", "label", "labels", "target", "targets", "solution", "reference", "gold")
"""Names under which functions in TRL's style get the answer, as a column of their data."""


def style_of(function: Callable[..., Any]) -> str:
    """How a function wants to be called: ``verl``, ``openrlhf``, ``trl`` or ``plain``, by its parameters' names."""
    names = set(inspect.signature(function).parameters)
    if "solution_str" in names:
        return "verl"
    if "queries" in names:
        return "openrlhf"
    return "trl" if "completions" in names else "plain"


def called(function: Callable[..., Any], style: str, question: str, text: str, answer: str) -> Any:
    """Calls a function about one completion.

    Args:
        function: The function.
        style: How it wants to be called; ``trl-messages`` is TRL's with conversations.
        question: What was asked.
        text: The completion.
        answer: The right answer.
    """
    if style == "verl":
        given = {"data_source": "hailproof", "solution_str": text, "ground_truth": answer, "extra_info": {}}
        found = function(**_accepted(function, given))
    elif style == "openrlhf":
        found = function([question + text], [question], [answer])
    elif style.startswith("trl"):
        talks = style == "trl-messages"
        prompts: list[Any] = [[{"role": "user", "content": question}]] if talks else [question]
        completions: list[Any] = [[{"role": "assistant", "content": text}]] if talks else [text]
        columns = {name: [answer] for name in NAMES}
        logs = {"log_extra": lambda *_: None, "log_metric": lambda *_: None, "trainer_state": None}
        given = {"prompts": prompts, "completions": completions, "completion_ids": [[0]], **columns, **logs}
        found = function(**_accepted(function, given))
    else:
        found = function(text, answer)
    return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def _accepted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a function has parameters for."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(given)
    names = {each.name for each in parameters}
    return {name: value for name, value in given.items() if name in names}


def number_of(found: Any) -> float | None:
    """The reward in what a function returned; ``None`` if it has no opinion.

    Raises:
        TypeError: If there is none in it.
        ValueError: If it is not finite.
    """
    if isinstance(found, Mapping):
        found = next((found[name] for name in ("score", "reward", "rewards", "scores") if name in found), "no score")
    found = found.tolist() if hasattr(found, "tolist") else found
    if isinstance(found, list | tuple):
        if len(found) != 1:
            raise TypeError(f"{len(found)} rewards for 1 completion")
        return number_of(found[0])
    if found is None:
        return None
    if not isinstance(found, int | float):
        raise TypeError(f"a {type(found).__name__} is no reward")
    if not math.isfinite(found):
        raise ValueError(f"the reward is {found}")
    return float(found)


def _limit_memory() -> None:
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + GIGABYTES * 2**30, resource.RLIM_INFINITY))


def main() -> None:
    """Imports the function, says what it is, and answers until there are no more questions."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(record: dict[str, Any]) -> None:
        out.write(json.dumps(record) + "\n")
        out.flush()

    module, _, name = sys.argv[1].partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        say({"style": style_of(function)})
    except Exception as error:  # somebody's module may raise anything
        say({"error": f"{type(error).__name__}: {error}"[:300]})
        return
    if os.path.exists("/proc/self/statm"):
        _limit_memory()
    for line in sys.stdin:
        asked = json.loads(line)
        started = time.perf_counter()
        try:
            reward = number_of(called(function, asked["style"], asked["question"], asked["text"], asked["answer"]))
            said: dict[str, Any] = {"reward": reward}
        except (Exception, SystemExit) as error:  # whatever it raises is what is to be found out
            said = {"error": f"{type(error).__name__}: {error}"[:300]}
        say({**said, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
