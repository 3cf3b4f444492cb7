"""Attacks against defenses on nano swarms, over seeds: success, what was accepted, reward, length, seconds.

    .venv/bin/python benchmarks/measure_defenses.py --out runs/defenses --seeds 0 1 2 [--defenses …] [--attacks …]

Attacks are the cases of ``measure_attacks.py``; ``clean-…`` is the swarm without an attacker, and ``none`` the same
attack without a defense. Every cell is a run of its own, resumed if it was interrupted. Figures are means over the last
5 rounds, and mean and range over seeds. A cell whose attack and defense have nothing to do with each other is left out.
``--check`` exits non-zero if a claim fails.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure_attacks import CASES, settings_of
from seeded import finish, lines, options, play_all, spread

DEFENSES: dict[str, tuple[str, ...]] = {
    "none": (),
    **{
        name: (f'defense=[{{name="{name}"}}]',)
        for name in (
            "logit", "replay", "homogeneous", "heterogeneous", "equations", "imports", "token_credit", "judge",
            "self_judge", "reward_outlier", "sender_stats",
        )
    },
    "replay-sampled": ('defense=[{name="replay", options={check=0.3}}]',),
    "length_neutral": ("learner.length_neutral=true",),
}  # fmt: skip
TEXTUAL = {"text", "sentence", "judge_injection", "boundary", "rank_aware", "low_and_slow"}
OFF_TOPIC: dict[str, set[str]] = {"equations": {"code"}, "imports": set(CASES) - {"code"}, "length_neutral": TEXTUAL}
"""Attacks that a defense has nothing to do with."""


def row(attack: str, defense: str, ends: Sequence[dict[str, Any]], folders: Sequence[Path]) -> str:
    """One line of the table."""
    rounds = [lines(folder) for folder in folders]
    seconds = [statistics.fmean(sum(line["seconds"].values()) for line in run) for run in rounds]
    screened = [statistics.fmean(line["seconds"]["screen"] for line in run) for run in rounds]
    cells = (
        attack, defense, spread([end["attack_success"] for end in ends]), kept(rounds, "honest"),
        kept(rounds, "malicious"), spread([end["reward"] for end in ends]),
        spread([end["held_out"]["reward"] for end in ends]), spread([end["completion_tokens"] for end in ends], 1),
        f"{statistics.fmean(screened):.2f} of {statistics.fmean(seconds):.2f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def kept(rounds: Sequence[Sequence[dict[str, Any]]], side: str) -> str:
    """Share of all screened completions of a side, over the whole run, that no defense rejected."""
    shares = []
    for run in rounds:
        asked = sum(line["screened"][side] for line in run)
        passed = sum(line["screened"][side] * (line[f"{side}_acceptance"] or 0.0) for line in run)
        shares.append(passed / asked if asked else None)
    return spread(shares)


def claims(ends: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    """What the two presets are asked for and what was found otherwise."""

    def mean(cell: tuple[str, str], *path: str) -> float:
        values = []
        for end in ends[cell]:
            value: Any = end
            for key in path:
                value = value[key]
            values.append(value or 0.0)
        return statistics.fmean(values)

    limits = {"replay": (0.02, 1.1, 0.02), "homogeneous": (0.02, 1.1, 0.02), "heterogeneous": (0.05, 1.25, 0.03)}
    failed = []
    for (attack, defense), _ in ends.items():
        if defense not in limits or attack not in CASES:
            continue
        success, longer, loss = limits[defense]
        clean = (CASES[attack].control, "none")
        excess = mean((attack, defense), "attack_success") - mean(clean, "attack_success")
        if excess > success:
            failed.append(f"{attack} against {defense}: excess success {excess:.3f}, at most {success}")
        ratio = mean((attack, defense), "completion_tokens") / mean(clean, "completion_tokens")
        if "length" in attack and ratio > longer:
            failed.append(f"{attack} against {defense}: {ratio:.2f} times the tokens of clean, at most {longer}")
        drop = mean(clean, "held_out", "reward") - mean((attack, defense), "held_out", "reward")
        if drop > loss:
            failed.append(f"{attack} against {defense}: held-out reward {drop:.3f} below clean, at most {loss}")
    return failed


def main() -> None:
    parser = options(__doc__, "runs/defenses")
    papers = ["text", "equation", "code", "length", "length-horizontal"]
    parser.add_argument("--attacks", nargs="+", choices=CASES, default=papers)
    parser.add_argument("--defenses", nargs="+", choices=DEFENSES, default=list(DEFENSES))
    parser.add_argument("--clean-too", action="store_true", help="also play every defense without an attacker")
    arguments = parser.parse_args()
    common = ["evaluation.problems=512", f"rounds={arguments.rounds}", *arguments.set]
    clean = dict.fromkeys(CASES[attack].control for attack in arguments.attacks)
    cells = [(name, "none") for name in clean]
    if arguments.clean_too:
        cells += [(name, defense) for defense in arguments.defenses if defense != "none" for name in clean]
    cells += [
        (attack, defense)
        for defense in arguments.defenses
        for attack in arguments.attacks
        if attack not in OFF_TOPIC.get(defense, ())
    ]
    folders = {
        cell: [arguments.out / f"{cell[0]}+{cell[1]}-{seed}" for seed in arguments.seeds] for cell in cells
    }
    played = play_all(
        {
            folder: [
                *common, f"name={cell[0]}+{cell[1]}", f"seed={seed}",
                *settings_of(cell[0]), *DEFENSES[cell[1]],
            ]
            for cell, places in folders.items()
            for seed, folder in zip(arguments.seeds, places, strict=True)
        },
        arguments.workers,
    )  # fmt: skip
    ends = {cell: [played[folder] for folder in places] for cell, places in folders.items()}
    print(
        "\n| attack | defense | attack success % | honest kept % | forged kept % | reward % | held-out reward % "
        "| tokens | screening, seconds of a round |\n|" + " --- |" * 9
    )
    for (attack, defense), summaries in ends.items():
        print(row(attack, defense, summaries, folders[attack, defense]))
    finish(claims(ends), arguments.check)


if __name__ == "__main__":
    main()
