"""Intervals, tests and seeds needed, against values from tables, from textbooks and from the libraries themselves."""

import math
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from hailproof.metrics.established import beyond_p, equivalence_p, holm, same_p
from hailproof.metrics.intervals import (
    counted_interval,
    difference_of_counts,
    exchange_p,
    geometric_mean,
    interval,
    ratio_interval,
    seeds_needed,
    share_interval,
    upper_bound,
    upper_bounds,
)


def t_test_p(values: list[float], margin: float, side: str) -> float:
    found: Any = stats.ttest_1samp(values, margin, alternative=side)
    return float(found.pvalue)


SHARES = st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=2, max_size=8)
DIFFERENCES = st.lists(st.floats(-1, 1).map(lambda value: round(value, 4)), min_size=2, max_size=8)


def test_the_interval_of_three_values_uses_students_t_with_two_degrees_of_freedom():
    low, high = interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


def test_an_interval_needs_two_values():
    with pytest.raises(ValueError, match="at least two"):
        interval([1.0])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.floats(-50, 50))
def test_an_interval_moves_with_its_values(values, shift):
    low, high = interval(values)
    moved = interval([value + shift for value in values])
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_three_seeds_cannot_do_better_than_one_in_twenty():
    assert exchange_p([0.9, 0.92, 0.95], [0.0, 0.0, 0.0]) == pytest.approx(1 / 20)


def test_exchanged_labels_of_equal_values_are_always_as_far_apart():
    assert exchange_p([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == 1.0


def test_seeds_needed_agrees_with_the_textbook_sample_size():
    # Cohen (1988), table 2.4.1: d = 1.0, two-sided 5 %, power 0.80 asks for 17 a side.
    assert seeds_needed(5.0, 5.0) == 17
    assert seeds_needed(10.0, 5.0) == 6
    assert seeds_needed(1e-9, 5.0, most=50) == 50


def test_nothing_seen_in_many_trials_is_bounded_by_the_rule_of_three():
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_bound(5, 5) == 1.0


def test_the_interval_of_a_share_is_students_t_on_the_logit_scale():
    # Mean 0.8 and error 0.1 / sqrt 3, carried to the logit scale: ln 4 +- 4.302653 * 0.057735 / (0.8 * 0.2).
    low, high = share_interval([0.7, 0.8, 0.9])
    half = 4.302653 * 0.0577350 / 0.16
    ends = [1 / (1 + math.exp(-(math.log(4) + side * half))) for side in (-1, 1)]
    assert (low, high) == pytest.approx(ends, abs=1e-5)
    assert (low, high) == pytest.approx((0.4585, 0.9497), abs=1e-3)


def test_a_share_never_looks_surer_than_independent_completions_would():
    # Seeds that agree: the error is sqrt(0.25 / 100) = 0.05, so 0 +- 2.776445 * 0.05 / 0.25 on the logit scale.
    half = 2.776445 * 0.05 / 0.25
    ends = [1 / (1 + math.exp(-side * half)) for side in (-1, 1)]
    assert share_interval([0.5] * 5, 100) == pytest.approx(ends, abs=1e-6)
    assert share_interval([0.5] * 5) == (0.5, 0.5)
    # Seeds that differ more than completions would: the number of completions changes nothing.
    assert share_interval([0.2, 0.5, 0.8], 10_000) == share_interval([0.2, 0.5, 0.8])


def test_where_all_seeds_are_at_an_end_the_interval_is_the_exact_one():
    assert share_interval([0.0] * 5, 200) == pytest.approx(proportion_confint(0, 200, method="beta"))
    assert share_interval([0.0] * 10) == pytest.approx((0.0, 0.3085), abs=1e-4)  # 1 - 0.025 ** (1 / 10), as in tables
    assert share_interval([1.0] * 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert counted_interval(0.1, 10) == pytest.approx((0.0025, 0.4450), abs=1e-4)  # 1 of 10: Clopper and Pearson 1934


@given(SHARES, st.integers(0, 1000))
def test_the_interval_of_a_share_lies_within_bounds_and_holds_the_mean(values, trials):
    low, high = share_interval(values, trials)
    assert 0 <= low <= fmean(values) + 1e-12 and fmean(values) - 1e-12 <= high <= 1


@given(st.lists(st.floats(0.05, 0.95), min_size=2, max_size=5), st.integers(2, 4))
def test_the_interval_of_a_share_shrinks_with_more_seeds_of_the_same_spread(values, times):
    few, many = share_interval(values), share_interval(values * times)
    assert many[0] >= few[0] - 1e-12 and many[1] <= few[1] + 1e-12


@given(SHARES)
def test_the_interval_of_a_share_is_that_of_its_complement_turned_round(values):
    low, high = share_interval(values, 50)
    other = share_interval([1 - value for value in values], 50)
    assert (1 - other[1], 1 - other[0]) == pytest.approx((low, high), abs=1e-6)


def test_what_is_no_share_is_refused():
    for values in ([0.5, 1.2], [-0.1, 0.5]):
        with pytest.raises(ValueError, match="A share lies in"):
            share_interval(values)
    assert share_interval([1.0, 1.0 + 1e-12])[1] == 1.0
    with pytest.raises(ValueError, match="at least two"):
        share_interval([0.5])


def test_what_nothing_was_seen_of_is_bounded_by_completion_and_by_seed():
    by_completion, by_seed = upper_bounds(10, 7200)
    assert by_seed == pytest.approx(1 - 0.05 ** (1 / 10)) == pytest.approx(0.2589, abs=1e-4)
    assert by_completion == pytest.approx(1 - 0.05 ** (1 / 7200)) == pytest.approx(3 / 7200, rel=2e-3)
    assert upper_bounds(10, 0) == pytest.approx((0.2589, 0.2589), abs=1e-4)
    assert upper_bound(1, 10) == pytest.approx(float(stats.beta.ppf(0.95, 2, 9)))


def test_the_difference_of_two_shares_is_newcombes():
    # Newcombe 1998, table II: 56/70 - 48/80 is 0.2000 (0.0524 to 0.3339); 0/10 - 0/20 is 0 (-0.1611 to 0.2775).
    assert difference_of_counts(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference_of_counts(0, 10, 0, 20) == pytest.approx((-0.1611, 0.2775), abs=1e-4)


def test_ratios_are_averaged_and_bounded_on_the_log_scale():
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    low, high = ratio_interval([1.0, 2.0, 4.0])
    assert math.log(low) == pytest.approx(math.log(2) * (1 - 4.302653 / 3**0.5), abs=1e-5)
    assert low * high == pytest.approx(4.0)
    turned = ratio_interval([1.0, 0.5, 0.25])
    assert turned == pytest.approx((1 / high, 1 / low))


def test_a_mean_beyond_a_margin_is_tested_twice_and_the_larger_p_counts():
    values = [0.5, 0.6, 0.7, 0.8, 0.9]
    t_test = t_test_p(values, 0.1, "greater")
    assert t_test < 0.5**5  # so that the sign test of five of five is the larger
    assert beyond_p(values, 0.1, "greater") == pytest.approx(0.5**5)
    values = [0.12, 0.9, 0.2, 0.15, 0.13, 0.9]
    t_test = t_test_p(values, 0.1, "greater")
    assert beyond_p(values, 0.1, "greater") == pytest.approx(t_test) and t_test > 0.5**6
    assert beyond_p([0.0] * 5, 0.05, "less") == pytest.approx(0.5**5)
    assert beyond_p([0.05] * 5, 0.05, "less") == beyond_p([0.05] * 5, 0.05, "greater") == 1.0
    assert beyond_p([0.0, 0.0, 0.0, 0.0, 0.4], 0.05, "less") == pytest.approx(
        float(t_test_p([0.0, 0.0, 0.0, 0.0, 0.4], 0.05, "less"))
    )
    assert beyond_p([0.5], 0.1, "greater") is None


@given(DIFFERENCES)
def test_fewer_than_five_seeds_establish_nothing(values):
    for side in ("greater", "less"):
        p = beyond_p(values, 0.05, side)
        assert p is not None and 0.5 ** len(values) - 1e-12 <= p <= 1


@given(DIFFERENCES, st.sampled_from([0.01, 0.03, 0.1, 0.5]))
def test_equivalence_passes_exactly_if_the_interval_of_90_percent_lies_inside_the_margin(values, margin):
    p = equivalence_p(values, margin)
    low, high = interval(values, 0.9)
    assert p is not None
    if min(abs(low + margin), abs(high - margin)) > 1e-9:
        assert (p < 0.05) == (-margin < low and high < margin)


def test_equivalence_is_two_one_sided_tests():
    values = [0.01, -0.02, 0.015, 0.005, -0.01, 0.0]
    above = t_test_p(values, -0.03, "greater")
    below = t_test_p(values, 0.03, "less")
    assert equivalence_p(values, 0.03) == pytest.approx(max(above, below))
    assert equivalence_p([0.0] * 5, 0.03) == 0.0 and equivalence_p([0.03] * 5, 0.03) == 1.0
    assert equivalence_p([0.0], 0.03) is None is same_p([0.0], 0.03)
    # Five seeds that are all alike are still but five seeds.
    assert same_p([0.0] * 5, 0.03) == pytest.approx(0.5**5) and same_p([0.0, 0.0, -0.05], 0.03) == pytest.approx(
        max(equivalence_p([0.0, 0.0, -0.05], 0.03) or 0, 0.5)
    )


def test_corrections_are_holms():
    # Holm 1979: of three, the smallest counts three times, the next twice, and none less than the one before.
    assert holm({4: 0.01, 7: 0.04, 9: 0.03}) == pytest.approx({4: 0.03, 7: 0.06, 9: 0.06})
    assert holm({}) == {} and holm({0: 0.2}) == {0: 0.2}


def test_students_t_is_scipys():
    values = [0.1, 0.4, 0.35, 0.2]
    assert interval(values) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert interval(values, 0.9) == pytest.approx(
        stats.t.interval(0.9, 3, fmean(values), stdev(values) / np.sqrt(4))
    )
