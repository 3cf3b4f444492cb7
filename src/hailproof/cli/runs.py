"""``hailproof run``, ``resume``, ``report`` and ``demo``: one run, and three beside one another."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hailproof.cli.said import RUNS, complain, console, interruptible, out_option
from hailproof.runs.quiet import quiet_libraries
from hailproof.runs.words import plan_text, round_text, summary_table


def progress_of(rounds: int, label: str = "round") -> Callable[[dict[str, Any]], None]:
    """A progress callback that prints one line a round."""

    def show(line: dict[str, Any]) -> None:
        console.print(f"{label} {line['round']:>{len(str(rounds))}}/{rounds}  {round_text(line)}", soft_wrap=True)

    return show


def _finish(path: Path, summary: dict[str, Any]) -> None:
    from hailproof.reports.report import write_report

    console.print(summary_table({summary["name"]: summary}))
    console.print(f"Report: {write_report(path)}", soft_wrap=True)


@contextmanager
def _watching(track: list[str] | None, live: bool, folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """How a run is watched: the arguments ``progress`` and ``watch`` of what plays it."""
    if not track and not live:
        yield {"progress": progress_of(rounds)}
        return
    from hailproof.tracking.live import LiveView
    from hailproof.tracking.watch import watching

    view = LiveView(rounds, console) if live else None
    with watching(track or (), folder, view, complain) as watch:
        yield {"watch": watch} if live else {"watch": watch, "progress": progress_of(rounds)}


Track = Annotated[
    list[str] | None,
    typer.Option(help="Log figures to tensorboard, wandb (offline) or trackio; may be given several times."),
]
Live = Annotated[bool, typer.Option("--live", help="Show what each sender sends and keeps, and whether nodes learn.")]


def _absolute_if_path(text: str) -> str:
    return str(Path(text).resolve()) if os.path.exists(text) else text  # a name may be too long for a path


def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML configuration; options override it.")] = None,
    attack: Annotated[str | None, typer.Option(help="What malicious nodes do, or none.")] = None,
    defense: Annotated[
        list[str] | None, typer.Option(help="Screens completions; a defense or a preset; may be given several times.")
    ] = None,
    topology: Annotated[str | None, typer.Option(help="horizontal or vertical.")] = None,
    task: Annotated[str | None, typer.Option(help="What is trained on.")] = None,
    data: Annotated[Path | None, typer.Option(help="Local data file of the task.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Name, folder or hub id; several make a mixed swarm.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds to play.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, out_option("Run folder; by default runs/NAME.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration.")
    ] = None,
    track: Track = None,
    live: Live = False,
) -> None:
    """Train a swarm, perhaps poisoned, perhaps defended."""
    from hailproof.runs.config import load_config, parse_assignment

    chosen: list[tuple[str, Any]] = [
        ("attack.name", attack),
        ("defense", [{"name": name} for name in defense] if defense else None),
        ("swarm.topology", topology),
        ("task.name", task),
        ("task.options.data", str(data.resolve()) if data else None),
        ("swarm.models", [_absolute_if_path(name) for name in model] if model else None),
        ("rounds", rounds),
        ("seed", seed),
    ]
    overrides = [(key, value) for key, value in chosen if value is not None]
    overrides += [parse_assignment(text) for text in set_ or []]
    settings = load_config(config, overrides)
    path = out or RUNS / settings.name
    with interruptible("nothing was played; give the same command again.", path):
        quiet_libraries()
        from hailproof.runs.run import start

        def announce(resolved: Any) -> None:
            console.print(f"Run folder: {path}", soft_wrap=True)
            console.print(plan_text(resolved), soft_wrap=True)

        with _watching(track, live, path, settings.rounds) as watched:
            summary = start(settings, path, announce=announce, **watched)
        _finish(path, summary)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of an interrupted run.")],
    track: Track = None,
    live: Live = False,
) -> None:
    """Go on with an interrupted run; the result is that of one that was not."""
    quiet_libraries()
    from hailproof.runs.config import load_config
    from hailproof.runs.run import resume as go_on
    from hailproof.runs.store import RunFolder

    RunFolder.reopen(folder).close()
    settings = load_config(folder / "config.toml")
    with interruptible("give the same command again.", folder):
        with _watching(track, live, folder, settings.rounds) as watched:
            summary = go_on(folder, **watched)
        _finish(folder, summary)


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    surprise: Annotated[
        bool, typer.Option("--surprise/--no-surprise", help="Show how surprising each token of the samples is.")
    ] = True,
) -> None:
    """Write report.html and curves.png of a run, finished or not."""
    quiet_libraries()
    from hailproof.reports.report import write_report
    from hailproof.runs.store import check_run_folder

    check_run_folder(folder)
    console.print(f"Report: {write_report(folder, surprise)}", soft_wrap=True)


@interruptible("the same command begins the demo anew.")
def demo(
    out: Annotated[Path, out_option("Folder for the three runs and the picture.")] = RUNS / "demo",
    rounds: Annotated[int, typer.Option(help="Rounds of each run.")] = 40,
) -> None:
    """Poison a swarm, defend it, and show both beside a clean one."""
    from hailproof.demo import play

    quiet_libraries()
    summaries, picture = play(out, rounds, lambda line: console.print(line, soft_wrap=True))
    console.print(summary_table(summaries))
    console.print(f"Picture: {picture}", soft_wrap=True)
    console.print(f"Reports: {out}/*/report.html", soft_wrap=True)
