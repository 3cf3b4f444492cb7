"""VERL: ``STEP.jsonl`` in ``trainer.rollout_data_dir``: ``input``, ``output``, ``gts``, ``score``, ``step`` and more.

Rows of a group have the same ``input``. Inputs and outputs are texts, without special tokens. Read in verl 0.9.1.
"""

from hailproof.screening.formats.table import LogTable

FORMAT = LogTable(
    marks=["input", "output", "score", "step"],
    fixed={"text": "output", "prompt": "input", "reward": "score", "round": "step"},
)
