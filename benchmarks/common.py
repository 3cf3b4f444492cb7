"""What the benchmarks share: options, swarms, tables, and the line that says where they ran."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # libraries read it when they are imported; all models are in the package

from hailproof.policies.causal_lm import CausalLM
from hailproof.records import RoundRecord
from hailproof.runs.build import Experiment, build
from hailproof.runs.config import load_config
from hailproof.runs.quiet import quiet_libraries
from hailproof.topology import Plan

HOLD_STILL = 1e-12
"""A learning rate that changes no float32 weight: all work of a round is done, and every variant plays the same one."""


def options(doc: str | None, claims: bool = True) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark, ``--check`` if it claims something; its help is its docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    if claims:
        parser.add_argument("--check", action="store_true", help="exit with 1 if the claim does not hold")
    return parser


def begin(arguments: argparse.Namespace, *packages: str) -> None:
    """Sets the threads, silences progress bars, and prints machine and versions."""
    quiet_libraries()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    versions = ", ".join(f"{name} {version(name)}" for name in ("hailproof", "torch", "transformers", *packages))
    cores, threads, load = os.cpu_count(), torch.get_num_threads(), os.getloadavg()[0]
    machine = f"{platform.machine()}, {cores} cores, {threads} threads, load {load:.1f} at the start"
    print(f"{machine}; {versions}", flush=True)


def make(**overrides: Any) -> Experiment:
    """A swarm on the CPU from dotted keys, written with ``__`` for the dot."""
    settings = {"swarm.device": "cpu", **{key.replace("__", "."): value for key, value in overrides.items()}}
    return build(load_config(None, list(settings.items())))


def policy_of(experiment: Experiment) -> CausalLM:
    """The policy of the first honest node."""
    policy = experiment.swarm.honest[0].policy
    if not isinstance(policy, CausalLM):
        raise TypeError(f"the benchmark looks into a CausalLM; the policy is a {type(policy).__name__}")
    return policy


def plan_under(experiment: Experiment, round: int, seed: int) -> Plan:
    """The plan of a round of the same swarm under another public seed."""
    planner = experiment.swarm.planner
    return replace(planner, rules=replace(planner.rules, seed=seed)).plan(round)


def play(experiment: Experiment, round: int) -> tuple[float, RoundRecord]:
    """Seconds of one round, and its record."""
    started = time.perf_counter()
    record = experiment.swarm.play(round)
    return time.perf_counter() - started, record


def spread(seconds: Sequence[float]) -> str:
    """Median, and smallest to largest."""
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}..{max(seconds):.3f})"


def table(rows: Sequence[Sequence[object]]) -> None:
    """Prints rows in columns; the first is the head, and all columns but the first are aligned right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    for number, row in enumerate(texts):
        cells = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in
                 enumerate(zip(row, widths, strict=True))]  # fmt: skip
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def verdict(claim: str, holds: bool, check: bool) -> int:
    """Prints whether a claim holds; the exit status."""
    print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return int(check and not holds)
