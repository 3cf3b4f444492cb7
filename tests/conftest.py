"""What many tests need: the folder of real data, which lies beside a checkout of the project and not in it."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
