"""``hailproof reproduce`` and ``bench``: many runs, resumed where they stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hailproof.cli.said import AGAIN, RUNS, interruptible, out_option, say
from hailproof.runs.quiet import quiet_libraries

EngineName = Annotated[str, typer.Option("--engine", help="Where runs are played: local, or ray (the extra 'ray').")]
Workers = Annotated[int, typer.Option(help="Runs at a time; 0 for one on each core, or all a cluster has room for.")]
OnlyFinished = Annotated[bool, typer.Option("--only-finished", help="Play nothing; take the seeds that are finished.")]
GpusPerRun = Annotated[float, typer.Option(help="With ray: share of a GPU that each run gets.")]
ScaleName = Annotated[str, typer.Option(help="nano: this machine, offline. paper: the paper's models and sizes.")]
BenchScale = Annotated[
    str, typer.Option(help="nano: this machine, offline. smollm2: a pretrained model. paper: the paper's models.")
]
Cells = Annotated[Path, typer.Option("--runs", help="Folder of all runs; what is finished there is not played again.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of all configurations.")]


def _scale(name: str, known: Sequence[str]) -> Any:
    from hailproof.errors import ConfigError

    if name not in known:
        raise ConfigError(f"Unknown scale '{name}'; choose one of {', '.join(known)}.")
    return name


def _seeds(number: int | None) -> list[int] | None:
    from hailproof.errors import ConfigError

    if number is not None and number < 1:
        raise ConfigError(f"--seeds {number} is not a number of seeds; give at least 1.")
    return None if number is None else list(range(number))


@interruptible(AGAIN)
def reproduce(
    names: Annotated[list[str], typer.Argument(help="fig3a to fig16, table1, or all.")],
    scale: ScaleName = "nano",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, from 0 on; by default the files'.")] = None,
    out: Annotated[Path, out_option("Folder for pictures, data and the index.")] = RUNS / "reproduction",
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
    from hailproof.campaigns.scales import OF_FIGURES
    from hailproof.paper.reproduce import reproduce as play
    from hailproof.runs.config import tree_of

    chosen = _scale(scale, OF_FIGURES)
    played = None if only_finished else engine_named(engine, workers, gpus_per_run)
    results = play(names, chosen, runs, out, played, say, _seeds(seeds), tree_of(set_ or []))
    agreeing = sum(result.word == "agrees" for result in results)
    say(f"{agreeing} of {len(results)} agree with the paper in shape: {out / f'index-{chosen}.md'}")


@interruptible(AGAIN)
def bench(
    preset: Annotated[
        str | None,
        typer.Option(help="quick, headline, full or all: the seeds, and rows and columns where none are named."),
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="A row; may be given several times.")] = None,
    defense: Annotated[list[str] | None, typer.Option(help="A column; may be given several times.")] = None,
    scale: BenchScale = "nano",
    seeds: Annotated[int | None, typer.Option(help="Number of seeds, from 0 on; default: the preset's.")] = None,
    out: Annotated[Path, out_option("Folder for the cells and the leaderboard.")] = RUNS / "bench",
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
    from hailproof.campaigns.scales import SCALES, load_scale
    from hailproof.runs.config import tree_of

    named, chosen = load_matrix().preset(preset or "quick"), _scale(scale, SCALES)
    default = named.seeds if preset or not (attack or defense) else None
    wanted = attack or named.attacks, defense or named.defenses
    cells = cells_of(*wanted, _seeds(seeds) or default, chosen, runs, tree_of(set_ or []))
    played = None if only_finished else engine_named(engine, workers, gpus_per_run)
    page = play(cells, out, played, say, load_scale(chosen).seconds)
    say(f"Leaderboard: {page}")
