"""Problems and their rewards; a task is chosen by its name.

Third parties add tasks through the entry point group ``hailproof.tasks``; see :func:`hailproof.registry.lookup`.
"""

from hailproof.registry import Builtins

TASKS: Builtins[type] = Builtins({
    "word_problems": "hailproof.tasks.word_problems:WordProblems",
    "gsm8k": "hailproof.tasks.gsm8k:Gsm8k",
    "openmath": "hailproof.tasks.openmath:OpenMath",
})
"""The built-in tasks by name."""
