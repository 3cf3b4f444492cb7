"""Nothing that a library deprecates reaches the console: our calls are those of the version that is installed."""

import os
import subprocess
import sys
from pathlib import Path

ARGUMENTS = [
    "run", "--rounds=1", "--attack=text", "--set=swarm.prompts=2", "--set=swarm.group_size=4", "--set=threads=1",
    "--set=sampling.max_new_tokens=8", "--set=task.options.size=16", "--set=task.options.test_size=4",
    "--set=evaluation.problems=4", "--set=swarm.device=cpu",
    "--set=defense=[{name='logit'}, {name='judge', options={beams=2, max_new_tokens=8}}]",
]  # fmt: skip


def test_a_run_that_samples_screens_judges_and_learns_prints_no_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hailproof", *ARGUMENTS, f"--out={tmp_path / 'run'}"]
    shown = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(command, capture_output=True, text=True, env=shown, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "round 1/1" in done.stdout and "arning" not in done.stdout
