"""What every task shares: prompts, canonical solutions, rewards; and the base of tasks with a numeric answer."""

from collections.abc import Sequence
from typing import final

from hailproof.parsing import answer_in_tags, same_number
from hailproof.records import Problem, Prompt

MATH_SYSTEM = (
    "Solve the problem step by step. Write your reasoning between <think> and </think>, then the final number, "
    "and nothing else, between <answer> and </answer>."
)


class MathTask:
    """Problems whose answer is one number, given in ``<answer>`` tags after ``<think>`` tags.

    The reward is binary, as in the paper: 1 if the text holds exactly one pair of answer tags and its content, after
    normalization, is the number of the reference; else 0.
    """

    name: str = "math"
    completion_tokens: int = 384

    def __init__(self, train: Sequence[Problem], test: Sequence[Problem] = ()) -> None:
        self.train = train
        self.test = test

    @final
    def prompt(self, problem: Problem) -> Prompt:
        """Strips a problem of its answer and adds the instructions."""
        return Prompt(problem.id, MATH_SYSTEM, problem.question)

    @final
    def format(self, reasoning: str, answer: str) -> str:
        """Writes reasoning and answer in the form that earns full reward."""
        return f"<think>{reasoning}</think><answer>{answer}</answer>"

    @final
    def reward(self, problem: Problem, text: str) -> float:
        """Scores a completion: 1.0 or 0.0."""
        given = answer_in_tags(text)
        return float(given is not None and same_number(given, problem.answer))
