"""The layers of the program: imports point downward, and the lower two layers do without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "hailproof"

LAYERS = (
    # "" is the package's __init__
    {
        "", "records", "protocols", "seeds", "draws", "consequences", "errors", "files", "parsing", "arithmetic",
        "judging", "registry", "settings", "plugins", "wire", "identity", "sandbox",
    },
    {"tasks", "rewards", "rollouts", "topology", "exchange", "attacks", "metrics"},
    {"policies", "tracking"},
    {"defenses", "learner"},
    {"shield"},
    {"adversary", "node", "swarm"},
    {"runs", "integrations"},
    {"service"},
    {"reports"},
    {"campaigns", "screening", "probing"},
    {"paper"},
    {"demo"},
    {"cli", "__main__"},
)
LAYER_OF = {component: level for level, components in enumerate(LAYERS) for component in components}
SIBLINGS_THAT_MAY_IMPORT = {("swarm", "node"), ("swarm", "adversary"), ("__main__", "cli")}
OPTIONAL_PACKAGES = {"zenoh", "obstore", "starlette", "httpx"}  # extras, which a development machine may lack


def read_modules(source: Path) -> dict[str, str]:
    """Reads every module under a folder: dotted name (a package's is that of its ``__init__``) to source text."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return modules


def component_of(module: str) -> str:
    """The file or folder directly under the package that a module belongs to: ``tasks`` for hailproof.tasks.base."""
    return module.split(".")[1] if "." in module else ""


def imports_of(module: str, text: str, modules: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Yields line and dotted name of every module of the package that a module imports, wherever it does so."""
    is_package = any(other.startswith(f"{module}.") for other in modules)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parent = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parent, base] if base else parent)
            # "from package import name" imports the submodule of that name, if there is one
            found = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names
            ]
        else:
            continue
        yield from ((node.lineno, name) for name in found if name == PACKAGE or name.startswith(f"{PACKAGE}."))


def violations(modules: Mapping[str, str]) -> list[str]:
    """Says where modules break the layers: an import that points up or to a sibling, a component without a layer."""
    found = []
    for module, text in modules.items():
        importer = component_of(module)
        if importer not in LAYER_OF:
            found.append(f"{module} belongs to no layer")
            continue
        for line, imported in imports_of(module, text, modules):
            target = component_of(imported)
            if target not in LAYER_OF:
                found.append(f"{module}:{line} imports {imported}, which belongs to no layer")
            elif target == importer or (importer, target) in SIBLINGS_THAT_MAY_IMPORT:
                continue
            elif LAYER_OF[target] > LAYER_OF[importer]:
                found.append(f"{module}:{line} imports {imported}, which lies above it")
            elif LAYER_OF[target] == LAYER_OF[importer] != 0:
                found.append(f"{module}:{line} imports {imported}, its sibling")
    return found


def test_imports_point_downward():
    modules = read_modules(SOURCE)
    assert f"{PACKAGE}.records" in modules
    assert violations(modules) == []


REAL = {"hailproof": "", "hailproof.tasks": "", "hailproof.tasks.base": "", "hailproof.node": "", "hailproof.cli": ""}


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("hailproof.records", "import hailproof.node", ["hailproof.records:1 imports hailproof.node, which lies"]),
        ("hailproof.records", "from hailproof.tasks.base import Task", ["hailproof.tasks.base, which lies above it"]),
        ("hailproof.records", "from hailproof import node", ["hailproof.node, which lies above it"]),
        ("hailproof.records", "from . import node", ["hailproof.node, which lies above it"]),
        ("hailproof.records", "from .tasks import base", ["hailproof.tasks.base, which lies above it"]),
        ("hailproof.attacks.text", "from ..tasks.base import Task", ["hailproof.tasks.base, its sibling"]),
        ("hailproof.attacks.text", "\n\ndef late():\n    import hailproof.tasks", ["hailproof.attacks.text:4 imports"]),
        ("hailproof.node", "if TYPE_CHECKING:\n    from hailproof.swarm import S", ["hailproof.swarm, its sibling"]),
        ("hailproof.defenses.judge", "import hailproof.learner.loss", ["hailproof.learner.loss, its sibling"]),
        ("hailproof.runs.run", "from hailproof.reports import pages", ["hailproof.reports, which lies above it"]),
        ("hailproof.reports.table", "import hailproof.campaigns", ["hailproof.campaigns, which lies above it"]),
        ("hailproof.campaigns.cells", "import hailproof.paper", ["hailproof.paper, which lies above it"]),
        ("hailproof.paper.claims", "import hailproof.demo", ["hailproof.demo, which lies above it"]),
        ("hailproof.demo", "import hailproof.cli", ["hailproof.cli, which lies above it"]),
        ("hailproof.demo", "import hailproof.runs, hailproof.reports, hailproof.campaigns, hailproof.paper", []),
        ("hailproof", "from hailproof.tasks import base", ["hailproof:1 imports hailproof.tasks.base, which"]),
        ("hailproof.helpers", "", ["hailproof.helpers belongs to no layer"]),
        ("hailproof.cli", "import hailproof.helpers", ["hailproof.helpers, which belongs to no layer"]),
        ("hailproof.records", "import hailproof.node, hailproof.cli", ["hailproof.node, which", "hailproof.cli, "]),
        ("hailproof.records", "import hailproof.seeds, torch\nfrom hailproof import errors, VERSION", []),
        ("hailproof.tasks.gsm8k", "from hailproof.tasks.base import X\nfrom .base import X\nfrom . import base", []),
        ("hailproof.tasks", "from .base import X\nfrom . import base\nfrom ..records import Problem", []),
        ("hailproof.swarm", "from hailproof.node import Node", []),
        ("hailproof.__main__", "from hailproof.cli import main", []),
        ("hailproof.cli", "from hailproof import node, tasks\nfrom hailproofing import other", []),
    ],
)  # fmt: skip
def test_the_check_itself(module: str, text: str, found: list[str]):
    reported = violations({**REAL, module: text})
    assert len(reported) == len(found)
    assert all(part in line for part, line in zip(found, reported, strict=True))


def test_the_check_reads_files(tmp_path):
    (tmp_path / PACKAGE / "attacks").mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_text("")
    (tmp_path / PACKAGE / "attacks" / "__init__.py").write_text("from hailproof import seeds\n")
    (tmp_path / PACKAGE / "seeds.py").write_text("import hashlib\n\nfrom hailproof.attacks import ATTACKS\n")
    assert violations(read_modules(tmp_path)) == [
        "hailproof.seeds:3 imports hailproof.attacks, which lies above it"
    ]


def loads_torch(modules: list[str], source: Path) -> str:
    """Imports modules one after another in a fresh interpreter; returns the first that loads torch, or ``""``."""
    script = f"""
import importlib, sys
sys.path.insert(0, {str(source)!r})
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {OPTIONAL_PACKAGES!r}:
            raise
    if "torch" in sys.modules:
        print(name)
        break
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_lower_layers_leave_torch_alone():
    lower = [module for module in read_modules(SOURCE) if component_of(module) in LAYERS[0] | LAYERS[1]]
    assert {"hailproof", "hailproof.parsing", "hailproof.tasks.gsm8k"} <= set(lower)
    assert loads_torch(lower, SOURCE) == ""


def test_the_torch_check_itself(tmp_path):
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "clean.py").write_text("import math\n")
    (tmp_path / "heavy.py").write_text("import torch\n")
    assert loads_torch(["clean", "heavy"], tmp_path) == "heavy"
