"""Intervals, exchange tests and seeds needed, against values from tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hailproof.metrics.intervals import exchange_p, interval, seeds_needed, upper_bound


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
