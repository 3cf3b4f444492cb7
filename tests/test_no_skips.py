"""With ``--no-skips``, as in .ci/run, whatever would be skipped fails and says why; without it, nothing changes."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = {
    "test_mark": "@pytest.mark.skipif(True, reason='no browser')\ndef test(): pass",
    "test_call": "def test(): pytest.skip('no browser')",
    "test_fixture": "@pytest.fixture\ndef data(): pytest.skip('no browser')\ndef test(data): pass",
    "test_module": "pytest.skip('no browser', allow_module_level=True)",
}
OTHERS = "@pytest.mark.xfail\ndef test_expected(): assert False\ndef test_passes(): pass"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    for name, source in {**SUITE, "test_others": OTHERS}.items():
        pytester.makepyfile(**{name: f"import pytest\n{source}"})
    return pytester


@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["alone", "xdist"])
def test_what_would_be_skipped_fails_with_the_reason(suite: pytest.Pytester, workers: list[str]) -> None:
    result = suite.runpytest("--no-skips", "--continue-on-collection-errors", *workers)
    result.assert_outcomes(passed=1, xfailed=1, failed=1, errors=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    said = [line for line in result.outlines if line.startswith("Skipped: no browser (")]
    assert len(said) == 4 and all("--no-skips makes this a failure" in line for line in said)


def test_without_the_option_a_skip_is_a_skip(suite: pytest.Pytester) -> None:
    result = suite.runpytest()
    result.assert_outcomes(passed=1, xfailed=1, skipped=4)
    assert result.ret == pytest.ExitCode.OK
