"""What is published: wheel and sdist, built from this tree, offline, and a run of the installed wheel."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHEEL_MB = 25
"""Most of it are the weights of four models; an index takes no file above 100 MB."""


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_workflows_run_actions_of_known_commits():
    used = [
        line.split("uses:")[1].strip()
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "uses:" in line
    ]
    foreign = [each for each in used if not each.startswith("./")]
    loose = [each for each in foreign if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", each)]
    assert len(foreign) >= 7 and not loose


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def sources() -> set[str]:
    """The files of the package, relative to ``src``."""
    return {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "hailproof").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_figures_and_nothing_else(built):
    wheel, _ = built
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    figures = {f"hailproof/campaigns/files/{path.name}" for path in (ROOT / "experiments").iterdir()}
    assert held == sources() | figures
    weights = {Path(name).parent.name for name in held if name.endswith(".safetensors")}
    assert weights == {"nano-a", "nano-b", "nano-judge", "adapter"}
    assert wheel.stat().st_size < WHEEL_MB * 1e6


@pytest.mark.slow
def test_the_sdist_holds_what_a_wheel_is_built_from(built):
    _, sdist = built
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    figures = {f"experiments/{path.name}" for path in (ROOT / "experiments").iterdir()}
    beside = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", ".gitignore", "PKG-INFO"}
    assert held == {f"src/{name}" for name in sources()} | figures | beside
    assert sdist.stat().st_size < WHEEL_MB * 1e6


@pytest.mark.slow
def test_the_installed_wheel_plays_a_run(built, tmp_path):
    """Only hailproof is installed anew; its dependencies are those of this environment, so that nothing is fetched."""
    wheel, _ = built
    installed = tmp_path / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *options, "--target", installed, wheel)
    environment = {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    where = run(sys.executable, "-c", "import hailproof; print(hailproof.__file__)", **environment)
    assert Path(where.strip()).is_relative_to(installed)
    small = ["swarm.prompts=2", "swarm.group_size=4", "sampling.max_new_tokens=24", "evaluation.problems=4"]
    settings = [f"--set={each}" for each in (*small, "threads=1", "task.options.size=40", "task.options.test_size=8")]
    command = [installed / "bin" / "hailproof", "run", "--rounds", 2, "--out", tmp_path / "run", *settings]
    assert "round 2/2" in run(*command, **environment)
    assert (tmp_path / "run" / "report.html").is_file()
