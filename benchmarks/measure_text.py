"""TEXT against the shipped nano swarm, over seeds: clean, attacked, defended; horizontal, vertical, heterogeneous.

    .venv/bin/python benchmarks/measure_text.py --out runs/text --seeds 0 1 2

Every run is a folder of its own and is resumed if it was interrupted, so the script can be stopped and called again.
At the end it prints a table (mean and range over seeds of the means over the last 5 rounds) and draws one picture per
swarm. ``--check`` exits non-zero if a claim of the README does not hold.
"""

import statistics

from seeded import at_round, finish, first_round_above, options, play_all, spread

from hailproof.experiments.figures import draw_seeds

SWARMS: dict[str, tuple[str, ...]] = {
    "horizontal": (),
    "vertical": ("swarm.topology=vertical",),
    "heterogeneous": ('swarm.models=["nano-a", "nano-b"]',),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "clean": ("attack.malicious=0",),
    "attacked": (),
    "defended": ('defense=[{name="logit"}]',),
}


def main() -> None:
    parser = options(__doc__, "runs/text")
    parser.add_argument("--swarms", nargs="+", choices=SWARMS, default=list(SWARMS))
    arguments = parser.parse_args()
    runs = {
        (swarm, variant, seed): arguments.out / f"{swarm}-{variant}-{seed}"
        for swarm in arguments.swarms
        for seed in arguments.seeds
        for variant in VARIANTS
    }
    common = ["attack.name=text", "evaluation.problems=512", f"rounds={arguments.rounds}", *arguments.set]
    played = play_all(
        {
            folder: [*common, f"name={swarm}-{variant}", f"seed={seed}", *SWARMS[swarm], *VARIANTS[variant]]
            for (swarm, variant, seed), folder in runs.items()
        },
        arguments.workers,
    )
    summaries = {key: played[folder] for key, folder in runs.items()}
    print(
        "\n| swarm | run | attack success % | at round 20 % | first round >= 60 % | reward % | held-out reward % "
        "| tokens | honest accepted % | malicious accepted % | s/round |\n|" + " --- |" * 11
    )
    failed = []
    for swarm in arguments.swarms:
        rewards = {}
        for variant in VARIANTS:
            folders = [runs[swarm, variant, seed] for seed in arguments.seeds]
            ends = [summaries[swarm, variant, seed] for seed in arguments.seeds]
            column = {key: [end[key] for end in ends] for key in ends[0] if key not in ("held_out", "also")}
            rewards[variant] = statistics.fmean(end["held_out"]["reward"] for end in ends)
            crossings = [str(first_round_above(folder, 0.6) or "never") for folder in folders]
            cells = (
                swarm, variant, spread(column["attack_success"]), spread([at_round(f, 20) for f in folders]),
                ", ".join(crossings), spread(column["reward"]), spread([end["held_out"]["reward"] for end in ends]),
                spread(column["completion_tokens"], 1), spread(column["honest_acceptance"]),
                spread(column["malicious_acceptance"]), spread(column["seconds_per_round"], 1),
            )  # fmt: skip
            print("| " + " | ".join(cells) + " |")
            if swarm != "heterogeneous":
                if variant == "attacked" and min(column["attack_success"]) < 0.9:
                    failed.append(f"{swarm}: attacked success {column['attack_success']} below 0.9")
                if variant == "defended" and max(column["attack_success"]) > 0.02:
                    failed.append(f"{swarm}: defended success {column['attack_success']} above 0.02")
                if variant == "defended" and min(column["honest_acceptance"]) < 0.999:
                    failed.append(f"{swarm}: honest acceptance {column['honest_acceptance']} below 0.999")
        if swarm != "heterogeneous" and abs(rewards["defended"] - rewards["clean"]) > 0.02:
            failed.append(f"{swarm}: held-out reward {rewards} more than 2 points apart")
        draw_seeds(
            {variant: [runs[swarm, variant, seed] for seed in arguments.seeds] for variant in VARIANTS},
            arguments.out / f"{swarm}.png",
            f"TEXT, {swarm} swarm of 4 with 1 malicious node, {len(arguments.seeds)} seeds",
        )
    finish(failed, arguments.check)


if __name__ == "__main__":
    main()
