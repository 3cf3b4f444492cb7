"""Start-up: what only names things loads none of the heavy libraries."""

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "pyarrow", "pandas", "matplotlib", "scipy", "statsmodels")

COMMAND = """
import sys
from hailproof.cli import main
sys.argv = ["hailproof", *{arguments!r}]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
"""


def played(statements: str) -> tuple[str, list[str]]:
    """Executes statements in a fresh interpreter; returns what they print, and which heavy libraries they load."""
    script = f"{statements}\nimport sys\nprint('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))\n"
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=wide)
    assert done.returncode == 0, done.stderr
    said, _, loaded = done.stdout.rpartition("LOADED")
    return said, loaded.split()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["Usage", "version", "reproduce"]),
        (["--version"], ["hailproof 0"]),
        (["list"], ["rank_aware", "token_credit", "openmath", "heterogeneous", "nano-judge"]),
        (["models", "list"], ["nano-a", "smollm2"]),
        (["models", "get", "--help"], ["--wheel", "--out"]),
        (["run", "--help"], ["attack", "KEY=VALUE"]),
        (["screen", "--help"], ["--column", "--fail-above"]),
        (["probe-reward", "--help"], ["--style", "--form"]),
        (["node", "--help"], ["TOML", "--check"]),
        (["relay", "--help"], ["--tls-cert", "--days"]),
        (["status", "--help"], ["--web", "equal"]),
    ],
)
def test_the_command_line_names_things_without_heavy_libraries(arguments: list[str], words: list[str]):
    said, loaded = played(COMMAND.format(arguments=arguments))
    assert all(word in said for word in words), said
    assert loaded == []


@pytest.mark.parametrize(
    "module", ["hailproof", "hailproof.runs.config", "hailproof.defenses.presets", "hailproof.learner.config"]
)
def test_modules_that_load_no_heavy_libraries(module: str):
    assert played(f"import {module}")[1] == []


def test_what_plans_sweeps_and_reads_runs_loads_no_model_library():
    """Processes of runs load it; the one that starts them, and a notebook that reads what they left, need not wait."""
    modules = "campaigns.bench", "campaigns.ray_engine", "campaigns.analysis", "paper.reproduce", "demo"
    _, loaded = played(f"import {', '.join(f'hailproof.{name}' for name in modules)}")
    assert "scipy" in loaded and not {"torch", "transformers"} & {*loaded}


def test_the_check_itself():
    assert "scipy" in played("import hailproof.metrics.intervals, scipy")[1]


def test_the_version_is_the_package_s():
    import hailproof

    assert played(COMMAND.format(arguments=["--version"]))[0].strip() == f"hailproof {hailproof.__version__}"
