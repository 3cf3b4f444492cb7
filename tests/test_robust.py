"""The known rules of robust aggregation, by hand."""

import math

import pytest
import torch
from torch import tensor

from hailproof.defenses.robust import (
    RobustDefense,
    centered_clipping,
    fltrust,
    geometric_median,
    krum,
    median,
    trimmed_mean,
)
from hailproof.errors import ConfigError

FAR = tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [100.0, -100.0]])
"""Three near each other and one that shouts."""


def test_means_by_coordinate_by_hand():
    assert median(FAR).tolist() == [1.0, 0.5]
    assert median(FAR[:3]).tolist() == [1.0, 1.0]
    assert trimmed_mean(FAR, 1).tolist() == [1.0, 0.5]
    assert trimmed_mean(FAR, 0).tolist() == FAR.mean(dim=0).tolist()
    assert trimmed_mean(FAR, 9).tolist() == median(FAR).tolist()


def test_the_geometric_median_is_where_unit_vectors_cancel():
    corners = tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 2 * math.sqrt(3)], [2.0, 2 / math.sqrt(3)]])
    assert geometric_median(corners).tolist() == pytest.approx([2.0, 2 / math.sqrt(3)], abs=1e-3)
    assert float((geometric_median(FAR) - FAR[:3].mean(dim=0)).norm()) < 1


def test_krum_takes_the_one_in_the_thick_of_it():
    # squared distances to the nearest two of five, with one malicious: 1 + 1, 1 + 2, 1 + 2, 1 + 4 of the others
    points = tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-9.0, 0.0], [50.0, 50.0]])
    assert krum(points, 1) == 0
    assert krum(FAR, 1) in (0, 1, 2)


def test_fltrust_by_hand():
    # root (2, 0): cosines 1, 0 and -1; what agrees is as long as the root
    some = tensor([[2.0, 0.0], [0.0, 7.0], [-3.0, 0.0]])
    assert fltrust(some, [0]).tolist() == [2.0, 0.0]
    # with (5, 5) beside it: trust 1 and sqrt(1/2), units (1, 0) and (1, 1) / sqrt(2)
    half = math.sqrt(0.5)
    expected = [2 * (1 + half * half) / (1 + half), 2 * half * half / (1 + half)]
    assert fltrust(tensor([[2.0, 0.0], [5.0, 5.0]]), [0]).tolist() == pytest.approx(expected)
    assert fltrust(some, []).tolist() == [0.0, 0.0]


def test_centered_clipping_by_hand(monkeypatch):
    monkeypatch.setattr("hailproof.defenses.robust.CENTERINGS", 1)
    # distances 1, 1, 2, 10 from the center: radius 1 (the lower median)
    some = tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [10.0, 0.0]])
    assert centered_clipping(some, torch.zeros(2)).tolist() == [0.25, 0.25]


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "geometric_median", "krum", "fltrust", "centered_clipping"])
def test_a_sender_that_shouts_is_hardly_heard(rule):
    defense, generator = RobustDefense(rule), torch.Generator().manual_seed(0)
    defense._own = frozenset({0})
    common = torch.ones(50)
    for round in range(1, 4):
        defense.begin(round, dict.fromkeys(range(4), 12), dict.fromkeys(range(4), 12))
        honest = {sender: common + torch.randn(50, generator=generator) for sender in range(3)}
        total, senders = defense.combine({**honest, 3: -1000 * common})
        assert total is not None and 0 < float(total @ common) / 50 < 12
        assert senders[3].length > 5000
    copy = RobustDefense(rule)
    copy.restore(defense.state())
    copy._own = defense._own
    results = []
    for each in (defense, copy):
        each.begin(4, {0: 6, 1: 12}, {0: 6, 1: 12})
        results.append(each.combine({0: common, 1: 2 * common})[0])
    assert torch.equal(*results)
    if rule == "median":  # per completion both say the same
        assert torch.allclose(results[0], 3 * common)


def test_what_is_no_number_is_left_out():
    defense = RobustDefense("median")
    defense.begin(1, {0: 1, 1: 1}, {0: 1, 1: 1})
    total, senders = defense.combine({0: torch.ones(3), 1: torch.full((3,), float("nan"))})
    assert total is not None and total.tolist() == [2.0, 2.0, 2.0]
    assert (senders[0].weight, senders[1].weight) == (1.0, 0.0)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="rule = mode is unknown"):
        RobustDefense("mode")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="malicious = -1 is below 0"):
        RobustDefense(malicious=-1)
