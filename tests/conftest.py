"""What many tests need: the folder of real data, which lies beside a checkout of the project and not in it."""

import gc
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a loaded machine is slow, which is no fault of an example
settings.load_profile("any machine")

NO_SKIPS = "--no-skips"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

LONG = (
    "chaos", "service", "influence_runs", "analysis", "interrupts", "processes", "trials", "example_package",
    "sweep", "packaging", "probing", "trl_swarm", "warnings", "judge", "panels",
)  # fmt: skip
"""Test files with long tests, the longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(NO_SKIPS, action="store_true", help="a test or module that would be skipped fails instead")


def _failed_if_skipped(config: pytest.Config, report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption(NO_SKIPS):
        path, line, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"{reason} ({path}:{line}; {NO_SKIPS} makes this a failure)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    return _failed_if_skipped(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    return _failed_if_skipped(collector.config, (yield))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals the long files to the workers, as the first of what each gets, so that none ends with one alone.

    With ``--dist=worksteal`` each worker begins with a part of the tests as they stand here: the first with the first
    of all, the second with the next, and so on.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [[item for item in items if item.path.stem == f"test_{name}"] for name in LONG]
    dealt = [[item for file in long[worker::workers] for item in file] for worker in range(workers)]
    others = [item for item in items if item.path.stem.removeprefix("test_") not in LONG]
    ordered: list[pytest.Item] = []
    for worker, mine in enumerate(dealt, start=1):
        room = max(0, len(items) * worker // workers - len(ordered) - len(mine))
        ordered += mine + others[:room]
        del others[:room]
    items[:] = ordered


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data is not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Workers of a parallel test run must not take each other's cores; sums do not depend on how many there are."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def frozen_heap(one_thread: None) -> None:
    """The collector need not look again and again at thousands of collected tests and at what libraries made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def base_policy():
    """The shipped nano-a; tests must not change it."""
    from hailproof.policies.load import load

    return load("nano-a", device="cpu")


@pytest.fixture
def fresh_policy(base_policy):
    """A copy of nano-a that a test may train."""
    import copy

    from hailproof.policies.causal_lm import CausalLM

    return CausalLM("nano-a", copy.deepcopy(base_policy.model), base_policy.codec.tokenizer)
