"""``hailproof probe-reward``: what a reward function pays for, what it raises on, and what it hangs on."""

from pathlib import Path
from typing import Annotated, Any

import typer


def probe_reward(
    function: Annotated[str, typer.Argument(help="MODULE:FUNCTION; the module is looked for in this folder first.")],
    task: Annotated[str, typer.Option(help="Whose problems it is asked about.")] = "word_problems",
    data: Annotated[Path | None, typer.Option(help="Local data file of the task.")] = None,
    variant: Annotated[str, typer.Option(help="math, or code for functions that run programs.")] = "math",
    problems: Annotated[int, typer.Option(help="Problems; every probe is made of each.")] = 3,
    form: Annotated[
        str, typer.Option(help="How answers look: tags, boxed, hashes, words, bare, fence, or a template; else tried.")
    ] = "",
    style: Annotated[
        str, typer.Option(help="How it is called: trl, trl-messages, verl, openrlhf or plain; else by its parameters.")
    ] = "",
    seconds: Annotated[float, typer.Option(help="What one call may take.")] = 5.0,
    format: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """Test a reward function with forged, wrong and damaged answers: exit 0 for no finding, 1 for some."""
    from hailproof.errors import ConfigError
    from hailproof.plugins import Plugin, make
    from hailproof.probing.output import json_of, text_of
    from hailproof.probing.probe import probe
    from hailproof.tasks import TASKS

    if format not in ("text", "json"):
        raise ConfigError(f"--format {format} is unknown; use text or json.")
    if problems < 1 or seconds <= 0:
        raise ConfigError("--problems takes 1 or more, --seconds more than 0.")
    options: dict[str, Any] = {"data": str(data)} if data else {}
    built = make("tasks", TASKS, Plugin(name=task, options={**options, "variant": variant}))
    chosen = [problem for problem in built.train if problem.solution][: problems * 50]
    special = [problem for problem in chosen if "two_two" in problem.tags]
    chosen = [*special[:1], *(problem for problem in chosen if problem not in special[:1])][:problems]
    if not chosen:
        raise ConfigError(f"The task '{task}' has no problems with solutions here; choose another with --task.")
    report = probe(function, built, chosen, form=form, style=style, seconds=seconds)
    typer.echo(json_of(report) if format == "json" else text_of(report))
    if report.findings():
        raise typer.Exit(1)
