"""Every attack against an undefended nano swarm, over seeds, beside the clean control of the same task and topology.

    .venv/bin/python benchmarks/measure_attacks.py --out runs/attacks --seeds 0 1 2 [--cases equation code …]

Every run is a folder of its own and is resumed if it was interrupted. The table gives means over the last 5 rounds, and
mean and range over seeds. ``also`` holds an attack's further measures. ``--check`` exits non-zero if a claim fails.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seeded import LONG, finish, lines, options, play_all, spread


@dataclass(frozen=True, slots=True)
class Case:
    """One row: an attack with its settings, and the clean control that it is compared with."""

    attack: str
    settings: tuple[str, ...] = ()
    control: str = "clean-horizontal"


SETTLED = 20
"""Rounds after which lengths are averaged; they swing, so that the last five rounds say little."""
SAMPLED = ("swarm.topology=vertical", "swarm.sharing=sampled")
CONTROLS: dict[str, tuple[str, ...]] = {
    "clean-horizontal": ("attack.name=text",),
    "clean-vertical": ("attack.name=equation",),
    "clean-code": ("attack.name=code",),
    "clean-vertical-long": ("attack.name=length", *LONG),
    "clean-horizontal-long": ("attack.name=length", "swarm.topology=horizontal", *LONG),
    "clean-sampled": ("attack.name=text", *SAMPLED),
}
CASES: dict[str, Case] = {
    "text": Case("text"),
    "sentence": Case("sentence"),
    "equation": Case("equation", control="clean-vertical"),
    "code": Case("code", control="clean-code"),
    "length": Case("length", LONG, "clean-vertical-long"),
    "length-horizontal": Case(
        "length", ("swarm.topology=horizontal", "attack.options.samples=24", *LONG), "clean-horizontal-long"
    ),
    "length-long-decoys": Case("length", ("attack.options.long_decoys=true", *LONG), "clean-vertical-long"),
    "length-128": Case("length", control="clean-vertical"),
    "text-no-oracle": Case("text", ("attack.oracle=false",)),
    "length-no-oracle": Case(
        "length", ("attack.oracle=false", "attack.candidates=80", *LONG), "clean-vertical-long"
    ),
    **{
        f"text-{share}": Case("text", (f"swarm.nodes={nodes}", "attack.malicious=1"))
        for nodes, share in ((2, "50%"), (6, "16.6%"), (12, "8.3%"))
    },
    **{
        f"equation-{share}": Case("equation", (f"swarm.nodes={nodes}", "attack.malicious=1"), "clean-vertical")
        for nodes, share in ((2, "50%"), (8, "12.5%"), (16, "6.25%"))
    },
    "judge_injection": Case("judge_injection"),
    "rank_aware": Case("rank_aware"),
    "rank_aware-logit": Case("rank_aware", ('defense=[{name="logit"}]',)),
    "grinding-best_of": Case("grinding"),
    "grinding-suppress_end": Case("grinding", ("attack.options.mode=suppress_end",)),
    "grinding-withhold": Case("grinding", ("attack.options.mode=withhold",)),
    "grinding-prompts": Case("grinding", ("attack.options.mode=prompts",), "clean-vertical"),
    "low_and_slow": Case("low_and_slow"),
    "boundary": Case("boundary"),
    "text-sampled": Case("text", SAMPLED, "clean-sampled"),
    "equation-sampled": Case("equation", SAMPLED, "clean-sampled"),
    "length-sampled": Case("length", SAMPLED, "clean-sampled"),
}


def settings_of(name: str) -> tuple[str, ...]:
    """The settings of a case, or of a clean control."""
    if name in CONTROLS:
        return (*CONTROLS[name], "attack.malicious=0")
    return (f"attack.name={CASES[name].attack}", *CASES[name].settings)


def row(name: str, ends: list[dict[str, Any]], folders: list[Path]) -> str:
    """One line of the table."""
    held = [end["held_out"] for end in ends]
    rounds = [lines(folder) for folder in folders]
    worth = [statistics.fmean(found) for run in rounds if (found := _defined(run, "malicious_reward"))]
    forge = [statistics.fmean(line["seconds"]["forge"] for line in run) for run in rounds]
    whole = [statistics.fmean(sum(line["seconds"].values()) for line in run) for run in rounds]
    also = ", ".join(f"{key} {spread([end['also'].get(key) for end in ends])}" for key in ends[0]["also"])
    cells = (
        name, spread([end["attack_success"] for end in ends]), also or "-", spread([end["reward"] for end in ends]),
        spread([each["reward"] for each in held]), spread([each["reward_targeted"] for each in held]),
        spread([each["reward_other"] for each in held]), spread([end["completion_tokens"] for end in ends], 1),
        spread([later_tokens(run) for run in rounds], 1), spread(worth),
        f"{statistics.fmean(forge):.2f} of {statistics.fmean(whole):.2f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def later_tokens(run: list[dict[str, Any]]) -> float | None:
    """Mean length of honest completions once the attack had time to work; undefined in a run as short as that."""
    later = [line["completion_tokens"] for line in run if line["round"] > SETTLED]
    return statistics.fmean(later) if later else None


def _defined(run: list[dict[str, Any]], key: str) -> list[float]:
    return [line[key] for line in run if line[key] is not None]


def claims(ends: dict[str, list[dict[str, Any]]], folders: dict[str, list[Path]]) -> list[str]:
    """What the paper's attacks are to achieve and what was found otherwise."""

    def mean(name: str, key: str = "attack_success") -> float:
        return sum(end[key] or 0.0 for end in ends[name]) / len(ends[name])

    failed = []
    for name, least in (("equation", 0.8), ("code", 0.5)):
        if name in ends and mean(name) < least:
            failed.append(f"{name}: success {mean(name):.2f} below {least}")
    for name in ("length", "length-horizontal"):
        if name in ends:
            lengths = [
                statistics.fmean(later_tokens(lines(folder)) or 0.0 for folder in folders[each])
                for each in (name, CASES[name].control)
            ]
            ratio = lengths[0] / lengths[1]
            if ratio < 2:
                failed.append(f"{name}: {ratio:.2f} times the tokens of the clean control, not 2")
    for name, other, key, slack in (
        ("text-no-oracle", "text", "attack_success", 0.1), ("length-no-oracle", "length", "completion_tokens", None)
    ):  # fmt: skip
        if name in ends and other in ends:
            near = slack if slack is not None else 0.1 * mean(other, key)
            if abs(mean(name, key) - mean(other, key)) > near:
                failed.append(f"{name}: {key} {mean(name, key):.2f} against {mean(other, key):.2f} with oracle")
    return failed


def main() -> None:
    parser = options(__doc__, "runs/attacks")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    common = ["evaluation.problems=512", f"rounds={arguments.rounds}", *arguments.set]
    wanted = dict.fromkeys(CASES[case].control for case in arguments.cases)
    settings = {name: settings_of(name) for name in (*wanted, *arguments.cases)}
    folders: dict[str, list[Path]] = {
        name: [arguments.out / f"{name}-{seed}" for seed in arguments.seeds] for name in settings
    }
    played = play_all(
        {
            folder: [*common, f"name={name}", f"seed={seed}", *settings[name]]
            for name, places in folders.items()
            for seed, folder in zip(arguments.seeds, places, strict=True)
        },
        arguments.workers,
    )
    ends = {name: [played[folder] for folder in places] for name, places in folders.items()}
    print(
        "\n| case | attack success % | also % | reward % | held-out reward % | on targeted % | on others % | tokens "
        "| tokens from round 21 | forged with full reward % | forging, seconds of a round |\n|" + " --- |" * 11
    )
    for name, summaries in ends.items():
        print(row(name, summaries, folders[name]))
    finish(claims(ends, folders), arguments.check)


if __name__ == "__main__":
    main()
