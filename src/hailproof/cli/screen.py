"""``hailproof screen``: verdicts for completions in files of other systems."""

from pathlib import Path
from typing import Annotated, Any

import typer

SHOWN = 20
"""Rejected rows that are shown at once; the summary counts all."""


def screen(
    files: Annotated[list[Path], typer.Argument(help="Files with completions; their form is detected.")],
    defense: Annotated[
        list[str] | None, typer.Option(help="A defense or a preset; may be given several times.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="DEFENSE.OPTION=VALUE", help="An option of a defense.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="PART=NAME", help="Where text, prompt, reward, sender, group, ids or round stands."),
    ] = None,
    form: Annotated[str, typer.Option(help="trl, traces, verl, areal, genrl, reliquary or table; else detected.")] = "",
    model: Annotated[str, typer.Option(help="A model to read with, for defenses that need one.")] = "",
    own_ids: Annotated[bool, typer.Option("--own-ids", help="The token ids in the files are the model's own.")] = False,
    sampling: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="How honest completions are drawn.")
    ] = None,
    format: Annotated[str, typer.Option(help="text, json (a table a line) or github (annotations).")] = "text",
    fail_above: Annotated[float, typer.Option(help="Exit with 1 if a larger share than this was rejected.")] = 0.0,
    show: Annotated[int, typer.Option(help="Rejected rows that are shown; the summary counts all.")] = SHOWN,
    report: Annotated[Path | None, typer.Option(help="Write a page with what was rejected, and why.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="What defenses remember of senders: read before, written afterwards.")
    ] = None,
) -> None:
    """Give verdicts on completions in files: exit 0 for none rejected, 1 for too many, 2 for wrong use."""
    from hailproof.errors import ConfigError
    from hailproof.runs.quiet import quiet_libraries
    from hailproof.screening.output import line_of, page_of, summary_of
    from hailproof.screening.screen import Finding, Order, parts_of, screen_files

    if not defense:
        raise ConfigError("No defense is named; give --defense equations, say, or another that 'hailproof list' names.")
    if format not in ("text", "json", "github"):
        raise ConfigError(f"--format {format} is unknown; use text, json or github.")
    if not 0 <= fail_above <= 1:
        raise ConfigError(f"--fail-above {fail_above:g} is no share; give a number from 0 to 1.")
    if model:
        quiet_libraries()
    order = Order(
        files=files,
        defenses=_named(defense, set_ or []),
        columns=parts_of(column or []),
        form=form,
        model=model,
        sampling=_sampling(sampling or []),
        own_ids=own_ids,
        state=state,
    )
    shown = 0

    def say(finding: Finding) -> None:
        nonlocal shown
        line = line_of(finding, format)
        if line is None or (format != "json" and shown >= show):
            return
        shown += 1
        typer.echo(line)

    tally = screen_files(order, say)
    if format == "text" and tally.rejected > shown:
        typer.echo(f"… and {tally.rejected - shown} more")
    typer.echo(summary_of(tally, format))
    if report is not None:
        from hailproof.runs.files import replacing

        page = page_of(tally, [str(path) for path in files], defense)
        with replacing(report) as temporary:
            temporary.write_text(page, encoding="utf-8")
    if tally.share > fail_above:
        raise typer.Exit(1)


def _named(names: list[str], assignments: list[str]) -> list[Any]:
    """Names with the options that are set for them."""
    from hailproof.errors import ConfigError
    from hailproof.runs.config import parse_assignment

    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in assignments:
        key, value = parse_assignment(text)
        name, _, option = key.partition(".")
        if name not in options or not option:
            raise ConfigError(f"--set {key} names no option of a defense; write DEFENSE.OPTION=VALUE of one you named.")
        options[name][option] = value
    return [(name, options[name]) if options[name] else name for name in names]


def _sampling(assignments: list[str]) -> Any:
    """How completions are drawn, from ``key=value``; ``None`` if nothing is said."""
    from hailproof.errors import ConfigError
    from hailproof.runs.config import SamplingConfig, parse_assignment
    from hailproof.settings import validated

    if not assignments:
        return None
    settings = validated(SamplingConfig, dict(parse_assignment(text) for text in assignments))
    if settings.max_new_tokens is None:
        raise ConfigError("--sampling lacks max_new_tokens, the length limit; add --sampling max_new_tokens=256.")
    return settings.build()
