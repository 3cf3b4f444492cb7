"""Asks a reward function about every probe, each within a time limit, and says what it found."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, final

from hailproof.errors import ConfigError
from hailproof.probing.probes import CODE_FORMS, HEDGES, MATH_FORMS, Kind, Probe, formed, probes_of
from hailproof.records import Problem
from hailproof.tasks.base import BaseTask

IMPORT_SECONDS = 300.0
"""What importing somebody's module may take."""

LINE = 2**20
"""Bytes of what a function's process says of a call."""

GARBLED = "ValueError: it wrote into the file by which its process answers"

Outcome = Literal["reward", "none", "raises", "hangs", "dies"]

STYLES = ("trl", "trl-messages", "verl", "openrlhf", "plain")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reward function said of one probe.

    Attributes:
        probe: The probe.
        outcome: ``reward``; ``none`` if it has no opinion; ``raises``, ``hangs``, or ``dies`` with its process.
        reward: The reward; ``None`` if there is none.
        seconds: What it took.
        error: What it raised.
    """

    probe: Probe
    outcome: Outcome
    reward: float | None = None
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a reward function.

    Attributes:
        name: The probe's name.
        what: What is wrong, as a phrase.
        times: On how many problems.
    """

    name: str
    what: str
    times: int


@dataclass(slots=True)
class Report:
    """What was found out.

    Attributes:
        style: How the function is called.
        form: The form of answers that earns.
        full: What a right answer earns.
        floor: What a plain wrong answer in the right form earns.
        answers: To every probe.
        wrote: Whether a program, or an expression, wrote a file with the user's rights.
    """

    style: str
    form: str
    full: float
    floor: float
    answers: list[Answer] = field(default_factory=list)
    wrote: list[str] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """What is wrong, the worst first."""
        found: dict[tuple[str, str], int] = {}
        for answer in self.answers:
            for what in self._wrong(answer):
                found[answer.probe.name, what] = found.get((answer.probe.name, what), 0) + 1
        if self.floor >= self.full:
            found["plain wrong answer", f"earns {self.floor:g}, as a right one does"] = 1
        for last, first in HEDGES:
            both = self._problems(last) & self._problems(first)
            if both:
                found[last.partition(",")[0], "earns in either order, so guessing pays"] = len(both)
        for name in dict.fromkeys(self.wrote):
            found[name, "wrote a file: text of strangers is run with your rights"] = self.wrote.count(name)
        order = ("wrote", "hangs", "dies", "earns", "raises")
        ranked = sorted(found.items(), key=lambda pair: next(
            (at for at, word in enumerate(order) if pair[0][1].startswith(word)), len(order)))  # fmt: skip
        return [Finding(name, what, times) for (name, what), times in ranked]

    def _wrong(self, answer: Answer) -> Iterable[str]:
        if answer.outcome in ("raises", "hangs", "dies"):
            yield " ".join(filter(None, (answer.outcome, answer.error.partition(":")[0])))
        elif answer.probe.kind == "wrong" and answer.reward is not None and answer.reward > self.floor:
            like = ", as a right answer does" if answer.reward >= self.full else ""
            yield f"earns {answer.reward:g}{like}"
        elif answer.probe.kind == "right" and not self._earns(answer):
            yield f"earns {answer.reward}, less than other right answers"

    def _problems(self, name: str) -> set[str]:
        """The problems on which a probe earns as much as a right answer."""
        return {each.probe.problem.id for each in self.answers if each.probe.name == name and self._earns(each)}

    def _earns(self, answer: Answer) -> bool:
        return answer.reward is not None and answer.reward >= self.full > self.floor

    def earned(self, kind: Kind) -> tuple[int, int]:
        """How many of the probes of a kind earned as much as a right answer, and how many there are."""
        asked = [answer for answer in self.answers if answer.probe.kind == kind]
        return sum(map(self._earns, asked)), len(asked)

    @property
    def slowest(self) -> Answer:
        """The probe that took longest among those that ended."""
        return max(self.answers, key=lambda answer: answer.seconds)


@final
class Worker:
    """A process that holds the reward function; it is started anew after it hung or died.

    Args:
        function: ``module:function``.
        seconds: What one call may take.
    """

    def __init__(self, function: str, seconds: float) -> None:
        self.function, self.seconds = function, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.style = ""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        """Starts the process and imports the function.

        Raises:
            ConfigError: If it does not import.
        """
        command = [sys.executable, "-m", "hailproof.probing.worker", self.function]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        said = self._line(IMPORT_SECONDS)
        if said is None or "style" not in said:
            self._stop()
            reason = "it ended, or took too long" if said is None else said["error"]
            module, mark, name = self.function.partition(".py:")
            advice = f"write {module}:{name}, without .py" if mark else "give MODULE:FUNCTION as python finds it"
            raise ConfigError(f"{self.function} does not import ({reason}); {advice}.")
        self.style = said["style"]

    def _stop(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)  # with whatever it started: the session is its own
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None

    def _line(self, seconds: float) -> dict[str, Any] | None:
        """The next line that the process says; ``None`` if none comes in time."""
        assert self._process is not None and self._process.stdout is not None
        until, data = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not data.endswith(b"\n"):
                if len(data) > LINE or not selector.select(max(until - time.monotonic(), 0)):
                    return None
                part = os.read(self._process.stdout.fileno(), LINE)
                if not part:
                    return None
                data += part
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        return said if isinstance(said, dict) else {"error": GARBLED, "seconds": 0.0}

    def ask(self, probe: Probe, style: str) -> Answer:
        """Asks about one probe."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        asked = {"style": style, "question": probe.problem.question, "text": probe.text, "answer": probe.problem.answer}
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
            said = self._line(self.seconds)
        except BrokenPipeError:
            said = None
        if said is None:
            hangs = self._process.poll() is None
            try:
                hangs = hangs and self._process.wait(0.2) is None
            except subprocess.TimeoutExpired:
                hangs = True
            self._stop()
            return Answer(probe, "hangs" if hangs else "dies", seconds=self.seconds if hangs else 0.0)
        if said.get("error") == GARBLED:
            self._stop()
        if "error" in said:
            return Answer(probe, "raises", None, said["seconds"], said["error"])
        reward = said["reward"]
        return Answer(probe, "none" if reward is None else "reward", reward, said["seconds"])


def probe(
    function: str,
    task: BaseTask,
    problems: Sequence[Problem],
    *,
    form: str = "",
    style: str = "",
    seconds: float = 5.0,
    say: Callable[[Answer], None] = lambda answer: None,
) -> Report:
    """Asks a reward function about all probes of some problems.

    Args:
        function: ``module:function``.
        task: Where the problems are from.
        problems: Problems with answers and solutions.
        form: The form of answers that earns: a name, or a template; empty: the first in which a right answer earns.
        style: How the function is called, of ``STYLES``; empty: by its parameters.
        seconds: What one call may take.
        say: Is told each answer.

    Raises:
        ConfigError: If the function does not import, or a right answer earns nothing in any form.
    """
    if ":" not in function:
        raise ConfigError(f"{function} is not MODULE:FUNCTION; write for example my_rewards:correct.")
    if style and style not in STYLES:
        raise ConfigError(f"--style {style} is unknown; use {', '.join(STYLES)}.")
    with Worker(function, seconds) as worker, tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "written"
        named, chosen, full, floor = _fitting(worker, task, problems[0], form, style)
        report = Report(chosen, named[0], full, floor)
        for problem in problems:
            for each in probes_of(problem, formed(task, named[1]), canary):
                answer = worker.ask(each, chosen)
                if canary.exists():
                    report.wrote.append(each.name)
                    canary.unlink()
                report.answers.append(answer)
                say(answer)
    return report


def _fitting(
    worker: Worker, task: BaseTask, problem: Problem, form: str, style: str
) -> tuple[tuple[str, str], str, float, float]:
    """The first form and style in which a right answer earns more than a wrong one; what both earn.

    Raises:
        ConfigError: If there is none.
    """
    forms = CODE_FORMS if task.variant == "code" else MATH_FORMS
    tried = {form: forms.get(form, form)} if form else forms
    styles = [style or worker.style]
    styles += ["trl-messages"] if styles == ["trl"] and not style else []
    best: tuple[tuple[str, str], str, float, float] | None = None
    reasons: list[str] = []
    for how in styles:
        for name, template in tried.items():
            try:
                right, wrong = _controls(worker, formed(task, template), problem, how)
            except (KeyError, IndexError, ValueError) as error:
                raise ConfigError(
                    f"--form {template!r:.60} is no template ({error}); write {{reasoning}} and {{answer}}."
                ) from error
            if right.error or right.outcome in ("hangs", "dies"):
                reasons.append(right.error or f"it {right.outcome} on a right answer")
            if right.reward is None:
                continue
            floor = wrong.reward or 0.0
            if right.reward > floor:
                return (name, template), how, right.reward, floor
            if best is None and right.reward > 0:
                best = (name, template), how, right.reward, floor
    if best is not None:
        return best
    reason = f" ({reasons[0]})" if reasons else ""
    raise ConfigError(
        f"A right answer earns nothing in any form that was tried{reason}; say how answers look with --form, such as "
        "'{reasoning} \\boxed{{{answer}}}', and how the function is called with --style."
    )


def _controls(worker: Worker, task: BaseTask, problem: Problem, style: str) -> tuple[Answer, Answer]:
    """What a right and a plain wrong answer earn."""
    found = {each.name: each for each in probes_of(problem, task, Path("unwritten"))}
    right, wrong = found["reference solution"], found["plain wrong answer"]
    return worker.ask(right, style), worker.ask(wrong, style)
