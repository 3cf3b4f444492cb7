"""Problems and their rewards; a task is chosen by its name.

Third parties add tasks through the entry point group ``hailproof.tasks``; see :func:`hailproof.registry.lookup`.
"""

from hailproof.tasks.gsm8k import Gsm8k
from hailproof.tasks.openmath import OpenMath
from hailproof.tasks.word_problems import WordProblems

TASKS: dict[str, type] = {"word_problems": WordProblems, "gsm8k": Gsm8k, "openmath": OpenMath}
"""The built-in tasks by name."""

__all__ = ["TASKS", "Gsm8k", "OpenMath", "WordProblems"]
