"""Every block of the pages that show how to use or extend hailproof runs: Python as it stands, commands as if typed."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hailproof.cli import app, main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (
    "index.md", "shield.md", "screen.md", "probe-reward.md", "trl.md", "adapters.md", "tracking.md",
    "write-an-attack.md", "write-a-defense.md", "write-an-engine.md", "write-a-task.md",
)  # fmt: skip


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of each block of a page, in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def played(command: str, monkeypatch) -> int:
    """Runs a command; returns its exit status."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "hailproof", command
    monkeypatch.setattr("sys.argv", [program, *arguments])
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    return 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(gradient_checkpointing|rollout_func)")  # of TRL, about what it does itself
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    """A command may end with ``# exit 1``, which is then its exit status; it is 0 without."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    languages = set()
    for number, (language, content) in enumerate(blocks(page), 1):
        languages.add(language)
        if language == "python":
            exec(compile(content, f"block {number} of {page}", "exec"), names)
        elif language == "bash":
            for line in content.replace("\\\n", " ").splitlines():
                found = re.search(r"# exit (\d)$", line)
                assert played(line, monkeypatch) == (int(found[1]) if found else 0), line
    assert languages <= {"python", "bash", "text", "yaml", "json", "toml"} and languages & {"python", "bash"}


def typed(text: str) -> list[str]:
    """The commands that a page shows, in fences or indented; lines that end in a backslash go on."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return re.findall(r"^(?: {4})?(hailproof .*)$", joined, re.MULTILINE)


def test_every_command_that_is_shown_can_be_typed():
    """They are read, not run: no page names a command, an option or an argument that there is not."""
    pages = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
    shown = [(page.name, line) for page in pages for line in typed(page.read_text(encoding="utf-8"))]
    assert len(shown) > 40
    for name, line in shown:
        command: Any = typer.main.get_command(app)
        _, *arguments = shlex.split(line, comments=True)
        while hasattr(command, "commands"):
            assert arguments and arguments[0] in command.commands, f"{name}: {line}"
            command, arguments = command.commands[arguments[0]], arguments[1:]
        with command.make_context(name, arguments):
            pass
