"""Statistics against closed forms, hand computation and scipy."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lra_bench.report.statistics import bca_interval, interval, paired, summarize, t_interval, wilson

ACCURACIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_summary_by_hand():
    found = summarize([0.5, 0.75, 1.0])
    assert (found.n, found.mean, found.std, found.min, found.max, found.median) == (3, 0.75, 0.25, 0.5, 1.0, 0.75)
    assert summarize([0.4]).std is None


@given(ACCURACIES)
def test_summary_is_ordered_and_agrees_with_the_definition(values):
    found = summarize(values)
    assert found.min <= found.median <= found.max
    assert found.min - 1e-12 <= found.mean <= found.max + 1e-12
    if len(values) > 1:
        deviation = math.sqrt(math.fsum((value - found.mean) ** 2 for value in values) / (len(values) - 1))
        assert found.std == pytest.approx(deviation, abs=1e-12)


@pytest.mark.parametrize(("right", "n"), [(1243, 2000), (0, 50), (50, 50), (1, 3)])
def test_wilson_is_the_closed_form(right, n):
    z = scipy.stats.norm.ppf(0.975)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = wilson(p, n)
    assert found.kind == "Wilson"
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_one_listops_run_is_worth_about_two_points():
    found = wilson(0.62, 2000)
    assert 0.0205 < (found.high - found.low) / 2 < 0.0220


def test_t_interval_is_scipys():
    values = [0.60, 0.62, 0.61, 0.64]
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    found = t_interval(values)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="three"):
        t_interval(values[:2])


def test_bca_interval_is_scipys_seeded_and_defined_for_equal_values():
    values = [0.95, 0.955, 0.951, 0.50, 0.958]
    expected = scipy.stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    found = bca_interval(values)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found == bca_interval(values)
    assert found.low < np.mean(values) < found.high
    assert found.low < 0.80, "one failed seed of five must be seen"
    same = bca_interval([0.7] * 5)
    assert (same.low, same.high) == (0.7, 0.7)
    with pytest.raises(ValueError, match="five"):
        bca_interval(values[:4])


@pytest.mark.parametrize(("n", "kind"), [(1, "Wilson"), (2, None), (3, "t"), (4, "t"), (5, "BCa"), (8, "BCa")])
def test_the_number_of_runs_decides_the_interval(n, kind):
    found = interval([0.6 + 0.01 * i for i in range(n)], 2000)
    assert (found and found.kind) == kind


def test_paired_uses_shared_seeds_only():
    a, b = {0: 0.9, 1: 0.8, 2: 0.7, 9: 0.1}, {0: 0.8, 1: 0.85, 2: 0.6, 7: 0.9}
    found = paired(a, b)
    assert found.seeds == (0, 1, 2)
    assert found.mean == pytest.approx((0.1 - 0.05 + 0.1) / 3)
    assert found.std == pytest.approx(np.std([0.1, -0.05, 0.1], ddof=1))
    assert (found.wins, found.losses, found.interval.kind) == (2, 1, "t")
    assert paired(b, a).mean == pytest.approx(-found.mean)
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert paired({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.9}).interval is None
