"""The command line. Every error that is the user's to mend is one sentence and exit status 2."""

from typing import Annotated

import typer

from hailproof import __version__
from hailproof.cli.campaigns import bench, reproduce
from hailproof.cli.models import list_, models_app, pretrain
from hailproof.cli.probe import probe_reward
from hailproof.cli.runs import demo, report, resume, run
from hailproof.cli.said import complain, console
from hailproof.cli.screen import screen
from hailproof.errors import HailproofError
from hailproof.runs.console import guarded
from hailproof.service.commands import register as register_swarm

app = typer.Typer(
    help="A lab and a shield for decentralized GRPO: poison a swarm, defend it, measure both.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models_app, name="models")


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


for command in (run, resume, report, reproduce, bench):
    app.command()(command)
app.command("list")(list_)
app.command()(pretrain)
app.command()(demo)
app.command("screen")(screen)
app.command("probe-reward")(probe_reward)
register_swarm(app)


def main() -> None:
    """Runs the command line and turns errors that are the user's to mend into one sentence."""
    try:
        with guarded():
            app()
    except HailproofError as error:
        complain(str(error))
        raise SystemExit(2) from None
