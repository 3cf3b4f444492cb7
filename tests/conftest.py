"""What many tests need: the folder of real data, which lies beside a checkout of the project and not in it."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a loaded machine is slow, which is no fault of an example
settings.load_profile("any machine")

NO_SKIPS = "--no-skips"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
