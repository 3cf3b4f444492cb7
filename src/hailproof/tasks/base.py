"""What every task shares: problems, and the form in which their answers are asked for and judged."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, final

from hailproof.errors import ConfigError
from hailproof.parsing import answer_in_tags, code_in_tags, exact_number, plain, same_number
from hailproof.protocols import Variant
from hailproof.records import Problem, Prompt
from hailproof.sandbox import SANDBOXES, Library, Sandbox, last_line

MATH_SYSTEM = (
    "Solve the problem step by step. Write your reasoning between <think> and </think>, then the final number, "
    "and nothing else, between <answer> and </answer>."
)
CODE_SYSTEM = (
    "Solve the problem with a Python program. Write nothing but the program, between <code> and </code>: plain "
    "statements without comments, the last of which prints the final answer."
)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
FLOAT_TOLERANCE = 1e-9
"""Relative; programs compute in floating point, where 0.1 + 0.2 is not quite 0.3."""


class AnswerForm(Protocol):
    """How answers are asked for, written and judged; one form serves any number of problems."""

    variant: Variant
    system: str
    reward_seconds: float
    """What the reward of an honest answer takes at most, in seconds."""

    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning and answer in the form that earns full reward."""
        ...

    def reward(self, problem: Problem, text: str) -> float:
        """Scores a completion's text: 1.0 or 0.0; never raises on hostile text."""
        ...


@final
class MathForm:
    """Reasoning in ``<think>`` tags, then one number in ``<answer>`` tags.

    The reward is binary, as in the paper: 1 if the text holds exactly one pair of answer tags and its content, after
    normalization, is the number of the reference; else 0.
    """

    variant: Variant = "math"
    system = MATH_SYSTEM
    reward_seconds = 0.0

    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning and answer in tags."""
        return f"<think>{reasoning}</think><answer>{answer}</answer>"

    def reward(self, problem: Problem, text: str) -> float:
        """1.0 if the tagged number is the answer."""
        given = answer_in_tags(text)
        return float(given is not None and same_number(given, problem.answer))


@final
class CodeForm:
    """A Python program in ``<code>`` tags, whose last printed line is the answer.

    The reward is binary: 1 if the text holds exactly one pair of code tags, the program in it runs to its end in the
    sandbox, and the last line that it prints is the answer: as an exact number, as a number up to floating-point
    error, or, for answers that are not numbers, as the same text.

    Args:
        sandbox: Where programs run.
    """

    variant: Variant = "code"
    system = CODE_SYSTEM

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.reward_seconds = sandbox.honest_seconds

    def format(self, reasoning: str, answer: str) -> str:
        """Writes a program in tags; the answer is what the program prints."""
        return f"<code>{reasoning}</code>"

    def reward(self, problem: Problem, text: str) -> float:
        """1.0 if the tagged program prints the answer."""
        printed = self.printed(text)
        return float(printed is not None and same_printed(printed, problem.answer))

    def printed(self, text: str) -> str | None:
        """The last line that the tagged program prints; ``None`` without program, or if it does not run to its end."""
        program = code_in_tags(text)
        return last_line(self.sandbox.run([program])[0]) if program else None


def same_printed(printed: str, reference: str) -> bool:
    r"""Whether what a program printed is the reference answer.

    Numbers are compared exactly, ``0.5`` with ``\frac{1}{2}`` too, and may differ by floating-point error; what is no
    number is compared as text.
    """
    right = exact_number(reference)
    if right is None:
        return printed == reference.strip()
    if exact_number(printed) == right:
        return True
    if len(printed) >= 64 or not _FLOAT.fullmatch(printed) or (_is_whole(printed) and _is_whole(plain(reference))):
        return False
    return math.isclose(float(printed), float(right), rel_tol=FLOAT_TOLERANCE, abs_tol=1e-12)


def _is_whole(text: str) -> bool:
    """Whether a number is written as a whole one, which has no floating-point error."""
    return re.fullmatch("[-+]?[0-9]+", text.strip()) is not None


def form_of(variant: str, sandbox: str = "monty", libraries: Mapping[str, Library] | None = None) -> AnswerForm:
    """The form of a variant; programs run in the named sandbox and may import the libraries.

    Raises:
        ConfigError: If a name is unknown, or the sandbox cannot run here.
    """
    if variant not in ("math", "code"):
        raise ConfigError(f"Task option variant = {variant} is unknown; use math or code.")
    if sandbox not in SANDBOXES:
        raise ConfigError(f"Task option sandbox = {sandbox} is unknown; use {' or '.join(SANDBOXES)}.")
    return CodeForm(SANDBOXES[sandbox](libraries=libraries)) if variant == "code" else MathForm()


class BaseTask:
    """Problems and the form of their answers.

    A class says which variants its answers come in, so that nobody has to know it by its name, or to build it, which
    may read files: ``variants`` lists them, and :meth:`variant_of` tells which one given options choose.

    Args:
        train: Problems of the train split.
        test: Problems of the test split.
        form: How answers are asked for and judged.
    """

    name: str = "task"
    variants: tuple[Variant, ...] = ("math",)
    """What the option ``variant`` can be, the default first; a task with a single one need not take the option."""
    completion_tokens: int = 384

    def __init__(
        self, train: Sequence[Problem], test: Sequence[Problem] = (), form: AnswerForm | None = None
    ) -> None:
        self.train: Sequence[Problem] = train
        self.test: Sequence[Problem] = test
        self.form = form or MathForm()
        if self.form.variant not in self.variants:
            raise ConfigError(
                f"Task {self.name} asks for answers of the variant {self.form.variant}, which its class does not name; "
                f"set variants = ('{self.form.variant}',) there."
            )

    @classmethod
    def variant_of(cls, options: Mapping[str, object]) -> Variant:
        """The variant of the task that these options make, which is not built.

        Args:
            options: Arguments of the constructor, as in a configuration.

        Raises:
            ConfigError: If the options ask for a variant that the task does not have.
        """
        given = options.get("variant", cls.variants[0])
        if given not in cls.variants:
            raise ConfigError(f"Task option variant = {given} is unknown; use {' or '.join(cls.variants)}.")
        return given

    @property
    def variant(self) -> Variant:
        """Whether answers are reasoning with a number, or programs."""
        return self.form.variant

    @property
    def reward_seconds(self) -> float:
        """What the reward of an honest answer takes at most, in seconds."""
        return self.form.reward_seconds

    @final
    def prompt(self, problem: Problem) -> Prompt:
        """Strips a problem of its answer and adds the instructions."""
        return Prompt(problem.id, self.form.system, problem.question)

    @final
    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning (in code: the program) and answer in the form that earns full reward."""
        return self.form.format(reasoning, answer)

    @final
    def reward(self, problem: Problem, text: str) -> float:
        """Scores a completion: 1.0 or 0.0."""
        return self.form.reward(problem, text)
