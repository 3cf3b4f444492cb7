"""AREAL: ``rollout/VERSION/TASK.jsonl``: a line a sample of one task, with the versions of the weights that drew it.

Prompt and completion are texts with their special tokens. The group is ``task_id``, the round ``tail_version``. Read in
AReaL 1.0.4.
"""

from hailproof.screening.formats.table import LogTable

FORMAT = LogTable(
    marks=["task_id", "sample_idx", "prompt", "completion"],
    fixed={"text": "completion", "reward": "reward", "group": "task_id", "round": "tail_version"},
)
