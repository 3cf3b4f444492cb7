"""From a figure's file to its picture, its data and a word on whether its shape agrees with the paper."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hailproof.campaigns.scales import Scale, load_scale
from hailproof.campaigns.sweep import Engine, Job, sweep
from hailproof.defenses.judge import SHIPPED_JUDGE
from hailproof.errors import ConfigError, RunError
from hailproof.metrics.intervals import counted_interval, difference_of_counts
from hailproof.paper.claims import (
    Checked,
    Values,
    Word,
    compared,
    judged,
    judged_by,
    judged_exactly,
    look_up,
    verdict,
)
from hailproof.paper.judge_table import as_rows, judge_table
from hailproof.paper.published import Check, Item, LineSpec, PanelSpec, item_names, jobs_of, load_item
from hailproof.paper.pushes import PushCurve, findings, push_curve
from hailproof.policies.shipped import shipped_models
from hailproof.reports.curves import SeedPanel
from hailproof.reports.figures import draw_panels
from hailproof.runs.files import as_json, make_folder, read_json, replacing
from hailproof.runs.store import read_rounds

TITLES = {
    "attack_success": ("Attack success rate", "%"),
    "reward": ("Reward", "%"),
    "completion_tokens": ("Completion length", "tokens"),
}
"""Title and unit of the panels that a file does not spell out."""
PLACES = ("first", "second", "third", "fourth")
"""What checks call the judges of a table, in its order, since scales have different ones."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one figure or table.

    Attributes:
        name: Its name on the command line.
        item: Its file.
        scale: The scale it was played in.
        checked: The checks with what was found.
        seeds: Seeds of each of its runs; empty if it needs none.
        missing: Those of them that are not played.
        data: The CSV file.
        picture: The PNG file; ``None`` for a table.
    """

    name: str
    item: Item
    scale: Scale
    checked: tuple[Checked, ...]
    seeds: Mapping[str, tuple[int, ...]]
    missing: Mapping[str, tuple[int, ...]]
    data: Path
    picture: Path | None

    @property
    def word(self) -> Word:
        """Whether it agrees with the paper; "not tested" if its file says that this scale does not test it."""
        return "not tested" if self.item.not_tested.get(self.scale) else verdict(self.checked)

    @property
    def held(self) -> str:
        """How many of its checks hold, in words."""
        return f"{sum(each.finding == 'holds' for each in self.checked)} of {len(self.checked)}"


def chosen_names(names: Sequence[str]) -> list[str]:
    """The items that are asked for.

    Raises:
        ConfigError: If there is no such item.
    """
    if "all" in names:
        return item_names()
    for name in names:
        load_item(name)
    return list(dict.fromkeys(names))


def reproduce(
    names: Sequence[str], scale: Scale, root: Path, out: Path, engine: Engine | None, say: Callable[[str], None],
    seeds: Sequence[int] | None = None, changes: Mapping[str, Any] | None = None,
) -> list[Result]:
    """Plays the runs that some items need, each once, then draws and judges every item.

    Args:
        names: Items, or ``all``.
        scale: ``nano`` or ``paper``.
        root: The folder of all runs; what is finished there is not played again.
        out: The folder for pictures, data and the index.
        engine: Where runs are played; ``None`` to play nothing and take the seeds whose runs are finished.
        say: Prints one line of progress.
        seeds: Seeds, if not those of the files.
        changes: Settings that are laid over all others.

    Raises:
        HailproofError: If an item is unknown, a configuration is wrong, or runs failed.
    """  # fmt: skip
    items = {name: load_item(name) for name in chosen_names(names)}
    jobs = {name: jobs_of(item, scale, root, seeds, changes) for name, item in items.items()}
    failure = None
    if engine is not None:
        everything = [job for runs in jobs.values() for of_run in runs.values() for job in of_run]
        try:
            sweep(everything, engine, say, load_scale(scale).seconds)
        except RunError as error:  # a run that fails takes no figure from the others
            failure = error
    results = []
    for name, item in items.items():
        results.append(result_of(name, item, scale, jobs[name], out, ask=engine is not None))
        say(sentence(results[-1]))
    write_index(results, out)
    if failure is not None:
        raise failure
    return results


def result_of(
    name: str, item: Item, scale: Scale, jobs: Mapping[str, Sequence[Job]], out: Path, ask: bool = True
) -> Result:
    """Draws one item, writes its data and checks its claims.

    Args:
        name: Its name on the command line.
        item: Its file.
        scale: Which scale.
        jobs: Its runs by name; those that are not finished are left out, and named as missing.
        out: The folder for picture and data.
        ask: Whether judges may be asked for a table that is not there yet.
    """
    make_folder(out)
    stem = out / f"{name}-{scale}"
    data, picture = stem.with_suffix(".csv"), stem.with_suffix(".png")
    wanted = {run: tuple(job.seed for job in of_run) for run, of_run in jobs.items()}
    jobs = {run: [job for job in of_run if job.summary is not None] for run, of_run in jobs.items()}
    seeds = {run: tuple(job.seed for job in of_run) for run, of_run in jobs.items()}
    missing = {run: tuple(seed for seed in wanted[run] if seed not in seeds[run]) for run in wanted}
    match item.form:
        case "curves":
            specs = item.panels or _default_panels(item)
            panels = [_panel(spec, jobs) for spec in specs]
            played = [len(values) for panel in panels for each in panel.seeds.values() for values in each]
            rounds = list(range(1, 1 + max(played, default=1)))
            draw_panels([_padded(panel, len(rounds)) for panel in panels], rounds, picture, item.heading)
            _write_csv(data, ("panel", "line", "seed", "round", "value"), _curve_rows(panels, specs, seeds))
            checked = tuple(judged(check, compared(check, jobs)) for check in item.checks)
        case "push":
            curves = _curves(item)
            _draw_pushes(curves, picture, item.heading)
            _write_csv(data, ("curve", "poisoned share", "measured", "closed form"), _push_rows(curves))
            found = findings(curves)
            checked = tuple(judged_exactly(check, found[check.run]) for check in item.checks)
        case "judges":
            shares = _judged_shares(item, scale, data, ask)
            checked = tuple(_judged_by_cases(check, shares) for check in item.checks)
            picture = None
    return Result(name, item, scale, checked, seeds, missing, data, picture)


def _default_panels(item: Item) -> list[PanelSpec]:
    panels = []
    for measure in item.measures:
        title, unit = TITLES.get(measure, (measure, "%"))
        lines = tuple(LineSpec(run=run, measure=measure) for run in item.runs)
        panels.append(PanelSpec(title=title, unit=unit, lines=lines))
    return panels


def _panel(spec: PanelSpec, jobs: Mapping[str, Sequence[Job]]) -> SeedPanel:
    scale = 100.0 if spec.unit == "%" else 1.0
    curves: dict[str, list[list[float | None]]] = {}
    for line in spec.lines:
        if not jobs[line.run]:
            continue
        curves[line.label or line.run] = [
            [
                None if (value := look_up(record, line.measure)) is None else scale * value
                for record in read_rounds(job.folder)
            ]
            for job in jobs[line.run]
        ]
    sparse = any(line.measure.startswith("held_out.") for line in spec.lines)
    return SeedPanel(spec.title, spec.unit, curves, sparse)


def _padded(panel: SeedPanel, length: int) -> SeedPanel:
    def pad(values: Sequence[float | None]) -> list[float | None]:
        return [*values, *[None] * (length - len(values))]

    return replace(panel, seeds={label: [pad(values) for values in each] for label, each in panel.seeds.items()})


def _curve_rows(
    panels: Sequence[SeedPanel], specs: Sequence[PanelSpec], seeds: Mapping[str, Sequence[int]]
) -> Iterator[tuple[Any, ...]]:
    for panel, spec in zip(panels, specs, strict=True):
        runs = {line.label or line.run: line.run for line in spec.lines}
        for label, curves in panel.seeds.items():
            for seed, values in zip(seeds[runs[label]], curves, strict=True):
                for round, value in enumerate(values, start=1):
                    yield panel.title, label, seed, round, "" if value is None else f"{value:.6g}"


def _curves(item: Item) -> list[PushCurve]:
    options = item.options
    return [
        push_curve(size, reward, options["variance"], options.get("draws", 1))
        for size in options["group_sizes"]
        for reward in options["honest_rewards"]
    ]


def _draw_pushes(curves: Sequence[PushCurve], picture: Path, title: str) -> None:
    """Closed form and measured points as one panel each, on a common grid of shares."""
    grid = sorted({share for curve in curves for share in curve.shares})

    def line(curve: PushCurve, values: Sequence[float]) -> list[list[float | None]]:
        by_share = dict(zip(curve.shares, values, strict=True))
        return [[_between(by_share, share) for share in grid]]

    measured = {_label(curve, curves): line(curve, curve.measured) for curve in curves}
    closed = {_label(curve, curves): line(curve, curve.closed) for curve in curves}
    panels = [
        SeedPanel("As the learner computes it", "", measured),
        SeedPanel("Closed form", "", closed),
    ]
    draw_panels(panels, grid, picture, title, axis="poisoned share of the group", name_ends=False)


def _label(curve: PushCurve, curves: Sequence[PushCurve]) -> str:
    """What tells a curve from the others."""
    if len({each.group_size for each in curves}) > 1:
        return f"G = {curve.group_size}"
    return f"honest reward {curve.honest_reward:g}"


def _between(points: Mapping[float, float], at: float) -> float:
    """Linear interpolation between known shares."""
    left = max(share for share in points if share <= at)
    right = min(share for share in points if share >= at)
    if left == right:
        return points[left]
    return points[left] + (points[right] - points[left]) * (at - left) / (right - left)


def _push_rows(curves: Sequence[PushCurve]) -> Iterator[tuple[Any, ...]]:
    for curve in curves:
        for share, measured, closed in zip(curve.shares, curve.measured, curve.closed, strict=True):
            yield _label(curve, curves), f"{share:.6g}", f"{measured:.6g}", f"{closed:.6g}"


def _judged_shares(item: Item, scale: Scale, data: Path, ask: bool) -> dict[str, tuple[float, int]]:
    """The table of accept rates by judge and completions; it is asked for once and kept beside its data.

    Returns:
        The share that is accepted, and of how many completions; empty if the table is not there and may not be asked
        for.
    """
    kept = data.with_suffix(".json")
    options, shared = {**item.options, **item.options[scale]}, load_scale(scale)
    settings = {"math": {**shared.math, **options.get("math", {})}, "code": {**shared.code}}
    questions = {key: options[key] for key in ("judges", "completions", "number", "judgements")}
    asked = {**questions, "settings": settings, "weights": [_weights_digest(judge) for judge in options["judges"]]}
    known = read_json(kept, "delete it, and the judges are asked again") or {}
    if known.get("asked") == asked:
        rows = known["rows"]
    elif not ask:
        return {}
    else:
        rows = as_rows(
            judge_table(asked["judges"], asked["completions"], settings, asked["number"], asked["judgements"])
        )
        with replacing(kept) as temporary:
            temporary.write_text(as_json({"asked": asked, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    _write_csv(data, tuple(rows[0]), (tuple(row.values()) for row in rows))
    places = dict(zip((judge["label"] for judge in asked["judges"]), PLACES, strict=False))
    return {f"{places[row['judge']]}: {row['completions']}": (row["share"], row["cases"]) for row in rows}


def _weights_digest(judge: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a shipped judge's weights, which may be trained anew under the same name; else ``None``."""
    folder = shipped_models().get(judge.get("model", SHIPPED_JUDGE))
    if folder is None:
        return None
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _judged_by_cases(check: Check, shares: Mapping[str, tuple[float, int]]) -> Checked:
    """Holds a share, or a difference of two, against a check; completions count once, however often they are judged.

    Votes about one completion are not independent, so the interval takes the completions as the trials.
    """
    if not shares:
        return judged(check, Values(()))
    for name in filter(None, (check.run, check.versus)):
        if name not in shares:
            raise ConfigError(f"The table has no value '{name}'; it has {', '.join(shares)}.")
    share, cases = shares[check.run]
    if check.versus is None:
        return judged_by(check, (share,), counted_interval(share, cases))
    other, other_cases = shares[check.versus]
    return judged_by(check, (share - other,), difference_of_counts(share, cases, other, other_cases))


def _write_csv(path: Path, head: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def sentence(result: Result) -> str:
    """The verdict on an item as one line."""
    return f"{result.item.item}: {result.word} ({result.held} checks hold)"


def write_index(results: Sequence[Result], out: Path) -> Path:
    """Writes ``index-SCALE.md``: claim, picture, what was found, and why, for these items and those of earlier calls.

    What earlier calls found is read from ``verdicts-SCALE.json``, which is written as well.
    """
    scale = results[0].scale
    verdicts, path = out / f"verdicts-{scale}.json", out / f"index-{scale}.md"
    found = read_json(verdicts, "delete it, and give the same command again") or {}
    for result in results:
        found[result.name] = {
            "item": result.item.item, "title": result.item.title, "verdict": result.word, "held": result.held,
            "section": _section(result),
        }  # fmt: skip
    found = {name: found[name] for name in item_names() if name in found}
    parts = [
        f"{_counted([each['verdict'] for each in found.values()])}\n",
        "| item | | verdict | checks that hold |\n| --- | --- | --- | --- |",
    ]
    for each in found.values():
        parts[-1] += f"\n| {each['item']} | {each['title']} | **{each['verdict']}** | {each['held']} |"
    parts += [each["section"] for each in found.values()]
    for place, text in ((verdicts, as_json(found, indent=1)), (path, "\n\n".join(parts))):
        with replacing(place) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return path


def _counted(words: Sequence[str]) -> str:
    """How many items have which verdict, as a sentence."""
    others = [word for word in ("differs", "undecided", "not tested", "not played") if word in words]
    rest = "".join(f"; {words.count(word)} {word}" for word in others)
    return f"{words.count('agrees')} of {len(words)} items agree with the paper in shape{rest}."


def _section(result: Result) -> str:
    item = result.item
    lines = [f"## {item.heading}", f"*The paper:* {item.claim}"]
    if result.picture:
        lines.append(f"![{item.title}]({result.picture.name})")
    table = ["| check | asked | 95 % interval | by seed | |", "| --- | --- | --- | --- | --- |"]
    table += [
        f"| {each.that} | {each.bound} | {_range(each)} | {', '.join(map(_value, each.values))} | {each.words} |"
        for each in result.checked
    ]
    said = (f"**{result.word.capitalize()}.**", item.not_tested.get(result.scale), item.remark.get(result.scale))
    lines += ["\n".join(table), " ".join(filter(None, said))]
    if result.seeds:
        by_seeds: dict[str, list[str]] = {}
        for run, seeds in result.seeds.items():
            by_seeds.setdefault(_seeds(seeds, result.missing.get(run, ())), []).append(run)
        listed = [f"{', '.join(runs)}: {seeds}" for seeds, runs in by_seeds.items()]
        lines.append(f"Runs: {'; '.join(listed)}. Data: [{result.data.name}]({result.data.name}).")
    else:
        lines.append(f"Data: [{result.data.name}]({result.data.name}).")
    return "\n\n".join(lines)


def _seeds(seeds: Sequence[int], missing: Sequence[int] = ()) -> str:
    if not seeds:
        return "not played"
    rest = f" ({', '.join(map(str, missing))} not played)" if missing else ""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{rest}"


def _range(checked: Checked) -> str:
    return "-" if checked.ends is None else " to ".join(map(_value, checked.ends))


def _value(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
