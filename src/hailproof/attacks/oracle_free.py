"""Without an oracle: what an attacker can know of a problem from draws of its own policy (paper, figures 5a and 5b).

N candidates vote on the answer; the reasoning of a candidate that agrees with the majority stands in for the
reference solution. Any attack then runs on the estimate as it would on the real thing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hailproof.parsing import answer_in_tags, code_in_tags, parse_number, thoughts
from hailproof.protocols import Task
from hailproof.records import Completion, Problem


def estimated(problem: Problem, task: Task, candidates: Sequence[Completion]) -> Problem | None:
    """Replaces a problem's answer and solution by what a majority of candidates says.

    Args:
        problem: The problem; its own answer and solution are not read.
        task: How answers are written.
        candidates: Draws of the attacker's policy.

    Returns:
        The problem as the attacker sees it; ``None`` if no candidate gives an answer.
    """
    if task.variant == "code":
        # What a program prints is not seen without running it: the candidates vote with their programs.
        programs = Counter(program for c in candidates if c.finished and (program := code_in_tags(c.text)))
        if not programs:
            return None
        return replace(problem, answer="", solution=programs.most_common(1)[0][0])
    answers = [answer_in_tags(candidate.text) if candidate.finished else None for candidate in candidates]
    values = [None if answer is None else parse_number(answer) for answer in answers]
    votes = Counter(value for value in values if value is not None)
    if not votes:
        return None
    majority = votes.most_common(1)[0][0]
    first = values.index(majority)
    return replace(problem, answer=answers[first] or "", solution=thoughts(candidates[first].text))
